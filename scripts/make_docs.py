"""Writes the generated pages of docs/: from the registries, the command line and the plan of a study.

    python scripts/make_docs.py            writes methods.md, metrics.md, perturbations.md, commands.md, choosing.md
                                           and gpu.md in docs/
    python scripts/make_docs.py --check    writes nothing; names the pages that are stale and exits with 1

What is said of a method is its docstring, of an option its help: one place each, so that nothing goes stale.
"""

import argparse
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

import choosing_page
import gpu_page

from heatproof import targets
from heatproof.attributions import ATTRIBUTIONS
from heatproof.cli import app
from heatproof.cli.listing import interval
from heatproof.metrics import FAMILIES, METRICS
from heatproof.metrics.catalogue import SAME, UNITS
from heatproof.metrics.composites import PAIR_COMPOSITES
from heatproof.models.load import FORMS
from heatproof.perturbations import PERTURBATIONS, SEVERITIES, strength_at
from heatproof.registry import Entry
from heatproof.segments import SEGMENTERS
from heatproof.studies.settings import DatasetPlan, MapsPlan, ModelPlan, Plan
from heatproof.studies.study import all_studies
from heatproof.traps import METHOD_TRAPS, METRIC_TRAPS

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by scripts/make_docs.py: change docstrings or help texts, then run `make docs`. -->"
PAPERS = """## Papers

**N** is Sarkar et al. 2025, *Assessing the Noise Robustness of Class Activation Maps*, arXiv 2508.18154.
**R** is Domeniconi et al. 2026, *How to Evaluate and Refine your CAM*, arXiv 2605.14641.
**F** is Zhang, Torres and Hermanns 2024, *Saliency Maps Give a False Sense of Explainability to Image
Classifiers*, ACML."""


def methods_page() -> str:
    """docs/methods.md: attribution methods, controls, and the quantities they may ask for."""
    real = [entry for entry in ATTRIBUTIONS.values() if not entry.traits["control"]]
    controls = [entry for entry in ATTRIBUTIONS.values() if entry.traits["control"]]
    needed = [name for name in ATTRIBUTIONS.vocabulary if any(name in e.needs for e in ATTRIBUTIONS.values())]
    header = ("name", "needs", "options", "source")
    return page(
        "Methods",
        """
A method is a pure function. Its positional parameters name what it needs; the engine works each of these
out once per batch, whatever number of methods asks for it. Options go in brackets after the name, on the
command line, in study files and in Python: `gradcam++[compat=true]`. Case, hyphens and the many ways to
write `++` do not matter.

A *raw* map is signed and has the layer's resolution. A *display* map is what people see and what the study
scores: ReLU, bilinear upsampling to the image's size, then each map scaled to [0, 1] by itself. A map
that is constant or not finite becomes zeros, and is flagged.

What is explained is the target's logit y unless `output` says otherwise. A network with one logit l has two
classes, with the logits −l/2 and l/2 (their softmax is the sigmoid of l): the raw map of class 1 is half of that
of l, and the raw map of class 0 is its negative. Display maps are the same as those of l and of −l.
`output="value"` explains l itself, as it does the number of a [regression](metrics.md#networks-of-values). What
a method calls a logit or a probability is then that number.""",
        table(header, map(method_row, real)),
        *map(section, real),
        """## Controls

Maps that are uninformed on purpose. A study carries them as extra rows: a measure that praises one of them
is fooled. They are made at the image's size.""",
        table(header, map(method_row, controls)),
        *(section(entry, "###") for entry in controls),
        "## What a method may ask for",
        table(("name", "what"), ((f"`{name}`", ATTRIBUTIONS.vocabulary[name]) for name in needed)),
        PAPERS,
    )


