"""Which class a map explains: the rules of protocols §1, resolved against a batch of logits."""

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from heatproof.class_names import class_index, nearest_names
from heatproof.errors import InvalidTarget
from heatproof.registry import nearest
from heatproof.rounding import behind_largest, top_class
from heatproof.transfers import on_device

#: The rules that have a name; an integer, one integer per image, or a callable on the logits are rules too.
RULES = {
    "predicted": "the image's own most probable class (needs no labels)",
    "label": "the image's label",
    "clean": "the most probable class of the unperturbed image",
    "least": "the least probable class",
}

#: A rule that names several classes of an image: the most probable ones.
TOP = r"top([0-9]{1,6})"
#: The rule that names all labels of an image, where it may have several.
LABELS = "labels"
#: A rule that names one more class of an image: `label:2` is its second label, `predicted:2` its second most probable.
NTH = r"(label|predicted):([1-9][0-9]{0,5})"
#: The index of a class as text; longer numbers are no class of any network.
INDEX = r"-?[0-9]{1,18}"

Rule = str | int | Sequence[int | str] | Sequence[Sequence[int | str]] | torch.Tensor | Callable[[torch.Tensor], Any]


def resolved(
    rule: Rule,
    logits: torch.Tensor,
    labels: Sequence[int | None] | None = None,
    clean: torch.Tensor | None = None,
    *,
    values: bool = False,
) -> torch.Tensor:
    """The target class of every image, `(N,)` int64 on the logits' device; `(N, T)` where the rule names several.

    Args:
        rule: one of `RULES`, `top3` (the three most probable, any number), an integer for all, one integer or several
            per image, or a callable `(N, K) → (N,)` or `(N, T)`.
        logits: `(N, K)`.
        labels: one per image, for `label`.
        clean: `(N,)`, the clean predictions, for `clean`.
        values: the outputs are values, so a target is a column. No class is predicted: of one column `predicted` and
            `clean` are that column, of several the column must be named.

    Raises:
        InvalidTarget: an unknown rule, too few or too many targets, or a class outside 0 … K − 1.
    """
    count, classes = logits.shape
    if values and isinstance(rule, str) and not re.fullmatch(INDEX, rule):
        rule = _only_column(rule, classes)
    target = as_classes(_apply_rule(rule, logits, labels, clean))
    of_logits = isinstance(rule, str) and target.is_cuda  # one of their own positions, so asking would wait for nothing
    if target.dim() == 0:
        target = target.expand(count)
    if target.dim() > 2 or len(target) != count or not target.numel():
        raise miscounted(target.shape, count)
    outside = (target < 0) | (target >= classes)
    if not of_logits and outside.any():
        worst = int(target[outside][0])
        raise InvalidTarget(f"Targets must lie in 0 … {classes - 1}, the model's classes. Got {worst}.")
    return on_device(target.to(torch.int64), logits.device)


def _only_column(rule: str, columns: int) -> int:
    """The column that a rule names in a network of values.

    Raises:
        InvalidTarget: a rule about classes, or several columns of which none is named.
    """
    if rule not in RULES and not re.fullmatch(TOP, rule):
        raise InvalidTarget(unknown_rule(rule))
    if rule in ("predicted", "clean") and columns == 1:
        return 0
    named = "0, its only column" if columns == 1 else f"one of its columns, 0 … {columns - 1}"
    raise InvalidTarget(f"A network of values has no classes. Expected as target {named}. Got {rule!r}.")


def miscounted(shape: Sequence[int], count: int) -> InvalidTarget:
    """The error for targets that are not one, or the same number, for each image."""
    return InvalidTarget(
        f"Expected one target for each of the {count} images. Got {tuple(shape)}. Give an integer for all, a list with "
        "one integer per image, or one list of equal length per image."
    )


def as_classes(given: Any) -> torch.Tensor:
    """An integer, or several, as a tensor; InvalidTarget for anything else."""
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTarget(
            f"A target must be one of {', '.join(RULES)}, top3, an integer, or one integer per image. Got {given!r}."
        ) from None
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype is torch.bool:
        raise InvalidTarget(f"Targets must be integers. Got {found.dtype}.")
    return found


def _apply_rule(rule: Rule, logits: torch.Tensor, labels: Any, clean: torch.Tensor | None) -> Any:
    if callable(rule):
        return rule(logits)
    if not isinstance(rule, str):
        return rule
    if rule == "predicted":
        return top_class(logits)
    if rule == "least":
        return top_class(-logits)
    if rule == "clean":
        return top_class(logits) if clean is None else clean
    if rule == "label":
        return _require_labels(labels, len(logits))
    if several := re.fullmatch(TOP, rule):
        return _most_probable(logits, int(several[1]), rule)
    if (ranked := re.fullmatch(NTH, rule)) and ranked[1] == "predicted":
        return _most_probable(logits, int(ranked[2]), rule)[:, -1]
    if re.fullmatch(INDEX, rule):
        return int(rule)
    raise InvalidTarget(unknown_rule(rule))


