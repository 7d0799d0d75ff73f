"""A network with its preprocessing, its target layers and one shape of logits."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from heatproof.ambient import autocast_dtype, callers_state, ordinary
from heatproof.class_names import checked_names, class_text, name_of
from heatproof.errors import InvalidInput, ModelError, warn
from heatproof.geometry import Geometry
from heatproof.locks import held, parameters_of
from heatproof.memo import cached_property
from heatproof.models.layer_names import module_and_call, resolve_layer
from heatproof.models.layers import Layers, find_layers
from heatproof.models.other_input import REFUSED, other_input, other_size
from heatproof.models.preprocessing import Preprocessing
from heatproof.models.probe import carry_facts
from heatproof.registry import unknown

#: Where a dictionary of outputs keeps the classification, in the order tried.
_LOGIT_KEYS = ("logits", "out", "output")

#: Whether the pass that is under way is one from which only logits are wanted (`Model.answers`).
only_logits: ContextVar[bool] = ContextVar("only_logits", default=False)

#: What the outputs of a model are.
MODEL_OUTPUTS = {"logit": "logits of classes", "value": "numbers in units of their own, without a probability"}


class Model:
    """An `nn.Module` with its preprocessing and target layers. Made by `load_model` or `wrap`.

    `name` as typed; `module` on `device`; `mean`, `std` per channel; `geometry` from image to `x`;
    `classes` names by index, or None. `multi_label`: labels do not exclude each other, so a probability is the
    sigmoid of its logit and not the softmax. `output`: `logit`, or `value` for a network whose outputs are numbers in
    units of their own and no logits, so that they have no probability. `input_shape` is `(channels, *spatial)`.
    `takes_images`: image files can be its input; `normalises`: its input lies in [0, 1] and is normalised here, else
    tensors are taken as they are. Calls that explain go through `evaluating`, which restores the module's train/eval
    mode and `requires_grad`. Threads that use models of one module, or of modules that share a part, wait for each
    other.

    Examples:
        >>> import heatproof
        >>> model = heatproof.load_model("shapes")
        >>> model.classes[:2], model.input_shape
        (['circle-filled', 'square-filled'], (3, 96, 96))
    """

    #: Layer, its output and the image's size → the tensor to explain, or None for the output's first tensor.
    reading: "Callable[[nn.Module, Any, tuple[int, ...]], torch.Tensor | None] | None" = None
    #: Whether a layer of a single position has a map (of one value, which is flagged), and is not an error.
    one_position = False
    #: Whether a single output that is clearly no logit is worth a warning.
    warns_of_values = True
    #: Whether images that go into the network as they are, without mean and std, are worth a warning.
    warns_as_given = True
    #: A compiled copy, for passes from which only logits are wanted (`models.compiled`).
    compiled: Any = None
    #: Whether the network was seen to give one logit, which stands for two classes.
    single_output = False

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Preprocessing,
        name: str,
        device: torch.device,
        layer: "str | nn.Module | None" = None,
        *,
        multi_label: bool = False,
        output: str = "logit",
        input_shape: tuple[int, ...] | None = None,
    ):
        if output not in MODEL_OUTPUTS:
            raise unknown("`output` of a model", str(output), MODEL_OUTPUTS)
        if multi_label and output == "value":
            raise InvalidInput('`multi_label` is for logits, and `output="value"` says that there are none. Give one.')
        self.module = module
        self.multi_label = multi_label
        self.output_kind = output
        self.input_shape = input_shape or (preprocessing.geometry.channels, *preprocessing.geometry.size)
        self.takes_images, self.normalises = len(self.input_shape) == 3, input_shape is None
        self.name = name
        self.device = device
        self.mean = preprocessing.mean
        self.std = preprocessing.std
        self.geometry: Geometry = preprocessing.geometry
        self.classes: list[str] | None = list(preprocessing.classes) if preprocessing.classes else None
        self.channel_order = preprocessing.channel_order
        self._assumed = preprocessing.assumed
        self._told = False
        self.named_by_images = False
        self._layer = None if layer is None or layer == "auto" else resolve_layer(module, layer)
        self._warned = False
        self._constants: dict[tuple[torch.device, torch.dtype, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def __repr__(self) -> str:
        height, width = self.geometry.size
        return f"Model({self.name!r}, {type(self.module).__name__}, {height}×{width}, {self.device})"

    def warn_as_given(self) -> None:
        """Warns, once, where image files go into the network in [0, 1] because no mean and std were given."""
        if self.warns_as_given and self.takes_images and not self.normalises and not self._warned:
            self._warned = True
            warn(
                f"{self.name} was wrapped without mean and std: image files go into it as they are, in [0, 1]. Set "
                "`mean` and `std` to what it was trained with."
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes what the network takes, and what of it is assumed."""
        classes = tuple(self.classes) if self.classes else None
        return Preprocessing(self.mean, self.std, self.geometry, classes, self.channel_order, self._assumed)

    def with_preprocessing(self, preprocessing: Preprocessing) -> "Model":
        """The same network, not copied, with images prepared in another way."""
        twin = copy.copy(self)
        twin.mean, twin.std, twin.geometry = preprocessing.mean, preprocessing.std, preprocessing.geometry
        twin.channel_order, twin._assumed = preprocessing.channel_order, preprocessing.assumed
        twin._constants = {}
        return twin

    def warn_of_assumptions(self) -> None:
        """Warns, once, where preprocessing is assumed because nobody gave it."""
        if self.normalises and not self._told:
            self._told = True
            self.preprocessing.warn_of_assumptions(self.name, stacklevel=4)

    @property
    def own_settings(self) -> dict[str, Any]:
        """What it was made with besides its module and its preprocessing: keyword arguments of `Model`."""
        shape = None if self.normalises else self.input_shape
        return {
            "layer": self._layer,
            "multi_label": self.multi_label,
            "output": self.output_kind,
            "input_shape": shape,
        }

    @property
    def of_values(self) -> bool:
        """Whether its outputs are values: numbers in units of their own, without a probability."""
        return self.output_kind == "value"

    def as_values(self) -> "Model":
        """The same network, read as one of values."""
        if self.of_values:
            return self
        if self.multi_label:
            raise InvalidInput(f'{self.name} has `multi_label`, so its outputs are logits. Got `output="value"`.')
        twin = copy.copy(self)
        twin.__dict__.pop("outputs", None)  # a single logit stands for two classes, a single value for one column
        twin.output_kind = "value"
        return twin

    @cached_property
    def layers(self) -> Layers:
        """The target layers by architecture: `last` and `stages`, shallow → deep. Found once."""
        return find_layers(self, last=self._layer)

    @property
    def last_layer(self) -> str:
        """The layer explained where none is named: the one given, else the last feature map before pooling."""
        return self._layer or self.layers.last

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights: float32, or what the module was cast to."""
        floats = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(floats, torch.float32)

    @cached_property
    def outputs(self) -> int:
        """The number of classes, from a pass of one grey image."""
        x = torch.full((1, *self.input_shape), 0.5, device=self.device)
        with self.evaluating(), torch.no_grad():
            return self.logits(x).shape[1]

    def class_name(self, index: int | None) -> str:
        """The name of a class; empty where it has none."""
        return name_of(self.classes, index)

    def with_classes(self, names: Sequence[str] | None, by_images: bool = False) -> "Model":
        """The same classifier with these names of its classes; `by_images`: they are taken from a set of images."""
        twin = copy.copy(self)
        twin.classes, twin.named_by_images = None if names is None else list(checked_names(names)), by_images
        return twin

    @property
    def precision(self) -> torch.dtype:
        """The dtype in which the network computes now: that of the caller's autocast, else that of its weights."""
        return autocast_dtype(self.device) or self.dtype

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names, shapes and values of all weights and buffers: equal weights, equal hash."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.module.state_dict().items()):
            if not isinstance(tensor, torch.Tensor):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def with_module(self, module: nn.Module) -> "Model":
        """The same classifier with another network of the same architecture: other weights, the same layers."""
        twin = copy.copy(self)
        twin.__dict__.pop("fingerprint", None)
        twin.module, twin.compiled = module, None
        carry_facts(self.module, module)
        return twin

    def copied(self) -> "Model":
        """The same classifier with a copy of its network, whose weights may be changed.

        Raises:
            ModelError: a network that cannot be copied.
        """
        try:
            with held(self.module):
                return self.with_module(copy.deepcopy(self.module))
        except Exception as error:  # a module may hold anything
            raise ModelError(f"{self.name} cannot be copied, so its weights cannot be changed: {error}") from error

    def submodule(self, name: "str | nn.Module") -> nn.Module:
        """The layer of that name (`layer4.1`, `layer4[-1]`, `encoder#0`, `auto`); an unknown one gets near misses."""
        return self.submodule_and_call(name)[0]

    def submodule_and_call(self, name: "str | nn.Module") -> "tuple[nn.Module, int | None]":
        """The layer of that name, and the call that the name has (1 of `encoder#1`); None where it has none."""
        if isinstance(name, str) and name == "auto":
            name = self.last_layer
        return module_and_call(self.module, resolve_layer(self.module, name))

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """`x` in [0, 1] → `z = (x − mean) / std`, device and dtype kept; any spatial dims."""
        if not self.normalises:
            return x
        key = (x.device, x.dtype, x.dim())
        if key not in self._constants:
            shape = (1, -1) + (1,) * (x.dim() - 2)
            with torch.inference_mode(False):
                self._constants[key] = (
                    torch.tensor(self.mean, device=x.device, dtype=x.dtype).view(shape),
                    torch.tensor(self.std, device=x.device, dtype=x.dtype).view(shape),
                )
        mean, std = self._constants[key]
        return (x - mean) / std

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """`x` `(N, C, H, W)` in [0, 1] → float32 logits `(N, K)`. Finiteness is for the caller to check."""
        return self.of_normalised(self.normalise(x))

    def of_normalised(self, z: torch.Tensor) -> torch.Tensor:
        """`z` as `normalise` gives it, red first → float32 logits `(N, K)`.

        Raises ModelError for another number of rows than images, such as one for each view or detection.
        """
        return self._checked(self.output(z), len(z))

    def answers(self, z: torch.Tensor) -> torch.Tensor:
        """As `of_normalised`, where only the logits are wanted: no gradient, no layer. May run on the compiled copy."""
        fast, token = self.compiled, only_logits.set(True)
        try:
            if fast is None or not fast.suits(z):
                return self.of_normalised(z)
            with held(self.module):
                return torch.cat([self._part_of_answers(part) for part in z.split(fast.shape[0])])
        finally:
            only_logits.reset(token)

    def _part_of_answers(self, z: torch.Tensor) -> torch.Tensor:
        """The logits of at most as many images as the compiled copy takes; of a few they come from the network."""
        if not self.compiled.takes(z):
            return self.of_normalised(z)
        output = self.compiled(z.flip(1) if self.channel_order == "bgr" else z)
        return self._checked(output, self.compiled.shape[0])[: len(z)]

    def _checked(self, output: Any, images: int) -> torch.Tensor:
        """The logits of an output for so many images."""
        logits = self.unwrap(output).float()
        if len(logits) != images:
            raise ModelError(
                f"Expected {type(self.module).__name__} to return one row of logits for each of {images} images. Got "
                f"{len(logits)} rows. Where images are folded into views or parts, wrap it in a module that joins them."
            )
        return logits

    def output(self, z: torch.Tensor) -> Any:
        """What the module itself returns for `z`, under the caller's autocast and defaults (`heatproof.ambient`)."""
        with held(self.module), callers_state():
            z = z.to(self.dtype)
            try:
                return self.module(z.flip(1) if self.channel_order == "bgr" else z)
            except REFUSED as error:
                shape = tuple(z.shape[1:])
                advice = other_input(self.module, shape) or other_size(error, shape, self.input_shape)
                if advice:
                    raise ModelError(f"{self.name} does not run on inputs of {shape}. {advice}") from error
                raise

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """`(N, K)` logits → the scores of the classes, in double precision: softmax, or sigmoid where `multi_label`.

        Of a network of values, the values themselves.
        """
        if self.of_values:
            return logits.double()
        return logits.double().sigmoid() if self.multi_label else logits.double().softmax(1)

    def unwrap(self, output: Any) -> torch.Tensor:
        """The module's output → logits `(N, K)`, K ≥ 2; values `(N, K)`, K ≥ 1.

        A tensor is taken as it is (`(N, K, 1, 1)` flattened, `(N,)` as one logit). A `ModelOutput` or dict gives its
        key `logits`, `out` or `output`, else its first 2-D tensor; another object its `.logits`; a tuple or list its
        first 2-D tensor. One logit l for two classes becomes the logits −l/2 and l/2, so that the softmax of class 1
        is sigmoid(l): a raw map of class 1 explains l/2 (half of the gradient of l), that of class 0 is its negative.
        With `multi_label` it becomes −l and l, so that the sigmoid of class 1 is sigmoid(l). A single value stays one
        column. Raises ModelError for any other output.
        """
        squeezed = isinstance(output, torch.Tensor) and output.dim() == 1 and len(output) > 0
        found = output[:, None] if squeezed else _classification(output)
        if found is None:
            raise ModelError(
                f"Expected {type(self.module).__name__} to return logits of shape (N, classes): a tensor, "
                f"or a tuple or dict with one. Got {_describe_output(output)}. Wrap it in a module that does."
            )
        if found.shape[1] == 1 and not self.of_values:
            self.single_output = True
            half = found if self.multi_label else found / 2
            found = torch.cat([-half, half], 1)
        if self.classes and len(self.classes) != found.shape[1]:
            raise _miscounted(self.name, self.classes, found.shape[1])
        return found

    @contextmanager
    def evaluating(self) -> Iterator["Model"]:
        """As `evaluating` of its module."""
        with evaluating(self.module):
            yield self


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Everything in eval mode and no parameter requiring gradients; every flag is restored at the end.

    Flags are set one by one and not through `.eval()`, which modules may override with side effects.
    It may be nested: flags that have the wanted value are not touched. No other thread explains the module, or one
    that shares a part with it, until the end.
    """
    modules = list(module.modules())
    with held(module), _ordinary_weights(modules):
        training = [m for m in modules if getattr(m, "training", False)]  # frozen TorchScript has no such flag
        trainable = [p for p in parameters_of(modules) if p.requires_grad]
        try:
            for part in training:
                part.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for part in training:
                part.training = True
            for parameter in trainable:
                parameter.requires_grad_(True)


@contextmanager
def _ordinary_weights(modules: list[nn.Module]) -> Iterator[None]:
    """Copies in place of weights made in inference mode, which cannot be part of a graph; put back at the end."""
    if not any(p.is_inference() for p in parameters_of(modules)):
        yield
        return
    stores: list[dict[str, Any]] = [store for part in modules for store in (part._parameters, part._buffers)]
    before = [(store, name, t) for store in stores for name, t in store.items() if t is not None and t.is_inference()]
    copies: dict[int, torch.Tensor] = {}
    for store, name, tensor in before:
        if id(tensor) not in copies:
            plain = ordinary(tensor.detach())
            copies[id(tensor)] = nn.Parameter(plain, False) if isinstance(tensor, nn.Parameter) else plain
        store[name] = copies[id(tensor)]
    try:
        yield
    finally:
        for store, name, tensor in before:
            store[name] = tensor


def _miscounted(model: str, names: Sequence[str], outputs: int) -> InvalidInput:
    last = class_text(names, len(names) - 1)
    return InvalidInput(
        f"`classes` must name each of the {outputs} classes of {model}, in the order of its outputs. Got {len(names)}, "
        f"from {class_text(names, 0)} to {last}."
    )


def bare(module: nn.Module) -> nn.Module:
    """The network inside `torch.compile`'s or a parallel wrapper."""
    inner = getattr(module, "_orig_mod", None)
    if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = module.module
    return bare(inner) if isinstance(inner, nn.Module) else module


def module_device(module: nn.Module) -> torch.device:
    """The device of its first parameter or buffer; the CPU when it has none."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _classification(output: Any) -> torch.Tensor | None:
    """The first `(N, K)` tensor in an output, where classifiers keep it; None where there is none."""
    if isinstance(output, torch.Tensor):
        flat = output.flatten(1) if output.dim() > 2 and set(output.shape[2:]) == {1} else output
        return flat if flat.dim() == 2 else None
    if isinstance(output, Mapping):
        first = [output[key] for key in _LOGIT_KEYS if key in output]
        candidates = [*first, *output.values()]
    elif hasattr(output, "logits"):
        candidates = [output.logits]
    elif isinstance(output, tuple | list):
        candidates = list(output)
    else:
        candidates = []
    found = (_classification(item) for item in candidates)
    return next((tensor for tensor in found if tensor is not None), None)


def _describe_output(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return "a dict of " + (", ".join(f"{k}: {_describe_output(v)}" for k, v in output.items()) or "nothing")
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of " + (", ".join(map(_describe_output, output)) or "nothing")
    return f"a {type(output).__name__}"