def metrics_page() -> str:
    """docs/metrics.md: metrics by family, what they say of maps that say nothing, what they may ask for."""
    entries = [entry for entry in METRICS.values() if not entry.traits.get("foreign")]
    needed = [name for name in METRICS.vocabulary if any(name in entry.needs for entry in entries)]
    families = {family: [e for e in entries if e.traits["family"] == family] for family in FAMILIES}
    return page(
        "Metrics",
        """
A metric says how good a map is, in one number for each image. It names what it needs, and the engine works each of
these out once for all metrics together. Options go in brackets after the name, everywhere: `deletion[steps=224]`.
A family stands for all its metrics, `all` for every one; where a metric has its family's name, `family:road` is the
family.

The probability is the softmax of the target's logit, the sigmoid for labels that go together. The target is the
predicted class unless another is asked for. Metrics score *display* maps, scaled to [0, 1] each by itself; those that
add maps up read the *raw* ones. Masked and removed positions are filled with `black` (0 in the image), `mean` (0 where
the image is normalised) or `blur`: an option of every metric that fills, and part of its name in the results where
it is no default. A pixel is one unit, all channels together. Ties are broken by a seeded order, the same for every
method.

A map that is constant or not finite has the stated value below, or what the formula gives for a map of zeros; its row
is flagged. A value that does not exist is NaN, and the flag says why. Rows are never dropped, so n is the same for
every metric. Random numbers belong to the seed, the image and the metric: every method meets the same ones.

### Saturated probabilities

A probability can be so close to 0 or 1 that no masking moves it: a logit of 20 is a probability of 1 − 2e-9, and one
of 15 still is 1 to six digits. Every curve is then flat, every method has the same score, and a random map looks as
good as any. Where all probabilities that a metric sees of an image, masked and whole, agree within 1e-6 and lie
within 1e-5 of 0 or 1, the row has the flag `saturated`. Its value stays in means and tests, as the stated value of a
degenerate map does, since it is the same for all methods and takes no side; the tables count it under `flagged`, and
the page warns. What to do: if the outputs are no logits, say so (below). If they are, score the logit:
`faithfulness-correlation`, `sensitivity-n`, `infidelity` and `completeness` do by default, and `output="value"` with
a class as target makes every metric do so. Metrics of Quantus read the network themselves and are not looked at.

### Networks of values

A regression such as an age of 58 years has no probability, and the sigmoid of 58 is 1 whatever is masked.
`output="value"` (`wrap`, `load_model`, `explain`, `score`, `show`, `audit`; `--output value`; `output: value` of a
model in a study file) says that the outputs are numbers in units of their own. No softmax and no sigmoid is then
taken, and nothing is clipped to [0, 1]; wherever this page says probability it is the value. The target is a column
of the output: the only one by default, and to be named where there are several. `label`, `least` and `top3` are
errors, since no class is predicted, and accuracy is left out.

Each metric below says what it is then: as it is, in units of the value, or refused by name (left out of families and
of the default, with a warning), where it is a share of a probability or asks for the predicted class. In units a
score has no bounds, and a degenerate map has no stated value.

The noise study and the audit ask whether the answer *changed*: it did where the value moved by more than `tolerance`
(`--tolerance`), in units of the value or, as `10%`, the default, in per cent of the range of the values on the clean
images (at most 256 of each set, drawn by the seed). The number is part of the plan, and the page states it. Attacks
need a predicted class: they are left out of the default, and an error by name. A single output that is clearly no
logit (its sigmoid is 1, or 0, on every image) is warned of.""",
        *(part for family, some in families.items() if some for part in _family(family, some)),
        """## Composites of pairs

One value for many pairs of maps: those of a method under a perturbation, at all its severities. They come from the rows
of `rbo` and `kappa` alone; `heatproof run noise-robustness` writes them to `tables/robustness.csv`. Higher is better.
NaN below ten changed or ten unchanged predictions. Source: paper N; κ and RM₀ are ours.""",
        table(
            ("name", "range", "what", "made of"),
            (
                (f"`{name}`", interval(*one.range), one.summary, ", ".join(f"`{part}`" for part in one.parts))
                for name, one in PAIR_COMPOSITES.items()
            ),
        ),
        "Known to mislead ([the runs](claims.md)):",
        "\n".join(f"- `{name}`: {' '.join(METRIC_TRAPS[name])}" for name in PAIR_COMPOSITES if name in METRIC_TRAPS),
        """## Metrics from elsewhere

`heatproof.register_metric(name, function, better="high")` files a function; `python:package.module:function` and
`quantus:Sparseness` are names by themselves: see [moving over](moving.md#metrics-of-your-own).""",
        "## What a metric may ask for",
        table(("name", "what"), ((f"`{name}`", METRICS.vocabulary[name]) for name in needed)),
        PAPERS,
    )


