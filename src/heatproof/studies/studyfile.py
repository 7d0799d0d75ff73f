"""Study files: YAML → settings, with paths relative to the file's folder, and the line number of each field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from heatproof.addresses import Place, is_address, place
from heatproof.errors import InvalidStudy
from heatproof.studies.settings import listed, maps_given

NAMED_SETS = ("shapes", "creatures", "torchvision", "mosaic", "funnybirds", "funnybirds-val", "funnybirds-test")

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
        InvalidStudy: the file cannot be read, is not YAML, is not a mapping, or has a key twice.
    """
    file: Any = place(path)
    try:
        text = file.read_text("utf-8")
        settings = yaml.safe_load(text)
    except OSError as error:
        raise InvalidStudy(f"{path} must be a readable study file. {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidStudy(f"{path}{where} must be YAML. {getattr(error, 'problem', None) or error}.") from None
    if not isinstance(settings, dict):
        raise InvalidStudy(f"{path} must hold settings such as `study: noise-robustness`. Got {settings!r}.")
    return _anchor_paths(settings, Path() if is_address(file) else file.parent), _lines(text)


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
    known = isinstance(value, str) and not _a_name(value) and (folder / value).exists()
    return str(folder / value) if known else value


def _anchored_maps(method: Any, folder: Path) -> Any:
    kind, colon, path = method.partition(":") if isinstance(method, str) else ("", "", "")
    return f"maps:{folder / path}" if kind == "maps" and colon and (folder / path).exists() else method


def _a_name(images: str) -> bool:
    return images.partition(":")[0] in NAMED_SETS  # as in data.loading, which loads torch


def _lines(text: str) -> dict[str, int]:
    """Dotted field → line, from the YAML nodes."""
    found: dict[str, int] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    line = max(k.start_mark.line for k, _ in node.value if k.value == key) + 1
                    raise InvalidStudy(f"line {line}: `{key}` is there twice. Keep one")
            for key, value in node.value:
                name = f"{path}.{key.value}".lstrip(".")
                found[name] = key.start_mark.line + 1
                visit(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found[f"{path}.{index}"] = value.start_mark.line + 1
                visit(value, f"{path}.{index}")

    visit(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found
