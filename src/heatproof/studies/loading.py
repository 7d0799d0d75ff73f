"""The models of a study, loaded by its settings, in the states that its conditions name."""

from collections.abc import Sequence
from pathlib import Path

import torch

from heatproof.attributions import requested
from heatproof.class_names import checked_names
from heatproof.engine import Batch, chosen_layer, resolve_layers
from heatproof.models import Model, load_model
from heatproof.models.checkpoint import load_weights
from heatproof.models.compiled import with_compiled
from heatproof.models.randomisation import Randomised
from heatproof.studies.conditions import INTACT, RANDOMISED, checkpoint_of
from heatproof.studies.settings import Plan

#: Models of this process that a plan names by `given:NAME`; workers in other processes do not have them.
GIVEN_MODELS: dict[str, Model] = {}
GIVEN = "given:"


class StudyModels:
    """The models of a study by index; one is held at a time, with one changed state of it."""

    def __init__(self, plan: Plan, device: str, compiled: Sequence[str] = ()):
        self.plan, self.device, self._compiled = plan, device, tuple(compiled)
        self._loaded: tuple[int, Model] | None = None
        self._changed: tuple[str, Model] | None = None

    def __len__(self) -> int:
        return len(self.plan.models)

    def __call__(self, index: int, state: str = INTACT) -> Model:
        """The model at that index, in a state of `Condition`.

        Raises:
            ModelError, UnknownName …: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != index:
            self.clear()
            self._loaded = (index, self._load(index))
        model = self._loaded[1]
        if state == INTACT:
            return model
        if self._changed is None or self._changed[0] != state:
            self._changed = None
            changed = (
                randomised(model, self.plan.seed)
                if state == RANDOMISED
                else reweighted(model, checkpoint_of(state), self.plan.models[index].allow_pickle_code)
            )
            self._changed = (state, changed)
        return self._changed[1]

    def adopt(self, index: int, names: Sequence[str], plan: Plan) -> None:
        """Gives the model at that index, which is held, names taken from a set of images; `plan` has them too."""
        self.plan, self._changed = plan, None
        self._loaded = (index, self(index).with_classes(names, by_images=True))

    def compile(self, names: Sequence[str]) -> None:
        """From now on these models run on a compiled copy where only logits are wanted.

        Raises:
            ModelError: one cannot be compiled here, or its compiled copy gives other logits.
        """
        self._compiled, held = tuple(names), self._loaded
        if held is not None and self.plan.models[held[0]].label in names and held[1].compiled is None:
            self._loaded = (held[0], with_compiled(held[1]))

    def clear(self) -> None:
        """Drops the models that are held."""
        self._loaded = self._changed = None

    def _load(self, index: int) -> Model:
        model = self._ordinary(index)
        return with_compiled(model) if self.plan.models[index].label in self._compiled else model

    def _ordinary(self, index: int) -> Model:
        """The model as the plan describes it."""
        wanted = self.plan.models[index]
        if wanted.spec.startswith(GIVEN):
            model = GIVEN_MODELS[wanted.spec.removeprefix(GIVEN)]
            model.warn_of_assumptions()
            model = model if wanted.classes is None else model.with_classes(checked_names(wanted.classes))
            return model.as_values() if wanted.output == "value" else model
        return load_model(wanted.spec, device=self.device, name=wanted.label, **wanted.loading)


def randomised(model: Model, seed: int) -> Model:
    """A copy with all weights drawn anew."""
    copy = Randomised(model, seed)
    for block in copy.blocks(0):
        copy.redraw(block)
    return copy.model


def reweighted(model: Model, checkpoint: Path, allow_pickle_code: bool = False) -> Model:
    """A copy with the weights of another checkpoint."""
    copy = model.copied()
    load_weights(copy.module, checkpoint, model.name, allow_pickle_code)
    return copy


def has_linear_head(model: Model, layer: str) -> bool:
    """Whether the logits are a linear function of the spatial average of `layer` (a name, or `auto`)."""
    found = chosen_layer(model, layer, True)
    x = torch.full((1, *model.input_shape), 0.5, device=model.device)
    batch = Batch.of(model, resolve_layers(model, requested(["gradcam"]), found), x)
    with model.evaluating(), torch.no_grad():
        return batch.head(found) is not None
