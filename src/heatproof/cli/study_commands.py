"""`heatproof run`, `score`, `audit` and `report`: a study and its page. Every setting of a study is an option."""

import glob
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from heatproof.addresses import lasting_place, refuse_address
from heatproof.cli import options, scoretable
from heatproof.cli.options import Running, settings_of, values, with_settings
from heatproof.errors import InvalidInput, InvalidStudy, MissingExtra, ModelError, UnknownName, warn
from heatproof.paper_table import checked_spread
from heatproof.studies.settings import DatasetPlan, ModelPlan
from heatproof.studies.shards import Shard
from heatproof.studies.study import all_studies, study_named, study_names
from heatproof.studies.studyfile import BESIDE

MODEL = settings_of(ModelPlan, without=("spec", "name"))
DATASET = settings_of(DatasetPlan, without=("images", "name"))
#: Settings that are made from other options.
ELSEWHERE = ("study", "models", "datasets", "calibrate")
#: Every setting that some study has; those of the score study, and of the audit.
ANY = settings_of(*(study.settings for study in all_studies()), without=ELSEWHERE)
SCORE = settings_of(study_named("score").settings, without=ELSEWHERE)
AUDIT = settings_of(study_named("audit").settings, without=ELSEWHERE)
#: How jobs are run: options of `Execution`, which may stand in a study file too.
HOW = BESIDE[1:]
#: Names that stand for a set of images.
NAMED_IMAGES = ("shapes", "creatures", "torchvision", "mosaic", "funnybirds", "funnybirds-val", "funnybirds-test")


@with_settings(MODEL, DATASET, ANY)
def run(
    study: Annotated[
        str,
        typer.Argument(
            help="A study's name (see `heatproof list studies`), a YAML study file, or a folder of results, whose "
            "study is repeated into --out."
        ),
    ],
    asked: Any = None,
    running: Any = None,
) -> None:
    """Run a study: rows, tables, statistics, a gallery and a page, in one folder; resumable."""
    foreign = options.methods_from(running.method_from)
    found = asked_study(study, asked)
    folder = running.out or (found.out and lasting_place(found.out))
    if folder is None:
        raise InvalidStudy("--out must name a folder for the results. Got none. Example: --out out/first.")
    if found.repeated is not None:
        from heatproof.studies.archive import refuse_itself

        refuse_itself(found.repeated, folder)
    plan = found.plan(foreign, running.option)
    in_file = {name: value for name, value in found.how.items() if getattr(running, name) is None}
    start(plan, folder, running._replace(**in_file))


class AskedStudy(NamedTuple):
    """A study as it was typed: its settings, and what a study file says of how it runs.

    lines, source: where the settings stand in a file. repeated: the folder of results whose study is repeated. how:
    what a study file says of `HOW`.
    """

    settings: dict[str, Any]
    lines: dict[str, int]
    source: str
    repeated: Path | None
    out: str | None
    how: Mapping[str, Any]

    def plan(self, foreign: list[str], option: list[str] | None) -> Any:
        """The checked plan; `foreign`: methods from elsewhere, `option`: `METHOD.OPTION=VALUE`."""
        if self.repeated is not None:
            from heatproof.studies.archive import refuse_missing

            refuse_missing(self.settings, self.repeated)
        if self.source:
            from heatproof.studies.plan import refuse_unknown

            refuse_unknown(self.settings, self.lines, self.source)
        for needed, key in (("--model", "models"), ("--images", "datasets")):
            if not self.settings.get(key) and not _has_default(self.settings.get("study"), key):
                raise InvalidStudy(f"{needed} must say what to study. Got none. Try {needed} shapes.")
        return _plan(self.settings, foreign, option, self.lines, self.source)


def asked_study(study: str, asked: options.Asked) -> AskedStudy:
    """The study of a name, a study file or a folder of results, with the typed options on top."""
    flip_rates = flip_rates_of(asked.calibrate, asked.flip_rates)
    settings, lines, source = _study_settings(study, asked.allow_code)
    repeated = None if study in study_names() else _results(study)
    settings.update(_models(settings, asked.model, values(MODEL, asked.given)))
    settings.update(_datasets_of_folders(asked.images, values(DATASET, asked.given)))
    settings.update({**values(ANY, asked.given), **options.pairs(asked.setting or [], "--setting")})
    if flip_rates is not None:
        settings["calibrate"] = flip_rates
    out = settings.pop("out", None)
    how = {name: settings.pop(name) for name in HOW if name in settings}
    return AskedStudy(settings, lines, source, repeated, out, how)


