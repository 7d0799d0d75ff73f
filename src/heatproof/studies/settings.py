"""The settings that all studies share: models, images, methods, target, seed and so on.

A field's description is its help on the command line, and its line in docs/commands.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from heatproof import spelling
from heatproof.errors import UnknownName
from heatproof.files import exists
from heatproof.studies.naming import named_methods
from heatproof.windows import checked_background, checked_window

DEFAULT_METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam", "ablationcam")


class Strict(BaseModel):
    """Base class of settings: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelPlan(Strict):
    """One model of a study: the arguments of `heatproof.load_model`, and the layer to explain."""

    spec: str = Field(description="The model's name; see above.")
    name: str | None = Field(None, description="What the results call it.")
    checkpoint: str | None = Field(None, description="Local weights: .safetensors, or a torch file without code.")
    allow_pickle_code: bool = Field(
        False,
        description="Open a checkpoint that is a pickle with code in it: the code runs with your rights. A warning "
        "says so each time.",
    )
    model_args: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the model's constructor, by name."
    )
    mean: float | tuple[float, ...] | None = Field(
        None, description="Normalisation mean: one number, or one for each channel (three)."
    )
    std: float | tuple[float, ...] | None = Field(
        None, description="Normalisation standard deviation: one number, or one for each channel (three)."
    )
    size: int | tuple[int, int] | None = Field(None, description="Input size: a side, or height and width.")
    input_shape: tuple[int, int, int] | None = Field(
        None,
        description="In place of --size, channels, height and width of a network whose images have not three channels: "
        "1,28,28 for grey images, to which colour is converted; 4,64,64 for four bands, from `.npy` or TIFF.",
    )
    resize: Literal["none"] | int | tuple[int, int] | None = Field(
        None,
        description="The resize before the centre crop: the length of the shorter side, or height and width that the "
        "resized image just covers; `none` squashes to the input size. The default is the model's own, or follows from "
        "--crop.",
    )
    crop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="In place of --resize: the share of each side that the centre crop keeps of an image with the "
        "input's aspect. The default is the model's own, .875 where there is none; 1 loses nothing.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        None,
        description="The filter of the resize: nearest, bilinear, bicubic or lanczos. The default is the model's own.",
    )
    window: Literal["auto"] | tuple[float, float] | None = Field(
        None,
        description="The stored values that are black and white, lower first, as 0,4095; `auto` takes the percentiles "
        ".5 and 99.5 of each image. By default the range of the file's type: 0 to 255 or 65535, 0 to 1 for floating "
        "point; for DICOM the file's own window, in rescaled units.",
    )
    alpha_background: str | None = Field(
        None,
        description="The colour behind transparent pixels: a name or #rrggbb; `ignore` takes their stored colours, as "
        "the loaders of torchvision, timm and OpenCV do. Default: white.",
    )
    value_range: float | None = Field(
        None,
        gt=0,
        description="The units of --mean and --std: 255 where they are those of bytes, as 123.7. Default: 1.",
    )
    channel_order: Literal["rgb", "bgr"] | None = Field(
        None,
        description="`bgr` for a network that takes blue first, as one trained on images of OpenCV; --mean and --std "
        "are in the same order. Default: rgb.",
    )
    classes: str | tuple[str, ...] | None = Field(
        None,
        description="Names of the classes: a file with one name a line, in the order of the outputs, or JSON (a list, "
        "index → name, or `id2label`). By default the model's own, or those of class folders.",
    )
    layer: str = Field(
        "auto",
        description="The layer to explain; `auto` is the last feature map before pooling, `NAME#1` the second call of "
        "a layer that runs several times.",
    )
    multi_label: bool = Field(
        False, description="Labels do not exclude each other: probabilities are sigmoids, not a softmax."
    )
    output: Literal["logit", "value"] | None = Field(
        None,
        description="What the network's outputs are: `logit` (the default), or `value` for numbers in units of their "
        "own, as of a regression: then the number itself is explained, masked and scored, without a probability; "
        "--target is the column where there are several.",
    )
    tolerance: str | float | None = Field(
        None,
        description="With --output value: the answer counts as changed where the value moves by more than this, in its "
        "units or, as 10%, in per cent of the range of the values on the clean images (at most 256 of each set). "
        "Default: 10%.",
    )

    @field_validator("tolerance", mode="before")
    @classmethod
    def _tolerance(cls, value: Any) -> Any:
        return checked_tolerance(value)

    @model_validator(mode="after")
    def _tolerance_of_values(self) -> "ModelPlan":
        if self.tolerance is not None and self.output == "logit":
            raise ValueError(f"`tolerance` goes with `output: value`. Got {self.tolerance}")
        if self.multi_label and self.output == "value":
            raise ValueError("`multi_label` is for logits, and `output: value` says that there are none. Give one")
        return self

    @field_validator("resize", mode="before")
    @classmethod
    def _resize(cls, value: Any) -> Any:
        from heatproof.models.preprocessing import checked_resize

        return value if value is None else checked_resize(value) or "none"

    @field_validator("window", mode="before")
    @classmethod
    def _window(cls, value: Any) -> Any:
        return checked_window(value)

    @field_validator("alpha_background", mode="before")
    @classmethod
    def _background(cls, value: Any) -> Any:
        return value if value is None else checked_background(value)

    @model_validator(mode="after")
    def _one_resize(self) -> "ModelPlan":
        if self.resize is not None and self.crop is not None:
            raise ValueError(
                f"`resize` and `crop` say the same in two ways. Give one. Got {self.resize} and {self.crop}"
            )
        return self

    @property
    def label(self) -> str:
        """Its name in the rows."""
        return self.name or self.spec

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `heatproof.load_model` besides the spec, the name and the device."""
        settings = self.model_dump(exclude={"spec", "name", "layer", "tolerance"})
        return {**settings, "resize": "auto" if self.resize is None else self.resize}


class DatasetPlan(Strict):
    """One set of images: a folder or a name (`heatproof.data.load_images`), or files named one by one."""

    images: str | tuple[str, ...] = Field(
        description="A folder of images (flat, or one subfolder per class), `shapes`, `torchvision:NAME`, or files."
    )
    name: str | None = Field(None, description="What the results call it.")
    labels: str | None = Field(
        None,
        description="CSV with the columns file,class_index (or file,label); also file,class_index,name with names of "
        "the classes, or file,name with names of the model's classes.",
    )
    masks: str | None = Field(
        None,
        description="Where the objects are, for outlines and metrics of localisation: a folder of masks with the "
        "images' names, or a CSV of boxes with the columns file,x0,y0,x1,y1.",
    )
    root: str | None = Field(None, description="Where a torchvision: dataset lies.")
    download: bool = Field(False, description="Fetch a torchvision: dataset that is not there.")

    @property
    def label(self) -> str:
        """Its name in the rows: `name`, else the folder's name; `images` for a list of files."""
        if self.name or not isinstance(self.images, str):
            return self.name or "images"
        return _label_of(self.images)

    @property
    def validates(self) -> bool:
        """Whether it is a validation set by what is written: `creatures:val`, `funnybirds-val:FOLDER`."""
        from heatproof.data.loading import NAMED_SETS

        kind, _, rest = self.images.partition(":") if isinstance(self.images, str) else ("", "", "")
        return kind in NAMED_SETS and (kind.endswith("-val") or rest == "val")


