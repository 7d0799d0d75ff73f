"""The Model class: one shape of logits, preprocessing, flags put back, fingerprints."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from heatproof.errors import InvalidInput, LayerError, ModelError, UnknownName
from heatproof.geometry import Geometry
from heatproof.models import Layers, Model, wrap

LOGITS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
OTHER = torch.zeros(2, 8, 4, 4)
Pair = namedtuple("Pair", ["logits", "aux"])


class Toy(nn.Module):
    """Two stages and a linear head; returns what `answer` makes of (logits, features)."""

    def __init__(self, answer=lambda logits, features: logits):
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(6, 5)
        self.answer = answer

    def forward(self, x: torch.Tensor):
        features = self.stage2(self.stage1(x))
        return self.answer(self.head(features.mean((2, 3))), features)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return wrap(Toy(), size=16)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        LOGITS[:, :, None, None],
        (LOGITS, OTHER),
        (OTHER, LOGITS),
        [OTHER, (OTHER, LOGITS)],
        Pair(LOGITS, OTHER),
        {"logits": LOGITS, "features": torch.ones(2, 7)},
        OrderedDict(features=torch.ones(2, 7), out=LOGITS),
        {"embedding": torch.ones(2, 7), "output": LOGITS},
        {"hidden": OTHER, "scores": LOGITS},
        SimpleNamespace(logits=LOGITS),
    ],
    ids=str,
)
def test_logits_are_found_in_what_models_return(model: Model, output) -> None:
    assert torch.equal(model.unwrap(output), LOGITS)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(()), r"shape \(\)"),
        (OTHER, r"shape \(2, 8, 4, 4\)"),
        ((OTHER,), "a tuple of a tensor"),
        ({"features": OTHER}, "a dict of features"),
        ({}, "a dict of nothing"),
        (None, "NoneType"),
        ("cat", "a str"),
    ],
)
def test_other_outputs_are_refused_and_described(model: Model, output, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        model.unwrap(output)


def test_a_toy_with_a_tuple_or_dict_output_is_a_classifier() -> None:
    x = torch.rand(2, 3, 16, 16)
    torch.manual_seed(0)
    plain = wrap(Toy(), size=16)
    for answer in (lambda a, f: (f, a), lambda a, f: {"features": f, "logits": a}):
        torch.manual_seed(0)
        other = wrap(Toy(answer), size=16)
        assert other.layers == plain.layers == Layers("stage2", ("stage1", "stage2"))
        with plain.evaluating(), other.evaluating():
            assert torch.equal(other.logits(x), plain.logits(x))


def test_normalise_is_per_channel_and_keeps_device_and_dtype() -> None:
    model = wrap(Toy(), mean=(0.1, 0.2, 0.3), std=(1, 2, 4), value_range=1)
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    z = model.normalise(x)
    assert z.dtype == torch.float64 and z.device == x.device
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (1, 2, 4), strict=True)):
        torch.testing.assert_close(z[:, channel], (x[:, channel] - mean) / std, rtol=1e-12, atol=1e-12)
    assert model.normalise(x.float()).dtype == torch.float32
    assert model.normalise(x[0][None, :, :, 0]).shape == (1, 3, 5)


def test_normalising_in_inference_mode_first_does_not_spoil_gradients_later() -> None:
    model, x = wrap(Toy()), torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        model.normalise(x)
    x.requires_grad_()
    model.normalise(x).sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, 2.0))


def test_logits_are_float32_for_a_model_of_another_precision() -> None:
    model = wrap(Toy().to(torch.bfloat16), size=16)
    with model.evaluating():
        logits = model.logits(torch.rand(2, 3, 16, 16))
    assert logits.dtype == torch.float32 and logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Geometry((224, 224), 256)),
        ({"size": 96}, Geometry((96, 96), 109)),
        ({"size": (64, 96)}, Geometry((64, 96), (73, 109))),
        ({"size": (64, 96), "crop": 1}, Geometry((64, 96), (64, 96))),
        ({"size": 96, "crop": 0.75}, Geometry((96, 96), 128)),
        ({"size": (64, 96), "resize": [70, 100]}, Geometry((64, 96), (70, 100))),
        ({"size": 96, "resize": "none"}, Geometry((96, 96), None)),
        ({"window": [0, 4095]}, Geometry((224, 224), 256, window=(0.0, 4095.0))),
        ({"window": "-160, 240"}, Geometry((224, 224), 256, window=(-160.0, 240.0))),
        ({"alpha_background": "#000"}, Geometry((224, 224), 256, background="#000")),
        ({"size": 96, "resize": None}, Geometry((96, 96), None)),
        ({"size": [96], "resize": 96, "interpolation": "Bicubic"}, Geometry((96, 96), 96, "bicubic")),
    ],
)
def test_wrap_makes_the_geometry(settings, expected: Geometry) -> None:
    assert wrap(Toy(), **settings).geometry == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": (0.5, 0.5)}, "`mean` must be one number or three"),
        ({"mean": "red"}, "`mean` must be one number or three"),
        ({"std": 0}, "`std` must be above 0"),
        ({"std": float("nan")}, "`std` must be one number or three"),
        ({"size": 0}, "`size` must be"),
        ({"size": 22.5}, "`size` must be"),
        ({"size": (1, 2, 3)}, "`size` must be"),
        ({"size": True}, "`size` must be"),
        ({"resize": -1}, "`resize` must be"),
        ({"resize": (1, 2, 3)}, "`resize` must be"),
        ({"crop": 0}, "`crop` must be a share above 0 and at most 1"),
        ({"crop": 1.5}, "`crop` must be a share above 0 and at most 1"),
        ({"crop": 0.5, "resize": 99}, "`resize` and `crop` say the same in two ways"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(settings, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        wrap(Toy(), **settings)


def test_an_unknown_interpolation_gets_near_misses() -> None:
    with pytest.raises(UnknownName, match="bilinear"):
        wrap(Toy(), interpolation="bilineal")


def test_only_modules_are_wrapped() -> None:
    with pytest.raises(InvalidInput, match=r"torch\.nn\.Module"):
        wrap(lambda x: x)  # type: ignore[arg-type]


def test_a_layer_of_the_users_is_canonical_and_last() -> None:
    toy = Toy()
    by_name, by_module = wrap(toy, size=16, layer="stage1[-1]"), wrap(toy, size=16, layer=toy.stage1[2])
    assert by_name.layers.last == by_module.layers.last == "stage1.2"
    assert by_name.submodule("auto") is toy.stage1[2]


# --- flags ---


def _flags(module: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]


def test_evaluating_puts_back_every_single_flag(model: Model) -> None:
    toy = model.module
    toy.train()
    toy.stage1[1].eval()  # a frozen batch norm, as in fine-tuning
    toy.head.bias.requires_grad_(False)
    before = _flags(toy)
    with model.evaluating():
        assert not any(_flags(toy)[0]) and not any(_flags(toy)[1])
        with model.evaluating():
            assert not any(_flags(toy)[0]) and not any(_flags(toy)[1])
        assert not any(_flags(toy)[0]) and not any(_flags(toy)[1])  # the inner one ends without waking anything
    assert _flags(toy) == before and any(before[0]) and not all(before[0])


def test_evaluating_puts_flags_back_after_an_error(model: Model) -> None:
    model.module.train()
    before = _flags(model.module)
    with pytest.raises(KeyboardInterrupt), model.evaluating():
        raise KeyboardInterrupt
    assert _flags(model.module) == before


def test_evaluating_calls_no_overridden_train() -> None:
    class Merging(Toy):
        """Like LoRA layers, whose train() rewrites the weights."""

        def train(self, mode: bool = True):
            raise AssertionError("train() was called")

    toy = Merging()
    with wrap(toy).evaluating():
        assert not toy.training
    assert toy.training


def test_batch_statistics_do_not_move_while_evaluating(model: Model) -> None:
    model.module.train()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    assert model.layers  # a probing forward
    with model.evaluating():
        model.logits(torch.rand(2, 3, 16, 16))
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


# --- fingerprints ---


def test_a_fingerprint_tells_weights_buffers_and_names_apart() -> None:
    def made(change=lambda toy: None) -> str:
        torch.manual_seed(0)
        toy = Toy()
        change(toy)
        return wrap(toy).fingerprint

    def nudged(toy: Toy) -> None:
        with torch.no_grad():
            toy.head.bias[0] += 1e-6

    def counted(toy: Toy) -> None:
        toy.stage1[1].running_mean += 1

    def cast(toy: Toy) -> None:
        toy.to(torch.bfloat16)

    def renamed(toy: Toy) -> None:
        toy.head2 = toy.head
        del toy.head

    prints = [made(), made(nudged), made(counted), made(cast), made(renamed)]
    assert made() == prints[0]
    assert len(set(prints)) == len(prints)


def test_repr_says_what_it_is(model: Model) -> None:
    assert repr(model) == "Model('Toy', Toy, 16×16, cpu)"


def test_a_model_without_weights_can_be_wrapped() -> None:
    with pytest.raises(LayerError, match="Take a method that reads no layer"):
        _ = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8).layers
