"""Study files: YAML → settings, with paths relative to the file's folder, and the line number of each field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from heatproof.addresses import Place, is_address, place
from heatproof.errors import InvalidStudy
from heatproof.files import exists
from heatproof.studies.bounded_yaml import MOST_BYTES, read_yaml
from heatproof.studies.settings import listed, maps_given

NAMED_SETS = ("shapes", "creatures", "torchvision", "mosaic", "funnybirds", "funnybirds-val", "funnybirds-test")

#: What a study file may say beside the settings: where the results go, and how the jobs are run.
BESIDE = ("out", "workers", "executor", "address", "timeout")
#: The fields of a study file that hold paths.
PATHS: Mapping[str, tuple[str, ...]] = {
    "models": ("checkpoint", "classes"),
    "datasets": ("images", "labels", "root", "masks"),
    "maps": ("path",),
}


def read_settings(path: str | Place) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML study file → its settings and the line number of each field.

    Relative paths start at the file's folder; in a file at an address they are left as they are.

    Raises:
        InvalidStudy: the file cannot be read, is not YAML, is not a mapping, has a key twice, or is beyond the bounds
            of `bounded_yaml`.
    """
    file: Any = place(path)
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise InvalidStudy(f"{path} must be a study file. It has {size:,} bytes, over the limit of {MOST_BYTES:,}.")
        settings, lines = read_yaml(file.read_text("utf-8"), _lines)
    except OSError as error:
        raise InvalidStudy(f"{path} must be a readable study file. {error.strerror}.") from None
    except InvalidStudy as error:
        raise InvalidStudy(f"{path}, {error}." if str(error).startswith("line ") else str(error)) from None
    except Exception as error:  # beside errors of YAML, those of values that cannot be: `!!bool x`, 5000 digits
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidStudy(f"{path}{where} must be YAML. {str(reason).rstrip('.')}.") from None
    if not isinstance(settings, dict):
        raise InvalidStudy(f"{path} must hold settings such as `study: noise-robustness`. Got {settings!r:.200}.")
    return _anchor_paths(settings, Path() if is_address(file) else file.parent), lines


def _anchor_paths(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings with relative paths joined to `folder`, so that the working directory does not matter."""
    settings = dict(settings)
    if isinstance(settings.get("out"), str) and not is_address(place(settings["out"])):
        settings["out"] = str(folder / settings["out"])
    if "maps" in settings:
        settings["maps"] = maps_given(settings["maps"])
    for kind, fields in PATHS.items():
        items = []
        for item in listed(settings.get(kind) or []):
            item = dict(item) if isinstance(item, Mapping) else item
            if kind == "datasets" and isinstance(item, str):
                item = {"images": item}
            if isinstance(item, dict):
                item |= {field: _anchor(item[field], folder) for field in fields if field in item}
            items.append(item)
        if kind in settings:
            settings[kind] = items
    if isinstance(settings.get("methods"), str | list):
        settings["methods"] = [_anchored_maps(item, folder) for item in listed(settings["methods"])]
    return settings


def _anchor(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_anchor(item, folder) for item in value]
    known = isinstance(value, str) and not _a_name(value) and exists(folder / value)
    return str(folder / value) if known else value


def _anchored_maps(method: Any, folder: Path) -> Any:
    kind, colon, path = method.partition(":") if isinstance(method, str) else ("", "", "")
    return f"maps:{folder / path}" if kind == "maps" and colon and exists(folder / path) else method


def _a_name(images: str) -> bool:
    return images.partition(":")[0] in NAMED_SETS  # as in data.loading, which loads torch


def _lines(root: Any) -> dict[str, int]:
    """Dotted field → line, from the YAML nodes."""
    found: dict[str, int] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            keys: set[Any] = set()
            for key, value in node.value:
                if isinstance(key.value, str) and key.value in keys:
                    raise InvalidStudy(f"line {key.start_mark.line + 1}: `{key.value}` is there twice. Keep one")
                name = f"{path}.{key.value}".lstrip(".")
                keys.add(key.value if isinstance(key.value, str) else None)
                found[name] = key.start_mark.line + 1
                visit(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found[f"{path}.{index}"] = value.start_mark.line + 1
                visit(value, f"{path}.{index}")

    visit(root, "")
    return found
