"""`heatproof.show`: images and methods in, panels out, in memory or straight into a folder."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from heatproof import explained_output, targets
from heatproof.ambient import neutral
from heatproof.archives import Archive
from heatproof.class_names import class_text
from heatproof.engine import as_model, of_output
from heatproof.errors import InvalidInput
from heatproof.files import write_atomically
from heatproof.models.preprocessing import preprocessing_facts
from heatproof.panels import show_page
from heatproof.panels.explain_images import MapSettings, entries
from heatproof.panels.explained_image import INDEX, ExplainedImage, as_arrays, from_arrays, summary
from heatproof.panels.image_sources import ImageSource, file_name, limited_shots, shots, stems, with_names
from heatproof.panels.masks import PeakTally, own_mask, with_masks
from heatproof.panels.overlays import overlays
from heatproof.panels.panel import panel, panel_sheet
from heatproof.panels.selection import Options, by_reason, selected
from heatproof.panels.sheet import DPI, Sheet, png
from heatproof.progress import reported
from heatproof.registry import unknown
from heatproof.report.overlay import Look
from heatproof.report.preprocessing import preprocessing_text
from heatproof.tensors import UPSAMPLING

#: The forms of a panel, and what the page calls them.
FORMATS = {"png": "Panel (PNG)", "svg": "Panel (SVG)", "pdf": "Panel (PDF)"}
#: The range of `dpi`: a panel of 17 maps has 10 megapixels at 300.
DPI_RANGE = (24, 1200)


@dataclass(frozen=True)
class PanelFiles:
    """The files of a panel: their forms, the resolution of a PNG, and whether every overlay is a file of its own.

    Raises:
        InvalidInput, UnknownName: an unknown form, or a resolution out of range.
    """

    dpi: float = DPI
    formats: tuple[str, ...] = ("png",)
    overlays: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.dpi, int | float) and DPI_RANGE[0] <= self.dpi <= DPI_RANGE[1]):
            raise InvalidInput(f"`dpi` must lie in {DPI_RANGE[0]} … {DPI_RANGE[1]}. Got {self.dpi!r}.")
        if not self.formats:
            raise InvalidInput(f"`formats` must name at least one of {', '.join(FORMATS)}. Got none.")
        for name in self.formats:
            if name not in FORMATS:
                raise unknown("form of a panel", str(name), FORMATS)

    def content(self, form: str, sheet: Sheet) -> bytes:
        """The bytes of the panel in one form."""
        return {"png": lambda: sheet.png(self.dpi), "svg": sheet.svg, "pdf": sheet.pdf}[form]()


@dataclass(frozen=True)
class ShowRequest:
    """The images and methods to show, checked as far as possible before an image is opened.

    sample: how a limit chose the images; empty where all are shown.
    """

    work: MapSettings
    shots: list[ImageSource]
    look: Look
    facts: tuple[tuple[str, str], ...] = ()
    sample: str = ""
    files: PanelFiles = PanelFiles()

    def peaks(self, tally: PeakTally) -> list[str]:
        """Sentences on the peaks that were counted; none without masks."""
        controls = [method.key for method in self.work.asked.methods if method.request.entry.traits["control"]]
        return tally.sentences(controls)


class Gallery:
    """Images with their maps as overlays; a notebook displays it.

    Attributes:
        entries: one for each image: its prediction, its maps by class and method, or why there are none.
        not_applicable: method → why it does not apply to this network.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> gallery = heatproof.show(heatproof.load_model("shapes"), demo_shapes(n=2), ["gradcam", "layercam"])
        >>> gallery.save("out/gallery").name
        'index.html'
        >>> gallery.panels[0].mode
        'RGB'
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
        job = self._job
        return [panel(entry, job.work.asked.rows, job.look, job.files.dpi) for entry in self.entries]

    @property
    def peaks(self) -> list[str]:
        """How often the peak of each method lies on the mask, in sentences; none without masks."""
        tally = PeakTally(self._job.work.asked.rows)
        for entry in self.entries:
            tally.add(entry)
        return self._job.peaks(tally)

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        dpi: float | None = None,
        formats: Sequence[str] | None = None,
        overlays: bool | None = None,
    ) -> Path:
        """Writes `panels/NAME.png`, `maps/NAME.npz` and `index.html`; returns the page.

        `dpi`, `formats`, `overlays`: as in `show`, by default what was given there.
        """
        files = self._job.files
        files = PanelFiles(
            files.dpi if dpi is None else dpi,
            files.formats if formats is None else tuple([formats] if isinstance(formats, str) else formats),
            files.overlays if overlays is None else overlays,
        )
        album = GalleryFolder(replace(self._job, files=files), Path(folder))
        for entry in self.entries:
            album.add(entry, "")
        return album.write_page()

    def __repr__(self) -> str:
        methods = ", ".join(method.key for row in self._job.work.asked.rows for method in row)
        return f"Gallery({len(self.entries)} images: {methods})"

    def _repr_html_(self) -> str:
        album = show_page.PageSections(self._job.work.asked.rows, self._job.look, len(self.entries))
        sections = [album.section(entry) for entry in self.entries]
        return show_page.fragment(sections, by_reason(self.not_applicable), self._job.look, self.peaks)


