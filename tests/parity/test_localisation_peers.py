"""Localisation beside Quantus 0.6.0 and scikit-learn 1.9: equal where they are right, and where Quantus is not.

Quantus' defects: an empty mask is a pointing-game hit (NaN is written into an array of booleans); a plateau that
touches the object is a hit in full; the default normalisation divides by the maximum of the whole batch, so a small map
beside a large one can underflow; equal pixels count in the order in which argsort happens to leave them.
"""

import warnings

import numpy as np
import pytest
import torch

from heatproof.metrics.curves import pixel_ranks
from heatproof.metrics.localisation import (
    average_precision,
    energy,
    pointing_game,
    relevance_rank,
    roc_auc,
    top_k_intersection,
)

quantus = pytest.importorskip("quantus")
sklearn = pytest.importorskip("sklearn.metrics")

COUNT, SIDE = 6, 24


def ranks_of(maps: torch.Tensor):
    return lambda ties: pixel_ranks(maps, [torch.Generator() for _ in maps], ties)


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.rand(COUNT, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> torch.Tensor:
    found = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    for i in range(COUNT):
        found[i, i : i + 9, 2 * i : 2 * i + 6] = True
    return found


def theirs(name: str, maps: torch.Tensor, masks: torch.Tensor, **options) -> np.ndarray:
    metric = getattr(quantus, name)(**{"disable_warnings": True, "normalise": False, **options})
    images = np.zeros((len(maps), 1, SIDE, SIDE), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric(
            model=None, x_batch=images, y_batch=np.zeros(len(maps), dtype=int),
            a_batch=maps[:, None].double().numpy(), s_batch=masks[:, None].numpy(),
        )  # fmt: skip
    return np.asarray(found, dtype=float)


def test_quantus_where_it_is_right(maps, masks):
    ranks = ranks_of(maps)
    pairs = {
        "PointingGame": pointing_game(maps, masks),
        "RelevanceMassAccuracy": energy(maps, masks),
        "RelevanceRankAccuracy": relevance_rank(ranks, masks),
        "AUC": roc_auc(ranks, masks),
    }
    for name, ours in pairs.items():
        np.testing.assert_allclose(ours, theirs(name, maps, masks), rtol=1e-12, err_msg=name)
    for k in (1, 7, 100):
        ours = top_k_intersection(ranks, masks, k=k)
        np.testing.assert_allclose(ours, theirs("TopKIntersection", maps, masks, k=k), rtol=1e-12)


def test_an_empty_mask_is_a_hit_for_quantus(maps):
    empty = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    assert (theirs("PointingGame", maps, empty) == 1).all()
    assert pointing_game(maps, empty).isnan().all()
    assert energy(maps, empty).isnan().all() and np.isnan(theirs("RelevanceMassAccuracy", maps, empty)).all()


def test_a_constant_map_is_a_hit_for_quantus(maps, masks):
    """Its maximum is everywhere, so also on the object; refused only where the whole batch is constant."""
    constant = torch.ones(COUNT, SIDE, SIDE)
    constant[0] = maps[0]
    assert (theirs("PointingGame", constant, masks)[1:] == 1).all()
    torch.testing.assert_close(pointing_game(constant, masks)[1:], masks.flatten(1).double().mean(1)[1:])


def test_equal_pixels_count_by_where_they_lie_for_quantus(maps, masks):
    """Of a map of zeros the 54 highest pixels are whichever argsort leaves in front: it matters where the object is."""
    zeros = torch.zeros(COUNT, SIDE, SIDE)
    zeros[0] = maps[0]
    ours = relevance_rank(ranks_of(zeros), masks)
    torch.testing.assert_close(ours[1:], masks.flatten(1).double().mean(1)[1:])
    found = theirs("RelevanceRankAccuracy", zeros, masks)
    assert np.abs(found - ours.numpy())[1:].max() > 0.05, found


def test_quantus_normalises_by_the_whole_batch(maps, masks):
    """An image's score must not depend on its neighbours: with the default normalisation Quantus' maps do."""
    mixed = maps * torch.logspace(0, -5, COUNT).view(-1, 1, 1)
    together = quantus.normalise_by_max(mixed[:, None].double().numpy())
    alone = quantus.normalise_by_max(mixed[5:, None].double().numpy())
    assert alone.max() == 1 and together[5].max() < 1e-4
    torch.testing.assert_close(energy(mixed, masks)[5:], energy(mixed[5:], masks[5:]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_scikit_learn_ties_included(masks, levels):
    generator = torch.Generator().manual_seed(levels)
    maps = torch.randint(levels, (COUNT, SIDE, SIDE), generator=generator).float() / levels
    ranks = ranks_of(maps)
    pairs = {"roc_auc_score": roc_auc(ranks, masks), "average_precision_score": average_precision(ranks, masks)}
    for name, ours in pairs.items():
        score = getattr(sklearn, name)
        expected = [score(t.flatten().numpy(), m.flatten().numpy()) for t, m in zip(masks, maps, strict=True)]
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
