"""The defects of the reference codes: without a defect the numbers are heatproof's own, hand-made cases with it."""

from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = str(Path(__file__).resolve().parent.parent / "scripts")


@pytest.fixture(scope="module", autouse=True)
def _scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield


@pytest.fixture(scope="module")
def lab():
    import reference_defects

    import heatproof
    from heatproof.data import demo_shapes

    model, images = heatproof.load_model("shapes", device="cpu"), demo_shapes("test", 4)
    return reference_defects.Lab(model, images, 4, slow=2, batch=2)


def arms_of(lab, name):
    from reference_defects import DEFECTS

    return {arms.quantity: arms for arms in DEFECTS[name].arms(lab)}


def same(values, expected):
    np.testing.assert_allclose(np.asarray(values), np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "method", "metric"),
    [
        ("batch-maximum", "layercam", "average-drop"),
        ("batch-maximum", "gradcam", "complexity"),
        ("road-ties", "gradcam", "road"),
        ("deeper-layers-fixed", "refine:layercam", "coherency"),
        ("deeper-layers-fixed", "refine:layercam", "arcc"),
        ("transposed-maps", "gradient", "mask-cosine"),
        ("refine-unscaled", "refine:layercam", "mask-cosine"),
        ("eigencam-sign", "eigencam", "insertion"),
        ("gradcam++-never-divides", "gradcam++", "mask-cosine"),
        ("monotonicity-never-restores", "gradcam", "monotonicity-strict"),
    ],
)
def test_without_the_defect_the_score_is_heatproofs(lab, name, method, metric):
    expected = lab.score(method, metric).values(method, metric)
    same(arms_of(lab, name)[f"{metric} of {method}"].off, expected)


def test_train_mode_changes_maps_and_leaves_the_network_alone(lab):
    before = {name: value.clone() for name, value in lab.model.module.state_dict().items()}
    from reference_defects.paper_f import train_mode_maps

    off, on = lab.explain("gradient")["gradient"], train_mode_maps(lab, ["gradient"])["gradient"]
    assert (off - on).abs().amax() > 0.1
    assert not lab.model.module.training
    for name, value in lab.model.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_perfect_map_scores_1_where_the_mask_is_aligned_and_less_where_it_is_not(lab):
    from reference_defects.paper_r import perfect_cosine, straight_masks

    seen = lab.cropping()
    same(perfect_cosine(seen.mask, seen.mask), np.ones(4))
    assert (perfect_cosine(seen.mask, straight_masks(seen)) < 0.99).all()
    assert torch.equal(straight_masks(lab), lab.mask)  # the network's own geometry does not crop


def test_label_and_colour_of_one_seed_share_their_last_bits():
    from reference_defects.paper_r import probe, reconstructed

    pairs = [reconstructed(i) for i in range(1000)]
    equal = np.array([label == red % 8 for label, red in pairs])
    assert 0.70 < equal.mean() < 0.80
    assert all(red % 8 >= 6 for (label, red), found in zip(pairs, equal, strict=True) if not found)
    same(probe(np.array([0, 0, 1]), np.array([3, 3, 5]), np.array([0, 1, 2]), np.array([3, 4, 5])), [1, 0, 0])


def test_the_intact_network_adds_a_one_to_the_mean(lab):
    arms = arms_of(lab, "intact-model-in-mprt")["mprt of gradcam, 5 stages"]
    stages = 5
    same(arms.on, (np.asarray(arms.off) * stages + 1) / (stages + 1))


def test_an_exact_comparison_of_floats_fails_where_the_tolerance_holds(lab):
    arms = arms_of(lab, "exact-completeness")["completeness-holds of integrated-gradients[steps=200]"]
    same(arms.off, np.ones(2))
    same(arms.on, np.zeros(2))


def test_one_map_for_both_classes_scores_nothing(lab):
    found = arms_of(lab, "contrastivity-one-map")
    for method in ("gradcam", "refine:layercam"):
        arms = found[f"part-contrastivity of {method}"]
        assert np.nanmean(np.asarray(arms.off)) > 0.5
        assert np.nanmax(np.asarray(arms.on)) == 0


def test_hand_made_arms():
    from reference_defects.arms import Arms, summary
    from reference_defects.compared_libraries import batch_scaled, undivided
    from reference_defects.paper_f import turned

    nan = float("nan")
    paired = summary(Arms("", np.array([1.0, 2.0, nan, 4.0]), np.array([2.0, 3.0, 9.0, 5.0])))
    assert (paired.difference, paired.low, paired.high, paired.n_on) == pytest.approx((1, 1, 1, 3))
    dropped = summary(Arms("", np.array([0.0, 4.0]), np.array([nan, 4.0]), paired=False))
    assert (dropped.off, dropped.on, dropped.n_off, dropped.n_on) == (2, 4, 2, 1)
    maps = torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]], [[1.0, 0.5]]])
    same(batch_scaled(maps, 2), [[[0.25, 0.5]], [[1, 0]], [[1, 0.5]]])
    same(turned(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])), [[[1, 3], [2, 4]]])
    activations, gradients = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[3.0, -1.0]]]])
    same(undivided(activations, gradients), [[[54, 27]]])  # 3² · 3 = 27; the negative gradient adds nothing


def test_every_defect_is_named_once_and_a_gap_says_why():
    from reference_defects import DEFECTS

    assert len(DEFECTS) >= 27
    for one in DEFECTS.values():
        assert (one.arms is None) == bool(one.why_not)
        assert one.where and one.what
