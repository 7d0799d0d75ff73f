"""Which images a gallery shows, chosen from the rows.

The connection has two tables: `rows`, and `kept`, the (dataset, image) that can be drawn.
"""

from typing import Any, NamedTuple

from heatproof.statistics.special_rows import GROUND_TRUTH
from heatproof.studies.store import SAME_TARGET

#: The most images of one kind.
EACH = 4


class Case(NamedTuple):
    """One image of a gallery.

    kind: a short name of what it is an example of. title, why: its heading, and the reason for choosing it.
    conditions: names of the conditions shown beside the reference.
    """

    kind: str
    title: str
    why: str
    model: str
    dataset: str
    image: str
    conditions: tuple[str, ...] = ()


#: Rows under a perturbation that is the only change.
PERTURBED = f"NOT reference AND perturbation <> '' AND transformation = '' AND state = '' AND {SAME_TARGET}"
#: (kind, title, SQL order of the pairs, SQL condition on the pairs).
PAIRS = (
    ("map moved", "The prediction held, but the map moved", "value ASC", "NOT changed"),
    ("map held", "The prediction held, and so did the map", "value DESC", "NOT changed"),
    ("map blind", "The prediction changed, but the map did not", "value DESC", "changed"),
    ("map followed", "The prediction changed, and so did the map", "value ASC", "changed"),
)


def moved_and_held(connection: Any, plan: Any) -> list[Case]:
    """Up to four images of each of `PAIRS`, none twice within a kind, for one method.

    The method is the one with the highest median κ over unchanged predictions, or else the plan's first. A case is one
    image under one perturbation, over all severities.
    """
    best = connection.execute(
        f"SELECT method FROM rows WHERE {PERTURBED} AND metric = 'kappa' AND NOT control AND isfinite(value) AND NOT "
        "changed GROUP BY method ORDER BY median(value) DESC, method LIMIT 1"
    ).fetchone()
    method = plan.methods[0] if best is None else best[0]
    severities = range(1, plan.levels + 1) if plan.calibrate else plan.severities
    cases: list[Case] = []
    for kind, title, order, which in PAIRS:
        rows = connection.execute(
            "SELECT model, dataset, image, perturbation, severity, value FROM ("
            "  SELECT *, row_number() OVER (PARTITION BY model, dataset, image "
            f"   ORDER BY {order}, perturbation, severity) AS position FROM rows SEMI JOIN kept USING (dataset, image) "
            f"  WHERE {PERTURBED} AND metric = 'rbo' AND method = ? AND segmenter = ? AND flag = '' AND {which}) "
            f"WHERE position = 1 ORDER BY {order}, model, dataset, image LIMIT {EACH}",
            [method, plan.segmenters[0]],
        ).fetchall()
        for model, dataset, image, noise, severity, value in rows:
            why = f"{method}: RBO {value:.2f} at {noise}, severity {severity}"
            shown = tuple(f"{noise}:{level}" for level in severities)
            cases.append(Case(kind, title, why, model, dataset, image, shown))
    return cases


def telling_scores(connection: Any, plan: Any) -> list[Case]:
    """Up to four images of each kind, none twice, by the study's first composite metric or else its first metric.

    The kinds are the best and the worst scores of the best method, the largest differences between methods, and the
    controls that beat the best method by most.
    """
    from heatproof.metrics.metric_request import requested_metrics
    from heatproof.statistics.rescaled_maps import added_arm

    requests = requested_metrics(plan.metrics)
    lead = next((request for request in requests if request.family == "composite"), requests[0])
    return _telling(connection, lead.key, lead.better, added_arm(vars(plan)))


def telling_parts(connection: Any, plan: Any) -> list[Case]:
    """As `telling_scores`, by the correctness of the parts, on the test sets."""
    return [case for case in _telling(connection, "part-correctness", "high") if case.dataset != plan.validation]


