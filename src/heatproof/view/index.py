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
from heatproof.studies.store import connect, shards
from heatproof.view.interface import APART, BROKEN, CHANGED, LOW, PAGE, WRONG, ListPage, ListRow, Number, Wanted

#: The share of the images that is called low, or apart.
TENTH = 0.1

#: The rows that the viewer reads: the reference, and noise on it, of the class that the reference explains.
_HERE = """
CREATE VIEW here AS SELECT * FROM rows WHERE reference OR (transformation = '' AND state = '' AND {same})
"""
_IMAGES = """
CREATE TABLE images AS
SELECT row_number() OVER (ORDER BY model, dataset, image) - 1 AS key, * FROM (
    SELECT model, dataset, image,
           max(clean_class) FILTER (reference AND method = '') AS predicted,
           max(clean_probability) FILTER (reference AND method = '') AS probability,
           coalesce(bool_or(value = 0) FILTER (reference AND metric = 'correct' AND method = '' AND flag = ''), false)
               AS wrong,
           coalesce(min(severity) FILTER (perturbation <> '' AND changed), 0) AS turns_at,
           CASE WHEN bool_and(flag <> '') THEN min(flag) ELSE '' END AS why
    FROM here GROUP BY model, dataset, image)
"""
#: A score of an image and method; a metric of pairs is averaged over the conditions that it was measured in.
_SCORES = f"""
CREATE VIEW scores AS
SELECT model, dataset, image, metric, method, any_value(control) AS control,
       avg(value) FILTER (isfinite(value)) AS value, max(flag) AS flag, count(*) AS conditions,
       NOT bool_or(reference) AS paired
FROM here
WHERE method <> '' AND metric NOT IN ('{PROJECTION}', '{PEAK}') AND NOT ends_with(metric, '{CURVE}')
GROUP BY model, dataset, image, metric, method
"""
_MARKS = """
CREATE TABLE {name} AS
WITH each AS (
    SELECT key, i.model, i.dataset, avg(value) AS score, max(value) - min(value) AS spread
    FROM scores s JOIN images i USING (model, dataset, image)
    WHERE metric = ? AND NOT control AND value IS NOT NULL GROUP BY ALL)
SELECT key, score, spread,
       {sign} * score < quantile_cont({sign} * score, {tenth}) OVER w AS low,
       spread > quantile_cont(spread, 1 - {tenth}) OVER w AS apart
FROM each WINDOW w AS (PARTITION BY model, dataset)
"""
_NUMBERS = """
WITH mine AS (SELECT * FROM scores WHERE model = ? AND dataset = ? AND image = ? AND NOT control)
SELECT m.metric, m.method, any_value(m.value), any_value(m.flag), any_value(m.conditions), any_value(m.paired),
       count(o.value) FILTER (o.image <> m.image AND o.value < m.value),
       count(o.value) FILTER (o.image <> m.image AND o.value > m.value),
       count(o.value)
FROM mine m LEFT JOIN (SELECT * FROM scores WHERE model = ? AND dataset = ? AND NOT control) o
     ON o.metric = m.metric AND o.method = m.method
GROUP BY m.metric, m.method ORDER BY m.metric, m.method
"""


