"""The public call: images in, maps out, any number of methods from the same passes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof import explained_output, targets
from heatproof.ambient import neutral
from heatproof.attributions import requested
from heatproof.data.inputs import Inputs
from heatproof.data.streams import Stream
from heatproof.engine.call import Call, as_model
from heatproof.engine.explanation import Explanation, explanation
from heatproof.errors import InvalidInput
from heatproof.flags import as_text
from heatproof.lazy_plots import plots
from heatproof.memo import cached_property
from heatproof.progress import reported
from heatproof.registry import unknown
from heatproof.tensors import UPSAMPLING


class Maps(Mapping[str, torch.Tensor]):
    """Method → maps `(N, H, W)`, by the spellings asked for, with targets, layers and flags.

    With several targets for each image, `target` is `(N, T)`, maps are `(N, T, H, W)` and flags a list for each.

    Attributes:
        target: `(N,)` the classes explained.
        logits: `(N, K)`.
        layer: the layer's name.
        layers: method → the layers it read, shallow → deep.
        flags: method → one reason per map, `""` where it is fine.
        image_flags: one reason per image, `""` where it is fine; an image may be nearly one colour after preprocessing.
            One that cannot be read has zeros for maps, logits NaN and target -1.
        ids: the images' names.
        labels: one per image, None where unknown.
        classes: the names of the model's classes, None where they are not known.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> maps = heatproof.explain(heatproof.load_model("shapes"), demo_shapes(n=3), ["gradcam", "refine:layercam"])
        >>> maps
        Maps(gradcam: (3, 96, 96), refine:layercam: (3, 96, 96); layer='stage4')
        >>> maps.layers["refine:layercam"]
        ('stage1', 'stage2', 'stage3', 'stage4')
        >>> maps.flags["gradcam"]
        ['', '', '']
    """

    def __init__(self, maps: dict[str, torch.Tensor], **about: Any):
        self._maps = maps
        self.target: torch.Tensor = about["target"]
        self.logits: torch.Tensor = about["logits"]
        self.layer: str = about["layer"]
        self.layers: dict[str, tuple[str, ...]] = about["layers"]
        self.flags: dict[str, Any] = about["flags"]
        self.labels: list[int | None] = about["labels"]
        self.classes: Sequence[str] | None = about.get("classes")
        self._inputs: Inputs | Stream = about["inputs"]

    @cached_property
    def ids(self) -> list[str]:
        """File names, or hashes of the content."""
        return list(self._inputs.ids)

    @cached_property
    def image_flags(self) -> list[str]:
        """Why an image is doubtful, `""` where it is fine."""
        return self._inputs.flags

    def image(self, row: int) -> np.ndarray:
        """An image as the network saw it, before normalisation, uint8 `(H, W, 3)`; see `heatproof.plot.panel`.

        Raises:
            InvalidInput: it is no image, or one of a Dataset or an iterable of which only the first 64 are kept.
        """
        return self._inputs.seen(row)

    def plot(self, **options: Any) -> Any:
        """The images with the maps over them, a matplotlib figure: `heatproof.plot.panel(maps, **options)`."""
        return plots().panel(self, **options)

    def widget(self, **options: Any) -> Any:
        """Images, methods, opacity and threshold to choose in a notebook: `heatproof.plot.widget(maps, **options)`."""
        return plots().widget(self, **options)

    def _repr_png_(self) -> bytes | None:
        return plots().notebook_picture(self)

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
    model: Any,
    images: Any,
    methods: Any = ("gradcam",),
    target: targets.Rule = "predicted",
    layer: str | nn.Module = "auto",
    raw: bool = False,
    *,
    output: explained_output.Output = "logit",
    upsample: str = "bilinear",
    labels: Sequence[int | str | None] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    differentiable: bool = False,
    normalised: bool = False,
    progress: Any = False,
) -> Maps:
    """Explains images with one or several methods, all from the same passes.

    Args:
        model: from `load_model` or `wrap`; a bare `nn.Module` is wrapped with the defaults of `wrap`, and so is an
            image-classification pipeline of Hugging Face, with the preprocessing of its image processor.
        images: paths, PIL images, arrays `(H, W, C)`, `(H, W)` or `(C, H, W)`, one or several: resized and cropped by
            the model's geometry. Unless the model has a `window`, the range of integers of 8 and 16 bits is that of
            their type, and floating-point values lie in [0, 1]. A tensor `(N, C, H, W)` is taken as it is: RGB in
            [0, 1], or bytes, never resized. For signals and volumes (`wrap(…, input_shape=…)`) a float tensor
            `(N, C, *spatial)`, as the network takes it. Also a folder (one subfolder per class gives labels), a pattern
            (`photos/*.jpg`), `shapes`, a torch Dataset or DataLoader, a dataset of Hugging Face, a data frame, or an
            iterable, whose elements are images, `(image, label)`, `(image, label, id)` or mappings with an image (or
            its `path`) and a label; they are read batch by batch, and an image that cannot be read is flagged.
        methods: names (see `heatproof list methods`), `name@layer`, `refine:name`, `name[option=value]`, or a mapping
            from those to options.
        target: `predicted`, `label` (those of `images`, or `labels`), `least`, `top3`, an integer, the name of a class,
            one of the two for each image, or a callable on the logits. Several for each image, `(N, T)`, share one
            forward pass.
        layer: a name, a module of the model, or `auto`: the last feature map before pooling. A layer that runs several
            times in a forward pass has the number of the call in its name: `encoder#0`, `encoder#1`.
        raw: signed maps at layer resolution instead of display maps (three channels where a method has them).
        output: the number that is explained: `logit`, `probability`, `log-probability`, `value` for a network whose
            outputs are numbers in units of their own (a regression; the target is a column, by default the only one),
            or a callable `(logits (N, K), target (N,)) → (N,)`. One logit l stands for two classes with the logits
            −l/2 and l/2, so the raw map of class 1 is half of that of l; `value` explains l itself.
        upsample: `bilinear`, `bicubic` or `nearest`.
        labels: one for each image, in place of those of `images`: the index or the name of a class; None, or a negative
            number, for no label.
        differentiable: maps keep their graph to a tensor `images` that requires a gradient.
        normalised: tensors are normalised with the model's mean and std, as training code does; they are undone.
        progress: True for a bar with the time left, in a notebook or on a terminal, if it takes over two seconds; or a
            function, called with `(stage, done, total)`; or an object with `stage` and `advance`.

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

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> maps = heatproof.explain(model, demo_shapes(n=3), ["gradcam", "refine:layercam"])
        >>> maps["gradcam"].shape
        torch.Size([3, 96, 96])
    """
    model = as_model(model)
    requests = requested(methods)
    if upsample not in UPSAMPLING:
        raise unknown("`upsample`", str(upsample), UPSAMPLING)
    call = Call.of(
        model, images, requests, target, layer, labels=labels, output=output, seed=seed, batch_size=batch_size,
        normalised=normalised,
    )  # fmt: skip

    def work(rows: slice) -> Explanation:
        batch = call.batch(rows, differentiable=differentiable)
        step = lambda units: bar.advance(units * len(batch.x) / len(call.methods) / batch.target[0].numel())  # noqa: E731
        return explanation(batch, call.methods, upsample=upsample, advance=step)

    with reported(progress) as bar:
        bar.stage("Explaining", call.inputs.count or 0)
        parts: list[Explanation] = list(call.over(work))
    pick = (lambda part, key: part.raw[key]) if raw else (lambda part, key: part.display(key, upsample))
    failed = call.inputs.failed
    target, logits = (torch.cat([getattr(part, name) for part in parts]) for name in ("target", "logits"))
    known = call.inputs.labels if call.labels is None else call.labels
    return Maps(
        {m.key: without(_joined([pick(part, m.key) for part in parts]), failed, 0) for m in call.methods},
        target=without(target, failed, -1),
        logits=without(logits, failed, torch.nan),
        layer=call.layer,
        layers={method.key: method.layers for method in call.methods if method.request.spatial},
        flags={m.key: _all_flags([part.flags[m.key] for part in parts], failed) for m in call.methods},
        labels=[None] * len(target) if known is None else known,
        classes=model.classes,
        inputs=call.inputs,
    )


def _joined(maps: list[torch.Tensor]) -> torch.Tensor:
    """The maps of all batches; InvalidInput where images, and so maps, have unequal sizes."""
    sizes = {tuple(part.shape[-2:]) for part in maps}
    if len(sizes) > 1:
        raise InvalidInput(
            f"Images of a call must have one size, as their maps are one tensor. Got maps of "
            f"{' and '.join(f'{height}×{width}' for height, width in sorted(sizes))}. Resize them in the dataset, give "
            "PIL images, or explain those of each size by themselves."
        )
    return torch.cat(maps)


def without(values: torch.Tensor, failed: Mapping[int, str], value: float) -> torch.Tensor:
    """`(N, …)` with `value` in the rows of images that could not be used."""
    if not failed:
        return values
    rows = torch.tensor(list(failed), device=values.device)
    return values.index_fill(0, rows, value)


def _all_flags(parts: Sequence[Sequence[Any]], failed: Mapping[int, str]) -> list[Any]:
    """The flags of all maps of a method as text; those of images that could not be used say why."""
    found = as_text(flag for part in parts for flag in part)
    for row, reason in failed.items():
        found[row] = [reason] * len(found[row]) if isinstance(found[row], list) else reason
    return found
