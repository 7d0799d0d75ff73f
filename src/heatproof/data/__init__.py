"""Pictures in: folders, lists, named datasets, and the synthetic Shapes with their masks."""

from heatproof.data.folder import PictureFolder, load_pictures, pictures_from_list
from heatproof.data.picture import open_picture
from heatproof.data.pictures import Pictures
from heatproof.data.shapes import Shapes, demo_shapes

__all__ = [
    "PictureFolder",
    "Pictures",
    "Shapes",
    "demo_shapes",
    "load_pictures",
    "open_picture",
    "pictures_from_list",
]
