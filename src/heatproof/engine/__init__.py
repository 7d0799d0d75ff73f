"""The engine: every quantity once per batch, whatever number of methods asks for it.

`explain` is the public call on any number of pictures; studies build a `Batch` and run `explanation` on it.
"""

from heatproof.engine.batch import CAPTURED, GRAPH, Batch, needs_by_layer
from heatproof.engine.explaining import Maps, as_model, chosen_layer, explain, halved
from heatproof.engine.explanation import (
    NO_ANSWER,
    UNINFORMED,
    Explanation,
    Placed,
    explanation,
    placed,
    refusals,
    refuse_inapplicable,
)
from heatproof.engine.rehearsal import rehearsed
from heatproof.engine.scores import DEFAULT_METRICS, Row, Scores, score
from heatproof.engine.scoring import GivenMaps, Judged, Outcome, composed, judged

__all__ = [
    "CAPTURED",
    "DEFAULT_METRICS",
    "GRAPH",
    "NO_ANSWER",
    "UNINFORMED",
    "Batch",
    "Explanation",
    "GivenMaps",
    "Judged",
    "Maps",
    "Outcome",
    "Placed",
    "Row",
    "Scores",
    "as_model",
    "chosen_layer",
    "composed",
    "explain",
    "explanation",
    "halved",
    "judged",
    "needs_by_layer",
    "placed",
    "refusals",
    "refuse_inapplicable",
    "rehearsed",
    "score",
]
