"""Whether a model predicts few of the labels of its images, in a sentence for the page and the terminal."""

from collections.abc import Iterator
from typing import Any

from heatproof.report.numbers import percent

#: A lower share of predicted labels is noted, from so many labelled images on.
SHARE, FEWEST = 0.5, 5


def accuracy_notes(findings: Any) -> Iterator[str]:
    """For each model and dataset of which less than half the labels are predicted: how many, and what may be wrong.

    A wrong normalisation, size or order of classes raises no error, and the maps look as plausible as others.
    """
    for model, dataset, n, share in findings.correct.itertuples(index=False):
        if n >= FEWEST and share < SHARE:
            yield (
                f"{model} predicts {round(n * share)} of the {n} labels of {dataset} ({percent(share)}). If it did "
                "better in training, the preprocessing (--mean, --std, --size), the order of the classes (--classes) "
                "or the weights are others here, and nothing here holds. `heatproof check` shows what "
                "the network sees and predicts."
            )