class ImageIndex:
    """The table of the images of a study. One query runs at a time.

    facts: metric → what `study.json` says of it. names: model → names of its classes.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], names: Mapping[str, Sequence[str]]):
        self._lock, self._names, self._facts = threading.RLock(), names, facts
        self._marked: dict[str, str] = {}
        self._rows = connect(folder)
        files = [str(path) for path in shards(folder)]
        self._rows.read_parquet(files, filename=True).create_view("filed")
        target = self._rows.execute("SELECT min(target) FROM rows WHERE reference").fetchall()[0][0]
        quoted = "true" if target is None else "target = '" + str(target).replace("'", "''") + "'"
        self._rows.execute(_HERE.format(same=quoted))
        self._rows.execute(_IMAGES)
        self._rows.execute(_SCORES)
        self._rows.execute(
            "CREATE TABLE places AS SELECT key, any_value(filename) AS file FROM filed JOIN images "
            "USING (model, dataset, image) GROUP BY key"
        )
        self._decided = self._decide(folder / "tables" / "per_image.csv")

    def _decide(self, table: Path) -> bool:
        """Reads an audit's decisions; whether there are any."""
        if not table.is_file():
            return False
        try:
            self._rows.execute(
                "CREATE TABLE decisions AS SELECT key, method, decision, reason FROM read_csv(?, all_varchar = true) "
                "JOIN images USING (model, dataset, image)", [str(table)],
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

    @property
    def several(self) -> bool:
        """Whether there is more than one model or dataset."""
        return self.ask("SELECT count(*) FROM (SELECT DISTINCT model, dataset FROM images)")[0][0] > 1

    def metrics(self) -> list[str]:
        """The metrics with a value, those that are no comparison with the clean map first."""
        found = self.ask(
            "SELECT metric, bool_and(paired) AS p FROM scores WHERE value IS NOT NULL AND NOT control "
            "GROUP BY metric ORDER BY p, metric"
        )
        return [str(metric) for metric, _ in found]

    def noise(self) -> dict[str, list[int]]:
        """Kind of noise → the severities that were measured."""
        found: dict[str, list[int]] = {}
        query = "SELECT DISTINCT perturbation, severity FROM here WHERE perturbation <> '' ORDER BY 1, 2"
        for kind, severity in self.ask(query):
            found.setdefault(kind, []).append(int(severity))
        return found

    def filters(self) -> list[str]:
        """The filters to which some row could answer."""
        noise, wrong, broken = self.ask(
            "SELECT (SELECT count(*) FROM here WHERE perturbation <> '' LIMIT 1), "
            "(SELECT count(*) FROM here WHERE metric = 'correct' LIMIT 1), "
            "(SELECT count(*) FROM images WHERE why <> '')"
        )[0]
        scored = [LOW, APART] if self.metrics() else []
        return [*([CHANGED] if noise else []), *([WRONG] if wrong else []), *scored, *([BROKEN] if broken else [])]

    def place(self, key: int) -> tuple[str, str, str, str]:
        """(model, dataset, image, file of its rows)."""
        query = "SELECT model, dataset, image, file FROM images JOIN places USING (key) WHERE key = ?"
        return tuple(self.ask(query, key)[0])  # type: ignore[return-value]

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list; a page beyond the end becomes the last."""
        query, values = self._listed(wanted)
        total, of = self.ask(f"SELECT count(*), (SELECT count(*) FROM images) FROM ({query})", *values)[0]
        number = max(0, min(wanted.page, -(-total // PAGE) - 1))
        rows = self.ask(f"SELECT * FROM ({query}) ORDER BY position LIMIT {PAGE} OFFSET {number * PAGE}", *values)
        several = self.several
        return ListPage(tuple(self._row(row, several) for row in rows), total, of, number)

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further; the first where `key` is not in the list."""
        query, values = self._listed(wanted)
        here = self.ask(f"SELECT position FROM ({query}) WHERE key = ?", *values, key)
        position = here[0][0] + step if here else 1
        found = self.ask(f"SELECT key, position FROM ({query}) WHERE position = ?", *values, position)
        return (int(found[0][0]), (int(found[0][1]) - 1) // PAGE) if found else None

    def numbers(self, key: int) -> list[Number]:
        """All scores of an image, each with the share of the other images that score worse."""
        model, dataset, image, _ = self.place(key)
        found = []
        for metric, method, value, flag, conditions, paired, below, above, n in self.ask(
            _NUMBERS, model, dataset, image, model, dataset
        ):
            way = better(self._facts, metric)
            worse = {"high": below, "low": above}.get(way)
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

    def _row(self, row: tuple, several: bool) -> ListRow:
        key, model, dataset, image, predicted, probability, turns_at, wrong, low, apart, why, _ = row
        marks = ((CHANGED, bool(turns_at)), (WRONG, wrong), (LOW, low), (APART, apart), (BROKEN, bool(why)))
        name = f"{image} ({model}, {dataset})" if several else image
        flags = tuple(mark for mark, on in marks if on)
        return ListRow(int(key), name, self.says(model, predicted, probability), flags, why, int(turns_at))

    def says(self, model: str, predicted: int | None, probability: float | None) -> str:
        """`hen, 42 %`; empty where nothing is predicted."""
        if predicted is None:
            return ""
        names = self._names.get(model) or ()
        name = str(names[predicted]) if predicted < len(names) else ""
        return ClassProbability(predicted, name, float("nan") if probability is None else probability).short
