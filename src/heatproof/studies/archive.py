"""`study.yaml` of a results folder: every setting of the study, to be run again.

The settings are those that were run: families of metrics are named one by one, and a budget is the limit that it gave.
Paths are whole, so that it can be run from anywhere.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from heatproof.addresses import Place
from heatproof.errors import InvalidStudy
from heatproof.files import write_atomically
from heatproof.studies.code_in_files import code_in
from heatproof.studies.settings import Plan, listed
from heatproof.studies.store import Store
from heatproof.studies.studyfile import PATHS, read_settings

#: The file in a results folder.
NAME = "study.yaml"
#: Names before a colon that are followed by a path.
BEFORE_PATHS = ("mosaic", "funnybirds", "funnybirds-val", "funnybirds-test", "hf")
#: What a model or a set of images in memory is called; it cannot be run again from a file.
IN_MEMORY = "given:"
HEADER = "# Every setting of this study. To repeat it: heatproof run {folder} --out NEW_FOLDER{code}\n"


def write_archive(folder: Place, given: Plan, done: Plan) -> None:
    """Writes `study.yaml`, unless it holds these settings. given: the settings as they were given; done: as run."""
    made = archived(given, done)
    settings = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=110)
    body, path = settings.encode("utf-8", "replace"), folder / NAME
    if not path.is_file() or not path.read_bytes().endswith(body):
        code = " --allow-code" if any(code_in(made)) else ""
        header = HEADER.format(folder=folder, code=code).encode("utf-8", "replace")
        write_atomically(path, lambda file: file.write(header + body))


def copy_archive(source: Place, target: Place) -> None:
    """Copies `study.yaml` of one results folder to another."""
    first, _, body = (source / NAME).read_bytes().partition(b"\n")
    code = " --allow-code" if first.endswith(b" --allow-code") else ""
    header = HEADER.format(folder=target, code=code).encode("utf-8", "replace")
    write_atomically(target / NAME, lambda file: file.write(header + body))


def archived(given: Plan, done: Plan) -> dict[str, Any]:
    """The settings of a study file that runs the study again.

    Methods that a study makes from those given (every stage of a network, say) are made again, so that the given ones
    are kept; those that were left out stay out.
    """
    settings = _plain(done)
    kept = [name for name in given.methods if name in done.methods]
    settings["methods"] = kept or list(given.methods)
    settings["models"] = [{"spec": one.spec, "name": one.label, **_plain(one)} for one in given.models]
    settings["datasets"] = [{"images": one.images, "name": one.label, **_plain(one)} for one in given.datasets]
    if given.given_maps:
        settings["maps"] = [{"name": one.label, "path": one.path} for one in given.given_maps]
    settings.pop("budget", None)
    if settings.get("calibrate"):  # strengths are found in their place
        settings.pop("severities", None)
    for kind, names in (*PATHS.items(), ("models", ("spec",))):
        for one in settings.get(kind, ()):
            one.update({name: _whole(one[name]) for name in names if name in one})
    return settings


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as YAML holds them, without those that are not set."""
    return {name: value for name, value in settings.model_dump(mode="json").items() if value is not None}


def _whole(value: Any) -> Any:
    """A path from the root; text that is no path, as it is."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    kind, colon, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    if colon and kind in BEFORE_PATHS:
        return f"{kind}:{_whole(rest)}"
    return str(Path(value).resolve()) if isinstance(value, str) and value and Path(value).exists() else value


def read_archive(folder: Place) -> tuple[dict[str, Any], dict[str, int]]:
    """The settings of a results folder, and the line of each.

    Raises:
        InvalidStudy: no results folder; one without `study.yaml`; a model or images that were in memory.
    """
    if not (folder / NAME).is_file():
        plan = Store(folder).plan()
        if plan is None:
            raise InvalidStudy(
                f"{folder} must be a study file, or a folder of results. It holds no {NAME}. Studies by name: see "
                "`heatproof list studies`."
            )
        typed = f" It was made by: {plan['command']}" if plan.get("command") else ""
        raise InvalidStudy(f"{folder} holds no {NAME}: it was written by an older version.{typed}")
    settings, lines = read_settings(folder / NAME)
    for kind, field, call in (("models", "spec", "model"), ("datasets", "images", "images")):
        for one in listed(settings.get(kind) or []):
            name = one.get(field) if isinstance(one, Mapping) else one
            if isinstance(name, str) and name.startswith(IN_MEMORY):
                raise InvalidStudy(
                    f"{folder} was made in Python with {call} in memory ({name.removeprefix(IN_MEMORY)!r}), which no "
                    "file holds. Repeat it there: heatproof.run(…)."
                )
    return settings, lines


def refuse_itself(folder: Place, out: Place) -> None:
    """InvalidStudy where the results would go into the folder that is repeated."""
    if out.resolve() == folder.resolve():
        raise InvalidStudy(f"--out must be a new folder. {out} holds the results that are to be repeated.")


def refuse_missing(settings: Mapping[str, Any], folder: Place) -> None:
    """InvalidStudy that names every path of the settings that is not there."""
    missing = list(_missing(settings))
    if missing:
        raise InvalidStudy(
            f"The study of {folder} needs files that are not there: {'; '.join(missing)}. Put them back, name others "
            f"with --images, --masks, --labels or --checkpoint, or edit a copy of {folder / NAME}."
        )


def _missing(settings: Mapping[str, Any]) -> Iterator[str]:
    for kind, fields in (*PATHS.items(), ("models", ("spec",))):
        for one in listed(settings.get(kind) or []):
            if isinstance(one, Mapping):
                for field in fields:
                    for path in listed(one.get(field) or []):
                        path = path.partition(":")[2] if path.partition(":")[0] in BEFORE_PATHS else path
                        if Path(path).is_absolute() and not Path(path).exists():
                            yield f"{path} ({field} of {one.get('name') or kind})"
