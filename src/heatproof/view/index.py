"""The images of a study as a table, from its rows: filters, orders and pages are answered without loading all of them.

An image is one of a model and a dataset. Of a metric it has the mean over the methods that are no control, and the
spread between them, largest minus smallest; a metric that compares with the clean map is averaged over the noise first.
A score is *low* in the worst tenth of the images of a model and dataset, and methods *disagree* where the spread is in
the largest tenth. Controls count in neither.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heatproof.panels.explained_image import ClassProbability
from heatproof.statistics.score_tables import better
from heatproof.statistics.special_rows import CURVE, PEAK, PROJECTION
from heatproof.studies.store import connect, duckdb_path, shards
from heatproof.view.interface import APART, BROKEN, CHANGED, LOW, PAGE, WRONG, ListPage, ListRow, Number, Wanted

#: The share of the images that is called low, or apart.
TENTH = 0.1

#: What the rows hold, in few rows.
_KINDS = """
SELECT DISTINCT metric, method, control, layers, perturbation, severity, reference, value IS NOT NULL FROM here
"""
_IMAGES = """
CREATE TABLE images AS
SELECT row_number() OVER (ORDER BY model, dataset, image) - 1 AS key, * FROM (
    SELECT model, dataset, image, any_value(filename) AS file,
           max(clean_class) FILTER (reference AND method = '') AS predicted,
           max(clean_probability) FILTER (reference AND method = '') AS probability,
           coalesce(bool_or(value = 0) FILTER (reference AND metric = 'correct' AND method = '' AND flag = ''), false)
               AS wrong,
           coalesce(min(severity) FILTER (perturbation <> '' AND changed), 0) AS turns_at,
           CASE WHEN bool_and(flag <> '') THEN min(flag) ELSE '' END AS why
    FROM here GROUP BY model, dataset, image)
"""
#: The scores of methods that are no controls, a few bytes each; a metric of pairs is averaged over its conditions.
_SCORES = """
CREATE TABLE scores AS
SELECT key::INTEGER AS key, metric::scored AS metric, method::explaining AS method, avg(value) AS value
FROM here JOIN images USING (model, dataset, image)
WHERE method <> '' AND NOT control AND metric IN ({metrics}) AND isfinite(value)
GROUP BY ALL
"""
_MARKS = """
CREATE TABLE {name} AS
WITH each AS (
    SELECT key, model, dataset, avg(value) AS score, max(value) - min(value) AS spread
    FROM scores JOIN images USING (key) WHERE metric = ? GROUP BY ALL)
SELECT key, score, spread,
       {sign} * score < quantile_cont({sign} * score, {tenth}) OVER w AS low,
       spread > quantile_cont(spread, 1 - {tenth}) OVER w AS apart
FROM each WINDOW w AS (PARTITION BY model, dataset)
"""
#: Without a score there are no marks.
_UNMARKED = "(SELECT NULL::BIGINT AS key, NULL::DOUBLE AS score, NULL::DOUBLE AS spread, false AS low, false AS apart)"
_OWN = """
SELECT metric, method, avg(value) FILTER (isfinite(value)), max(flag), count(*), NOT bool_or(reference)
FROM {here} WHERE image = ? AND model = ? AND dataset = ? AND method <> '' AND NOT control AND metric IN ({metrics})
GROUP BY metric, method ORDER BY metric, method
"""
_STANDING = """
WITH mine AS (SELECT metric, method, value FROM scores WHERE key = ?)
SELECT o.metric, o.method, count(*) FILTER (o.key <> ? AND o.value < m.value),
       count(*) FILTER (o.key <> ? AND o.value > m.value), count(*)