class GalleryFolder:
    """A folder that is filled image by image; files that are written stay if the run stops."""

    def __init__(self, job: ShowRequest, folder: Path, command: str = ""):
        self._job, self.folder, self._command = job, folder, command
        self._stems = stems(job.shots)
        self._page = show_page.PageSections(job.work.asked.rows, job.look, len(job.shots))
        self._sections: list[show_page.ImageSection] = []
        self._tally = PeakTally(job.work.asked.rows)
        self._summaries: list[dict[str, Any]] = []
        self.refused = dict(job.work.asked.refused)
        self.kept = 0
        self._begun = False

    def known(self, number: int, digest: str) -> ExplainedImage | None:
        """The entry of an image from an earlier run with the same digest; None where there is none."""
        with suppress(Exception):  # a foreign or damaged file is made anew
            with Archive(self._map_file(number)) as arrays:
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
            stem = self._stems[number]
            links = dict(self._panel_files(entry, stem))
            if self._job.files.overlays:
                self._overlay_files(entry, number)
                links["Overlays"] = f"overlays/{stem}"
            write_atomically(self._map_file(number), lambda file: _save(file, as_arrays(entry, self._about(digest))))
            files = (*links.items(), ("Maps (NumPy)", f"maps/{stem}.npz"))
        self._sections.append(self._page.section(entry, files))
        self._summaries.append({**summary(entry), "file": "" if entry.flag else f"{self._stems[number]}.npz"})
        self._tally.add(entry)

    def _panel_files(self, entry: ExplainedImage, stem: str) -> Iterator[tuple[str, str]]:
        """Writes the panel in every form; gives (name, address) of each."""
        sheet = panel_sheet(entry, self._job.work.asked.rows, self._job.look)
        for form in self._job.files.formats:
            drawing = self._job.files.content(form, sheet)
            write_atomically(
                self.folder / "panels" / f"{stem}.{form}", lambda file, drawing=drawing: file.write(drawing)
            )
            yield FORMATS[form], f"panels/{stem}.{form}"

    def _overlay_files(self, entry: ExplainedImage, number: int) -> None:
        """Writes every map over the image at the image's own resolution."""
        shot, job = self._job.shots[number], self._job
        original = shot.original() if shot.original is not None else None
        geometry, folder = job.work.model.geometry, self.folder / "overlays" / self._stems[number]
        mask = own_mask(shot) if entry.mask is not None else None
        for i, (name, image) in enumerate(overlays(entry, job.work.asked.rows, job.look, original, geometry, mask)):
            path = folder / f"{i + 1:02d}-{file_name(name)}.png"  # in order, and different where only signs differ
            drawing = png(image, job.files.dpi)
            write_atomically(path, lambda file, drawing=drawing: file.write(drawing))

    @property
    def peaks(self) -> list[str]:
        """Sentences on the peaks of the images so far; none without masks."""
        return self._job.peaks(self._tally)

    @property
    def started(self) -> bool:
        """Whether an image was added."""
        return self._begun

    def write_page(self) -> Path:
        """Writes `index.html` and `index.json` for the images so far; the page states how many are missing."""
        text = show_page.rendered(
            self._sections,
            images=len(self._job.shots),
            rows=self._job.work.asked.rows,
            refused=by_reason(self.refused),
            look=self._job.look,
            facts=self._job.facts,
            peaks=self.peaks,
            command=self._command,
        )
        told = json.dumps(self._summaries).encode("ascii")
        write_atomically(self.folder / INDEX, lambda file: file.write(told))
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
    model: Any,
    images: Any,
    methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = ("gradcam",),
    target: Any = "predicted",
    layer: str | nn.Module = "auto",
    *,
    layers: str | Sequence[str] | None = None,
    options: Options | None = None,
    output: explained_output.Output = "logit",
    upsample: str = "bilinear",
    labels: Sequence[int | str | None] | str | os.PathLike[str] | None = None,
    masks: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    dpi: float = PanelFiles.dpi,
    formats: Sequence[str] = PanelFiles.formats,
    overlays: bool = PanelFiles.overlays,
    normalised: bool = False,
    progress: Any = False,
) -> Gallery:
    """Explains images and shows the maps over them: rich output in a notebook, `.panels`, `.save(folder)`.

    `model`, `target`, `layer`, `output`, `upsample`, `seed` and `normalised` are those of `heatproof.explain`, and so
    are the maps. A map at the image's resolution in which a few pixels are much larger than the rest is drawn brighter,
    and its title says so.

    Args:
        images: what `explain` takes; also patterns such as `photos/*.jpg`, and lists of folders. One that cannot be
            read has a flagged entry.
        methods: what `explain` takes; also `all` (every method but controls) and `cams`. One that does not apply
            to this network is left out, with the reason in `.not_applicable`.
        layers: `all`, or names: every method that reads a layer is shown at each of them, plain and refined.
        options: method → options, for every method of that name among those asked for.
        labels: one for each image, an index or a name, None or -1 for none; or a CSV with the columns
            `file,class_index`, `file,name`, or all three.
        masks: where the objects are: a folder of masks or a CSV of boxes, or an array for each image in its own pixels.
            Their outlines are drawn, and `.peaks` says how often the peak of a map lies on them.
        colormap: a name of matplotlib's.
        alpha: the share of the map's colour in an overlay; the rest is the grey image.
        dpi: the resolution of panels as pixels, 96 for the size on a screen.
        formats: of saved panels: `png`, `svg`, `pdf`. SVG and PDF hold text as text and every image with all pixels.
        progress: as in `heatproof.explain`.
        overlays: save also every map over the part of the original image that the network saw, at its resolution.

    Raises:
        UnknownName, InvalidInput, InvalidTarget, LayerError: each says what was expected.
        NotApplicable: no method is left.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> heatproof.show(model, demo_shapes(n=2), ["gradcam", "layercam"])  # a notebook shows the maps
        Gallery(2 images: gradcam, layercam)
    """
    job = checked_job(
        model, images, methods, target, layer, layers=layers, options=options, output=output, upsample=upsample,
        labels=labels, masks=masks, seed=seed, batch_size=batch_size, colormap=colormap, alpha=alpha, dpi=dpi,
        formats=formats, overlays=overlays, normalised=normalised,
    )  # fmt: skip
    with reported(progress) as bar:
        return Gallery(job, [entry for entry, _ in entries(job.work, job.shots, bar)])


