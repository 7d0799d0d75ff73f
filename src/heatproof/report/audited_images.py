"""What the audit decides on each image, from the rows: its facts, and the pairs under mild noise."""

from typing import Any

import pandas as pd

from heatproof.class_names import named
from heatproof.report.frames import Frame
from heatproof.report.robustness_findings import RobustnessFindings
from heatproof.report.score_findings import ScoreFindings, ScoreSetting
from heatproof.statistics.audit_answers import AuditFindings
from heatproof.statistics.audit_images import ImageDecisions, image_decisions

#: Columns of the pairs under mild noise.
MILD = ("image", "method", "condition", "rbo", "changed")


def audited_images(
    found: AuditFindings,
    rows: Any,
    scores: ScoreFindings,
    robustness: RobustnessFindings | None,
    names: list[str],
    explained: str = "",
) -> ImageDecisions:
    """The decisions on the images of one model and dataset; `names`: the names of the model's classes.

    explained: the class that all maps explain, in words; empty where it depends on the image.
    """
    setting = ScoreSetting(found.model, found.dataset)
    images = image_facts(rows, setting, names)
    return image_decisions(
        found, images, setting.of(scores.scores), _mild(robustness, setting), scores.facts, explained
    )


def image_facts(rows: Any, setting: ScoreSetting, names: list[str]) -> Frame:
    """A row for each image as it is: predicted (class, with its name), probability, right, flag."""
    found: Frame = rows.execute(
        """SELECT image, max(clean_class) FILTER (reference AND method = '') AS predicted,
                  max(clean_probability) FILTER (reference AND method = '')::DOUBLE AS probability,
                  bool_or(value = 1) FILTER (reference AND metric = 'correct' AND method = '' AND flag = ''
                                             AND isfinite(value)) AS right,
                  CASE WHEN bool_and(flag <> '') THEN min(flag) ELSE '' END AS flag
           FROM rows WHERE model = ? AND dataset = ? GROUP BY image ORDER BY image""",
        list(setting),
    ).df()
    classes = [None if pd.isna(one) else int(one) for one in found["predicted"]]
    told = ["" if one is None else named(names[one] if one < len(names) else None, one) for one in classes]
    return found.assign(predicted=told, right=found["right"].astype("boolean"))


def _mild(robustness: RobustnessFindings | None, setting: ScoreSetting) -> Frame:
    """The pairs under the lowest severity of every perturbation, by the main segmenter."""
    main = [one for one in robustness.main if one[:2] == setting] if robustness else []
    if robustness is None or not main:
        return pd.DataFrame({name: [] for name in MILD})
    return robustness.stored.of_setting(main[0]).mild()
