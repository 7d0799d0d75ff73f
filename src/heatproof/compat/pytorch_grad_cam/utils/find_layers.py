"""Layers of a model by type or by a function, in the order of its children, by the names of pytorch-grad-cam."""

from collections.abc import Callable, Sequence

from torch import nn

from heatproof.compat.missing import missing_names


def find_layer_predicate_recursive(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The modules inside the model for which the function holds."""
    found: list[nn.Module] = []
    for layer in model.children():
        found += [layer] if predicate(layer) else []
        found += find_layer_predicate_recursive(layer, predicate)
    return found


def find_layer_types_recursive(model: nn.Module, layer_types: Sequence[type]) -> list[nn.Module]:
    """The modules inside the model that are of one of these types, and of no subclass."""
    return find_layer_predicate_recursive(model, lambda layer: type(layer) in layer_types)


def replace_layer_recursive(model: nn.Module, old_layer: nn.Module, new_layer: nn.Module) -> bool:
    """Puts a layer in another's place, its first one; returns whether there was one."""
    for name, layer in model.named_children():
        if layer is old_layer:
            setattr(model, name, new_layer)
            return True
        if replace_layer_recursive(layer, old_layer, new_layer):
            return True
    return False


def replace_all_layer_type_recursive(
    model: nn.Module, old_layer_type: type | tuple[type, ...], new_layer: nn.Module
) -> None:
    """Puts one layer in the place of all layers of a type; the layers inside the replaced ones are left."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, old_layer_type):
            setattr(model, name, new_layer)
        else:
            replace_all_layer_type_recursive(layer, old_layer_type, new_layer)


__getattr__ = missing_names(__name__, {})
