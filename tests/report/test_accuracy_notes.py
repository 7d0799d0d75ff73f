"""The note on a model that predicts few of the labels."""

from types import SimpleNamespace

import pandas as pd

from heatproof.report.accuracy_notes import accuracy_notes


def notes(n: int, share: float) -> list[str]:
    correct = pd.DataFrame({"model": ["m"], "dataset": ["parts"], "n": [n], "correct": [share]})
    return list(accuracy_notes(SimpleNamespace(correct=correct)))


def test_few_labels_that_are_predicted_are_noted_with_what_may_be_wrong():
    (note,) = notes(60, 0.2)
    assert note.startswith("m predicts 12 of the 60 labels of parts (20 %).")
    assert "--mean" in note and "--classes" in note and "`heatproof check`" in note


def test_half_of_the_labels_or_a_handful_of_images_are_not():
    assert not notes(60, 0.5)
    assert not notes(4, 0.0)
