"""`heatproof cite`: BibTeX entries of what a study used, and a paragraph on its methods."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli.options import Results


def cite(
    folder: Results,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write methods.tex and references.bib there; else print both.")
    ] = None,
) -> None:
    r"""Write what a paper cites of a study: a paragraph on its methods with \cite, and BibTeX entries."""
    from heatproof.errors import StoreError, warn
    from heatproof.files import write_atomically
    from heatproof.report.citations import citations
    from heatproof.studies.store import Store

    plan = Store(folder).plan()
    if plan is None:
        raise StoreError(f"{folder} holds no study. Give the --out folder of `heatproof run`.")
    found = citations(plan, sources_of(plan))
    if found.uncited:
        warn(f"No entry is known for {', '.join(dict.fromkeys(found.uncited))}: cite what they are from yourself.")
    paragraph = textwrap.fill(found.paragraph, 100, break_long_words=False, break_on_hyphens=False) + "\n"
    if out is None:
        print(f"{paragraph}\n{found.bibtex}")
        return
    for name, text in (("methods.tex", paragraph), ("references.bib", found.bibtex)):
        write_atomically(out / name, lambda file, text=text: file.write(text.encode("utf-8", "replace")))
    print(f"{out / 'methods.tex'}, and {out / 'references.bib'} with {len(found.keys)} entries")


def sources_of(plan: Mapping[str, Any]) -> Any:
    """Where the parts of a study are from, by the registries; text without a source is of the user's own."""
    from heatproof.attributions import ATTRIBUTIONS
    from heatproof.errors import HeatproofError
    from heatproof.perturbations import PERTURBATIONS
    from heatproof.report.citations import Sources
    from heatproof.segments import SEGMENTERS
    from heatproof.studies.study import stored_study
    from heatproof.transformations.catalogue import TRANSFORMATIONS

    def study() -> str:
        try:
            return stored_study(str(plan.get("study"))).source
        except HeatproofError:  # a study of the user's own, not known in this process
            return ""

    controls = {name: entry.source for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]}
    conditions = [str(one) for one in plan.get("conditions") or ()]
    transformed = {name: entry.source for name, entry in TRANSFORMATIONS.items()
                   if any(re.match(rf"{name}(?![\w-])", one) for one in conditions)}  # fmt: skip
    return Sources(
        methods={name: _method_source(name) for name in plan.get("methods") or ()},
        controls=controls if plan.get("controls") == "all" else {},
        segmenters={name: SEGMENTERS.parse(name)[0].source for name in plan.get("segmenters") or ()},
        perturbations={name: PERTURBATIONS.parse(name)[0].source for name in plan.get("perturbations") or ()},
        transformations=transformed,
        study=study(),
    )


def _method_source(name: str) -> str:
    """The source of a method, with RefineCAM's where it is refined; empty for one of the user's own."""
    from heatproof.attributions import requested
    from heatproof.errors import HeatproofError
    from heatproof.plugins import PYTHON

    if PYTHON in name:  # results may come from elsewhere, and the module would be imported
        return ""
    try:
        (request,) = requested([name])
    except HeatproofError:  # its module or its file is not here
        return ""
    return f"{request.entry.source}; Domeniconi et al. 2026" if request.refined else request.entry.source