def _telling(connection: Any, metric: str, better: str, aside: str = "") -> list[Case]:
    """`aside`: an arm that is no method."""
    rows: Any = connection.execute(
        "SELECT model, dataset, image, method, control, value FROM rows SEMI JOIN kept USING (dataset, image) "
        f"WHERE metric = ? AND method NOT IN ('', '{GROUND_TRUTH}', ?) AND flag = '' AND isfinite(value) ORDER BY ALL",
        [metric, aside],
    ).df()  # fmt: skip
    if rows.empty:
        return []
    cases: list[Case] = []
    kinds = _kinds(rows, 1.0 if better == "high" else -1.0, metric)
    count = len(rows.drop_duplicates(["model", "dataset", "image"]))
    each = min(EACH, -(-count // max(1, len(kinds))))  # a few images are shared out, so that every kind has some
    for kind, title, why, order in kinds:
        seen = {case[3:6] for case in cases}
        for position in [position for position in order if position not in seen][:each]:
            cases.append(Case(kind, title, why[position], *position))
    return cases


def _kinds(rows: Any, sign: float, metric: str) -> list[tuple[str, str, dict[Any, str], list[Any]]]:
    """(kind, title, (model, dataset, image) → reason, the (model, dataset, image) in order) of each kind."""
    from heatproof.rounding import ANSWER_STEP, largest, rounded

    key = ["model", "dataset", "image"]
    real, controls = rows[~rows["control"]], rows[rows["control"]]
    if real.empty:
        return []
    means: Any = real.groupby("method")["value"].mean()
    best = (sign * rounded(means, largest(means.to_numpy(), None), ANSWER_STEP)).sort_index().idxmax()
    own = real[real["method"] == best].set_index(key)["value"].sort_index()
    values = {position: f"{best}: {metric} {value:.2f}" for position, value in own.items()}
    down = (sign * own).sort_values(ascending=False, kind="stable")
    found = [
        ("good", "The best method does well", values, list(down.index)),
        ("bad", "The best method does badly", values, list(down.index[::-1])),
    ]
    if real["method"].nunique() > 1:
        spans: Any = real.groupby(key)["value"].agg(lambda values: values.max() - values.min())
        spans = spans.sort_values(ascending=False, kind="stable")
        why = {position: f"{metric} differs by {value:.2f} between methods" for position, value in spans.items()}
        found.append(("split", "The methods disagree", why, list(spans.index)))
    if len(controls):
        gaps = controls.set_index(key).join(own.rename("own"), how="inner").reset_index()
        gaps["gap"] = sign * (gaps["value"] - gaps["own"])
        gaps = gaps[gaps["gap"] > 0].sort_values("gap", ascending=False, kind="stable").drop_duplicates(key)
        lines = [(tuple(row[name] for name in key), row) for row in gaps.to_dict("records")]
        why = {at: f"{metric}: {row['method']} {row['value']:.2f}, {best} {row['own']:.2f}" for at, row in lines}
        found.append(("fooled", "A control does better than the best method", why, [at for at, _ in lines]))
    return found


def best_and_worst(connection: Any, plan: Any) -> list[Case]:
    """The best and the worst image of each metric under the reference, by the mean over the real methods.

    An image that is the best, or the worst, by several metrics is one case. A metric that gives all images the same
    has none.
    """
    from heatproof.metrics.metric_request import requested_metrics

    found: dict[tuple[Any, ...], list[str]] = {}
    for request in requested_metrics(plan.metrics):
        rows: Any = connection.execute(
            "SELECT model, dataset, image, avg(value) AS value FROM (SELECT * FROM rows WHERE reference AND metric = ? "
            "AND method <> '' AND NOT control AND flag = '' AND isfinite(value) ORDER BY ALL) "
            "SEMI JOIN kept USING (dataset, image) GROUP BY model, dataset, image ORDER BY model, dataset, image",
            [request.key],
        ).df()  # fmt: skip
        for (model, dataset), here in rows.groupby(["model", "dataset"], sort=False):
            for kind, image, value in _ends(here, 1.0 if request.better == "high" else -1.0):
                found.setdefault((kind, model, dataset, image), []).append(f"{request.key} {value:.3g}")
    order = sorted(found, key=lambda key: key[0])  # the best first; each in the order of the metrics
    return [_of_metrics(*key, told=found[key]) for key in order]


def _ends(rows: Any, sign: float) -> list[tuple[str, str, float]]:
    """(kind, image, value) of the best and the worst of some images; equal ones by name."""
    from heatproof.rounding import ANSWER_STEP, largest, rounded

    values = rows["value"].to_numpy()
    near = sign * rounded(values, largest(values, None), ANSWER_STEP)
    if near.min() == near.max():
        return []
    ends = (("best", int(near.argmax())), ("worst", int(near.argmin())))
    return [(kind, str(rows["image"].iloc[position]), float(values[position])) for kind, position in ends]


def _of_metrics(kind: str, model: str, dataset: str, image: str, told: list[str]) -> Case:
    names = [one.rpartition(" ")[0] for one in told]
    why = f"{', '.join(told)} (mean over the methods)"
    return Case(kind, f"The {kind} image by {', '.join(names)}", why, model, dataset, image)
