"""The fixed images of a monitor, opened once, and the network around which they are explained."""

import inspect
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from heatproof.data.items import as_rows, is_source, length, read_items
from heatproof.errors import InvalidInput, NotApplicable, warn
from heatproof.loggers.unchanged_training import refuse_sharded
from heatproof.models import Model, wrap
from heatproof.models.model import bare, module_device
from heatproof.panels.explain_images import MapSettings, open_image, with_targets
from heatproof.panels.image_sources import ImageSource
from heatproof.panels.masks import mask_of
from heatproof.panels.selection import grouped
from heatproof.panels.show import checked_job
from heatproof.registry import unknown

#: The most images of a monitor: all are kept in memory.
MOST = 512

#: Where the classifier is in what a training loop holds: as it is, an attribute's name, or a function.
Part = str | Callable[[nn.Module], nn.Module] | None


@dataclass(frozen=True)
class MonitoredImages:
    """Images in memory, with what is needed to explain them.

    Attributes:
        work: model, methods and settings. sources: one for each image, with its name and label; `flag` says why one
            cannot be used.
        x: row → image `(C, H, W)`, of those that can. masks: row → bool `(H, W)`, where there is one.
    """

    work: MapSettings
    sources: list[ImageSource]
    x: Mapping[int, torch.Tensor]
    masks: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, model: Model, images: Any, **settings: Any) -> "MonitoredImages":
        """Opens all images; `settings` are those of `heatproof.show`.

        Raises:
            NotApplicable: a method that does not apply to the network. InvalidInput: no image can be used.
        """
        known = length(as_rows(images)) if is_source(images) else None
        _refuse_many(known or 0)
        job = checked_job(model, images, **settings)
        _refuse_many(len(job.shots))
        if job.work.asked.refused:
            raise NotApplicable(f"For {model.name} leave out {grouped(job.work.asked.refused)}.")
        found, opened, masks = with_targets(job.work, job.shots), {}, {}
        for row, source in enumerate(found):
            x, flag = open_image(source)
            if x is None:
                found[row] = replace(source, flag=flag)
                continue
            opened[row] = x.detach().cpu()
            mask = mask_of(source, job.work.model.geometry, tuple(x.shape[-2:]))  # type: ignore[arg-type]
            if mask is not None:
                masks[row] = mask
        _tell_of_flagged(found)
        return cls(job.work, found, opened, masks)

    @property
    def methods(self) -> list[str]:
        """The methods by their spelling."""
        return [method.key for method in self.work.asked.methods]

    def groups(self, size: int) -> Iterator[list[int]]:
        """Rows of images of one size, `size` of them at the most."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, x in self.x.items():
            by_shape.setdefault(tuple(x.shape), []).append(row)
        for rows in by_shape.values():
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def follow(self, network: nn.Module) -> None:
        """The network may have been moved to another device or cast since."""
        model = self.work.model
        model.device = module_device(network)
        model.__dict__.pop("dtype", None)


def _refuse_many(count: int) -> None:
    if count > MOST:
        raise InvalidInput(
            f"A monitor explains all of its images every time, so give at most {MOST}: `images[:8]`, or "
            f"`torch.utils.data.Subset(data, range(8))`. Got {count}."
        )


def _tell_of_flagged(found: list[ImageSource]) -> None:
    flagged = [source for source in found if source.flag]
    if len(flagged) == len(found):
        raise InvalidInput(f"None of {len(found)} images can be used. The first: {flagged[0].flag.rstrip('.')}.")
    if flagged:
        more = f", and {len(flagged) - 1} more" if len(flagged) > 1 else ""
        warn(f"Left out of maps and scores: {flagged[0].name} ({flagged[0].flag.rstrip('.')}){more}.")


# --- the network ---


def classifier(given: Any, part: Part) -> Any:
    """The module, or the `Model`, to explain in what a training loop holds.

    Raises:
        UnknownName: `part` names no attribute. InvalidInput: no module, or one without a forward pass.
        ModelError: weights that are spread over processes.
    """
    if isinstance(given, Model):
        return given
    found = given
    if isinstance(part, str):
        try:
            found = operator.attrgetter(part)(given)
        except AttributeError:
            known = [name for name, _ in given.named_children()] if isinstance(given, nn.Module) else []
            raise unknown(f"part of {type(given).__name__}", part, known or ["(none)"]) from None
    elif callable(part):
        found = part(given)
    if not isinstance(found, nn.Module):
        raise InvalidInput(f"`network` must lead to a torch.nn.Module. Got {type(found).__name__}.")
    found = bare(found)
    if not _has_forward(found):
        names = ", ".join(repr(name) for name, _ in found.named_children()) or "none"
        raise InvalidInput(
            f"{type(found).__name__} has no forward pass. Name the classifier in it, `network=…`. Its parts: {names}."
        )
    refuse_sharded(found)
    return found


def _has_forward(module: nn.Module) -> bool:
    """Whether a forward pass of its own is defined, and not only the one of a base class, which raises."""
    if "forward" in vars(module):
        return True
    home = next(kind for kind in type(module).__mro__ if "forward" in vars(kind)).__module__
    return home != nn.Module.__module__ and home.partition(".")[0] not in ("lightning", "pytorch_lightning")


def monitored_model(network: Any, images: Any, normalised: bool, settings: Mapping[str, Any]) -> Model:
    """A network as a model whose tensors are what the network takes in training, where `normalised`.

    Their mean and std are undone where they are known: given, or in the network's own configuration. Where they are
    not, tensors are taken as they are.
    """
    if isinstance(network, Model):
        if settings:
            raise InvalidInput(f"{network.name} is wrapped already. Leave out {', '.join(settings)}.")
        return network
    model = wrap(network, **settings)
    shape = None if "input_shape" in settings else tensor_shape(images)
    if shape is None:
        return model
    preprocessing = model.preprocessing
    if not normalised:
        return wrap(network, **{"size": shape[1:], **settings}) if "size" in preprocessing.assumed else model
    known = not {"mean", "std"} <= set(preprocessing.assumed)
    own = {"mean": model.mean, "std": model.std} if known else {}
    found = wrap(network, **{**settings, **own, "input_shape": shape})
    found.warns_as_given = False  # they are tensors
    return found


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Raises UnknownName for a setting that `heatproof.wrap` does not have."""
    allowed = [name for name in inspect.signature(wrap).parameters if name not in ("module", "device")]
    for name in settings:
        if name not in allowed:
            raise unknown("setting", name, allowed)
    return dict(settings)


def tensor_shape(images: Any) -> tuple[int, ...] | None:
    """`(C, H, W)` of images that are tensors, by themselves or in a Dataset, a DataLoader or a list; else None."""
    if isinstance(images, torch.Tensor):
        return tuple(images.shape[1:]) if images.dim() == 4 else None
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Iterator) or not is_source(images):
        return None
    first = next(iter(read_items(as_rows(images))), None)
    image = None if first is None else first.image
    return tuple(image.shape) if isinstance(image, torch.Tensor) and image.dim() == 3 else None
