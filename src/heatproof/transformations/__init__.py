"""Transformations of an image before its map is made (paper F): every method gets the same image; masks move alike.

They are spelled like methods: `rotation[degrees=90]`, `mixup[seed=44]`. Each is a pure function, registered in
`TRANSFORMATIONS`; `transformed` applies one to a batch of images or of masks.
"""

from heatproof.transformations import geometric, mixing, sizes
from heatproof.transformations.catalogue import TRANSFORMATIONS, Partners, transformation
from heatproof.transformations.transforming import transformed

__all__ = ["TRANSFORMATIONS", "Partners", "geometric", "mixing", "sizes", "transformation", "transformed"]
