"""Sources of images: folders, lists, named datasets, and the synthetic Shapes with their masks."""

from typing import Any

from heatproof.data.folder import ImageFolder, images_from_list
from heatproof.data.image_opener import open_image
from heatproof.data.images import Images
from heatproof.data.loading import load_images
from heatproof.data.shapes import Shapes, demo_shapes, paper_shapes
from heatproof.errors import renamed

__all__ = [
    "ImageFolder",
    "Images",
    "Shapes",
    "demo_shapes",
    "images_from_list",
    "load_images",
    "open_image",
    "paper_shapes",
]

_BEFORE = {
    "PictureFolder": "ImageFolder",
    "Pictures": "Images",
    "load_pictures": "load_images",
    "open_picture": "open_image",
    "pictures_from_list": "images_from_list",
}


def __getattr__(name: str) -> Any:
    return renamed(__name__, _BEFORE, name)
