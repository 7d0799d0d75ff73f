"""Caches of facts that live as long as what they are about: of a network, and of an object."""

from collections.abc import Callable, Hashable, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

V = TypeVar("V")

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property:
        """A property that is worked out once for each object.

        As `functools.cached_property` from Python 3.12 on. Before, that one has a lock for all objects of a class: one
        thread would wait while another explains a different network, or both for each other.
        """

        def __init__(self, function: Callable[[Any], Any]):
            self.function, self.__doc__ = function, function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            known = instance.__dict__
            return known[self.name] if self.name in known else known.setdefault(self.name, self.function(instance))


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