@with_settings(MODEL, DATASET, SCORE)
def score(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Folders (flat, or one subfolder per class), files, patterns such as 'photos/*.jpg', `shapes`, "
            "torchvision:NAME; mosaic:FOLDER puts four images into one, for the grid pointing game.",
        ),
    ],
    model: options.Models = None,
    given: Any = None,
    running: Any = None,
) -> None:
    """Score maps: how good they are by any number of metrics, in one table and one page; resumable."""
    _start("score", SCORE, images, model, given, running)


@with_settings(MODEL, DATASET, AUDIT)
def audit(
    model: options.Models = None,
    images: options.Images = None,
    given: Any = None,
    running: Any = None,
) -> None:
    """Say which heatmap may be shown for a model on some images, and how far it can be trusted; resumable."""
    _start("audit", AUDIT, images or [], model, given, running)


def _start(
    study: str,
    known: list[options.OptionSetting],
    images: list[str],
    model: list[str] | None,
    given: Any,
    running: Running,
) -> None:
    """Runs a study that has a command of its own."""
    for name, value, example in (
        ("--model", model, "shapes"),
        ("--images", images, "shapes"),
        ("--out", running.out, "out/x"),
    ):
        if not value:
            raise InvalidInput(f"{name} must be given. Got none. Example: {name} {example}.")
    settings = {"study": study, **_models({}, model, values(MODEL, given)), **values(known, given)}
    settings["datasets"] = datasets_of(images, values(DATASET, given))
    plan = _plan(settings, options.methods_from(running.method_from), running.option)
    start(plan, running.out, running)


def report(
    folder: options.Results,
    latex: options.Latex = None,
    spread: options.Spread = "none",
    pdf: options.Pdf = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD=NAME", help="A display name, beside those of the study. Repeatable."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="METHOD", help="The method to compare every other with.")
    ] = None,
    allow_code: options.AllowCode = False,
) -> None:
    """Write the tables, the figures and the page of a study again, from its rows alone; and tables for LaTeX."""
    checked_spread(spread)
    if allow_code:
        _name_study(folder)
    running = Running(latex=latex, spread=spread, pdf=pdf)
    if pdf:
        _check_pdf(running, folder)
    _report(folder, running, options.display_names(label), reference)


def _name_study(folder: Any) -> None:
    """Imports the study of one's own that results are of."""
    from heatproof.studies.store import Store

    study_named(str((Store(folder).plan() or {}).get("study")))


def start(plan: Any, folder: Any, running: Running) -> Any:
    """Runs a study to its end, and writes its tables and page; returns its findings, None of a shard."""
    checked_spread(running.spread)
    shard = None if running.shard is None else Shard.read(running.shard)
    if shard and (running.pdf or running.latex):
        raise InvalidInput("--shard makes no page and no tables. Give --pdf and --latex to `heatproof merge`.")
    if running.pdf:
        _check_pdf(running, folder)
    from heatproof import progress
    from heatproof.studies.run import run as run_study

    command = shlex.join(["heatproof", *sys.argv[1:]])
    with progress.progress_bar() as bar:
        how = {name: getattr(running, name) for name in HOW if getattr(running, name) is not None}
        done = run_study(plan, folder, **how, progress=bar, command=command, measure=running.measure, shard=shard,
                         gallery=not running.no_report)  # fmt: skip
        if shard is None:
            bar.stage("Tables and statistics" if running.no_report else "Tables, statistics and page", 0)
    kept = f", {done.kept} were there already" if done.kept else ""
    print(f"{done.ran} {'job' if done.ran == 1 else 'jobs'} done{kept}.")
    if done.compiled:
        print(f"On a compiled copy where only logits are wanted: {', '.join(done.compiled)}.")
    if done.passes is not None:
        print(done.passes)
    if done.time is not None:
        print(done.time)
    if shard is not None:
        print(f"Shard {shard}: {done.folder}")
        if done.jobs < shard.number:
            jobs = "1 job" if done.jobs == 1 else f"{done.jobs} jobs"
            print(f"It has nothing to do: the study has {jobs}, and shards take them in turn, one each.")
        print(f"Once all {shard.count} are done: heatproof merge {shlex.quote(str(folder))}")
        return None
    findings = _report(folder, running)
    if running.no_report and done.ran and (folder / "report.html").exists():
        print(f"Older than these rows: {folder / 'report.html'}. The same command without --no-report writes it anew.")
    return findings