def _most_probable(logits: torch.Tensor, count: int, rule: str) -> torch.Tensor:
    if not 1 <= count <= logits.shape[1]:
        raise InvalidTarget(f"Target `{rule}` must name 1 … {logits.shape[1]} classes. Got {count}.")
    return behind_largest(logits).sort(dim=1, descending=True, stable=True).indices[:, :count]


def _require_labels(labels: Sequence[int | None] | None, count: int) -> list[int]:
    missing = count if labels is None else sum(label is None or label < 0 for label in labels)
    if labels is None or missing:
        raise InvalidTarget(
            f"Target `label` needs a label for every image. Got none for {missing} of {count}. "
            "Give labels, or use target `predicted`."
        )
    return [int(label) for label in labels if label is not None]


def checked_labels(labels: Iterable[Any], names: Sequence[str] | None) -> list[int | None]:
    """Labels as users give them, one per image, as class indices; None for no label: None, or a negative number.

    Args:
        labels: indices, or names of classes.
        names: of the model's classes, None where they are not known.

    Raises:
        InvalidTarget: a name of no class, or of several, with the nearest names; anything else than an index or a name.
    """
    return [_label(one, names) for one in labels]


def _label(given: Any, names: Sequence[str] | None) -> int | None:
    if given is None:
        return None
    if isinstance(given, str) and not re.fullmatch(INDEX, given):
        if names is None:
            raise InvalidTarget(
                f"A label must be the index of a class, as the model has no class names. Got {given!r}. Set `classes` "
                "(--classes FILE)."
            )
        return class_index(given, names)
    try:
        index = int(given) if isinstance(given, str) else operator.index(given)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTarget(f"A label must be the index or the name of a class. Got {given!r:.200}.") from None
    return index if index >= 0 else None


def with_indices(target: Any, names: Sequence[str] | None) -> Any:
    """A target with names of classes replaced by their indices; rules, numbers and callables stay as they are.

    A rule goes before a class of the same name, and a number is always an index.

    Args:
        target: what a user gives as a target; a name, or names in place of indices in lists.
        names: of the model's classes, None where they are not known.

    Raises:
        InvalidTarget: a name that is no rule and of no class, or of several; the message lists the nearest names.
    """
    if isinstance(target, str):
        return target if is_rule(target) else _index_of(target.strip(), names)
    if isinstance(target, list | tuple):
        return [_index_of(one, names) if isinstance(one, str) else with_indices(one, names) for one in target]
    return target


def is_rule(text: str) -> bool:
    """Whether a text is a rule, or an index, and no class's name."""
    return text in RULES or bool(re.fullmatch(rf"{TOP}|{NTH}|{INDEX}", text))


def nth(rule: str) -> tuple[str, int]:
    """`label:2` → `("label", 2)`: of which rule, and the number counted from 1; any other rule is its own first."""
    found = re.fullmatch(NTH, rule)
    return (found[1], int(found[2])) if found else (rule, 1)


def one_by_one(rule: str, labels: int = 1) -> list[str]:
    """A rule as rules that each name one class: `top3` → `predicted`, `predicted:2`, `predicted:3`.

    labels: the most labels of an image, for `labels`.
    """
    top = re.fullmatch(TOP, rule)
    if not top and rule != LABELS:
        return [rule]
    name, count = ("predicted", int(top[1])) if top else ("label", labels)
    return [name, *(f"{name}:{number}" for number in range(2, count + 1))]


def _index_of(text: str, names: Sequence[str] | None) -> int:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    if names is None:
        raise InvalidTarget(f"{unknown_rule(text)} The model has no class names: set `classes` (--classes FILE).")
    try:
        return class_index(text, names)
    except InvalidTarget as error:
        near = [] if nearest_names(text, names) else nearest(text, RULES)
        rules = f"Did you mean {near[0]!r}?" if near else f"Rules are {', '.join(RULES)}."
        raise InvalidTarget(f"{error} {rules}") from None


def refuse_several(rule: str) -> None:
    """For what explains one class of each image: a rule with a name, an index as text, or the name of a class.

    Raises:
        InvalidTarget: a rule that names several classes of an image, nothing, a number that is no index, or a misspelt
            `predicted`. Whether a name is one of a class is known when there is a model.
    """
    if re.fullmatch(TOP, rule) or rule == LABELS:
        raise InvalidTarget(
            f"Here a target must be one class of each image. Got {rule!r}. The study score takes several as `targets` "
            "(--targets), and `heatproof explain` takes top3. Use target `predicted`."
        )
    if re.fullmatch(NTH, rule):
        return
    likely = difflib.SequenceMatcher(None, rule.lower(), "predicted").ratio() > 0.85 and rule != "predicted"
    if likely or not rule.strip() or re.fullmatch(r"-[0-9]+|[0-9]+\.[0-9]*", rule):
        raise InvalidTarget(unknown_rule(rule, several=False))


def unknown_rule(rule: str, several: bool = True) -> str:
    """The sentence for a rule that does not exist; `several`: whether a rule may name several classes of an image."""
    near = nearest(rule, RULES)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    top = ", top3" if several else ""
    return f"A target must be one of {', '.join(RULES)}{top}, an integer, or a class name. Got {rule!r}.{hint}"
