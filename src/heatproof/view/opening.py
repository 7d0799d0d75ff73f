"""A folder of results → a collection, or an error that says what the folder is and what to do."""

from collections.abc import Callable
from pathlib import Path

from heatproof.errors import StoreError
from heatproof.view.explained_collection import ExplainedCollection
from heatproof.view.interface import Collection, Pixels
from heatproof.view.study_collection import StudyCollection

#: Folders inside another that can be viewed: those of `heatproof demo`.
PARTS = ("photographs", "shapes")


def opened(folder: Path, pixels: Callable[[], Pixels | None] = lambda: None) -> Collection:
    """The results in a folder. `pixels`: makes what opens the images of a study; called for a study only.

    Raises:
        StoreError: no folder of results, nothing finished in it, or rows that this version cannot read.
    """
    if not folder.exists():
        raise StoreError(f"There is no folder {folder}. Name one that `run`, `score`, `audit` or `explain` wrote.")
    if not folder.is_dir():
        raise StoreError(f"Results are a folder. {folder} is a file. Name the folder that --out named.")
    if (folder / "study.json").is_file():
        return StudyCollection(folder, pixels())
    if any((folder / "maps").glob("*.npz")):
        return ExplainedCollection(folder)
    inside = [name for name in PARTS if (folder / name).is_dir()]
    if inside:
        raise StoreError(f"{folder} holds several results. Name one: {', '.join(str(folder / n) for n in inside)}.")
    raise StoreError(
        f"{folder} is no folder of results: it holds neither `study.json` nor `maps/`. Name one that "
        "`heatproof run`, `score`, `audit` or `explain` wrote. For a folder of photographs add --model and give it "
        "with --images."
    )
