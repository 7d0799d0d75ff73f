"""The page: gradio's components, and which part of the page shows the answer to which event."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from heatproof.report.overlay import Look
from heatproof.view import choices, pages
from heatproof.view.answers import Answers, Chosen, Found, Session
from heatproof.view.interface import FILTERS, ORDERS, Wanted
from heatproof.view.viewer import Viewer

#: What every event says: no progress bar over the page, answered at once.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
#: Of many events of one kind the last is answered.
LATEST: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}
#: The number of inputs of `Found`.
FOUND = len(Found._fields)


class Page:
    """The page of a viewer; `blocks` is what gradio serves."""

    def __init__(self, viewer: Viewer):
        self.viewer, self.collection, self.answers = viewer, viewer.collection, Answers(viewer)
        entry = viewer.shown(self.answers.first, "", 0).entry
        self.titles, self.layers = choices.titles(viewer.methods), choices.layers(viewer.methods)
        self.classes = [block.answer.full for block in entry.blocks]
        self.found = Found(score=self.answers.score)
        kind = viewer.kinds[0] if viewer.kinds else ""
        self.chosen = Chosen(choices.first_titles(viewer.methods, entry), kind=kind)

    def blocks(self) -> gr.Blocks:
        """The page with its events."""
        with gr.Blocks(title="heatproof view", analytics_enabled=False, fill_width=True) as page:
            session = Session(self.answers.first)
            state = gr.State(session)
            _html(pages.heading(self.collection, self.viewer.hints, bool(self.viewer.kinds)))
            with gr.Row():
                with gr.Column(scale=1, min_width=250):
                    found, listing = self._list_part(session, state)
                with gr.Column(scale=4, min_width=300):
                    self._stage_part(session, state, found, listing)
        return page

    # --- the list ---

    def _list_part(self, session: Session, state: Any) -> tuple[list, Any]:
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
                list(self.collection.scores),
                value=self.answers.score or None,
                label="Score",
                info="What “low score” and “methods disagree” go by.",
                elem_id="hp-score",
                visible=bool(self.collection.scores),
            )
        found = [filters, text, order, score]
        first = self.answers.listing(session, self.found)
        listing = _html(first, js_on_load=pages.asset("listing.js"), elem_id="hp-listing")
        with gr.Row(visible=self.collection.page(Wanted(score=self.answers.score)).pages > 1):
            earlier = gr.Button("Previous page", size="sm", min_width=60)
            later = gr.Button("Next page", size="sm", min_width=60, elem_id="hp-later")
        answers, shown = self.answers, [state, listing]
        gr.on([one.change for one in found], lambda session, *given: answers.filtered(session, Found(*given)),
              [state, *found], shown, **LATEST)  # fmt: skip
        for button, by in ((earlier, -1), (later, 1)):
            turned = lambda session, *given, by=by: answers.turned(session, Found(*given), by)  # noqa: E731
            button.click(turned, [state, *found], shown, **QUICK)
        return found, listing

    def _can_order(self, name: str) -> bool:
        scored, filters = bool(self.collection.scores), self.collection.filters
        known = {"score": scored, "fragile": bool(self.collection.kinds), "apart": scored or "apart" in filters}
        return known.get(name, True)

    # --- the stage ---

    def _stage_part(self, session: Session, state: Any, found: list, listing: Any) -> None:
        with gr.Row():
            titles = self._several(self.titles, self.chosen.titles, "Methods side by side", "hp-methods", 3)
            layers = self._several(self.layers, [], "Layers (all, if none is named)", "hp-layers", 2)
            classes = self._several(
                [(name, at) for at, name in enumerate(self.classes)] if len(self.classes) > 1 else [],
                [],
                "Classes explained (all, if none is named)",
                "hp-classes",
                2,
            )
        drawn = self.answers.stage(session, self.chosen) or ""
        stage = _html(drawn, js_on_load=pages.asset("view.js"), elem_id="hp-stage")
        region = _html("", elem_id="hp-region")
        with gr.Row():
            opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the maps", elem_id="hp-opacity", min_width=200)
            threshold = gr.Slider(0, 1, 0, step=0.05, label="Hide the map below", elem_id="hp-threshold", min_width=200)
        kinds = self.viewer.kinds
        with gr.Row(visible=bool(kinds)):
            kind = gr.Dropdown(kinds, value=self.chosen.kind or None, label="Noise", elem_id="hp-kind", min_width=200)
            severity = gr.Slider(0, 5, 0, step=1, label="Severity of the noise", elem_id="hp-severity", min_width=200)
        noise = _html(self.answers.noise(session, self.chosen), elem_id="hp-noise")
        scored = bool(self.collection.scores)
        with gr.Accordion("Scores of this image", open=True, visible=scored):
            numbers = _html(self.answers.numbers(session) if scored else "", elem_id="hp-numbers")
        chosen = [titles, layers, classes, opacity, threshold, kind, severity]
        self._changes(state, chosen, stage, noise, region)
        self._images(state, found, chosen, listing, stage, noise, region, numbers)

    def _several(self, offered: Sequence, value: Any, label: str, name: str, scale: int) -> Any:
        return gr.Dropdown(
            list(offered), value=value, multiselect=True, label=label, elem_id=name, visible=bool(offered), scale=scale,
            min_width=180,
        )  # fmt: skip

    def _changes(self, state: Any, chosen: list, stage: Any, noise: Any, region: Any) -> None:
        """What is shown of one image. One answer at a time for each part: an earlier one cannot come after a later."""
        titles, layers, classes, opacity, threshold, kind, severity = chosen
        given, answers = [state, *chosen], self.answers
        of = lambda answer: lambda session, *values: answer(session, Chosen(*values))  # noqa: E731
        gr.on([opacity.input, threshold.input], _fresh(of(answers.stage), 1), given, stage, **LATEST)
        rechosen = _fresh(of(answers.rechosen), 3)
        gr.on([one.input for one in (titles, layers, classes)], rechosen, given, [stage, noise, region], **LATEST)
        moved = [state, severity, stage, noise, region]
        severity.input(_fresh(of(answers.moved), 5), given, moved, **LATEST)
        kind.input(_fresh(of(answers.other_noise), 5), given, moved, **LATEST)

        def by_key(event: gr.EventData, session: Session, *values: Any) -> Any:
            return answers.moved(session, Chosen(*values), _step(event))

        def erased(event: gr.EventData, session: Session, *values: Any) -> Any:
            return answers.erased(session, Chosen(*values), _sent(event))

        stage.noise(_fresh_event(by_key, 5), given, moved, **LATEST)
        stage.erase(_fresh_event(erased, 2), given, [state, region], **LATEST)
        stage.clear(answers.cleared, state, [state, region], **QUICK)

    def _images(self, state: Any, found: list, chosen: list, listing: Any, stage: Any, noise: Any, region: Any,
                numbers: Any) -> None:  # fmt: skip
        """Another image; its scores follow."""
        answers = self.answers

        def picked(event: gr.EventData, session: Session, *values: Any) -> Any:
            parts = Found(*values[:FOUND]), Chosen(*values[FOUND:])
            return answers.picked(session, *parts, _sent(event).get("key"))

        def stepped(event: gr.EventData, session: Session, *values: Any) -> Any:
            parts = Found(*values[:FOUND]), Chosen(*values[FOUND:])
            return answers.stepped(session, *parts, _step(event))

        image = [state, listing, stage, noise, region]
        for event, answer in ((listing.choose, picked), (stage.step, stepped)):
            done = event(_fresh_event(answer, 5), [state, *found, *chosen], image, **LATEST)
            if self.collection.scores:
                done.then(answers.numbers, state, numbers, **QUICK)


def _fresh(answer: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """An answer as gradio takes it: one that comes too late changes nothing."""

    def called(session: Session, *values: Any) -> Any:
        return _or_skip(answer(session, *values), outputs)

    return called


def _fresh_event(answer: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """The same for an answer that takes what the browser sent."""

    def called(event: gr.EventData, session: Session, *values: Any) -> Any:
        return _or_skip(answer(event, session, *values), outputs)

    return called


def _or_skip(found: Any, outputs: int) -> Any:
    if found is not None:
        return found
    return gr.skip() if outputs == 1 else tuple(gr.skip() for _ in range(outputs))


def _sent(event: gr.EventData) -> dict[str, Any]:
    """What the browser sent with an event."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def _step(event: gr.EventData) -> int:
    """One forward or back."""
    by = _sent(event).get("by", 1)
    return -1 if isinstance(by, int | float) and by < 0 else 1


def _html(text: str, **settings: Any) -> Any:
    """HTML in the viewer's own style."""
    return gr.HTML(text, apply_default_css=False, **{"js_on_load": None, **settings})


def style() -> str:
    """The style of the page, with the colours of the maps, for its head: gradio would rewrite what it gets as `css`."""
    palette = Look().palette
    stops = ", ".join("rgb({}, {}, {})".format(*palette[at]) for at in range(0, 256, 32))
    return f"<style>{pages.asset('view.css').replace('BAR', stops)}</style>"


def theme() -> Any:
    """Gradio's plainest theme with the fonts of the system, so that none is fetched."""
    from gradio.themes import Base

    return Base(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], spacing_size="sm", text_size="md"
    )