@neutral()
def checked_job(
    model: Any,
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
    masks: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    dpi: float = PanelFiles.dpi,
    formats: Sequence[str] = PanelFiles.formats,
    overlays: bool = PanelFiles.overlays,
    normalised: bool = False,
    limit: int | None = None,
    sampling: str = "stratified",
) -> ShowRequest:
    """The job of a call of `show`, checked; `limit`: only so many images, chosen as `sampling` says."""
    files = PanelFiles(dpi, tuple([formats] if isinstance(formats, str) else formats), overlays)
    model, look = with_names(as_model(model), images, labels), Look(colormap, alpha)
    target = targets.with_indices(target, model.classes)
    model, output = of_output(model, output)
    model.warn_of_assumptions()
    if upsample not in UPSAMPLING:
        raise unknown("`upsample`", str(upsample), UPSAMPLING)
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise InvalidInput(f"`{name}` must be at least 1. Got {value}.")
    every = shots(images, model, labels, normalised)
    found, sample = limited_shots(every if masks is None else with_masks(every, masks), limit, seed, sampling)
    wanted = selected(model, methods, layer, layers, options, output)
    work = MapSettings(model, wanted, target, output, upsample, seed, batch_size)
    return ShowRequest(work, found, look, _facts(work, found, sample), sample, files)


def _facts(work: MapSettings, found: Sequence[ImageSource], sample: str) -> tuple[tuple[str, str], ...]:
    """The facts about a run that its page states."""
    said = work.output if isinstance(work.output, str) else "a callable"
    names = work.model.classes
    target = work.target if isinstance(work.target, str) else "given for each image"
    target = class_text(names, work.target) if isinstance(work.target, int) else target
    target = "the only one" if work.model.of_values and target in ("predicted", "clean") else target
    layers = dict.fromkeys(method.layers for method in work.asked.methods if method.request.spatial)
    facts = [("Model", work.model.name), ("Images", sample or str(len(found))), ("Methods", str(work.units)),
             ("Column explained" if work.model.of_values else "Class explained", str(target))]  # fmt: skip
    facts += [("Output explained", said)] if said != "logit" else []
    facts += [("Layer", "+".join(*layers))] if len(layers) == 1 else []
    facts += [("Labels", how) for how in dict.fromkeys(shot.matching for shot in found) if how]
    model = work.model
    facts += [("Preprocessing", preprocessing_text(preprocessing_facts(model.preprocessing)))]
    return tuple(facts)


@neutral()
def explained_into(
    folder: str | os.PathLike[str],
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
