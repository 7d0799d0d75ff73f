"""Zero-shot classifiers: the image tower of a CLIP or SigLIP model, with prompts for classes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.errors import InvalidInput, ModelError
from heatproof.geometry import Geometry
from heatproof.models.image_processor import processor_preprocessing
from heatproof.models.model import Model
from heatproof.models.preprocessing import Preprocessing, per_channel
from heatproof.seeds import seeded

#: Mean and std of the published checkpoints, by the family's `model_type`; images are resized to the shorter side and
#: cropped for CLIP, and squashed for SigLIP.
_PUBLISHED = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class ZeroShot(nn.Module):
    """Normalised images `(N, 3, H, W)` → logits `(N, prompts)`: a linear head on the image's unit vector.

    The head's weights are the prompts' unit vectors times the model's scale, so the text tower runs once, when the
    classifier is made, and what changes weights (`mprt`) finds the prompts in `head`.
    """

    def __init__(self, model: Any, prompts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.vision_model: nn.Module = model.vision_model
        self.visual_projection: nn.Module = getattr(model, "visual_projection", nn.Identity())
        with seeded(torch.Generator(), torch.device("cpu")):  # it draws its first weights
            head = nn.Linear(prompts.shape[1], len(prompts), dtype=prompts.dtype, device="cpu")
        self.head = head.to(prompts.device)
        self.training = model.training
        with torch.no_grad():
            self.head.weight.copy_(prompts * scale)
            self.head.bias.copy_(bias.expand(len(prompts)))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The logits that the whole model gives as `logits_per_image`."""
        found = self.visual_projection(self.vision_model(pixel_values=z).pooler_output)
        return self.head(found / found.norm(dim=-1, keepdim=True))


def zero_shot(
    model: nn.Module,
    tokenizer: Callable[..., Any],
    prompts: Sequence[str],
    *,
    processor: Any = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
    resize: int | str | None = "auto",
    crop: float | None = None,
    interpolation: str | None = None,
    window: Sequence[float] | str | None = None,
    alpha_background: str | None = None,
    value_range: float | None = None,
    channel_order: str | None = None,
    multi_label: bool | None = None,
    name: str | None = None,
    device: str | torch.device = "auto",
    layer: "str | nn.Module | None" = None,
) -> Model:
    """A CLIP or SigLIP model of transformers as a classifier whose classes are prompts, for all that heatproof does.

        model = heatproof.zero_shot(clip, tokenizer, ["a photo of a cat", "a photo of a dog"])
        heatproof.explain(model, "pets.jpg", ["gradcam", "chefer"], target="top2")

    Args:
        model: a `CLIPModel` or `SiglipModel`. Its image tower is used as it is, not copied.
        tokenizer: its tokenizer, or its processor, which has a tokenizer and an image processor.
        prompts: at least two texts, each once; they are the names of the classes, in this order.
        processor: its image processor, for mean, std and size; where neither it nor `tokenizer` has one, those of the
            published checkpoints of the family are taken, with a warning that says so.
        mean, std, size, resize, crop, interpolation, window, alpha_background, value_range, channel_order: in place of
            the processor's, as in `load_model`.
        multi_label: probabilities are sigmoids, as SigLIP was trained with; a softmax over the prompts otherwise. By
            default as the family was trained.
        name, device, layer: as in `wrap`.

    Raises:
        InvalidInput: fewer than two prompts, or one twice.
        ModelError: a model of another kind, or whose parts do not give the logits that the whole gives.

    Examples:
        >>> import heatproof
        >>> import torch, transformers
        >>> small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
        >>> text = {**small, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 8}
        >>> vision = {**small, "image_size": 32, "patch_size": 8}
        >>> config = transformers.CLIPConfig(text_config=text, vision_config=vision)
        >>> def tokenizer(texts, **_):  # that of a published model comes with it
        ...     ids = torch.tensor([[1, 2 + ("cat" in text), 8] for text in texts])
        ...     return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        >>> model = heatproof.zero_shot(
        ...     transformers.CLIPModel(config), tokenizer, ["a cat", "a dog"], mean=0.5, std=0.25, size=32
        ... )
        >>> model.classes
        ['a cat', 'a dog']
    """
    family = _family(model)
    texts = _checked_prompts(prompts)
    base = _preprocessing(model, family, processor or getattr(tokenizer, "image_processor", None))
    seen = {"crop": crop, "window": window, "alpha_background": alpha_background}
    seen |= {"value_range": value_range, "channel_order": channel_order}
    chosen = base.overridden(mean, std, size, resize, interpolation, texts, **seen)
    if device != "auto":
        model.to(device)
    where = next(model.parameters()).device
    whole = Model(model, chosen, name or type(model).__name__, where)
    classifier = _classifier(whole, _tokens(tokenizer, texts, model, family))
    several = family == "siglip" if multi_label is None else multi_label
    found = Model(classifier, chosen, whole.name, where, layer, multi_label=several)
    found.warn_of_assumptions()
    return found


