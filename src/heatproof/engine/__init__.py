"""The engine works out every quantity once per batch, however many methods need it.

`explain` and `score` are the public calls on any number of images; studies build a `Batch` and run `explanation` or
`evaluate` on it. What a method or a metric may ask for is the table in `heatproof.quantities`.
"""

from heatproof.engine.batch import Batch, LayerNeeds, needs_by_layer
from heatproof.engine.call import as_model, of_output
from heatproof.engine.dry_run import dry_run, plugin_failures, toy
from heatproof.engine.evaluation import GivenMaps, MethodScores, Outcome, composed, evaluate
from heatproof.engine.explaining import Maps, explain
from heatproof.engine.explanation import Explanation, explanation
from heatproof.engine.joined_batches import joined_explanations
from heatproof.engine.memory import halved, out_of_memory
from heatproof.engine.part_answers import PartAnswers, PartImages
from heatproof.engine.references import ReferenceMaps
from heatproof.engine.resolved_methods import (
    ResolvedMethod,
    chosen_layer,
    refusals,
    refuse_inapplicable,
    resolve_layers,
)
from heatproof.engine.scoring import DEFAULT_METRICS, Row, Scores, score

__all__ = [
    "DEFAULT_METRICS",
    "Batch",
    "Explanation",
    "GivenMaps",
    "LayerNeeds",
    "Maps",
    "MethodScores",
    "Outcome",
    "PartAnswers",
    "PartImages",
    "ReferenceMaps",
    "ResolvedMethod",
    "Row",
    "Scores",
    "as_model",
    "chosen_layer",
    "composed",
    "dry_run",
    "evaluate",
    "explain",
    "explanation",
    "halved",
    "joined_explanations",
    "needs_by_layer",
    "of_output",
    "out_of_memory",
    "plugin_failures",
    "refusals",
    "refuse_inapplicable",
    "resolve_layers",
    "score",
    "toy",
]
