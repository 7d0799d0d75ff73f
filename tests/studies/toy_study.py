"""A user's own study in one file: do maps change with the class explained, the weights, and a rotation?"""

from heatproof.report.blocks import Answer, Section, sheet
from heatproof.studies import CLEAN, Condition, Measure, Plan, Study


class ToyPlan(Plan):
    """Nothing beyond what every study has."""

    study: str = "toy"


def conditions(plan):
    """The image as it is, then one change each."""
    return [
        CLEAN,
        Condition(target="least"),
        Condition(state="randomised"),
        Condition(transformation="rotation[degrees=180]"),
        Condition("gaussian-noise", 3, transformation="rotation[degrees=180]"),
    ]


def likeness(findings):
    """Mean cosine with the reference map, by method and condition."""
    return findings.rows.execute(
        "SELECT method, control, target, state, transformation, perturbation, avg(value) AS cosine, count(*) AS n "
        "FROM rows WHERE metric = 'cosine' GROUP BY ALL ORDER BY ALL"
    ).df()


def changes(findings):
    """Which change the maps follow."""
    table = findings.tables["likeness.csv"]
    lines = [
        (r.method, r.target, r.state, r.transformation, r.perturbation, f"{r.cosine:.2f}") for r in table.itertuples()
    ]
    best = table[~table["control"]].sort_values("cosine").iloc[0]
    return Section(
        id="changes",
        title="What changes the maps",
        blocks=[sheet("Mean cosine with the reference map", ("method", "class", "weights", "turned", "noise", "cosine"),
                      lines, {1, 2, 3, 4}, findings.controls)],
        answers=[Answer(f"The maps of {best.method} change most.")],
    )  # fmt: skip


STUDY = Study(
    name="toy",
    summary="whether maps change with the class, the weights and the image",
    heading="What changes the maps?",
    settings=ToyPlan,
    conditions=conditions,
    measures=("cosine", Measure("complexity", conditions="all")),
    tables={"likeness.csv": likeness},
    sections=(changes,),
)
