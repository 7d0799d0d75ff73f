"""`heatproof.show`: images and methods in, panels out, in memory or straight into a folder."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from heatproof import explained_output
from heatproof.ambient import neutral
from heatproof.engine import as_model
from heatproof.errors import InvalidInput
from heatproof.files import write_atomically
from heatproof.models import Model
from heatproof.panels import show_page
from heatproof.panels.explain_images import MapSettings, entries
from heatproof.panels.explained_image import ExplainedImage, as_arrays, from_arrays
from heatproof.panels.image_sources import ImageSource, shots, stems
from heatproof.panels.panel import panel, png
from heatproof.panels.selection import Options, by_reason, selected
from heatproof.progress import Silent
from heatproof.registry import unknown
from heatproof.report.overlay import Look
from heatproof.tensors import UPSAMPLING


@dataclass(frozen=True)
class ShowRequest:
    """The images and methods to show, checked as far as possible before an image is opened."""

    work: MapSettings
    shots: list[ImageSource]
    look: Look
    facts: tuple[tuple[str, str], ...] = ()


class Gallery:
    """Images with their maps as overlays; a notebook displays it.

    Attributes:
        entries: one for each image: its prediction, its maps by class and method, or why there are none.
        not_applicable: method → why it does not apply to this network.
    """

    def __init__(self, job: ShowRequest, found: list[ExplainedImage]):
        self._job = job
        self.entries = found
        self.not_applicable: dict[str, str] = dict(job.work.asked.refused)
        for entry in found:
            self.not_applicable |= entry.refused

    @property
    def panels(self) -> list[Image.Image]:
        """One panel for each image; for one that could not be explained, it gives the reason."""
        return [panel(entry, self._job.work.asked.rows, self._job.look) for entry in self.entries]

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes `panels/NAME.png`, `maps/NAME.npz` and `index.html`; returns the page."""
        album = GalleryFolder(self._job, Path(folder))
        for entry in self.entries:
            album.add(entry, "")
        return album.write_page()

    def __repr__(self) -> str:
        methods = ", ".join(method.key for row in self._job.work.asked.rows for method in row)
        return f"Gallery({len(self.entries)} images: {methods})"

    def _repr_html_(self) -> str:
        album = show_page.PageSections(self._job.work.asked.rows, self._job.look, len(self.entries))
        sections = [album.section(entry) for entry in self.entries]
        return show_page.fragment(sections, by_reason(self.not_applicable), self._job.look)


class GalleryFolder:
    """A folder that is filled image by image; files that are written stay if the run stops."""

    def __init__(self, job: ShowRequest, folder: Path, command: str = ""):
        self._job, self.folder, self._command = job, folder, command
        self._stems = stems(job.shots)
        self._page = show_page.PageSections(job.work.asked.rows, job.look, len(job.shots))
        self._sections: list[show_page.ImageSection] = []
        self.refused = dict(job.work.asked.refused)
        self.kept = 0
        self._begun = False

    def known(self, number: int, digest: str) -> ExplainedImage | None:
        """The entry of an image from an earlier run with the same digest; None where there is none."""
        with suppress(Exception):  # a foreign or damaged file is made anew
            with np.load(self._map_file(number), allow_pickle=False) as arrays:
                entry, about = from_arrays(arrays)
            if about["digest"] == digest:
                self.kept += 1
                return entry
        return None

    def add(self, entry: ExplainedImage, digest: str) -> None:
        """Writes the files of the next image, the maps last: their file marks the image as done."""
        files, self._begun = (), True
        number, self.refused = len(self._sections), {**self.refused, **entry.refused}
        if not entry.flag:
            drawing = png(panel(entry, self._job.work.asked.rows, self._job.look))
            stem = self._stems[number]
            write_atomically(self.folder / "panels" / f"{stem}.png", lambda file: file.write(drawing))
            write_atomically(self._map_file(number), lambda file: _save(file, as_arrays(entry, self._about(digest))))
            files = (("Panel (PNG)", f"panels/{stem}.png"), ("Maps (NumPy)", f"maps/{stem}.npz"))
        self._sections.append(self._page.section(entry, files))

    @property
    def started(self) -> bool:
        """Whether an image was added."""
        return self._begun

    def write_page(self) -> Path:
        """Writes `index.html` for the images so far; the page states how many are missing."""
        text = show_page.rendered(
            self._sections,
            images=len(self._job.shots),
            rows=self._job.work.asked.rows,
            refused=by_reason(self.refused),
            look=self._job.look,
            facts=self._job.facts,
            command=self._command,
        )
        target = self.folder / "index.html"
        write_atomically(target, lambda file: file.write(text.encode("utf-8", "replace")))
        return target

    def _map_file(self, number: int) -> Path:
        return self.folder / "maps" / f"{self._stems[number]}.npz"

    def _about(self, digest: str) -> dict[str, Any]:
        work = self._job.work
        methods = {m.key: {"layers": list(m.layers), "options": m.options} for row in work.asked.rows for m in row}
        said = work.output if isinstance(work.output, str) else getattr(work.output, "__name__", "a callable")
        return {"model": work.model.name, "output": said, "upsample": work.upsample, "seed": work.seed,
                "details": methods, "digest": digest}  # fmt: skip


