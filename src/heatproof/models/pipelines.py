"""A trained classifier of Hugging Face with its image processor: a pipeline, or the two by themselves."""

from typing import Any

from torch import nn

from heatproof.errors import ModelError
from heatproof.models.class_names import own_class_names
from heatproof.models.image_processor import processor_preprocessing
from heatproof.models.own_preprocessing import own_preprocessing
from heatproof.models.preprocessing import Preprocessing

TASK = "image-classification"


def is_pipeline(given: Any) -> bool:
    """Whether something is a pipeline of transformers: it holds a network and an image processor."""
    inside = getattr(given, "model", None)
    return isinstance(inside, nn.Module) and hasattr(given, "image_processor") and not isinstance(given, nn.Module)


def parts_of(pipeline: Any) -> tuple[nn.Module, Any]:
    """The network and the image processor of an image-classification pipeline.

    Raises:
        ModelError: a pipeline for another task, or without an image processor.
    """
    task = getattr(pipeline, "task", TASK)
    if task != TASK:
        zero_shot = " heatproof.zero_shot takes its model, tokenizer and prompts." if "zero-shot" in str(task) else ""
        raise ModelError(f"Expected a pipeline for the task {TASK}. Got one for {task}.{zero_shot}")
    if pipeline.image_processor is None:
        raise ModelError(
            "Expected a pipeline with an image processor. It has none. Give its model, mean, std and size to "
            "heatproof.wrap."
        )
    return pipeline.model, pipeline.image_processor


def preprocessing_of(module: nn.Module, processor: Any) -> tuple[Preprocessing, bool | None]:
    """What a processor does with images, the names of the classes, and whether these do not exclude each other.

    Without a processor the preprocessing is what the network says of it, or assumed; names and the kind of problem come
    from the network's configuration, where it is one of transformers.
    """
    config = getattr(module, "config", None)
    base = own_preprocessing(module) if processor is None else processor_preprocessing(processor)
    if config is None or not hasattr(config, "id2label"):
        return base, None
    channels = getattr(config, "num_channels", None)
    several = getattr(config, "problem_type", None) == "multi_label_classification"
    return base.overridden(classes=own_class_names(module), channels=channels), several or None
