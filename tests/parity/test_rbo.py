"""RBO beside the package `rbo` 0.1.3 (its `rbo_ext`), on permutations."""

import pytest
import torch

from heatproof.metrics.rankings import ranking, rbo

peer = pytest.importorskip("rbo")


@pytest.mark.parametrize("n", [2, 7, 30, 120])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.98])
def test_permutations_agree_with_rbo_ext(n, p):
    generator = torch.Generator().manual_seed(n)
    scores = torch.rand(2, 8, n, generator=generator)
    for ties in ("b", "a", "stable"):
        ours = rbo(ranking(scores[0]), ranking(scores[1]), p, ties)
        for row in range(8):
            lists = [scores[k, row].argsort(descending=True).tolist() for k in (0, 1)]
            assert ours[row].item() == pytest.approx(peer.RankingSimilarity(*lists).rbo_ext(p=p), abs=1e-12)
