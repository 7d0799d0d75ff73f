"""Names in rows that statistics and studies share; imports nothing, as studies are declared without pandas."""

#: Rows that hold the projection of a map on a fixed pattern, one for each image and method.
PROJECTION = "map-projection"
#: Rows that hold whether the highest pixel lies on the ground truth, for each image with a mask and each method.
PEAK = "map-peak"
#: Rows without a method that hold on how many of an image's distractors the network does not depend.
BACKGROUND = "background-independence"
#: Points of a metric's curve are stored under its key with this suffix, the share removed or restored in `strength`.
CURVE = "-curve"
#: The name of the arm whose map is the ground truth itself: no method, and no control.
GROUND_TRUTH = "ground-truth"
#: The metric that measures the agreement of a map with the ground truth.
TRUTH = "mask-cosine"
#: The option of a method that raises its map to a power.
POWER = "power"
#: The operator of RefineCAM by default.
PRODUCT = "product"
#: Segmenters that cut the segments of another in two: through their own middle, and through that of the object.
HALVED = ("split", "split-object")
#: The metrics of parts begin with this; along their curves `strength` is a threshold.
PARTS = "part-"
#: Of these CSDC, PC, DC and D, which depend on the threshold, and the two others.
CHECKS = ("part-sufficiency", "part-preservation", "part-deletion", "part-distractibility")
CORRECTNESS, CONTRASTIVITY = "part-correctness", "part-contrastivity"