def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(
            parser=options.parsed_by(lasting_place),
            metavar="FOLDERS...",
            help="The --out folders of commands with --shard.",
        ),
    ],
    workers: options.Workers = None,
    out: options.Out = None,
    no_report: options.NoReport = False,
    pdf: options.Pdf = False,
    latex: options.Latex = None,
    spread: options.Spread = "none",
    allow_code: options.AllowCode = False,
) -> None:
    """Put the shards of a study together, and write its gallery, tables and page.

    The rows are those of a study that was run in one piece. The network is needed for the gallery alone.
    """
    from heatproof.studies.archive import NAME, read_archive, refuse_missing
    from heatproof.studies.code_in_files import refuse_code
    from heatproof.studies.merging import merged

    checked_spread(spread)
    running = Running(workers=workers, latex=latex, spread=spread, pdf=pdf, no_report=no_report)
    if pdf:
        _check_pdf(running, folders[0] if out is None else out)
    folder = merged(folders, out)
    try:
        settings, lines = read_archive(folder)
        if not allow_code:
            refuse_code(settings, lines, str(folder / NAME))
        refuse_missing(settings, folder)
        start(_plan(settings, [], None, lines, str(folder / NAME)), folder, running)
    except (InvalidInput, ModelError, UnknownName, MissingExtra) as error:
        warn(f"No gallery: {error} The study's command without --shard, with --out {folder}, draws it.")
        _report(folder, running)


def _report(
    folder: Any, running: Running, labels: Mapping[str, str] | None = None, reference: str | None = None
) -> Any:
    from heatproof import report as reports
    from heatproof.report.accuracy_notes import accuracy_notes
    from heatproof.report.mask_notes import mask_notes

    findings = reports.write_tables(folder, labels=labels, reference=reference)
    if (missing := findings.source.missing) > 0:
        print(
            f"Unfinished: {missing} of {findings.source.jobs} jobs {'is' if missing == 1 else 'are'} missing, so all "
            "that follows is of the others alone.\nThe study's command again runs what is missing."
        )
    for dataset, sample in (findings.plan.get("samples") or {}).items():
        print(f"Images: {sample} ({dataset}).")
    for where, how in (findings.plan.get("labels_matched") or {}).items():
        print(f"Labels: {how} ({where}).")
    for note in mask_notes(findings):
        print(f"Masks: {note}")
    scoretable.print_tables(findings)
    for note in accuracy_notes(findings):
        print(f"\nLabels: {note}")
    noted = "audit.csv" in findings.tables
    for answer in findings.answers:
        print("\n" + f"{answer.where}: {answer.sentence}".removeprefix(": "))
        for note in answer.details if noted else ():
            print(note)
    for line in _peaks(findings):
        print(line)
    print()
    page = None if running.no_report else reports.write_page(findings)
    print(f"Tables: {folder / 'tables'}" if page is None else f"Report: {page}")
    for name in findings.study.documents:
        there = (folder / name).exists()
        print(f"Also: {folder / name}" if there else f"Not written: {name}. Try: pip install 'heatproof[xlsx]'")
    if running.pdf and page is not None:
        print(f"PDF: {reports.write_pdf(page)}")
    if running.latex is not None:
        files = reports.write_latex(findings, running.latex, running.spread)
        print(f"LaTeX: {len(files)} {'table' if len(files) == 1 else 'tables'} in {running.latex}")
    return findings


def _check_pdf(running: Running, folder: Any) -> None:
    """Checks before any work that the page can be printed."""
    from heatproof.report.printing import browser

    refuse_address(folder, "--pdf")

    if running.no_report:
        raise InvalidInput("--pdf prints the page, and --no-report makes none. Give one.")
    browser()


def _peaks(findings: Any) -> Iterator[str]:
    """How often the peaks of maps lie on the ground truth, with an empty line before each model and dataset."""
    for model, dataset in findings.settings:
        where = f"{model} on {dataset}: " if len(findings.settings) > 1 else ""
        for number, sentence in enumerate(findings.peak_sentences(model, dataset)):
            sentence = findings.labelled(sentence)
            yield sentence if number else f"\n{where}{sentence}"


# --- settings from what was typed ---


def _plan(
    settings: dict[str, Any],
    foreign: list[str],
    option: list[str] | None,
    lines: dict[str, int] | None = None,
    source: str = "",
) -> Any:
    """The checked plan, methods from elsewhere and `METHOD.OPTION=VALUE` included."""
    from heatproof.attributions import requested
    from heatproof.panels.selection import with_options
    from heatproof.studies.plan import checked_plan

    if foreign:
        named = settings["methods"] if "methods" in settings else _default_methods(settings)
        settings["methods"] = [*([named] if isinstance(named, str | dict) else named), *foreign]
    plan = checked_plan(settings, lines, source)
    if not (changed := options.method_options(option)):
        return plan
    methods = tuple(request.key for request in with_options(requested(plan.methods), changed))
    kept = plan.model_fields_set  # options alone name no method
    return type(plan).model_construct(_fields_set=kept, **{**dict(plan), "methods": methods})


