"""Loads weights from a local file into a module: no code is run unless asked for; keys that do not fit are named."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatproof.errors import ModelError, warn
from heatproof.models.torch_files import check_torch_file
from heatproof.quiet import ignored_warnings

#: Where training scripts keep the weights inside their checkpoint, in the order tried.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "model_ema",
    "state_dict_ema",
    "ema",
)

#: What wrappers (DataParallel, Lightning, torch.compile, EMA) put before every key.
_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.")

_Shapes = Mapping[str, torch.Tensor]


def load_weights(module: nn.Module, path: str | Path, name: str, allow_pickle_code: bool = False) -> None:
    """Loads a checkpoint file into `module`, cast to the module's dtypes (float16 goes into float32).

    `allow_pickle_code`: open a file that runs code too, with a warning.

    Raises ModelError for a file that is missing or would run code, and for weights that do not fit the module: the
    missing, unexpected and wrongly shaped keys are named.
    """
    expected = module.state_dict()
    weights = _without_prefixes(read_weights(path, allow_pickle_code), expected)
    # torch before 0.4.1 saved no counters, and averaged models count their updates in a key of their own.
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in expected and key.rpartition(".")[2] != "n_averaged"]
    shaped = [k for k, v in weights.items() if k in expected and v.shape != expected[k].shape]
    problems = [
        *_list_keys("missing", missing, len(expected)),
        *_list_keys("unexpected", unexpected, len(weights)),
        *_misshapen(shaped, weights, expected),
    ]
    if problems:
        raise ModelError(
            f"Expected the weights of {name}. Got {Path(path).name}, which differs: {'; '.join(problems)}. "
            f"{_advice(shaped, weights, expected)}"
        )
    fitting = {key: value for key, value in weights.items() if key in expected}
    module.load_state_dict(fitting, strict=False)


def load_in_order(module: nn.Module, weights: Mapping[str, torch.Tensor], name: str, source: str) -> None:
    """Loads weights that have other names than the module's, but the same order; cast to the module's dtypes.

    Raises ModelError where their number differs, or a tensor's shape or the last part of its name (`weight`,
    `running_mean`): the first that differs is named.
    """
    expected = module.state_dict()
    pairs = list(zip(weights, expected, strict=False))
    unlike = [pair for pair in pairs if not _alike(*pair, weights, expected)]
    problems = [f"{len(weights)} tensors for {len(expected)}"] if len(weights) != len(expected) else []
    if unlike:
        theirs, ours = unlike[0]
        problems += [f"{theirs} is {_size(weights[theirs])} in the file, {ours} {_size(expected[ours])} in the model"]
        problems += [f"{len(unlike) - 1} more are unlike"] if len(unlike) > 1 else []
    if problems:
        raise ModelError(
            f"Expected the weights of {name}, in order. Got {source}, which differs: {'; '.join(problems)}. Leave out "
            "model arguments that change the architecture (num_classes, in_chans …); without any, reinstall what holds "
            "the file."
        )
    module.load_state_dict({ours: weights[theirs] for theirs, ours in pairs})


def _alike(theirs: str, ours: str, weights: _Shapes, expected: _Shapes) -> bool:
    same_role = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
    return same_role and weights[theirs].shape == expected[ours].shape


def read_weights(path: str | Path, allow_pickle_code: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or of a torch file read with `weights_only=True`.

    `allow_pickle_code`: a torch file that cannot be read so is read as a pickle, which runs the code that it holds.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"Expected a checkpoint file. There is none at {str(path)!r}. Check the path.")
    content = _safetensors(file) if file.suffix == ".safetensors" else _torch_file(file, allow_pickle_code)
    found = _state_dict_in(content)
    weights = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not weights:
        raise ModelError(
            f"Expected a state dict (names → tensors) in {file.name}. Got {_kind(content)}. "
            "Save `model.state_dict()` and give that file."
        )
    return weights


def _safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"Expected a safetensors file. {file.name} cannot be read: {error}.") from error


def _torch_file(file: Path, allow_pickle_code: bool) -> Any:
    try:
        check_torch_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # the old unpickler raises KeyError, IndexError and more on what is no checkpoint
        if allow_pickle_code:
            return _with_code(file)
        reason = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in reason:
            raise ModelError(
                f"Expected a file of tensors. {file.name} would run code when opened or is no torch file; it was "
                f"refused ({reason.partition('.')[0]}). If you trust its source, save its `model.state_dict()` as "
                "safetensors, or let its code run with --allow-pickle-code (`allow_pickle_code=True`)."
            ) from error
        raise ModelError(
            f"Expected a safetensors file or a torch file of tensors. {file.name} cannot be read: {reason}. "
            "Save `model.state_dict()` and give that file."
        ) from error


def _with_code(file: Path) -> Any:
    """What a pickle holds; of a whole network its state dict. The code in the file runs."""
    warn(
        f"The code in {file.name} runs now, with your rights, as --allow-pickle-code asks. Do so only with files whose "
        "source you trust."
    )
    try:
        with ignored_warnings():  # torch's own, that a TorchScript archive is one
            content = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever that code raises
        raise ModelError(
            f"Expected a torch file. {file.name} cannot be read: {type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}. The classes that it names must be importable."
        ) from error
    return content.state_dict() if isinstance(content, nn.Module) else content


def _state_dict_in(content: Any) -> Mapping[str, Any]:
    """The state dict inside what a training script saved; an empty mapping where there is none."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            return {}
        found = {key: value.state_dict() if isinstance(value, nn.Module) else value for key, value in content.items()}
        inner = [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    return content if isinstance(content, Mapping) else {}


def _without_prefixes(weights: dict[str, torch.Tensor], expected: _Shapes) -> dict[str, torch.Tensor]:
    """Prefixes taken off, one after the other, as long as more keys match what is expected."""
    while True:
        stripped = [{key.removeprefix(prefix): v for key, v in weights.items()} for prefix in _PREFIXES]
        kept = [option for option in stripped if len(option) == len(weights)]
        best = max(kept, key=lambda option: _matches(option, expected), default=weights)
        if _matches(best, expected) <= _matches(weights, expected):
            # Two prefixes at once (`module.model.`) match nothing until both are gone.
            both = [option for option in kept if option.keys() != weights.keys()]
            if _matches(weights, expected) or not both:
                return weights
            best = both[0]
        weights = best


def _matches(weights: _Shapes, expected: _Shapes) -> int:
    return sum(key in expected for key in weights)


def _list_keys(kind: str, keys: list[str], total: int) -> list[str]:
    if not keys:
        return []
    return [f"{len(keys)} of {total} keys {kind} ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})"]


def _misshapen(keys: list[str], weights: _Shapes, expected: _Shapes) -> list[str]:
    shown = [f"{k} is {_size(weights[k])} in the file and {_size(expected[k])} in the model" for k in keys[:3]]
    more = [f"{len(keys) - 3} more of another shape"] if len(keys) > 3 else []
    return shown + more


def _size(tensor: torch.Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"


def _advice(shaped: list[str], weights: _Shapes, expected: _Shapes) -> str:
    heads = [k for k in shaped if weights[k].dim() and weights[k].shape[1:] == expected[k].shape[1:]]
    classes = {len(weights[key]) for key in heads}
    if shaped and heads == shaped and len(classes) == 1:
        count = classes.pop()
        return (
            f"If it was trained on {count} classes, set num_classes={count}: --model-arg num_classes={count}, or in "
            f'Python model_args={{"num_classes": {count}}}.'
        )
    return "Check that architecture and model arguments (num_classes, img_size …) are those it was saved with."


def _kind(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict with {', '.join(map(str, list(content)[:5])) or 'nothing in it'}"
    return f"a {type(content).__name__}"
