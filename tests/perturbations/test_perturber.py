"""What holds for every kind: seeds, order, batches, arguments, devices; and what is computed once."""

import pytest
import torch

from heatproof.errors import InvalidInput, UnknownName
from heatproof.perturbations import PERTURBATIONS, Perturber, draws, perturbation, psnr

SEED = 7
KINDS = list(PERTURBATIONS)
NATURAL = [name for name, entry in PERTURBATIONS.items() if not entry.traits["attack"]]
RANDOM = ["gaussian-noise", "salt-and-pepper", "speckle", "shot", "motion-blur"]


def scores(images):
    """A smooth network of six classes that needs no weights, the same for every size and batch."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
    weight = torch.sin(torch.arange(6 * 48, dtype=images.dtype, device=images.device).view(48, 6) ** 1.5)
    return (8 * pooled) @ weight


def gradient_for(x):
    clean = scores(x).argmax(1)

    def loss_gradient(images):
        images = images.requires_grad_()
        loss = torch.nn.functional.cross_entropy(scores(images), clean, reduction="sum")
        return torch.autograd.grad(loss, images)[0]

    return loss_gradient


def perturber(x, ids, seed=SEED):
    return Perturber(x, ids, seed, gradient_for(x), scores)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_range_type_and_arguments(images, ids, kind):
    before = images.clone()
    maker = perturber(images, ids)
    outputs = [maker.apply(kind, severity) for severity in (0, 0.5, 1, 3, 5)]
    top = maker.apply(kind, 10, extrapolate=True)
    for y in (*outputs, top):
        assert y.shape == images.shape and y.dtype == torch.float32 and y.is_contiguous()
        assert y.isfinite().all() and y.min() >= 0 and y.max() <= 1
        assert y.data_ptr() != images.data_ptr()
    assert torch.equal(images, before)
    assert torch.equal(outputs[0], images)
    assert not torch.equal(outputs[2], outputs[3])
    outputs[0].zero_()  # severity 0 is a copy
    assert torch.equal(images, before)
    assert maker.apply(kind, 1).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_psnr_falls_with_severity(make_images, kind):
    x = make_images(2, 96, 96)
    maker = perturber(x, ["p", "q"])
    levels = torch.stack([psnr(x, maker.apply(kind, severity)) for severity in (1, 2, 3, 4, 5)])
    assert levels.isfinite().all()
    assert (levels.diff(dim=0) < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_batch_decide_nothing(images, ids, kind):
    maker = perturber(images, ids)
    first = maker.apply(kind, 3)
    maker.apply("gaussian-noise", 5)
    maker.apply(kind, 1)
    assert torch.equal(maker.apply(kind, 3), first)
    turned = [2, 0, 1]
    others = perturber(images[turned], [ids[i] for i in turned]).apply(kind, 3)
    alone = torch.cat([perturber(images[i : i + 1], ids[i : i + 1]).apply(kind, 3) for i in range(3)])
    close = {"rtol": 0, "atol": 1e-5} if kind not in RANDOM else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(others, first[turned], **close)
    torch.testing.assert_close(alone, first, **close)


@pytest.mark.parametrize("kind", RANDOM)
def test_seed_image_and_kind_decide_the_noise(images, kind):
    x = images[:1].repeat(3, 1, 1, 1)
    y = Perturber(x, ["a", "b", "a"], SEED).apply(kind, 3)
    assert torch.equal(y[0], y[2])
    assert not torch.equal(y[0], y[1])
    assert not torch.equal(Perturber(x, ["a", "b", "a"], SEED + 1).apply(kind, 3), y)


@pytest.mark.parametrize("kind", NATURAL)
def test_natural_kinds_need_no_network_and_are_the_same_for_all(images, ids, kind):
    assert torch.equal(Perturber(images, ids, SEED).apply(kind, 2), perturber(images, ids).apply(kind, 2))


@pytest.mark.parametrize(
    ("kind", "missing"), [("fgsm", "loss_gradient"), ("pgd", "loss_gradient"), ("deepfool", "class_scores")]
)
def test_attacks_ask_for_their_network(images, ids, kind, missing):
    with pytest.raises(InvalidInput, match=f"give `{missing}` to the Perturber"):
        Perturber(images, ids, SEED).apply(kind, 1)


def test_shared_quantities_are_computed_once(images, ids, monkeypatch):
    calls = {"gradient": 0, "scores": 0, "drawn": []}
    gradient = gradient_for(images)

    def counted_gradient(images):
        calls["gradient"] += 1
        return gradient(images)

    def counted_scores(images):
        calls["scores"] += 1
        return scores(images)

    real = draws._draw_field

    def counted_draw(law, *rest):
        calls["drawn"].append(law)
        return real(law, *rest)

    monkeypatch.setattr(draws, "_draw_field", counted_draw)
    maker = Perturber(images, ids, SEED, counted_gradient, counted_scores)
    for severity in (1, 2, 3, 4, 5):
        maker.apply("fgsm", severity)
    assert calls["gradient"] == 1
    maker.apply("pgd-linf", 1)
    assert calls["gradient"] == 11
    maker.apply("deepfool", 1)
    once = calls["scores"]
    for severity in (2, 3, 4, 5):
        maker.apply("deepfool", severity)
    assert calls["scores"] == once > 0
    calls["drawn"].clear()
    for kind in ("gaussian-noise", "shot"):
        for severity in (1, 2, 3, 4, 5):
            maker.apply(kind, severity)
    assert calls["drawn"] == ["normal", "uniform"]


def test_only_the_last_kinds_fields_are_kept(images, ids):
    maker = perturber(images, ids)
    for kind in ("gaussian-noise", "speckle", "shot", "pgd-l2"):
        maker.apply(kind, 1)
    kept = maker._drawn[1]._fields
    assert {key[0] for key in kept} == {"normal", "uniform"}  # of pgd-l2 alone
    assert len(kept) == 2


def test_strength_is_reported_in_the_tables_unit(images, ids):
    maker = Perturber(images, ids, SEED)
    assert maker.strength("fgsm", 1) == 0.125
    assert maker.strength("pgd-l2", 1) == 0.0625
    assert maker.strength("jpeg", 5) == 7


def test_what_apply_refuses(images, ids):
    maker = Perturber(images, ids, SEED)
    with pytest.raises(InvalidInput, match=r"`severity` must be one of 1–5; .*Got 9"):
        maker.apply("gaussian-noise", 9)
    with pytest.raises(UnknownName, match="Did you mean 'speckle'"):
        maker.apply("spekle", 1)
    with pytest.raises(UnknownName, match="option of 'jpeg'"):
        maker.apply("jpeg[qualty=3]", 1)
    with pytest.raises(InvalidInput, match="`quality` of 'jpeg' is set by the severity"):
        maker.apply("jpeg[quality=3]", 1)


def test_what_the_constructor_refuses(images, ids):
    cases = [
        (images[:, 0], ids, r"shape \(N, C, H, W\)"),
        (images[:0], [], r"shape \(N, C, H, W\)"),
        ((images * 255).byte(), ids, "must be floats"),
        (images * 2, ids, r"must lie in \[0, 1\]\. Got values from 0 to 2"),
        (images + torch.nan, ids, r"must lie in \[0, 1\]"),
        (images, ids[:2], "`ids` must name each of the 3 images. Got 2"),
    ]
    for x, names, said in cases:
        with pytest.raises(InvalidInput, match=said):
            Perturber(x, names, SEED)


def test_a_gradient_of_the_wrong_shape_is_refused(images, ids):
    maker = Perturber(images, ids, SEED, lambda images: images.mean(0))
    with pytest.raises(InvalidInput, match=r"`loss_gradient` must return the shape \(3, 3, 40, 48\)"):
        maker.apply("fgsm", 1)


def test_a_new_kind_is_one_function(images, ids):
    try:

        @perturbation("test-darken", ladder={"by": (0.1, 0.2, 0.3, 0.4, 0.5)}, unit="")
        def darken(x, *, by=0.1):
            """Darkens."""
            return x * (1 - by)

        torch.testing.assert_close(Perturber(images, ids, SEED).apply("test-darken", 2), images * 0.8)

        with pytest.raises(UnknownName, match="asked for by perturbation 'test-logits'"):

            @perturbation("test-logits", ladder={"by": (1, 2, 3, 4, 5)}, unit="")
            def strange(x, logits, *, by=0.1):
                return x

    finally:
        for name in ("test-darken", "test-logits"):
            if name in PERTURBATIONS:
                PERTURBATIONS.remove(name)


def test_psnr_by_hand():
    x = torch.zeros(3, 3, 4, 4)
    y = x.clone()
    y[1] = 0.1
    y[2, 0] = 0.3  # one channel of three: mse .03
    got = psnr(x, y)
    assert got[0] == torch.inf
    assert got[1].item() == pytest.approx(20, abs=1e-4)
    assert got[2].item() == pytest.approx(15.2288, abs=1e-4)
    with pytest.raises(InvalidInput, match="one shape"):
        psnr(x, y[:2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_the_device_is_kept_and_decides_nothing(images, ids, kind):
    here, there = perturber(images, ids), perturber(images.cuda(), ids)
    y = there.apply(kind, 3)
    assert y.device.type == "cuda"
    torch.testing.assert_close(y.cpu(), here.apply(kind, 3), rtol=0, atol=1e-5)
