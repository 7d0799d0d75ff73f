"""Where the places of a native output are, by hand-made cases and by all patch sizes of many images."""

import pytest
import torch
from torch import nn
from torchvision.ops.misc import Permute

from heatproof.errors import LayerError
from heatproof.models import Layout, layout_of

SQUARE = (224, 224)


class LayerNorm2d(nn.LayerNorm):
    """As in timm and torchvision: a LayerNorm by class whose channels come first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("module", "shape", "size", "expected"),
    [
        (nn.Identity(), (2, 768, 7, 7), SQUARE, Layout("channels-first", 0, (7, 7))),
        (nn.Identity(), (2, 7, 7, 768), SQUARE, Layout("channels-last", 0, (7, 7))),
        (nn.Identity(), (2, 3, 2, 768), (96, 64), Layout("channels-last", 0, (3, 2))),
        (nn.Identity(), (2, 768, 2, 3), (64, 96), Layout("channels-first", 0, (2, 3))),
        (nn.Identity(), (2, 8, 7, 7), SQUARE, Layout("channels-first", 0, (7, 7))),
        (nn.Identity(), (2, 7, 7, 8), SQUARE, Layout("channels-last", 0, (7, 7))),
        # A grid that divides nothing: 225 × 150 at stride 32, rounded down and up.
        (nn.Identity(), (2, 64, 7, 4), (225, 150), Layout("channels-first", 0, (7, 4))),
        (nn.Identity(), (2, 8, 5, 64), (225, 150), Layout("channels-last", 0, (8, 5))),
        # Both readings fit; the module's kind decides, and without one channels come first.
        (nn.Conv2d(3, 7, 1), (2, 7, 7, 7), SQUARE, Layout("channels-first", 0, (7, 7))),
        (nn.LayerNorm(7), (2, 7, 7, 7), SQUARE, Layout("channels-last", 0, (7, 7))),
        (LayerNorm2d(7), (2, 7, 7, 7), SQUARE, Layout("channels-first", 0, (7, 7))),
        (nn.Linear(3, 7), (2, 7, 7, 7), SQUARE, Layout("channels-last", 0, (7, 7))),
        (nn.Identity(), (2, 7, 7, 7), SQUARE, Layout("channels-first", 0, (7, 7))),
        (nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 7)), (2, 7, 7, 7), SQUARE, Layout("channels-last", 0, (7, 7))),
        # The width of a LayerNorm says where the channels are, whatever the aspect looks like.
        (nn.LayerNorm(96), (2, 14, 28, 96), SQUARE, Layout("channels-last", 0, (14, 28))),
        (LayerNorm2d(96), (2, 96, 14, 28), SQUARE, Layout("channels-first", 0, (14, 28))),
        # A network with another stride along time than along frequency: no reading fits, channels come first.
        (nn.Identity(), (2, 64, 28, 7), SQUARE, Layout("channels-first", 0, (28, 7))),
        # Tokens: none, a class token, DeiT's two, DINOv2's five in front.
        (nn.LayerNorm(768), (2, 196, 768), SQUARE, Layout("tokens", 0, (14, 14))),
        (nn.LayerNorm(768), (2, 197, 768), SQUARE, Layout("tokens", 1, (14, 14))),
        (nn.LayerNorm(768), (2, 198, 768), SQUARE, Layout("tokens", 2, (14, 14))),
        (nn.LayerNorm(768), (2, 261, 768), SQUARE, Layout("tokens", 5, (16, 16))),
        (nn.LayerNorm(768), (2, 50, 768), SQUARE, Layout("tokens", 1, (7, 7))),
        (nn.Identity(), (2, 169, 64), (224, 192), Layout("tokens", 1, (14, 12))),
        (nn.Identity(), (2, 20, 384), (70, 42), Layout("tokens", 5, (5, 3))),
        (nn.Identity(), (2, 197, 64), (230, 230), Layout("tokens", 1, (14, 14))),  # the border is dropped
        (nn.Identity(), (2, 226, 64), (230, 230), Layout("tokens", 1, (15, 15))),  # the border is padded
        # Signals and volumes keep their one and three dimensions.
        (nn.Conv1d(1, 8, 3), (2, 8, 50), (100,), Layout("channels-first", 0, (50,))),
        (nn.LayerNorm(8), (2, 50, 8), (100,), Layout("channels-last", 0, (50,))),
        (nn.Conv3d(1, 8, 3), (2, 8, 4, 7, 7), (8, 14, 14), Layout("channels-first", 0, (4, 7, 7))),
    ],
)
def test_layout_of_known_outputs(module, shape, size, expected) -> None:
    assert layout_of(module, torch.zeros(shape), size) == expected


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_every_patch_size_that_divides_the_image_is_recovered(prefix: int) -> None:
    """Wherever the rule decides, it decides right: all grids of at least 4 × 4 on many aspects."""
    for patch in (8, 14, 16, 32):
        for rows in range(4, 17):
            for columns in range(4, 17):
                output = torch.zeros(1, prefix + rows * columns, 2)
                layout = layout_of(nn.Identity(), output, (rows * patch, columns * patch))
                assert layout == Layout("tokens", prefix, (rows, columns)), (patch, rows, columns)


def test_a_prefix_that_is_known_decides() -> None:
    output = torch.zeros(1, 9, 4)
    assert layout_of(nn.Identity(), output, (48, 48)).grid == (3, 3)
    assert layout_of(nn.Identity(), output, (48, 48), prefix=5) == Layout("tokens", 5, (2, 2))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(3, 1000), (2, 1000)),
        (nn.AdaptiveAvgPool2d(1), (2, 512, 1, 1)),
        (nn.Identity(), (2, 1, 768)),
    ],
)
def test_outputs_without_places_are_refused_with_their_shape(module, shape) -> None:
    with pytest.raises(LayerError, match=" × ".join(map(str, ("N", *shape[1:])))):
        layout_of(module, torch.zeros(shape), SQUARE)


def test_counts_that_no_grid_explains_are_refused() -> None:
    with pytest.raises(LayerError, match="N × 700 × 8"):
        layout_of(nn.Identity(), torch.zeros(2, 700, 8), (224, 32))


def test_integers_are_no_feature_map() -> None:
    with pytest.raises(LayerError):
        layout_of(nn.Identity(), torch.zeros((2, 3, 7, 7), dtype=torch.int64), SQUARE)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout("channels-first", 0, (3, 2)), (2, 5, 3, 2)),
        (Layout("channels-last", 0, (3, 2)), (2, 3, 2, 5)),
        (Layout("tokens", 4, (3, 2)), (2, 10, 5)),
        (Layout("channels-last", 0, (6,)), (2, 6, 5)),
    ],
)
def test_grid_is_a_differentiable_view_and_the_way_back_is_exact(layout: Layout, shape: tuple[int, ...]) -> None:
    native = torch.randn(shape, requires_grad=True)
    grid = layout.to_grid(native)
    assert grid.shape == (2, 5, *layout.grid)
    assert torch.equal(layout.from_grid(grid, native), native)
    weights = torch.randn(grid.shape)
    (gradient,) = torch.autograd.grad((grid * weights).sum(), native)
    assert torch.equal(layout.to_grid(gradient), weights)
    if layout.prefix:
        assert not gradient[:, : layout.prefix].any()


def test_places_run_row_by_row() -> None:
    native = torch.arange(7.0).view(1, 7, 1)  # a class token, then 2 × 3 places
    assert Layout("tokens", 1, (2, 3)).to_grid(native).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_one_row_of_prefix_tokens_serves_many_variants() -> None:
    layout, native = Layout("tokens", 2, (2, 2)), torch.randn(1, 6, 3)
    variants = torch.randn(4, 3, 2, 2)
    back = layout.from_grid(variants, native)
    assert back.shape == (4, 6, 3)
    assert torch.equal(back[:, :2], native[:, :2].expand(4, 2, 3))
    assert torch.equal(layout.to_grid(back), variants)


def test_a_permute_is_read_by_its_aspect() -> None:
    """torchvision's Swin ends in one: channels last before it, first after it."""
    before = torch.zeros(1, 3, 2, 768)
    after = Permute([0, 3, 1, 2])(before)
    assert layout_of(Permute([0, 3, 1, 2]), after, (96, 64)) == Layout("channels-first", 0, (3, 2))
