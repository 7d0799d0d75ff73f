"""Which class is explained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heatproof.errors import InvalidTarget
from heatproof.targets import RULES, resolved, unknown_rule

LOGITS = torch.tensor([[0.1, 0.7, 0.2], [3.0, -1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("predicted", [1, 0, 2]),
        ("least", [0, 1, 0]),
        ("clean", [2, 2, 2]),
        ("label", [0, 1, 2]),
        (2, [2, 2, 2]),
        ("1", [1, 1, 1]),
        ([2, 1, 0], [2, 1, 0]),
        ((2, 1, 0), [2, 1, 0]),
        (torch.tensor([2, 1, 0], dtype=torch.int32), [2, 1, 0]),
        (np.array([2, 1, 0]), [2, 1, 0]),
        (np.int64(1), [1, 1, 1]),
        (lambda logits: 1, [1, 1, 1]),
        (lambda logits: [0, 1, 2], [0, 1, 2]),
        (lambda logits: logits.argmin(1), [0, 1, 0]),
    ],
)
def test_rules(rule, expected):
    found = resolved(rule, LOGITS, labels=[0, 1, 2], clean=torch.tensor([2, 2, 2]))
    assert found.tolist() == expected and found.dtype == torch.int64 and found.shape == (3,)


def test_on_the_clean_image_clean_is_predicted():
    assert resolved("clean", LOGITS).tolist() == resolved("predicted", LOGITS).tolist()


@given(st.lists(st.integers(-4, 6), min_size=0, max_size=5))
def test_only_one_class_of_the_model_for_each_image(classes):
    fits = len(classes) == 3 and all(0 <= c < 3 for c in classes)
    if fits:
        assert resolved(classes, LOGITS).tolist() == classes
    else:
        with pytest.raises(InvalidTarget):
            resolved(classes, LOGITS)


@pytest.mark.parametrize(
    ("rule", "labels", "says"),
    [
        ([0, 1], None, r"one target for each of the 3 images. Got \(2,\)"),
        ([[0, 1, 2]], None, r"Got \(1, 3\)"),
        ([], None, "integers|one target"),
        ([0, 1, 3], None, "lie in 0 … 2, the model's classes. Got 3"),
        (-1, None, "Got -1"),
        ("-1", None, "Got -1"),
        ("--1", None, "Got '--1'"),
        ("²", None, "Got '²'"),
        ("", None, "Got ''"),
        ("leest", None, "Did you mean 'least'"),
        ("label", None, "Got none for 3 of 3"),
        ("label", [0, None, 1], "Got none for 1 of 3"),
        ("label", [0, 1], r"Got \(2,\)"),
        ("label", [0, 1, 3], "Got 3"),
        ([0.0, 1.0, 2.0], None, "must be integers. Got torch.float32"),
        (1.5, None, "must be integers"),
        (True, None, "must be integers. Got torch.bool"),
        (None, None, "Got None"),
        ([None, 1, 2], None, "one integer per image"),
        (["predicted"] * 3, None, "one integer per image"),
        (lambda logits: None, None, "Got None"),
        (lambda logits: logits.argmax(1)[:1], None, r"Got \(1,\)"),
    ],
)
def test_what_is_no_target(rule, labels, says):
    with pytest.raises(InvalidTarget, match=says):
        resolved(rule, LOGITS, labels=labels)


def test_all_rules_are_named_in_the_error():
    assert all(rule in unknown_rule("zzz") for rule in RULES)
    assert "Did you mean" not in unknown_rule("zzz")