def _save(file: Any, arrays: Mapping[str, Any]) -> None:
    np.savez_compressed(file, **arrays)


@neutral()
def show(
    model: Model | nn.Module,
    images: Any,
    methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = ("gradcam",),
    target: Any = "predicted",
    layer: str | nn.Module = "auto",
    *,
    layers: str | Sequence[str] | None = None,
    options: Options | None = None,
    output: explained_output.Output = "logit",
    upsample: str = "bilinear",
    labels: Sequence[int | None] | str | os.PathLike | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    progress: Any = None,
) -> Gallery:
    """Explains images and shows the maps over them: rich output in a notebook, `.panels`, `.save(folder)`.

    `model`, `target`, `layer`, `output`, `upsample` and `seed` are those of `heatproof.explain`, and so are the maps. A
    map at the image's resolution in which a few pixels are much larger than the rest is drawn brighter, and its title
    says so.

    Args:
        images: what `explain` takes; also folders, patterns such as `photos/*.jpg`, and `shapes`. One that cannot be
            read has a flagged entry.
        methods: what `explain` takes; also `all` (every method but controls) and `cams`. One that does not apply
            to this network is left out, with the reason in `.not_applicable`.
        layers: `all`, or names: every method that reads a layer is shown at each of them, plain and refined.
        options: method → options, for every method of that name among those asked for.
        labels: one for each image, or a CSV with the columns `file,class_index`.
        colormap: a name of matplotlib's.
        alpha: the share of the map's colour in an overlay; the rest is the grey image.

    Raises:
        UnknownName, InvalidInput, InvalidTarget, LayerError: each says what was expected.
        NotApplicable: no method is left.
    """
    job = checked_job(
        model, images, methods, target, layer, layers=layers, options=options, output=output, upsample=upsample,
        labels=labels, seed=seed, batch_size=batch_size, colormap=colormap, alpha=alpha,
    )  # fmt: skip
    return Gallery(job, [entry for entry, _ in entries(job.work, job.shots, progress or Silent())])


@neutral()
def checked_job(
    model: Model | nn.Module,
    images: Any,
    methods: Any = ("gradcam",),
    target: Any = "predicted",
    layer: str | nn.Module = "auto",
    *,
    layers: str | Sequence[str] | None = None,
    options: Options | None = None,
    output: explained_output.Output = "logit",
    upsample: str = "bilinear",
    labels: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    limit: int | None = None,
) -> ShowRequest:
    """The job of a call of `show`, checked; `limit`: only the first images."""
    model, look = as_model(model), Look(colormap, alpha)
    explained_output.checked_output(output)
    if upsample not in UPSAMPLING:
        raise unknown("`upsample`", str(upsample), UPSAMPLING)
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise InvalidInput(f"`{name}` must be at least 1. Got {value}.")
    found = shots(images, model, labels)[:limit]
    wanted = selected(model, methods, layer, layers, options, output)
    work = MapSettings(model, wanted, target, output, upsample, seed, batch_size)
    return ShowRequest(work, found, look, _facts(work, found))


def _facts(work: MapSettings, found: Sequence[ImageSource]) -> tuple[tuple[str, str], ...]:
    """The facts about a run that its page states."""
    said = work.output if isinstance(work.output, str) else "a callable"
    target = work.target if isinstance(work.target, str | int) else "given for each image"
    layers = dict.fromkeys(method.layers for method in work.asked.methods if method.request.spatial)
    facts = [("Model", work.model.name), ("Images", str(len(found))), ("Methods", str(work.units)),
             ("Class explained", str(target))]  # fmt: skip
    facts += [("Output explained", said)] if said != "logit" else []
    facts += [("Layer", "+".join(*layers))] if len(layers) == 1 else []
    return tuple(facts)


@neutral()
def explained_into(
    folder: str | os.PathLike,
    job: ShowRequest,
    progress: Any,
    command: str = "",
    advance: Callable[[ExplainedImage], Any] | None = None,
) -> GalleryFolder:
    """Fills a folder image by image and writes the page, also where the run is stopped.

    Images that an earlier run has explained with the same settings are drawn again but not explained again.
    """
    album = GalleryFolder(job, Path(folder), command)
    try:
        for entry, digest in entries(job.work, job.shots, progress, album.known):
            album.add(entry, digest)
            if advance:
                advance(entry)
    finally:
        if album.started:
            album.write_page()
    return album
