"""A cache of facts about a network that lives as long as the network, and no longer."""

from collections.abc import Callable, Hashable, MutableMapping
from typing import Generic, TypeVar

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

V = TypeVar("V")


class PerModule(Generic[V]):
    """Values by module and key (a layer, a size; None where a module has one value).

    Modules are told apart by identity. They are not kept alive, so a value must not hold its module.
    """

    def __init__(self) -> None:
        self._known: MutableMapping[nn.Module, dict[Hashable, V]] = WeakIdKeyDictionary()

    def found(self, module: nn.Module, key: Hashable, work: Callable[[], V]) -> V:
        """The cached value, else that of `work()`, which is cached from then on; nothing is cached if `work` raises."""
        known = self._known.setdefault(module, {})
        if key not in known:
            known[key] = work()
        return known[key]

    def get(self, module: nn.Module, key: Hashable = None) -> V | None:
        """The cached value, or None."""
        return self._known.get(module, {}).get(key)

    def put(self, module: nn.Module, key: Hashable, value: V) -> None:
        """Caches a value."""
        self._known.setdefault(module, {})[key] = value

    def carry(self, source: nn.Module, target: nn.Module) -> None:
        """What is known of one module is known of another from now on: a copy, for facts that weights do not change."""
        self._known.setdefault(target, {}).update(self._known.get(source, {}))