def _family(model: Any) -> str:
    found = str(getattr(getattr(model, "config", None), "model_type", ""))
    if not isinstance(model, nn.Module) or found not in _PUBLISHED or not hasattr(model, "text_model"):
        raise ModelError(
            f"Expected a CLIPModel or SiglipModel of transformers, with its text tower. Got {type(model).__name__}. "
            "Wrap another model in a module that gives one logit for each prompt, and give that to heatproof.wrap."
        )
    return found


def _checked_prompts(prompts: Any) -> list[str]:
    texts = [] if isinstance(prompts, str) else list(prompts)
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"`prompts` must be at least two texts, each once. Got {prompts!r}.")
    return texts


def _preprocessing(model: Any, family: str, processor: Any) -> Preprocessing:
    """That of the image processor; without one mean and std of the family's published checkpoints are assumed."""
    if processor is not None:
        return processor_preprocessing(processor)
    side = int(model.config.vision_config.image_size)
    means, stds = _PUBLISHED[family]
    resize = side if family == "clip" else None
    geometry = Geometry((side, side), resize, "bicubic")
    return Preprocessing(per_channel("mean", means), per_channel("std", stds), geometry, assumed=("mean", "std"))


def _tokens(tokenizer: Any, texts: list[str], model: Any, family: str) -> dict[str, torch.Tensor]:
    """The tokens of the prompts, as the text tower takes them; SigLIP was trained with prompts of full length."""
    tokenizer = tokenizer.tokenizer if hasattr(tokenizer, "image_processor") else tokenizer
    length = int(model.config.text_config.max_position_embeddings)
    padding = "max_length" if family == "siglip" else True
    found = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    device = next(model.parameters()).device
    return {key: found[key].to(device) for key in ("input_ids", "attention_mask") if key in found}


def _classifier(model: Model, tokens: dict[str, torch.Tensor]) -> ZeroShot:
    """The parts put together, compared with the whole model on noise."""
    whole: Any = model.module
    noise = torch.rand((2, *model.input_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    with neutral(), model.evaluating(), torch.no_grad():  # in the precision of the weights
        z = model.normalise(noise).to(model.dtype)
        try:
            expected = whole(pixel_values=z, **tokens)
        except Exception as error:  # whatever the towers raise on prompts or images that they were not made for
            raise ModelError(
                f"Expected {model.name} to run on these prompts and on images of {' × '.join(map(str, z.shape[2:]))}. "
                f"It failed with {type(error).__name__}: {error}. Give its own tokenizer, and set `size`."
            ) from error
        scale = whole.logit_scale.exp()
        bias = getattr(whole, "logit_bias", torch.zeros_like(scale))
        found = ZeroShot(whole, expected.text_embeds, scale, bias)
        logits = found(z)
    rounding = max(1e-4, 16 * torch.finfo(model.dtype).eps) * float(scale)
    if not torch.allclose(logits, expected.logits_per_image, rtol=1e-3, atol=rounding):
        raise ModelError(
            f"Expected {model.name} to compare unit vectors of images and prompts. Its image tower and projection do "
            "not give the logits of the whole model."
        )
    return found
