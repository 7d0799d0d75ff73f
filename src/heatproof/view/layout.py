"""The page: gradio's components, and which part of the page answers which event."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from heatproof.report.overlay import Look
from heatproof.view import choices, pages
from heatproof.view.interface import FILTERS, ORDERS, Appearance, Wanted
from heatproof.view.viewer import Viewer

#: What every event says: no progress bar over the page, answered at once, the last one of many.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Session:
    """What one browser looks at: an image, a page of the list, the severities it has seen, and the brush's strokes."""

    key: int
    page: int = 0
    seen: tuple[int, ...] = ()
    strokes: tuple = ()
    radius: float = 0.07
    region: bool = False


class Page:
    """The page of a viewer. Its methods answer events; `blocks` is what gradio serves."""

    def __init__(self, viewer: Viewer):
        self.viewer, self.collection = viewer, viewer.collection
        self.first = viewer.first()
        entry = viewer.shown(self.first, "", 0).entry
        self.titles = choices.titles(viewer.methods)
        self.layers = choices.layers(viewer.methods)
        self.shown_first = choices.first_titles(viewer.methods, entry)
        self.classes = [block.answer.full for block in entry.blocks]
        self.kinds = viewer.kinds
        self.score = next(iter(self.collection.scores), "")
        self.everything = Wanted(score=self.score)

    # --- answers ---

    def _wanted(self, session: Session, filters: Sequence[str], text: str, order: str, score: str) -> Wanted:
        return Wanted(frozenset(filters or ()), text or "", order or "name", score or self.score, session.page)

    def _look(self, titles: Sequence[str], layers: Sequence[str], classes: Sequence[int], opacity: float,
              threshold: float) -> Appearance:  # fmt: skip
        methods = [one.key for one in choices.chosen(self.viewer.methods, titles or (), layers or ())]
        return Appearance(methods, sorted(classes or ()), float(opacity), float(threshold))

    def _stage(self, session: Session, look: Appearance, kind: str, severity: float) -> str:
        name = self._name(session.key)
        return self.viewer.stage(session.key, name, kind or "", int(severity or 0), look)

    def _name(self, key: int) -> str:
        return self.collection.image_id(key)

    def _noise(self, session: Session, look: Appearance, kind: str, severity: float) -> str:
        return self.viewer.noise(session.key, kind or "", int(severity or 0), session.seen, look.methods)

    def looked(self, session: Session, titles: Any, layers: Any, classes: Any, opacity: Any, threshold: Any, kind: Any,
               severity: Any) -> str:  # fmt: skip
        """The stage as it is to look."""
        return self._stage(session, self._look(titles, layers, classes, opacity, threshold), kind, severity)

    def rechosen(self, session: Session, titles: Any, layers: Any, classes: Any, opacity: Any, threshold: Any,
                 kind: Any, severity: Any) -> tuple[str, str, str]:  # fmt: skip
        """Stage, noise and region for other methods, layers or classes."""
        look = self._look(titles, layers, classes, opacity, threshold)
        return (self._stage(session, look, kind, severity), self._noise(session, look, kind, severity),
                self._region(session, look, kind, severity))  # fmt: skip

    def moved(self, session: Session, titles: Any, layers: Any, classes: Any, opacity: Any, threshold: Any, kind: Any,
              severity: Any) -> tuple:  # fmt: skip
        """Another severity: session, the severity that there is, stage, noise, region."""
        severity = choices.nearest(float(severity or 0), self.viewer.severities(kind or ""))
        session = replace(session, seen=tuple(sorted({*session.seen, severity} - {0})))
        look = self._look(titles, layers, classes, opacity, threshold)
        return (session, severity, self._stage(session, look, kind, severity),
                self._noise(session, look, kind, severity), self._region(session, look, kind, severity))  # fmt: skip

    def other_noise(self, session: Session, *looks: Any) -> tuple:
        """Another kind of noise: what was seen of the one before is forgotten."""
        return self.moved(replace(session, seen=()), *looks)

    def noise_key(self, session: Session, titles: Any, layers: Any, classes: Any, opacity: Any, threshold: Any,
                  kind: Any, severity: Any, event: gr.EventData) -> tuple:  # fmt: skip
        """One severity more or less, among those that there are."""
        offered = self.viewer.severities(kind or "")
        here = offered.index(choices.nearest(float(severity or 0), offered))
        step = 1 if _sent(event).get("by", 0) > 0 else -1
        severity = offered[min(max(here + step, 0), len(offered) - 1)]
        return self.moved(session, titles, layers, classes, opacity, threshold, kind, severity)

    def filtered(self, session: Session, *asked: Any) -> tuple[Session, str]:
        """The first page of the list under other filters."""
        session = replace(session, page=0)
        return session, self._listing(session, *asked)

    def turned(self, by: int, session: Session, *asked: Any) -> tuple[Session, str]:
        """Another page of the list."""
        page = self.collection.page(self._wanted(replace(session, page=max(0, session.page + by)), *asked))
        session = replace(session, page=page.number)
        return session, pages.listing(page, session.key)

    def _listing(self, session: Session, *asked: Any) -> str:
        return pages.listing(self.collection.page(self._wanted(session, *asked)), session.key)

    def _image(self, session: Session, asked: Sequence[Any], looks: Sequence[Any]) -> tuple:
        """Session, list, stage, noise and an empty region for another image."""
        look, (kind, severity) = self._look(*looks[:5]), looks[5:]
        severity = int(severity or 0)
        session = replace(session, seen=(severity,) if severity else (), strokes=(), region=False)
        return (session, self._listing(session, *asked), self._stage(session, look, kind, severity),
                self._noise(session, look, kind, severity), "")  # fmt: skip

    def picked(self, session: Session, *inputs: Any) -> tuple:
        """The image that was clicked on in the list."""
        *rest, event = inputs
        asked, looks = rest[:4], rest[4:]
        key = _sent(event).get("key", session.key)
        known = isinstance(key, int) and 0 <= key < self.collection.page(self.everything).of
        return self._image(replace(session, key=key if known else session.key), asked, looks)

    def stepped(self, session: Session, *inputs: Any) -> tuple:
        """The next or the previous image of the list."""
        *rest, event = inputs
        asked, looks = rest[:4], rest[4:]
        by = 1 if _sent(event).get("by", 0) > 0 else -1
        found = self.collection.neighbour(session.key, by, self._wanted(session, *asked))
        if found is not None:
            session = replace(session, key=found[0], page=found[1])
        return self._image(session, asked, looks)

    def erased(self, session: Session, *inputs: Any) -> tuple[Session, str]:
        """A region was drawn."""
        *looks, event = inputs
        sent = _sent(event)
        if sent.get("key") != session.key:
            return session, ""
        strokes = tuple(tuple(map(tuple, stroke)) for stroke in sent.get("strokes") or ())
        session = replace(session, strokes=strokes, radius=float(sent.get("radius") or 0.07), region=bool(strokes))
        return session, self._region(session, self._look(*looks[:5]), *looks[5:])

    def _region(self, session: Session, look: Appearance, kind: str, severity: float) -> str:
        if not session.region:
            return ""
        column = look.classes[0] if look.classes else 0
        return self.viewer.erased(
            session.key, kind or "", int(severity or 0), session.strokes, session.radius, look.methods, column
        )

    def numbers(self, session: Session) -> str:
        """The scores of the image."""
        return pages.numbers(self.collection.numbers(session.key))

    # --- the page ---

    def blocks(self) -> gr.Blocks:
        """The page with its events."""
        with gr.Blocks(title="heatproof view", analytics_enabled=False, fill_width=True) as page:
            session = Session(self.first)
            state = gr.State(session)
            _html(pages.heading(self.collection, self.viewer.hints))
            with gr.Row():
                with gr.Column(scale=1, min_width=250):
                    asked, listing, earlier, later = self._list_part(session)
                with gr.Column(scale=4, min_width=300):
                    looks, stage, noise, region, numbers = self._stage_part(session)
            self._events(state, asked, listing, earlier, later, looks, stage, noise, region, numbers)
        return page

    def _list_part(self, session: Session) -> tuple:
        with gr.Accordion("Filter and sort", open=False, elem_id="hp-finding"):
            filters = gr.CheckboxGroup(
                [(FILTERS[name], name) for name in self.collection.filters],
                label="Show only",
                elem_id="hp-filters",
                visible=bool(self.collection.filters),
            )
            text = gr.Textbox(label="Name or class contains", max_lines=1, elem_id="hp-search")
            orders = [(label, name) for name, label in ORDERS.items() if self._can_order(name)]
            order = gr.Dropdown(orders, value="name", label="Sort by", elem_id="hp-order")
            score = gr.Dropdown(
                list(self.collection.scores), value=self.score or None, label="Score", elem_id="hp-score",
                visible=bool(self.collection.scores), info="What “low score” and “methods disagree” go by.",
            )  # fmt: skip
        asked = [filters, text, order, score]
        first = self._listing(session, [], "", "name", self.score)
        listing = _html(first, js_on_load=pages.asset("listing.js"), elem_id="hp-listing")
        several = self.collection.page(self.everything).pages > 1
        with gr.Row(visible=several):
            earlier = gr.Button("Page before", size="sm", min_width=60)
            later = gr.Button("Next page", size="sm", min_width=60, elem_id="hp-later")
        return asked, listing, earlier, later

    def _can_order(self, name: str) -> bool:
        scored = bool(self.collection.scores)
        noisy, apart = bool(self.collection.kinds), scored or "apart" in self.collection.filters
        return {"score": scored, "fragile": noisy, "apart": apart}.get(name, True)

    def _stage_part(self, session: Session) -> tuple:
        with gr.Row():
            titles = gr.Dropdown(self.titles, value=self.shown_first, multiselect=True, label="Methods side by side",
                                 elem_id="hp-methods", scale=3, min_width=220)  # fmt: skip
            layers = gr.Dropdown(self.layers, value=[], multiselect=True, label="Layers (all, if none is named)",
                                 elem_id="hp-layers", visible=bool(self.layers), scale=2, min_width=180)  # fmt: skip
            classes = gr.Dropdown([(name, at) for at, name in enumerate(self.classes)], value=[], multiselect=True,
                                  label="Classes explained (all, if none is named)", elem_id="hp-classes",
                                  visible=len(self.classes) > 1, scale=2, min_width=180)  # fmt: skip
        look = self._look(self.shown_first, [], [], 0.5, 0.0)
        kind = self.kinds[0] if self.kinds else ""
        stage = _html(self._stage(session, look, kind, 0), js_on_load=pages.asset("view.js"), elem_id="hp-stage")
        region = _html("", elem_id="hp-region")
        with gr.Row():
            opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the maps", elem_id="hp-opacity", min_width=200)
            threshold = gr.Slider(0, 1, 0, step=0.05, label="Hide the map below", elem_id="hp-threshold", min_width=200)
        with gr.Row(visible=bool(self.kinds)):
            kinds = gr.Dropdown(self.kinds, value=kind or None, label="Noise", elem_id="hp-kind", min_width=200)
            severity = gr.Slider(0, 5, 0, step=1, label="Severity of the noise", elem_id="hp-severity", min_width=200)
        noise = _html(self._noise(session, look, kind, 0), elem_id="hp-noise")
        with gr.Accordion("Scores of this image", open=True, visible=bool(self.collection.scores)):
            numbers = _html(self.numbers(session) if self.collection.scores else "", elem_id="hp-numbers")
        return [titles, layers, classes, opacity, threshold, kinds, severity], stage, noise, region, numbers

    def _events(self, state: Any, asked: list, listing: Any, earlier: Any, later: Any, looks: list, stage: Any,
                noise: Any, region: Any, numbers: Any) -> None:  # fmt: skip
        titles, layers, classes, opacity, threshold, kinds, severity = looks
        latest: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}
        for one in (opacity, threshold):
            one.input(self.looked, [state, *looks], stage, **latest)
        for one in (titles, layers, classes):
            one.input(self.rechosen, [state, *looks], [stage, noise, region], **latest)
        moved = [state, severity, stage, noise, region]
        severity.input(self.moved, [state, *looks], moved, **latest)
        kinds.input(self.other_noise, [state, *looks], moved, **latest)
        stage.noise(self.noise_key, [state, *looks], moved, **latest)
        for one in asked:
            one.change(self.filtered, [state, *asked], [state, listing], **latest)
        earlier.click(lambda *given: self.turned(-1, *given), [state, *asked], [state, listing], **QUICK)
        later.click(lambda *given: self.turned(1, *given), [state, *asked], [state, listing], **QUICK)
        image = [state, listing, stage, noise, region]
        for event, answer in ((listing.choose, self.picked), (stage.step, self.stepped)):
            done = event(_with_event(answer), [state, *asked, *looks], image, **latest)
            if self.collection.scores:
                done.then(self.numbers, state, numbers, **QUICK)
        stage.erase(_with_event(self.erased), [state, *looks], [state, region], **latest)
        stage.clear(lambda session: (replace(session, strokes=(), region=False), ""), state, [state, region], **QUICK)


def _html(text: str, **settings: Any) -> Any:
    """HTML in the viewer's own style."""
    return gr.HTML(text, apply_default_css=False, **{"js_on_load": None, **settings})


def _with_event(answer: Any) -> Any:
    """A function as gradio calls it, with what the browser sent as the last argument."""

    def called(event: gr.EventData, *inputs: Any) -> Any:
        return answer(*inputs, event)

    return called


def _sent(event: gr.EventData) -> dict[str, Any]:
    """What the browser sent with an event."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def style() -> str:
    """The style of the page, with the colours of the maps."""
    palette = Look().palette
    stops = ", ".join("rgb({}, {}, {})".format(*palette[at]) for at in range(0, 256, 32))
    return pages.asset("view.css").replace("BAR", stops)


def theme() -> Any:
    """Gradio's plainest theme with the fonts of the system, so that none is fetched."""
    from gradio.themes import Base

    return Base(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], spacing_size="sm", text_size="md"
    )
