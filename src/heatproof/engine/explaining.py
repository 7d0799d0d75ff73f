"""The public call: images in, maps out, any number of methods from the same passes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from heatproof import explained_output, targets
from heatproof.ambient import neutral
from heatproof.attributions import requested
from heatproof.data.inputs import Inputs
from heatproof.engine.call import Call, as_model
from heatproof.engine.explanation import Explanation, explanation
from heatproof.flags import as_text
from heatproof.memo import cached_property
from heatproof.models import Model
from heatproof.registry import unknown
from heatproof.tensors import UPSAMPLING


class Maps(Mapping[str, torch.Tensor]):
    """Method → maps `(N, H, W)`, by the spellings asked for, with targets, layers and flags.

    With several targets for each image, `target` is `(N, T)`, maps are `(N, T, H, W)` and flags a list for each.

    Attributes:
        target: `(N,)` the classes explained.      logits: `(N, K)`.
        layer: the layer's name.                   layers: method → the layers it read, shallow → deep.
        flags: method → one reason per map, `""` where it is fine.
        image_flags: one reason per image, `""` where it is fine; an image may be nearly one colour after preprocessing.
        ids: the images' names.
    """

    def __init__(self, maps: dict[str, torch.Tensor], **about: Any):
        self._maps = maps
        self.target: torch.Tensor = about["target"]
        self.logits: torch.Tensor = about["logits"]
        self.layer: str = about["layer"]
        self.layers: dict[str, tuple[str, ...]] = about["layers"]
        self.flags: dict[str, Any] = about["flags"]
        self._inputs: Inputs = about["inputs"]

    @cached_property
    def ids(self) -> list[str]:
        """File names, or hashes of the content."""
        return list(self._inputs.ids)

    @cached_property
    def image_flags(self) -> list[str]:
        """Why an image is doubtful, `""` where it is fine."""
        return self._inputs.flags

    def __getitem__(self, method: str) -> torch.Tensor:
        return self._maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(maps.shape)}" for name, maps in self.items())
        return f"Maps({shapes}; layer={self.layer!r})"


@neutral()
def explain(
    model: Model | nn.Module,
    images: Any,
    methods: Any = ("gradcam",),
    target: targets.Rule = "predicted",
    layer: str | nn.Module = "auto",
    raw: bool = False,
    *,
    output: explained_output.Output = "logit",
    upsample: str = "bilinear",
    labels: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    differentiable: bool = False,
) -> Maps:
    """Explains images with one or several methods, all from the same passes.

    Args:
        model: from `load_model` or `wrap`; a bare `nn.Module` is wrapped with the defaults of `wrap`.
        images: paths, PIL images, arrays `(H, W, 3)`, `(H, W)` or `(3, H, W)`, one or several: resized and cropped by
            the model's geometry. Unless the model has a `window`, the range of integers of 8 and 16 bits is that of
            their type, and floating-point values lie in [0, 1]. A float tensor `(N, 3, H, W)` is taken as it is: RGB in
            [0, 1], never resized. For signals and volumes (`wrap(…, input_shape=…)`) a float tensor `(N, C, *spatial)`,
            as the network takes it.
        methods: names (see `heatproof list methods`), `name@layer`, `refine:name`, `name[option=value]`, or a mapping
            from those to options.
        target: `predicted`, `label` (give `labels`), `least`, `top3`, an integer, the name of a class, one of the two
            for each image, or a callable on the logits. Several for each image, `(N, T)`, share one forward pass.
        layer: a name, a module of the model, or `auto`: the last feature map before pooling. A layer that runs several
            times in a forward pass has the number of the call in its name: `encoder#0`, `encoder#1`.
        raw: signed maps at layer resolution instead of display maps (three channels where a method has them).
        output: the number that is explained: `logit`, `probability`, `log-probability`, or a callable
            `(logits (N, K), target (N,)) → (N,)`.
        upsample: `bilinear`, `bicubic` or `nearest`.
        differentiable: maps keep their graph to a tensor `images` that requires a gradient.

    Returns:
        A mapping from the spellings asked for to `(N, H, W)` float tensors on the model's device, in [0, 1], higher =
        more important; zeros where a map is constant or not finite, with the reason in `.flags`. `(N, T, H, W)` for
        several targets.

    Raises:
        UnknownName, InvalidInput, InvalidTarget: each says what was expected.
        LayerError: a layer that runs several times and is named without its call, that does not depend on the image, or
            whose rows are not images.
        ModelError: several images where the network mixes the images of a batch (batch-wise attention).
        NotApplicable: a method that does not apply to this network; raised before any work.
    """
    model = as_model(model)
    requests = requested(methods)
    if upsample not in UPSAMPLING:
        raise unknown("`upsample`", str(upsample), UPSAMPLING)
    call = Call.of(
        model, images, requests, target, layer, labels=labels, output=output, seed=seed, batch_size=batch_size
    )
    parts: list[Explanation] = list(
        call.over(lambda rows: explanation(call.batch(rows, differentiable=differentiable), call.methods,
                                           upsample=upsample))
    )  # fmt: skip
    pick = (lambda part, key: part.raw[key]) if raw else (lambda part, key: part.display(key, upsample))
    return Maps(
        {method.key: torch.cat([pick(part, method.key) for part in parts]) for method in call.methods},
        target=torch.cat([part.target for part in parts]),
        logits=torch.cat([part.logits for part in parts]),
        layer=call.layer,
        layers={method.key: method.layers for method in call.methods if method.request.spatial},
        flags={m.key: as_text(flag for part in parts for flag in part.flags[m.key]) for m in call.methods},
        inputs=call.inputs,
    )