def _family(family: str, entries: Sequence[Entry]) -> Iterable[str]:
    """A heading, the overview, and a section for each metric."""
    asks = FAMILIES[family]
    yield f"## {family.capitalize()} metrics\n\n{asks[0].upper()}{asks[1:]}{'' if asks.endswith('?') else '.'}"
    header = ("name", "better", "range", "network passes", "degenerate map", "source")
    yield table(header, map(_metric_row, entries))
    yield from map(_metric_section, entries)


def _metric_row(entry: Entry) -> tuple[str, ...]:
    traits = entry.traits
    better = "↑ higher" if traits["better"] == "high" else "↓ lower"
    return f"`{entry.name}`", better, interval(*traits["range"]), traits["passes"], _stated(entry), entry.source


def _stated(entry: Entry) -> str:
    degenerate = entry.traits["degenerate"]
    if degenerate is None:
        return "the formula"
    return "NaN" if math.isnan(degenerate) else f"{degenerate:g}"


def _metric_section(entry: Entry) -> str:
    traits, made = entry.traits, entry.traits.get("parts", {})
    described = "\nArgs:\n" in (inspect.getdoc(entry.function) or "")
    said = [
        *([f"Made of `{'`, `'.join(made.values())}`."] if made else []),
        *([f"Options: {options(entry)}."] if entry.options and not described else []),
        f"NaN where {traits['undefined']}.",
        *_of_values(traits.get("values", SAME)),
    ]
    return "\n\n".join([section(entry, "###"), " ".join(said)])


def _of_values(kind: str) -> Iterable[str]:
    """What a metric is of a network of values; nothing where it is as it is."""
    if kind != SAME:
        yield "Of a network of values: in units of the value." if kind == UNITS else f"Not for values: {kind}."


def perturbations_page() -> str:
    """docs/perturbations.md: the kinds with their ladders, and the segmenters."""
    kinds, segmenters = PERTURBATIONS.values(), SEGMENTERS.values()
    return page(
        "Perturbations and segments",
        """
A perturbation takes images in [0, 1] and gives images in [0, 1], at five severities. An image's random
numbers depend on the seed, the image and the kind; not on the severity, the method or the model. So every
method sees the very same noise, and a higher severity is the same noise turned up. Kinds marked *default*
are what a study takes when none are named. An *attack* leads away from the model's own clean prediction, so
it needs no labels.

Severity 0 is the image itself. `--calibrate` searches the strength between the severities and beyond.""",
        table(("name", *map(str, SEVERITIES), "unit", "", "source"), map(_kind_row, kinds)),
        *map(_kind_section, kinds),
        """## Segments

Superpixels of the clean image, held fixed for all methods and perturbations. A map is ranked by its mean
in each segment. Options go in brackets: `quickshift[kernel=3]`.""",
        table(("name", "options", "source"), ((f"`{e.name}`", options(e), e.source) for e in segmenters)),
        *(section(entry, "###") for entry in segmenters),
        PAPERS,
    )


def which_page() -> str:
    """docs/choosing.md: which method and which metric for what one has and needs, and what each method costs."""
    return page("Which method, which metric", *choosing_page.page(table))