def _default_methods(settings: Mapping[str, Any]) -> Sequence[str]:
    """The methods of a study whose settings name none: with maps made beforehand there need be none."""
    if settings.get("maps"):
        return ()
    return study_named(str(settings["study"])).settings.model_fields["methods"].default


def _study_settings(study: str, allow_code: bool = False) -> tuple[dict[str, Any], dict[str, int], str]:
    """The settings of a study file, of a folder of results, or of a study's name alone.

    Raises:
        InvalidStudy: a file or folder that names code, unless it is allowed.
    """
    from heatproof.plugins import PYTHON
    from heatproof.registry import unknown
    from heatproof.studies.code_in_files import refuse_code
    from heatproof.studies.studyfile import read_settings

    if study in study_names() or study.startswith(PYTHON):
        return {"study": study}, {}, ""
    if (folder := _results(study)) is not None:
        from heatproof.studies.archive import NAME, read_archive

        settings, lines = read_archive(folder)
        source = str(folder / NAME)
    elif study.endswith((".yaml", ".yml")) or Path(study).is_file():
        settings, lines = read_settings(study)
        source = study
    else:
        raise unknown("study (or study file)", study, study_names())
    if not allow_code:
        refuse_code(settings, lines, source)
    return settings, lines, source


def _results(study: str) -> Any:
    """The folder or the address of results, where the text names one."""
    there = lasting_place(study) if "://" in study else Path(study)
    return there if there.is_dir() else None


def _has_default(study: Any, setting: str) -> bool:
    """Whether a study has a value of its own for a setting that others need."""
    return study in study_names() and not study_named(str(study)).settings.model_fields[setting].is_required()


def _models(settings: dict[str, Any], specs: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The plan's `models`: those named, or the one of the file with the typed options on top."""
    if specs is None:
        if not given:
            return {}
        models = settings.get("models") or []
        models = [models] if isinstance(models, str | dict) else list(models)
        if len(models) != 1:
            raise InvalidStudy(f"--{next(iter(given)).replace('_', '-')} needs one --model. Got {len(models)}.")
        base = {"spec": models[0]} if isinstance(models[0], str) else dict(models[0])
        return {"models": [{**base, **given}]}
    if given and len(specs) > 1:
        raise InvalidStudy("Options of a model go with one --model. Got several; write a study file instead.")
    return {"models": [{"spec": spec, **given} for spec in specs]}


def _datasets_of_folders(folders: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    if folders is None:
        if given:
            raise InvalidStudy(f"--{next(iter(given))} goes with --images. Got no --images.")
        return {}
    if given and len(folders) > 1:
        raise InvalidStudy(f"--{next(iter(given))} goes with one --images. Got several; write a study file instead.")
    return {"datasets": [{"images": folder, **given} for folder in folders]}


def datasets_of(words: list[str], given: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan's `datasets`: every folder or name is a set of images; all files together are one set."""
    files, sets = [], []
    for word in words:
        pattern = glob.has_magic(word) and not Path(word).exists()
        found = glob.glob(word, recursive=True) if pattern else []  # noqa: PTH207 - may be absolute
        matches = sorted(name for name in found if Path(name).is_file())
        if matches or Path(word).is_file():
            files += [name for name in matches or [word] if name not in files]
        elif Path(word).is_dir() or word.partition(":")[0] in NAMED_IMAGES:
            sets.append(word)
        else:
            raise InvalidInput(
                "Images must be folders, files, patterns such as 'photos/*.jpg', `shapes` or torchvision:NAME. "
                f"There is no {word}."
            )
    if files:
        sets.insert(0, files)
    if given and len(sets) > 1:
        raise InvalidInput(f"--{next(iter(given))} goes with one set of images. Got several; write a study file.")
    return [{"images": images, **given} for images in sets]


def flip_rates_of(calibrate: bool, rates: str | None) -> list[float] | bool | None:
    """The shares for --calibrate, True for the default ones; None without it."""
    if rates is not None and not calibrate:
        raise InvalidInput("--flip-rates goes with --calibrate. Got no --calibrate.")
    return (options.numbers("--flip-rates", rates) or True) if calibrate else None