FROM scores o JOIN mine m USING (metric, method) JOIN images i ON i.key = o.key
WHERE i.model = ? AND i.dataset = ? GROUP BY o.metric, o.method
"""

#: SQL: a text of a table without the apostrophe that `files.without_formulas` puts before a formula.
_AS_STORED = r"""regexp_replace({}, '^''([=+@\t\r-])', '\1')"""


class ImageIndex:
    """The table of the images of a study. One query runs at a time.

    facts: metric → what `study.json` says of it. names: model → names of its classes.

    Attributes:
        metrics: those with a value, comparisons with the clean map last. noise: kind of noise → severities measured.
        methods: method → (whether it is a control, its layers). filters: those to which some row could answer.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], names: Mapping[str, Sequence[str]]):
        self._lock, self._names, self._facts = threading.RLock(), names, facts
        self._marked: dict[str, str] = {}
        self._rows = connect(folder)
        self._condition = self._here(folder)
        kinds = self._rows.execute(_KINDS).fetchall()
        self._rows.execute(_IMAGES)
        self._take(kinds)
        self._decided = self._decide(folder / "tables" / "per_image.csv")
        self._several = self.ask("SELECT count(*) FROM (SELECT DISTINCT model, dataset FROM images)")[0][0] > 1

    def _here(self, folder: Path) -> str:
        """Makes the view `here`: the reference, and noise on it, of the class that the reference explains.

        Returns how it is told from `read_parquet`, so that one image can be read from its own file.
        """
        columns = {row[0] for row in self._rows.execute("DESCRIBE rows").fetchall()}
        reference = "" if "reference" in columns else ", perturbation = '' AND transformation = '' AND state = ''"
        target = self._rows.execute("SELECT min(target) FROM rows WHERE reference").fetchall()[0][0]
        same = "true" if target is None else f"target = {_text(target)}"
        condition = (
            f"(SELECT * FROM (SELECT *{reference and f'{reference} AS reference'} FROM read_parquet([{{files}}], "
            f"filename = true)) WHERE reference OR (transformation = '' AND state = '' AND {same}))"
        )
        files = ", ".join(_text(duckdb_path(str(path))) for path in shards(folder))
        self._rows.execute("CREATE VIEW here AS SELECT * FROM " + condition.format(files=files))
        return condition

    def _take(self, kinds: Sequence[tuple]) -> None:
        """What there is, from the kinds of rows; and the table of scores."""
        noise: dict[str, set[int]] = {}
        self.methods: dict[str, tuple[bool, str]] = {}
        scored: dict[str, bool] = {}
        for metric, method, control, layers, perturbation, severity, reference, valued in kinds:
            if perturbation:
                noise.setdefault(perturbation, set()).add(int(severity))
            if method:
                self.methods[method] = (bool(control), layers or self.methods.get(method, (False, ""))[1])
                if valued and not control and metric not in (PROJECTION, PEAK) and not metric.endswith(CURVE):
                    scored[metric] = scored.get(metric, False) or bool(reference)
        self.noise = {kind: sorted(found) for kind, found in sorted(noise.items())}
        self.metrics = sorted(scored, key=lambda metric: (not scored[metric], metric))
        broken = self.ask("SELECT count(*) FROM images WHERE why <> ''")[0][0]
        there = ((CHANGED, noise), (WRONG, any(row[0] == "correct" for row in kinds)), (LOW, scored), (APART, scored),
                 (BROKEN, broken))  # fmt: skip
        self.filters = [name for name, found in there if found]
        if self.metrics:
            real = [method for method, (control, _) in self.methods.items() if not control]
            self._rows.execute(f"CREATE TYPE scored AS ENUM ({self._metrics})")
            self._rows.execute(f"CREATE TYPE explaining AS ENUM ({', '.join(map(_text, real))})")
            self._rows.execute(_SCORES.format(metrics=self._metrics))

    @property
    def _metrics(self) -> str:
        return ", ".join(map(_text, self.metrics))

    def _decide(self, table: Path) -> bool:
        """Reads an audit's decisions; whether there are any."""
        if not table.is_file():
            return False
        try:
            names = ", ".join(
                f"{_AS_STORED.format(name)} AS {name}" for name in ("model", "dataset", "image", "method")
            )
            self._rows.execute(
                f"CREATE TABLE decisions AS SELECT key, method, decision, reason FROM (SELECT * REPLACE ({names}) FROM "
                "read_csv(?, all_varchar = true)) JOIN images USING (model, dataset, image)", [str(table)],
            )  # fmt: skip
        except Exception:  # a table of another version
            return False
        return True

    def decisions(self, key: int) -> dict[str, tuple[str, str]]:
        """Method → an audit's decision on its map of an image, and the reason."""
        if not self._decided:
            return {}
        found = self.ask("SELECT method, decision, coalesce(reason, '') FROM decisions WHERE key = ?", key)
        return {str(method): (str(decision), str(reason)) for method, decision, reason in found}

    def ask(self, query: str, *values: Any) -> list[tuple]:
        """The rows that a query gives."""
        with self._lock:
            return self._rows.execute(query, list(values)).fetchall()

    def place(self, key: int) -> tuple[str, str, str, str]:
        """(model, dataset, image, file of its rows)."""
        return self.ask("SELECT model, dataset, image, file FROM images WHERE key = ?", key)[0]  # type: ignore[return-value]

    def own(self, key: int, query: str, *values: Any) -> list[tuple]:
        """The rows of a query on the file of one image; `{here}` in it stands for the rows."""
        return self.ask(
            query.replace("{here}", self._condition.format(files=_text(duckdb_path(self.place(key)[3])))), *values
        )

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list; a page beyond the end becomes the last."""
        query, values = self._listed(wanted)
        total, of = self.ask(f"SELECT count(*), (SELECT count(*) FROM images) FROM ({query})", *values)[0]
        number = max(0, min(wanted.page, -(-total // PAGE) - 1))
        rows = self.ask(f"SELECT * FROM ({query}) ORDER BY position LIMIT {PAGE} OFFSET {number * PAGE}", *values)
        return ListPage(tuple(map(self._row, rows)), total, of, number)

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further; the first where `key` is not in the list."""
        query, values = self._listed(wanted)
        here = self.ask(f"SELECT position FROM ({query}) WHERE key = ?", *values, key)
        position = here[0][0] + step if here else 1
        found = self.ask(f"SELECT key, position FROM ({query}) WHERE position = ?", *values, position)
        return (int(found[0][0]), (int(found[0][1]) - 1) // PAGE) if found else None

    def numbers(self, key: int) -> list[Number]:
        """All scores of an image, each with the share of the other images that score worse."""
        if not self.metrics:
            return []
        model, dataset, image, _ = self.place(key)
        standing = {row[:2]: row[2:] for row in self.ask(_STANDING, key, key, key, model, dataset)}
        found = []
        for metric, method, value, flag, conditions, paired in self.own(
            key, _OWN.replace("{metrics}", self._metrics), image, model, dataset
        ):
            below, above, n = standing.get((metric, method), (0, 0, 0))
            worse = {"high": below, "low": above}.get(better(self._facts, metric))
            share = worse / (n - 1) if worse is not None and n > 1 and value is not None else float("nan")
            told = f"mean of {conditions} comparisons" if paired else ""
            summary = str((self._facts.get(metric) or {}).get("summary", ""))
            value = float("nan") if value is None else float(value)
            found.append(Number(metric, method, value, flag or "", share, int(n), summary, told))
        return found

    # --- the list ---

    def _marks(self, score: str) -> str:
        """The table of the marks that a score gives; made when it is first asked for."""
        with self._lock:
            if score not in self.metrics:
                return _UNMARKED
            if score not in self._marked:
                name = f"marks_{len(self._marked)}"
                sign = -1 if better(self._facts, score) == "low" else 1
                self._rows.execute(_MARKS.format(name=name, sign=sign, tenth=TENTH), [score])
                self._marked[score] = name
            return self._marked[score]

    def _listed(self, wanted: Wanted) -> tuple[str, list[Any]]:
        """The query for all rows of a list, with `position` from 1, and its values."""
        marks = self._marks(wanted.score)
        conditions = {CHANGED: "turns_at > 0", WRONG: "wrong", LOW: "low", APART: "apart", BROKEN: "why <> ''"}
        where = [f"coalesce({conditions[name]}, false)" for name in sorted(wanted.filters)]
        values: list[Any] = []
        if wanted.text.strip():
            named, classes = self._named(wanted.text)
            where.append(f"(contains(lower(image), ?){named})")
            values = [wanted.text.strip().lower(), *classes]
        sign = -1 if better(self._facts, wanted.score) == "low" else 1
        order = {
            "probability": "probability NULLS LAST, key",
            "fragile": "nullif(turns_at, 0) NULLS LAST, key",
            "score": f"{sign} * score NULLS LAST, key",
            "apart": "spread DESC NULLS LAST, key",
        }.get(wanted.order, "key")
        query = (
            "SELECT key, model, dataset, image, predicted, probability, turns_at, wrong, coalesce(low, false) AS low, "
            f"coalesce(apart, false) AS apart, why, row_number() OVER (ORDER BY {order}) AS position "
            f"FROM images LEFT JOIN {marks} USING (key)" + (f" WHERE {' AND '.join(where)}" if where else "")
        )
        return query, values

    def _named(self, text: str) -> tuple[str, list[Any]]:
        """SQL for images whose predicted class has the text in its name, and its values."""
        parts, values = "", []
        for model, names in self._names.items():
            found = [index for index, name in enumerate(names) if text.strip().lower() in str(name).lower()]
            if found:
                parts += f" OR (model = ? AND predicted IN ({', '.join(map(str, found))}))"
                values.append(model)
        return parts, values

    def _row(self, row: tuple) -> ListRow:
        key, model, dataset, image, predicted, probability, turns_at, wrong, low, apart, why, _ = row
        marks = ((CHANGED, bool(turns_at)), (WRONG, wrong), (LOW, low), (APART, apart), (BROKEN, bool(why)))
        name = self.name(model, dataset, image)
        flags = tuple(mark for mark, on in marks if on)
        return ListRow(int(key), name, self.says(model, predicted, probability), flags, why, int(turns_at))

    def name(self, model: str, dataset: str, image: str) -> str:
        """An image for people, with model and dataset where there are several."""
        return f"{image} ({model}, {dataset})" if self._several else image

    def says(self, model: str, predicted: int | None, probability: float | None) -> str:
        """`hen, 42 %`; empty where nothing is predicted."""
        if predicted is None:
            return ""
        names = self._names.get(model) or ()
        name = str(names[predicted]) if predicted < len(names) else ""
        return ClassProbability(predicted, name, float("nan") if probability is None else probability).short


def _text(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + str(text).replace("'", "''") + "'"