def commands_page() -> str:
    """docs/commands.md: every command with its options, what a model may be called, the study file."""
    settings, listed = ("setting", "default", "what"), ("name", "what")
    return page(
        "Commands",
        """
`heatproof --help` and `heatproof COMMAND --help` say the same in the terminal. An error is one sentence:
what was expected, what came, what to do; `heatproof --debug COMMAND …` adds the traceback. The exit status
is 0; 2 for wrong input, 130 after Ctrl-C, 1 for anything else that went wrong.""",
        *(part for info in app.registered_commands for part in _command(info)),
        "## Studies",
        table(listed, _names({one.name: one.summary for one in all_studies()})),
        "## Models\n\nWhat `--model` and `heatproof.load_model` take.",
        table(listed, _names(FORMS)),
        "## Targets\n\nThe class that a map explains: an index, or one of these.",
        table(listed, _names(targets.RULES)),
        """## Study files

`heatproof run study.yaml` takes the settings of a study from a file; options on the command line win over
it. Relative paths are looked for beside the file. `out` and `workers` may stand there too.""",
        "### Every study",
        table(settings, _settings(Plan)),
        *(
            part
            for one in all_studies()
            for part in (f"### `{one.name}` also", table(settings, _settings(one.settings, set(Plan.model_fields))))
        ),
        "### A model",
        table(settings, _settings(ModelPlan)),
        "### A set of images",
        table(settings, _settings(DatasetPlan)),
        "### Maps made beforehand",
        table(settings, _settings(MapsPlan)),
        PAPERS,
    )


def page(title: str, *parts: str) -> str:
    """A page from its title and paragraphs."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell would end it, so it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def options(entry: Entry, without: Iterable[str] = ()) -> str:
    """`name=default` for each option."""
    return ", ".join(f"`{k}={_value(v)}`" for k, v in entry.options.items() if k not in without)


def method_row(entry: Entry) -> tuple[str, ...]:
    """A method in the overview."""
    return f"`{entry.name}`", ", ".join(f"`{need}`" for need in entry.needs), options(entry), entry.source


def section(entry: Entry, level: str = "##") -> str:
    """A heading, the other spellings, and the docstring."""
    also = [f"Also `{'`, `'.join(entry.aliases)}`."] if entry.aliases else []
    known = traps_of(entry)
    traps = ["Known to mislead ([the runs](claims.md)):", "\n".join(f"- {one}" for one in known)] if known else []
    return "\n\n".join([f"{level} {entry.name}", *also, prose(entry), *traps])


def traps_of(entry: Entry) -> Sequence[str]:
    """What is known to mislead in a method or a metric."""
    found = METRIC_TRAPS if METRICS.get(entry.name) is entry else METHOD_TRAPS
    return found.get(entry.name, ())


#: A line that starts an item of `Args:` or `Raises:`: names, and what is said of them.
_ITEM = re.compile(r"    (?P<names>\w+(?:, \w+)*): (?P<said>.*)", re.DOTALL)


def prose(entry: Entry) -> str:
    """The docstring, its arguments and errors as lists."""
    text = inspect.getdoc(entry.function) or ""

    def item(found: re.Match) -> str:
        names = found["names"].split(", ")
        shown = [f"{name}={_value(entry.options[name])}" if name in entry.options else name for name in names]
        return f"- `{'`, `'.join(shown)}`: {' '.join(found['said'].split())}"

    paragraphs = []
    for paragraph in text.split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if head in ("Args:", "Raises:"):
            items = re.split(r"\n(?=    \w)", rest)
            head = "Options:" if head == "Args:" else head
            paragraph = "\n".join([head, "", *(_ITEM.sub(item, one) for one in items)])
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _kind_row(entry: Entry) -> tuple[str, ...]:
    marks = ", ".join(word for word in ("attack", "default") if entry.traits[word])
    rungs = [f"{strength_at(entry.name, severity):g}" for severity in SEVERITIES]
    return f"`{entry.name}`", *rungs, entry.traits["unit"], marks, entry.source


def _kind_section(entry: Entry) -> str:
    """The ladder's further options are said here: the table has room for the main one."""
    ladder = entry.traits["ladder"]
    others = [option for option in ladder[0] if option != entry.traits["main"]]
    rungs = [f"`{option}` {', '.join(f'{rung[option]:g}' for rung in ladder)}" for option in others]
    free = options(entry, without=ladder[0])
    said = [*(f"Over the severities: {text}." for text in rungs), *([f"Options: {free}."] if free else [])]
    return "\n\n".join([section(entry), *said])