class MapsPlan(Strict):
    """Maps made beforehand."""

    path: str = Field(
        description="A folder of grey images or `.npy`, an `.npz` by the images' names, or one array `(N, H, W)` in "
        "their order."
    )
    name: str | None = Field(None, description="What the results call it.")

    @property
    def label(self) -> str:
        """Its name in the rows: `name`, else the file's or folder's name."""
        return self.name or Path(self.path).stem


class Plan(Strict):
    """The settings of every study; each study adds its own. A results folder belongs to one set of settings."""

    study: str = Field(description="Which study; see above.")
    models: tuple[ModelPlan, ...] = Field(
        description="One model or a list; each a name, or the settings under *A model*."
    )
    datasets: tuple[DatasetPlan, ...] = Field(
        description="One set of images or a list; each a folder, or the settings under *A set of images*."
    )
    methods: tuple[str, ...] = Field(DEFAULT_METHODS, description="Methods; see `heatproof list methods`.")
    controls: Literal["all", "none"] = Field("all", description="Uninformed maps as extra rows: all or none.")
    target: str = Field(
        "predicted", description="The class explained: predicted, label, clean, least, an index, or a class's name."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Display names of methods, on the page, in figures and in LaTeX: `{layercam: LayerCAM (ours)}`. "
        "The rows and tables keep the canonical names.",
    )
    reference: str | None = Field(
        None,
        description="The method to compare every other with, paired by image, with Holm's correction over these tests. "
        "Without it only all pairs are tested.",
    )
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples for the intervals.")
    limit: int | None = Field(None, ge=1, description="Only N images of each set, drawn by the seed from every class.")
    sampling: Literal["stratified", "first"] = Field(
        "stratified",
        description="Which images a limit or a budget takes: `stratified` (drawn by the seed; one of every class, then "
        "in proportion) or `first` (in the order of the set).",
    )
    budget: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Minutes: as many images as fit, measured beforehand in about ten seconds.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="All random numbers come from it.")
    batch_size: int | None = Field(
        None, ge=1, description="Images per pass and per job. Default: 8 (2 in an audit), on a GPU 64."
    )
    threads: int = Field(1, ge=1, description="Threads of each worker; part of the plan.")
    compile: Literal["auto", "never", "always"] = Field(
        "auto",
        description="Passes from which only logits are wanted (metrics, ROAD, RISE, Score-CAM) run on a compiled "
        "copy of the network, on the CPU: `auto` where that saves more than the minute of compiling, `never`, "
        "`always`. Logits agree to rounding; the choice is part of the plan.",
    )
    device: str = Field("auto", description="cpu, cuda, mps; `auto` is a GPU where there is one.")
    conditions_at_once: Literal["auto"] | int = Field(
        "auto",
        description="Conditions of the same images (noise, strengths) that are explained in one pass: a number, or "
        "`auto`: one on the CPU, on a GPU as many as its memory holds. Maps agree to rounding.",
    )
    autocast: Literal["never", "auto", "always"] = Field(
        "never",
        description="Matrix products and convolutions of the network in bfloat16 (PyTorch's autocast): `never`, "
        "`always`, or `auto`: on a GPU where the maps of all methods stay within a tolerance on the first images.",
    )

    @field_validator("models", "datasets", "methods", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """One entry may be written without a list."""
        return [value] if isinstance(value, str | Mapping) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        """Options may be written below a method's name: `- rise: {masks: 8000}`."""
        return spelled(value, "a method's")

    @field_validator("conditions_at_once", mode="before")
    @classmethod
    def _at_least_one(cls, value: Any) -> Any:
        text = str(value)
        if isinstance(value, bool) or not (text == "auto" or (text.isdecimal() and int(text))):
            raise ValueError(f"must be a whole number of at least 1, or auto. Got {value!r}")
        return value

    @field_validator("target", mode="before")
    @classmethod
    def _index_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("models", mode="before")
    @classmethod
    def _spec_alone(cls, value: Any) -> Any:
        return [{"spec": item} if isinstance(item, str) else item for item in listed(value)]

    @field_validator("datasets", mode="before")
    @classmethod
    def _images_alone(cls, value: Any) -> Any:
        return [{"images": item} if isinstance(item, str) else item for item in listed(value)]

    @field_validator("models", "datasets")
    @classmethod
    def _not_empty(cls, value: tuple) -> tuple:
        return some(value)

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Names are checked here, before any work; the registries resolve aliases."""
        return method_names(value if cls.without_methods() else some(value))

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        from heatproof.targets import refuse_several

        refuse_several(value)
        return value

    @model_validator(mode="after")
    def _told_apart(self) -> "Plan":
        for kind, names in (("models", self.models), ("datasets", self.datasets)):
            refuse_twice(kind, [item.label for item in names])
        return self

    @model_validator(mode="after")
    def _names_known(self) -> "Plan":
        """Names in `labels` and `reference` are checked here where the methods are known before the models."""
        if (self.labels or self.reference) and not self.makes_methods():
            with unknown_as_value():
                named_methods(self)
        return self

    @classmethod
    def makes_methods(cls) -> bool:
        """Whether the methods of a study follow from the network, so that they are not known before it is loaded."""
        return False

    @classmethod
    def without_methods(cls) -> bool:
        """Whether a study may have no method, only maps made beforehand."""
        return False

    @property
    def given_maps(self) -> tuple[MapsPlan, ...]:
        """Maps that were made beforehand."""
        return ()

    @property
    def pooled_targets(self) -> tuple[str, ...]:
        """The classes of each image over which its scores are averaged; empty where one class is explained."""
        return ()

    @property
    def scores_ground_truth(self) -> bool:
        """Whether the ground truth itself is scored too, as a map, where an image has a mask."""
        return False


def _label_of(images: str) -> str:
    """A folder's name; with what is taken of it, where a set is named: `birds:val` for `funnybirds-val:/data/birds`."""
    from heatproof.data.loading import FUNNYBIRDS

    kind, colon, rest = images.partition(":")
    if colon and kind == "given":
        return rest
    if colon and kind == "mosaic":
        return f"mosaic:{_label_of(rest)}"
    if colon and kind in FUNNYBIRDS:
        which = kind.partition("-")[2]
        return f"{_label_of(rest)}{f':{which}' if which else ''}"
    return Path(images).name if "/" in images or "\\" in images else images


def checked_tolerance(value: Any) -> Any:
    """A number of at least 0, or text such as `10%`, from a number or text; None as it is."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"must be a number of at least 0, or per cent such as 10%. Got {value!r}")
    return f"{number:g}%" if text.endswith("%") else number


def listed(value: Any) -> Any:
    """A list or tuple as it is, anything else as a list of one item."""
    return value if isinstance(value, list | tuple) else [value]


def some(value: tuple) -> tuple:
    """The value; ValueError if it is empty."""
    if not value:
        raise ValueError("must name at least one. Got none")
    return value


def refuse_twice(kind: str, labels: Sequence[str]) -> None:
    """ValueError if two have the same name, as their rows could not be told apart."""
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise ValueError(f"{kind}: {min(twice)!r} is there twice. Give each a `name` of its own in a study file")


def spelled(value: Any, whose: str) -> Any:
    """`{rise: {masks: 8000}}` among names → `rise[masks=8000]`."""
    if not isinstance(value, list | tuple):
        return value
    return [text for item in value for text in _spellings(item, whose)]


def _spellings(item: Any, whose: str) -> list[Any]:
    if not isinstance(item, Mapping):
        return [item]
    found = []
    for name, options in item.items():
        if not isinstance(options or {}, Mapping):
            raise ValueError(f"{whose} options must be `name: value` pairs. Got {name}: {options!r}")
        found.append(spelling.format(str(name), options))
    return found


def method_names(spellings: Sequence[str]) -> tuple[str, ...]:
    """Canonical names of methods, each once. ValueError for one that does not exist, and for a control."""
    from heatproof.attributions import requested

    if not spellings:
        return ()
    with unknown_as_value():
        requests = requested(spellings)
    controls = [request.name for request in requests if request.entry.traits["control"]]
    if controls:
        raise ValueError(f"leave controls to `controls: all`. Got {', '.join(controls)}")
    return once([request.name for request in requests])


def maps_given(value: Any) -> Any:
    """`PATH`, `NAME=PATH`, `{NAME: PATH}` or a list of any of these → mappings with `path` and `name`."""
    if isinstance(value, Mapping) and "path" not in value:
        return [{"name": str(name), "path": path} for name, path in value.items()]
    found: list[Any] = []
    for item in listed(value):
        if isinstance(item, str):
            name, equals, path = item.partition("=")
            whole = not equals or not name or exists(item)
            found.append({"path": item} if whole else {"name": name.strip(), "path": path})
        elif isinstance(item, Mapping) and "path" not in item:
            found += maps_given(item)
        else:
            found.append(item)
    return found


def canonical(registry: Any, text: str) -> str:
    """The registered name, with its options in brackets, sorted."""
    with unknown_as_value():
        entry, options = registry.parse(text)
    return spelling.format(entry.name, options)


@contextmanager
def unknown_as_value() -> Iterator[None]:
    """Turns UnknownName into ValueError, which a pydantic validator may raise."""
    try:
        yield
    except UnknownName as error:
        raise ValueError(str(error)) from None


def once(names: Sequence[str]) -> tuple[str, ...]:
    """Every name once, in order."""
    return tuple(dict.fromkeys(names))
