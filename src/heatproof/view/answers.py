"""What the page answers to every event, as plain values: no browser and no gradio is needed to call it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from heatproof.view import choices, pages
from heatproof.view.interface import Appearance, ListPage, Wanted
from heatproof.view.viewer import Viewer

#: The radius of the brush before anybody has changed it, as a share of the image's width.
RADIUS = 0.07


class Found(NamedTuple):
    """What the list is asked for: filters, a text, an order and a score, as the components hold them."""

    filters: Sequence[str] | None = ()
    text: str | None = ""
    order: str | None = "name"
    score: str | None = ""


class Chosen(NamedTuple):
    """What the stage is to show, as the components hold it."""

    titles: Sequence[str] | None = ()
    layers: Sequence[str] | None = ()
    classes: Sequence[int] | None = ()
    opacity: float = 0.5
    threshold: float = 0.0
    kind: str | None = ""
    severity: float | None = 0


@dataclass
class Latest:
    """The image that a browser asked for last, known before its answer is there."""

    key: int


@dataclass(frozen=True)
class Session:
    """What one browser looks at.

    Attributes:
        key: the image. page: of the list. seen: the severities that were asked for. strokes, radius: of the brush.
        latest: shared by all states of one browser; an answer for another image comes too late.
    """

    key: int
    page: int = 0
    seen: tuple[int, ...] = ()
    strokes: tuple = ()
    radius: float = RADIUS
    latest: Latest = field(default_factory=lambda: Latest(-1), compare=False)

    @property
    def late(self) -> bool:
        """Whether another image was asked for in the meantime."""
        return self.latest.key not in (-1, self.key)


class Answers:
    """Answers of a viewer. An answer that comes too late is None."""

    def __init__(self, viewer: Viewer):
        self.viewer, self.collection = viewer, viewer.collection
        self.first = viewer.first()
        self.score = next(iter(self.collection.scores), "")
        self.count = self.page(Session(self.first), Found()).of

    def page(self, session: Session, found: Found) -> ListPage:
        """The page of the list."""
        return self.collection.page(self._wanted(session, found))

    def listing(self, session: Session, found: Found) -> str:
        """The list."""
        return pages.listing(self.page(session, found), session.key)

    def filtered(self, session: Session, found: Found) -> tuple[Session, str]:
        """The first page of the list under other filters."""
        session = replace(session, page=0)
        return session, self.listing(session, found)

    def turned(self, session: Session, found: Found, by: int) -> tuple[Session, str]:
        """Another page of the list."""
        page = self.page(replace(session, page=max(0, session.page + by)), found)
        return replace(session, page=page.number), pages.listing(page, session.key)

    def stage(self, session: Session, chosen: Chosen) -> str | None:
        """The image and its maps."""
        drawn = self._stage(session, chosen)
        return None if session.late else drawn

    def rechosen(self, session: Session, chosen: Chosen) -> tuple[str, str, str] | None:
        """Stage, noise and region for other methods, layers or classes."""
        drawn = self._stage(session, chosen), self.noise(session, chosen), self._region(session, chosen)
        return None if session.late else drawn

    def moved(self, session: Session, chosen: Chosen, by: int = 0) -> tuple[Session, int, str, str, str] | None:
        """Another severity, or `by` steps from it: session, the severity that there is, stage, noise, region."""
        offered = self.viewer.severities(chosen.kind or "")
        here = offered.index(choices.nearest(float(chosen.severity or 0), offered))
        severity = offered[min(max(here + by, 0), len(offered) - 1)]
        session = replace(session, seen=tuple(sorted({*session.seen, severity} - {0})))
        drawn = self.rechosen(session, chosen._replace(severity=severity))
        return None if drawn is None else (session, severity, *drawn)

    def other_noise(self, session: Session, chosen: Chosen) -> tuple[Session, int, str, str, str] | None:
        """Another kind of noise: what was seen of the one before is forgotten."""
        return self.moved(replace(session, seen=()), chosen)

    def picked(self, session: Session, found: Found, chosen: Chosen, key: Any) -> tuple | None:
        """An image of the list: session, list, stage, noise and no region."""
        known = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < self.count
        return self._image(replace(session, key=key) if known else session, found, chosen)

    def stepped(self, session: Session, found: Found, chosen: Chosen, by: int) -> tuple | None:
        """The next or the previous image of the list; the same at its ends."""
        next_one = self.collection.neighbour(session.key, by, self._wanted(session, found))
        if next_one is not None:
            session = replace(session, key=next_one[0], page=next_one[1])
        return self._image(session, found, chosen)

    def erased(self, session: Session, chosen: Chosen, sent: Mapping[str, Any]) -> tuple[Session, str] | None:
        """A region was drawn: `sent` has the key of the image, strokes and radius."""
        if sent.get("key") != session.key or session.late:
            return None
        strokes = tuple(tuple(map(tuple, stroke)) for stroke in sent.get("strokes") or ())
        session = replace(session, strokes=strokes, radius=float(sent.get("radius") or RADIUS))
        drawn = self._region(session, chosen)
        return None if session.late else (session, drawn)

    def cleared(self, session: Session) -> tuple[Session, str]:
        """No region."""
        return replace(session, strokes=()), ""

    def noise(self, session: Session, chosen: Chosen) -> str:
        """The table of noise."""
        kind, severity = chosen.kind or "", int(chosen.severity or 0)
        return self.viewer.noise(session.key, kind, severity, session.seen, self._look(chosen).methods)

    def numbers(self, session: Session) -> str:
        """The scores of the image."""
        return pages.numbers(self.collection.numbers(session.key))

    # --- parts ---

    def _wanted(self, session: Session, found: Found) -> Wanted:
        filters, score = frozenset(found.filters or ()), found.score or self.score
        return Wanted(filters, found.text or "", found.order or "name", score, session.page)

    def _look(self, chosen: Chosen) -> Appearance:
        methods = choices.chosen(self.viewer.methods, chosen.titles or (), chosen.layers or ())
        classes = sorted(chosen.classes or ())
        return Appearance([one.key for one in methods], classes, float(chosen.opacity), float(chosen.threshold))

    def _stage(self, session: Session, chosen: Chosen) -> str:
        kind, severity = chosen.kind or "", int(chosen.severity or 0)
        name = self.collection.name(session.key)
        return self.viewer.stage(session.key, name, kind, severity, self._look(chosen))

    def _image(self, session: Session, found: Found, chosen: Chosen) -> tuple | None:
        session.latest.key = session.key
        severity = int(chosen.severity or 0)
        session = replace(session, seen=(severity,) if severity else (), strokes=())
        stage = self._stage(session, chosen)  # before the list, which then knows the prediction
        drawn = session, self.listing(session, found), stage, self.noise(session, chosen), ""
        return None if session.late else drawn

    def _region(self, session: Session, chosen: Chosen) -> str:
        if not session.strokes:
            return ""
        look, kind, severity = self._look(chosen), chosen.kind or "", int(chosen.severity or 0)
        column = look.classes[0] if look.classes else 0
        return self.viewer.erased(session.key, kind, severity, session.strokes, session.radius, look.methods, column)