class Parameter(NamedTuple):
    """One parameter of a command: its name, its type, what typer was told of it, its default."""

    name: str
    kind: Any
    told: Any
    default: Any

    def row(self) -> tuple[str, str, str]:
        """Spelling, default, help."""
        default = "" if self.default in (None, False, inspect.Parameter.empty) else f"`{self.default}`"
        return ", ".join(f"`{name}`" for name in self.spelling.split(", ")), default, self.told.help or ""

    @property
    def spelling(self) -> str:
        """`--model-arg KEY=VALUE`, `--download`, `FOLDER`."""
        if isinstance(self.told, typer.models.ArgumentInfo):
            return self.told.metavar or self.name.upper()
        given = [
            self.told.default,
            *(self.told.param_decls or ()),
        ]  # typer takes the first name for a default
        told = [name for text in given if isinstance(text, str) for name in text.split("/")]
        names = told or [f"--{self.name.replace('_', '-')}"]
        value = self.told.metavar or {bool: "", int: "N", float: "X", Path: "PATH"}.get(self.kind, "TEXT")
        return f"{', '.join(names)} {value}".strip()


def parameters(callback: Any) -> list[Parameter]:
    """The parameters of a command, in order."""
    hints = typing.get_type_hints(callback, include_extras=True)
    found = []
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, told = typing.get_args(hints[name])[:2]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):  # Optional[T] → T
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        found.append(Parameter(name, kind, told, parameter.default))
    return found


def command_name(info: Any) -> str:
    """A command as it is typed."""
    return info.name or info.callback.__name__


def _command(info: Any) -> Iterable[str]:
    found = parameters(info.callback)
    arguments = [p.spelling for p in found if isinstance(p.told, typer.models.ArgumentInfo)]
    rest = " [options]" if len(found) > len(arguments) else ""
    yield f"## heatproof {command_name(info)}"
    yield inspect.getdoc(info.callback) or ""
    yield f"    heatproof {command_name(info)} {' '.join(arguments)}{rest}"
    yield table(("", "default", "what"), (parameter.row() for parameter in found))
    if info.epilog:
        yield info.epilog


def _names(known: typing.Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return ((f"`{name}`", what) for name, what in known.items())


def _settings(owner: Any, known: typing.Container[str] = ()) -> Iterable[tuple[str, str, str]]:
    """Setting, default and meaning, without those known; a setting that nothing describes is an error here."""
    for name, field in owner.model_fields.items():
        if name in known:
            continue
        if not field.description:
            raise SystemExit(f"`{name}` of {owner.__name__} must have a description.")
        yield f"`{name}`", _default(field), field.description


def _default(field: Any) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, (), {}) else f"`{_value(value)}`"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


PAGES = {
    "methods.md": methods_page,
    "metrics.md": metrics_page,
    "perturbations.md": perturbations_page,
    "commands.md": commands_page,
    "choosing.md": which_page,
    "gpu.md": lambda: page("GPUs", *gpu_page.gpu_page(table)),
}


def stale(folder: Path = DOCS) -> list[str]:
    """The pages that are not what would be written now."""
    there = {name: (folder / name).read_text("utf-8") if (folder / name).exists() else "" for name in PAGES}
    return [name for name, made in PAGES.items() if there[name] != made()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is stale")
    if parser.parse_args(arguments).check:
        old = stale()
        for name in old:
            print(f"docs/{name} is stale. Run `make docs` and commit it.", file=sys.stderr)
        return 1 if old else 0
    DOCS.mkdir(exist_ok=True)
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
