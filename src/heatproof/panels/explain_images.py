"""Explains images batch by batch: cheap methods together, costly ones one after another."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import torch

import heatproof
from heatproof import explained_output, targets
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.engine import Batch, Explanation, explanation, halved
from heatproof.errors import InvalidImage, InvalidInput, InvalidTarget, NotApplicable, UnknownName, warn
from heatproof.flags import Flag, Reason
from heatproof.models import Model
from heatproof.models.model_code import model_code
from heatproof.models.preprocessing import preprocessing_facts
from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Map
from heatproof.panels.image_sources import ImageSource, as_uint8
from heatproof.panels.masks import mask_of
from heatproof.panels.selection import Selection
from heatproof.rounding import top_class
from heatproof.tensors import NEARLY_ONE_COLOUR, contrast

#: Images per pass. Fewer with costly methods, which fill their passes by themselves: the progress moves more often, and
#: less is lost where a run is stopped.
BATCH, BATCH_COSTLY, BATCH_COSTLY_ON_GPU = 16, 1, 8


@dataclass(frozen=True)
class MapSettings:
    """Everything that determines the maps."""

    model: Model
    asked: Selection
    target: Any = "predicted"
    output: explained_output.Output = "logit"
    upsample: str = "bilinear"
    seed: int = 0
    batch_size: int | None = None
    _fingerprint: list[str] = field(default_factory=list, init=False, compare=False)

    @property
    def units(self) -> int:
        """Methods per image."""
        return len(self.asked.methods)

    def digest(self, shot: ImageSource, x: torch.Tensor, row: int) -> str:
        """A hash of everything that decides the maps of one image; empty where that is not possible (a callable)."""
        if callable(self.output) or callable(self.target):
            return ""
        if not self._fingerprint:
            codes = [PLUGIN_METHODS.code(one.request.entry) for one in self.asked.methods]
            self._fingerprint.append(" ".join([self.model.fingerprint, model_code(self.model), *codes]))
        methods = [(p.key, p.request.name, p.layers, sorted(p.request.options.items())) for p in self.asked.methods]
        target = self.target if isinstance(self.target, str) else _target_of_row(self.target, row)
        seen = preprocessing_facts(self.model.preprocessing)
        model = (self.model.name, self._fingerprint[0], seen, self.model.multi_label, self.model.output_kind)
        told = (
            heatproof.__version__,
            model,
            methods,
            target,
            shot.label,
            shot.id,
            self.output,
            self.upsample,
            self.seed,
        )
        digest = hashlib.blake2b(json.dumps(told, default=str).encode(), digest_size=16)
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())  # more than 8 bits may count
        return digest.hexdigest()


def _target_of_row(target: Any, row: int) -> Any:
    classes = targets.as_classes(target)
    return (classes[row] if classes.dim() else classes).tolist()


#: (position of an image, its digest) → the entry of an earlier run, or None.
Known = Callable[[int, str], ExplainedImage | None]


def entries(
    work: MapSettings, shots: Sequence[ImageSource], progress: Any, known: Known | None = None
) -> Iterator[tuple[ExplainedImage, str]]:
    """One entry for each image, in order, with its digest; an image that cannot be opened has a flagged entry.

    Raises:
        InvalidTarget: targets or labels that do not fit the images, before the first image.
        NotApplicable: no method applies to this network.
    """
    shots = with_targets(work, shots)
    costly = any(method.costly for method in work.asked.methods)
    few = BATCH_COSTLY if work.model.device.type == "cpu" else BATCH_COSTLY_ON_GPU
    size = work.batch_size or (few if costly else BATCH)
    left_out: list[ImageSource] = []
    progress.stage("Explaining", len(shots) * work.units)
    for start in range(0, len(shots), size):
        rows = range(start, min(start + size, len(shots)))
        for row, (entry, digest) in zip(rows, _chunk(work, shots, rows, progress, known), strict=True):
            left_out += [shots[row]] if entry.image is not None and entry.label is None else []
            yield entry, digest
    _warn_of_strange_labels(work.model, [shot for shot in left_out if shot.label is not None])


def _chunk(
    work: MapSettings, shots: Sequence[ImageSource], rows: range, progress: Any, known: Known | None
) -> Iterator[tuple[ExplainedImage, str]]:
    done: dict[int, ExplainedImage] = {}
    digests: dict[int, str] = {}
    fresh: dict[int, torch.Tensor] = {}
    for row in rows:
        x, flag = open_image(shots[row])
        if x is not None and known is not None:
            digests[row] = work.digest(shots[row], x, row)
        there = known(row, digests[row]) if x is not None and known and digests[row] else None
        if x is not None and there is None:
            fresh[row] = x
        else:
            done[row] = (
                _renamed(there, shots[row], work.model)
                if there
                else ExplainedImage(shots[row].id, shots[row].name, flag=flag)
            )
            progress.advance(work.units)
    for batch in _same_size(fresh):
        done |= _explain_fresh(work, shots, batch, progress)
    for row in rows:
        yield _with_mask(done[row], shots[row], work.model), digests.get(row, "")


def _renamed(entry: ExplainedImage, shot: ImageSource, model: Model) -> ExplainedImage:
    """An entry of an earlier run with the names that image and classes have now."""
    answer = lambda one: one and replace(one, name=model.class_name(one.index))  # noqa: E731
    blocks = tuple(replace(block, answer=answer(block.answer)) for block in entry.blocks)
    predicted, label = answer(entry.predicted), answer(entry.label)
    return replace(entry, name=shot.name, predicted=predicted, label=label, blocks=blocks)


def _with_mask(entry: ExplainedImage, shot: ImageSource, model: Model) -> ExplainedImage:
    if entry.image is None:
        return entry
    return replace(entry, mask=mask_of(shot, model.geometry, entry.image.shape[:2]))


def open_image(shot: ImageSource) -> tuple[torch.Tensor | None, str]:
    """The image of a source as the network takes it, or None and why it cannot be opened."""
    if shot.flag:
        return None, shot.flag
    try:
        return shot.open(), ""
    except InvalidImage as error:
        return None, str(error).removeprefix(f"{PurePath(shot.id).name}: ")


def _same_size(fresh: Mapping[int, torch.Tensor]) -> list[dict[int, torch.Tensor]]:
    found: dict[tuple[int, ...], dict[int, torch.Tensor]] = {}
    for row, x in fresh.items():
        found.setdefault(tuple(x.shape), {})[row] = x
    return list(found.values())


def _explain_fresh(
    work: MapSettings, shots: Sequence[ImageSource], fresh: Mapping[int, torch.Tensor], progress: Any
) -> dict[int, ExplainedImage]:
    rows, images = list(fresh), torch.stack(list(fresh.values()))
    done: dict[int, ExplainedImage] = {}

    def run(part: slice) -> None:
        taken = rows[part]
        batch = _batch(work, [shots[row] for row in taken], taken, images[part])
        found, refused = _run_methods(work, batch, progress)
        for i, row in enumerate(taken):
            done[row] = entry_of(work, shots[row], images[part][i], batch, found, refused, i)

    for _ in halved(run, len(rows)):
        pass
    return done


def _batch(work: MapSettings, shots: list[ImageSource], rows: list[int], x: torch.Tensor) -> Batch:
    target = work.target
    if not isinstance(target, str) and not callable(target):
        classes = targets.as_classes(target)
        target = classes[rows] if classes.dim() else classes
    return Batch.of(
        work.model,
        work.asked.methods,
        x.to(work.model.device),
        target_rule=target,
        ids=[shot.id for shot in shots],
        seed=work.seed,
        labels=[shot.label for shot in shots] if target == "label" else None,
        output=work.output,
    )


def _run_methods(work: MapSettings, batch: Batch, progress: Any) -> tuple[dict[str, Explanation], dict[str, str]]:
    """Method → the explanation that holds it; one forward pass serves all groups."""
    cheap = [method for method in work.asked.methods if not method.costly]
    groups = [cheap] if cheap else []
    groups += [[method] for method in work.asked.methods if method.costly]
    found: dict[str, Explanation] = {}
    refused: dict[str, str] = {}
    for group in groups:
        said = explanation(batch, group, survive=True, upsample=work.upsample)
        for method in group:
            reason = _refusal(said.flags[method.key])
            if reason:
                refused[method.key] = reason
            else:
                found[method.key] = said
        progress.advance(len(group) * len(batch.x))
    if not found:
        raise NotApplicable(f"No method asked for can explain {work.model.name}: {next(iter(refused.values()))}.")
    return found, refused


def _refusal(flags: Any) -> str:
    """Why a method turned out not to apply; empty where it did. Wrong options of the caller are raised as an error."""
    first: Flag = flags[0] if isinstance(flags[0], Flag) else flags[0][0]
    if isinstance(first.error, InvalidInput | UnknownName):
        raise first.error
    return first.rstrip(".") if first.reason is Reason.NOT_APPLICABLE else ""


def entry_of(
    work: MapSettings,
    shot: ImageSource,
    x: torch.Tensor,
    batch: Batch,
    found: Mapping[str, Explanation],
    refused: Mapping[str, str],
    i: int,
) -> ExplainedImage:
    """The entry of row `i` of a batch, `x` its image; `found`: method → the explanation that holds its maps."""
    logits, target = batch.logits[i].cpu(), batch.target[i].reshape(-1).tolist()
    probabilities = work.model.probabilities(logits[None])[0]
    answer = lambda index: _answer(work.model, probabilities, index)  # noqa: E731
    several = batch.target.dim() == 2
    blocks = [
        ExplainedClass(answer(index), _maps(work, found, i, t if several else None)) for t, index in enumerate(target)
    ]
    values = work.model.of_values  # a label is a class, and none is predicted
    label = None if shot.label is None or values or shot.label >= len(logits) else answer(shot.label)
    predicted = answer(target[0] if values else int(top_class(logits)))
    note = Reason.ONE_COLOUR.value if float(contrast(x[None])[0]) < NEARLY_ONE_COLOUR else ""
    return ExplainedImage(shot.id, shot.name, as_uint8(x), predicted, label, tuple(blocks), refused=refused, note=note)


def _maps(work: MapSettings, found: Mapping[str, Explanation], i: int, column: int | None) -> dict[str, Map]:
    maps = {}
    for method in work.asked.methods:
        if method.key not in found:
            continue
        said = found[method.key]
        raw, flag = said.raw[method.key][i], said.flags[method.key][i]
        display = said.display(method.key, work.upsample)[i]
        if column is not None:
            raw, flag, display = raw[column], flag[column], display[column]
        maps[method.key] = Map(raw.detach().cpu().numpy(), display.detach().cpu().numpy(), str(flag), _degenerate(flag))
    return maps


def _answer(model: Model, probabilities: torch.Tensor, index: int) -> ClassProbability:
    name, score = model.class_name(index), float(probabilities[index])
    return ClassProbability(index, name, value=score) if model.of_values else ClassProbability(index, name, score)


def _degenerate(flag: Any) -> bool:
    return isinstance(flag, Flag) and flag.degenerate


# --- targets ---


def with_targets(work: MapSettings, shots: Sequence[ImageSource]) -> list[ImageSource]:
    """The images, those without a label flagged where the target is the label.

    Raises:
        InvalidTarget: another number of targets than images, or labels are needed and there are none.
    """
    _check_targets(work, shots)
    return _flag_unlabelled(work, shots)


def _check_targets(work: MapSettings, shots: Sequence[ImageSource]) -> None:
    """Raises an error for a wrong number of targets, before the network runs."""
    if isinstance(work.target, str) or callable(work.target):
        return
    classes = targets.as_classes(work.target)
    if classes.dim() and (classes.dim() > 2 or len(classes) != len(shots)):
        raise targets.miscounted(classes.shape, len(shots))


def _warn_of_strange_labels(model: Model, strange: Sequence[ImageSource]) -> None:
    """Warns of images whose label is no class of the network."""
    if strange and not model.of_values:
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        warn(
            f"Labels must lie in 0 … {model.outputs - 1}, the model's classes. Got {strange[0].label} for "
            f"{strange[0].name}{more}; these labels are left out."
        )


def _flag_unlabelled(work: MapSettings, shots: Sequence[ImageSource]) -> list[ImageSource]:
    """For target `label`, images without a label get a flag; InvalidTarget where no image has one."""
    if work.target != "label":
        return list(shots)
    usable = [shot for shot in shots if not shot.flag]
    if usable and all(shot.label is None for shot in usable):
        why = "".join(f"{text} " for text in dict.fromkeys(shot.matching for shot in usable) if text)
        raise InvalidTarget(f"Target `label` needs labels. Got none. {why}Give labels, or use target `predicted`.")
    flag = "has no label, and target `label` needs one"
    return [shot if shot.flag or shot.label is not None else replace(shot, flag=flag) for shot in shots]
