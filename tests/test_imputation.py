"""The imputation beside a system written out pixel by pixel and solved densely, in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from heatproof import imputation
from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable
from heatproof.imputation import Imputed, Multigrid, imputed

WEIGHTS = {
    (dy, dx): 1 / 6 if dy * dx == 0 else 1 / 12 for dy, dx in itertools.product((-1, 0, 1), repeat=2) if dy or dx
}


def system(z, removed):
    """`D − W` and b of one image (C, H, W) and its mask (H, W), from protocols §7, one neighbour at a time."""
    channels, height, width = z.shape
    positions = [(i, j) for i in range(height) for j in range(width) if removed[i, j]]
    number = {position: k for k, position in enumerate(positions)}
    matrix, right = np.zeros((len(positions), len(positions))), np.zeros((len(positions), channels))
    for (i, j), k in number.items():
        for (dy, dx), weight in WEIGHTS.items():
            other = (i + dy, j + dx)
            if not (0 <= other[0] < height and 0 <= other[1] < width):
                continue
            matrix[k, k] += weight
            if other in number:
                matrix[k, number[other]] -= weight
            else:
                right[k] += weight * z[(slice(None), *other)].double().numpy()
    return positions, matrix, right


def slow_imputed(z, removed):
    """One image, solved densely."""
    positions, matrix, right = system(z, removed)
    filled = z.double().clone()
    if positions:
        for (i, j), values in zip(positions, np.linalg.solve(matrix, right), strict=True):
            filled[:, i, j] = torch.from_numpy(values)
    return filled


def images(count, height, width, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def smooth(height, width, share, seed=0, cells=7):
    """The top `share` of a map as a CAM makes them."""
    coarse = torch.rand(1, 1, cells, cells, generator=torch.Generator().manual_seed(seed))
    return top(F.interpolate(coarse, (height, width), mode="bilinear")[0, 0], share)


def noise(height, width, share, seed=0):
    return top(torch.rand(height, width, generator=torch.Generator().manual_seed(seed)), share)


def top(field, share):
    order = field.flatten().argsort(descending=True)
    mask = torch.zeros(field.numel(), dtype=torch.bool)
    mask[order[: round(share * field.numel())]] = True
    return mask.view(field.shape)


MASKS = {
    "noise": noise,
    "smooth": smooth,
    "inside": lambda h, w, share: F.pad(torch.ones(max(h - 2, 0), max(w - 2, 0), dtype=torch.bool), (1, 1, 1, 1))[
        :h, :w
    ],
    "all but one": lambda h, w, share: torch.arange(h * w).view(h, w) != h * w // 2,
    "all but a corner": lambda h, w, share: torch.arange(h * w).view(h, w) != 0,
    "edge": lambda h, w, share: (torch.arange(w) < max(1, round(share * w) - (w == 1))).expand(h, w) & (w > 1),
    "lines": lambda h, w, share: (torch.arange(h)[:, None] % 3 != 1).expand(h, w) & (h > 2),
    "none": lambda h, w, share: torch.zeros(h, w, dtype=torch.bool),
}


# --- right ---


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("size", [(9, 7), (16, 16), (31, 20), (1, 40), (40, 1), (2, 33), (1, 1), (3, 3)])
def test_it_is_the_dense_solution(name, size):
    z = images(2, *size)
    removed = torch.stack([MASKS[name](*size, share) for share in (0.8, 0.4)])
    removed &= ~removed.flatten(1).all(1)[:, None, None]
    found = imputed(z, removed)
    expected = torch.stack([slow_imputed(*pair) for pair in zip(z, removed, strict=True)])
    torch.testing.assert_close(found.images.double(), expected, rtol=0, atol=1e-4)
    assert (found.residual <= 1e-4).all()
    assert torch.equal(found.images[~removed[:, None].expand_as(z)], z[~removed[:, None].expand_as(z)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_mask_on_any_size(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    count = height * width
    bits = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    removed = torch.tensor(bits).view(1, height, width)
    if removed.all():
        removed[0, 0, 0] = False
    z = images(1, height, width, seed=data.draw(st.integers(0, 9)))
    torch.testing.assert_close(
        imputed(z, removed).images[0].double(), slow_imputed(z[0], removed[0]), rtol=0, atol=2e-4
    )


def test_by_hand():
    """A corner of 2 × 2: 1/6 + 1/6 + 1/12 = .417 is its diagonal; of 3 × 3 the middle has 1, an edge .667."""
    z = torch.tensor([[1.0, 2.0], [3.0, 9.0]]).view(1, 1, 2, 2)
    corner = torch.tensor([[[False, False], [False, True]]])
    value = (1 / 12 * 1 + 1 / 6 * 2 + 1 / 6 * 3) / (5 / 12)
    assert imputed(z, corner).images[0, 0, 1, 1].item() == pytest.approx(value, abs=1e-6)
    _, matrix, _ = system(torch.zeros(1, 3, 3), torch.ones(3, 3, dtype=torch.bool))
    assert matrix.diagonal()[[0, 1, 4]] == pytest.approx([5 / 12, 2 / 3, 1])
    z = torch.arange(9.0).view(1, 1, 3, 3)
    middle, edge = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    middle[0, 1, 1] = edge[0, 0, 1] = True
    assert imputed(z, middle).images[0, 0, 1, 1].item() == pytest.approx(4)
    value = ((0 + 2 + 4) / 6 + (3 + 5) / 12) / (2 / 3)
    assert imputed(z, edge).images[0, 0, 0, 1].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("size", [(224, 224), (512, 300)])
def test_a_slope_goes_on_through_a_hole(size):
    """An image that is linear is its own imputation, wherever the hole does not touch the edge."""
    down, right = (torch.linspace(-2, 2, side) for side in size)
    z = torch.stack([down[:, None].expand(size), right.expand(size), down[:, None] - right])[None]
    for mask in (smooth(*size, 0.8), noise(*size, 0.9)):
        mask = mask.clone()
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = False, False, False, False
        found = imputed(z, mask[None])
        assert (found.images - z).abs().max() < 1e-3


@pytest.mark.parametrize("make", [smooth, noise])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_large_images_agree_with_a_direct_sparse_solution(make, share):
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    side = 96
    z, removed = images(1, side, side), make(side, side, share)
    z = F.avg_pool2d(F.pad(z, (2, 2, 2, 2), mode="reflect"), 5, 1)
    ones = sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(side, side))
    beside = sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(side, side))
    eye = sparse.eye_array(side)
    weights = sparse.csr_array((sparse.kron(ones, ones) + sparse.kron(eye, beside) + sparse.kron(beside, eye)) / 12)
    weights.setdiag(0)
    laplace = sparse.csr_array(sparse.diags_array(weights.sum(1)) - weights)
    gone, flat = removed.flatten().numpy(), z[0].flatten(1).double().numpy().T
    solved = spsolve(laplace[gone][:, gone].tocsc(), (weights[gone][:, ~gone] @ flat[~gone]))
    found = imputed(z, removed[None])
    error = np.abs(found.images[0].flatten(1).numpy().T[gone] - solved).max()
    assert error < 5e-4 and found.residual.item() <= 1e-4


def test_the_residual_reported_is_that_of_what_is_returned():
    z, removed = images(3, 14, 11), torch.stack([noise(14, 11, share) for share in (0.3, 0.6, 0.9)])
    found = imputed(z, removed, tolerance=0.3)
    for i in range(3):
        positions, matrix, right = system(z[i], removed[i])
        values = np.stack([found.images[i, :, y, x].double().numpy() for y, x in positions])
        true = np.linalg.norm(right - matrix @ values) / np.linalg.norm(right)
        assert found.residual[i].item() == pytest.approx(true, rel=0.02, abs=1e-6)
        assert true <= 0.3


def test_smooth_masks_take_about_as_many_steps_as_noise():
    """Plain conjugate gradients take 112 to 193 on such masks (below), so none of the preconditioner may be lost."""
    z = images(1, 224, 224)
    steps = {
        (make.__name__, share): imputed(z, make(224, 224, share)[None]).iterations
        for make in (smooth, noise)
        for share in (0.2, 0.8)
    }
    assert max(steps.values()) <= 8 and min(steps.values()) >= 3, steps


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (2, 300), (300, 3)])
def test_narrow_images_take_no_more(size):
    z, removed = images(1, *size), (torch.arange(300) % 41 > 2).view(-1, 1).expand(300, max(size) * min(size) // 300)
    removed = removed.reshape(size) if size[0] == 300 else removed.T.reshape(size)
    found = imputed(z, removed[None])
    assert found.iterations <= 8 and found.residual.item() <= 1e-4
    torch.testing.assert_close(found.images[0].double(), slow_imputed(z[0], removed), rtol=0, atol=1e-4)


def test_without_the_preconditioner_it_takes_many_times_as_long(monkeypatch):
    def only_jacobi(self, level=0):
        torch.mul(self.grids[0].residual, self.grids[0].inverse, out=self.grids[0].change)

    monkeypatch.setattr(Multigrid, "correct", only_jacobi)
    monkeypatch.setattr(imputation, "STEPS", 500)
    z, removed = images(1, 112, 112), smooth(112, 112, 0.8)
    assert imputed(z, removed[None]).iterations > 60


@pytest.mark.parametrize("name", ["noise", "smooth", "all but one", "lines"])
def test_the_preconditioner_is_symmetric_and_positive(name):
    """Else conjugate gradients may go anywhere."""
    removed = MASKS[name](37, 50, 0.7)[None]
    multigrid = Multigrid(torch.empty(1, 2, 37, 50), torch.float64)
    multigrid.set(removed)
    grid = multigrid.grids[0]

    def corrected(x):
        grid.residual.zero_()
        grid.residual_image.copy_(x)
        multigrid.correct()
        return grid.change_image.clone()

    one, other = torch.randn(2, 1, 2, 37, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * removed
    a, b = corrected(one), corrected(other)
    assert (a * other).sum().item() == pytest.approx((b * one).sum().item(), rel=1e-9, abs=1e-9)
    assert (a * one).sum() > 0 and (b * other).sum() > 0


def test_imputed_values_stay_between_the_kept_ones():
    z, removed = images(2, 40, 33), torch.stack([smooth(40, 33, 0.6), noise(40, 33, 0.9)])
    found = imputed(z, removed).images
    for image, mask in zip(found, removed, strict=True):
        kept = image[:, ~mask]
        assert (image <= kept.amax(1)[:, None, None] + 1e-3).all()
        assert (image >= kept.amin(1)[:, None, None] - 1e-3).all()


def test_it_is_linear_in_the_image():
    (one, other), mask = images(2, 30, 30), smooth(30, 30, 0.5)
    together = imputed((2 * one - other + 3)[None], mask[None]).images
    apart = imputed(torch.stack([one, other]), mask.expand(2, -1, -1)).images
    torch.testing.assert_close(together[0], 2 * apart[0] - apart[1] + 3, rtol=0, atol=1e-3)


# --- survives ---


def test_nothing_removed_is_nothing_changed():
    z = images(2, 12, 9)
    found = imputed(z, torch.zeros(2, 12, 9, dtype=torch.bool))
    assert torch.equal(found.images, z) and found.residual.tolist() == [0, 0] and found.iterations == 0


def test_everything_removed_is_nan_and_says_so_in_the_residual():
    z, removed = images(3, 20, 20), torch.stack([noise(20, 20, 0.5), torch.ones(20, 20) > 0, noise(20, 20, 0.7)])
    found = imputed(z, removed)
    assert found.images[1].isnan().all() and found.residual[1].isnan()
    assert found.images[[0, 2]].isfinite().all() and (found.residual[[0, 2]] <= 1e-4).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_kept_pixel_that_is_not_finite_breaks_its_own_image_only(bad):
    z, removed = images(3, 20, 20), torch.stack([smooth(20, 20, 0.5, seed) for seed in range(3)])
    expected = imputed(z, removed).images
    broken = z.clone()
    broken[1, 0][~removed[1]] = bad
    found = imputed(broken, removed)
    torch.testing.assert_close(found.images[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-5)
    assert not found.images[1, 0].isfinite().any() and found.residual[1].isnan()


def test_values_of_removed_pixels_are_not_looked_at():
    z, removed = images(2, 20, 20), torch.stack([smooth(20, 20, 0.5), noise(20, 20, 0.4)])
    hidden = torch.where(removed[:, None], torch.nan, z)
    assert torch.equal(imputed(hidden, removed).images, imputed(z, removed).images)


def test_a_constant_image_stays_constant():
    z = torch.full((2, 3, 24, 24), 1.7)
    z[1] = 0
    found = imputed(z, torch.stack([smooth(24, 24, 0.8), noise(24, 24, 0.5)]))
    torch.testing.assert_close(found.images, z, rtol=0, atol=1e-5)


def test_a_system_that_is_done_at_once_waits_for_the_others(monkeypatch):
    """Nothing removed, and a constant image: their residual is 0, and 0 / 0 must not come in while others go on."""
    monkeypatch.setattr(imputation, "CPU_VALUES", 9 * 3 * 24 * 24)
    z = images(4, 24, 24)
    z[1] = 0.5
    removed = smooth(24, 24, 0.7).repeat(4, 1, 1)
    removed[0] = False
    found = imputed(z, removed)
    assert found.iterations > 2
    assert torch.equal(found.images[0], z[0]) and found.residual[0] == 0
    torch.testing.assert_close(found.images[1], z[1], rtol=0, atol=1e-5)
    assert (found.residual <= 1e-4).all()
    torch.testing.assert_close(found.images[3], imputed(z[3:], removed[3:]).images[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_batch_equals_single_whatever_goes_together(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    z, count = images(7, 48, 40), 7
    removed = torch.stack([(smooth if i % 2 else noise)(48, 40, 0.1 + 0.12 * i, seed=i) for i in range(count)])
    expected = torch.cat([imputed(z[i : i + 1], removed[i : i + 1]).images for i in range(count)])
    monkeypatch.setattr(imputation, "CPU_VALUES", 2 * 3 * 48 * 40)
    torch.testing.assert_close(imputed(z, removed).images, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(imputed(z.flip(0), removed.flip(0)).images.flip(0), expected, rtol=0, atol=1e-5)


def test_arguments_stay_and_the_answer_is_new():
    z, removed = images(2, 16, 16), torch.stack([noise(16, 16, 0.5), MASKS["none"](16, 16, 0)])
    before, mask = z.clone(), removed.clone()
    found = imputed(z, removed)
    found.images.zero_()
    assert torch.equal(z, before) and torch.equal(removed, mask)


def test_layout_does_not_matter():
    z, removed = images(2, 20, 28), torch.stack([noise(20, 28, 0.5), smooth(20, 28, 0.5)])
    expected = imputed(z, removed).images
    turned = removed.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(imputed(z.contiguous(memory_format=torch.channels_last), turned).images, expected)
    assert torch.equal(imputed(z[:1].expand(2, -1, -1, -1), removed).images[0], expected[0])


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels):
    z, removed = torch.randn(1, channels, 18, 18, generator=torch.Generator().manual_seed(0)), noise(18, 18, 0.6)
    expected = slow_imputed(z[0], removed)
    torch.testing.assert_close(imputed(z, removed[None]).images[0].double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_the_dtype_of_the_images_is_kept(dtype, error):
    z, removed = images(1, 18, 18).to(dtype), smooth(18, 18, 0.5)
    found = imputed(z, removed[None]).images
    assert found.dtype == dtype
    torch.testing.assert_close(found[0].double(), slow_imputed(z[0], removed), rtol=0, atol=error)


def test_autocast_around_it_changes_nothing():
    z, removed = images(1, 30, 30), smooth(30, 30, 0.7)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = imputed(z, removed)
    assert torch.equal(found.images, imputed(z, removed).images)


def test_no_graph_is_built():
    z = images(1, 12, 12).requires_grad_()
    assert not imputed(z, noise(12, 12, 0.5)[None]).images.requires_grad


# --- when it does not converge ---


def test_what_float32_does_not_reach_is_solved_again_in_float64(monkeypatch):
    z, removed = images(2, 30, 30), torch.stack([smooth(30, 30, 0.7), noise(30, 30, 0.2)])
    expected, dtypes, solution = imputed(z, removed).images, [], Multigrid.solution

    def seen(self, *arguments) -> Imputed:
        dtypes.append(self.image.dtype)
        return solution(self, *arguments)

    monkeypatch.setattr(Multigrid, "solution", seen)
    monkeypatch.setattr(imputation, "STEPS", 1)
    found = imputed(z, removed)
    assert torch.float64 in dtypes and (found.residual <= 1e-4).all()
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-3)


def test_a_residual_that_stays_is_said(monkeypatch):
    monkeypatch.setattr(imputation, "STEPS", 1)
    monkeypatch.setattr(imputation, "STEPS_AGAIN", 2)
    with pytest.warns(HeatproofWarning, match=r"1 imputed images have a relative residual above 1\.0e-04, up to"):
        found = imputed(images(1, 30, 30), smooth(30, 30, 0.7)[None])
    assert found.residual.item() > 1e-4


def test_a_tolerance_beyond_float32_is_kept_to():
    z, removed = images(1, 40, 40), smooth(40, 40, 0.7)
    found = imputed(z.double(), removed[None], tolerance=1e-10)
    assert found.residual.item() <= 1e-10
    torch.testing.assert_close(found.images[0], slow_imputed(z[0], removed), rtol=0, atol=1e-8)


# --- refuses ---


def test_what_is_no_image_is_refused():
    with pytest.raises(NotApplicable, match=r"Imputation is for images \(N, C, H, W\).*\(2, 3, 16\)"):
        imputed(torch.zeros(2, 3, 16), torch.zeros(2, 16, dtype=torch.bool))
    with pytest.raises(NotApplicable, match="of floats"):
        imputed(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("mask", [torch.zeros(2, 8, 9, dtype=torch.bool), torch.zeros(2, 8, 8), torch.zeros(8, 8) > 0])
def test_a_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(InvalidInput, match=r"`removed` must be bool \(2, 8, 8\)"):
        imputed(torch.zeros(2, 3, 8, 8), mask)


@pytest.mark.parametrize("tolerance", [0, -1.0, torch.nan])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(InvalidInput, match="`tolerance` must be above 0"):
        imputed(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool), tolerance=tolerance)
