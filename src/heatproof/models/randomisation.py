"""A copy of a classifier whose weights are drawn anew, block by block, for model-parameter randomisation.

The classifier itself is never changed. New weights depend on the study's seed and the layer's name alone: they are the
same for every image, batch, method, order and device.
"""

import copy
from itertools import chain, pairwise

import torch
from torch import nn

from heatproof import seeds
from heatproof.errors import ModelError
from heatproof.models.model import Model
from heatproof.models.observable import some_compiled
from heatproof.models.probe import quantised

#: Orders in which blocks lose their weights (`stages_of`).
ORDERS = {
    "cascading": "from the output to the input, one after the other",
    "bottom-up": "from the input to the output, one after the other",
    "independent": "each by itself, from the output to the input, all others as they were",
}


def layers_with_weights(module: nn.Module) -> list[str]:
    """The names of all modules that have parameters of their own, in the order in which they were registered.

    From stem to head in the networks of torchvision and timm; inside a block it need not be the order of the pass.
    """
    return [name for name, part in module.named_modules() if any(p is not None for p in part._parameters.values())]


def blocks_of(names: list[str], most: int) -> list[list[str]]:
    """Consecutive layers in at most `most` blocks of nearly equal length; 0: each layer is a block."""
    count = min(most, len(names)) if most else len(names)
    ends = [round(i * len(names) / max(count, 1)) for i in range(count + 1)]
    return [names[start:end] for start, end in pairwise(ends)]


class Randomised:
    """A copy of a classifier, `model`, whose layers can get new weights and the original ones again."""

    def __init__(self, original: Model, seed: int):
        self.original, self.seed = original, seed
        self.model = original.copied()

    def blocks(self, most: int) -> list[list[str]]:
        """Its layers with weights, in blocks, from the input to the output.

        Raises:
            ModelError: a network that has none.
        """
        names = layers_with_weights(self.original.module)
        if not names:
            packed = (
                " A quantised network keeps them packed: take the float network."
                if quantised(self.original.module)
                else ""
            )
            raise ModelError(f"Expected a network with weights. {self.original.name} has none to draw anew.{packed}")
        if some_compiled(self.original.module):
            raise ModelError(
                f"Expected a network whose weights can be drawn anew. {self.original.name} is compiled by TorchScript. "
                "Give the Python module that it was made of."
            )
        return blocks_of(names, most)

    @torch.no_grad()
    def redraw(self, names: list[str]) -> None:
        """These layers get new weights, and new statistics where they keep any."""
        for name in names:
            self._redraw(self.model.module.get_submodule(name), seeds.generator(self.seed, name, "new weights"))

    @torch.no_grad()
    def put_back(self, names: list[str]) -> None:
        """These layers get the weights of the original."""
        for name in names:
            pairs = (_own(one.module.get_submodule(name)) for one in (self.model, self.original))
            for mine, before in zip(*pairs, strict=True):
                mine.copy_(before)

    def _redraw(self, part: nn.Module, generator: torch.Generator) -> None:
        fresh = copy.deepcopy(part).to("cpu", torch.float32)  # so that every device and precision has the same numbers
        if not _reset(fresh, generator):
            _shuffle(fresh, generator)
        for mine, new in zip(_own(part), _own(fresh), strict=True):
            mine.copy_(new)


def _own(part: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers of a module itself; those of its children are layers of their own."""
    return list(chain(part.parameters(recurse=False), part.buffers(recurse=False)))


def _reset(part: nn.Module, generator: torch.Generator) -> bool:
    """Calls the module's own `reset_parameters`; False where it has none that can be called."""
    reset = getattr(part, "reset_parameters", None)
    if not callable(reset):
        return False
    with seeds.seeded(generator, torch.device("cpu")):
        try:
            reset()
        except Exception:  # it needs arguments, or parts that are missing
            return False
    return True


def _shuffle(part: nn.Module, generator: torch.Generator) -> None:
    """Permutes the values of each parameter at random, which keeps their distribution."""
    for parameter in part.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.copy_(parameter.reshape(-1)[order].view(parameter.shape))
