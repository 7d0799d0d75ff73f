"""What is known to mislead in methods and metrics: sentences by name, from the project's own runs.

The runs are in docs/claims.md, where each number has its command and interval; networks are small and images synthetic.
`heatproof why` and the docs show these sentences with the docstring. The file imports nothing.
"""

from collections.abc import Mapping

_ORDER = (
    "It reads the order of the pixels alone: a map and its square root have the same score, though they look "
    "different and agree differently with the ground truth."
)
_AREA = (
    "It says nothing of where the map is: a small spot beside the object scores as well as one on it. Of two "
    "maps on the object the smaller one wins, which is right only where the evidence is small."
)
_SEGMENTS = (
    "Its chance level falls with the number of segments: with every segment cut in two RM was lower by .04 to .07. "
    "With only those cut that a line through the object's centre crosses, 4 of 112, it was lower by .011 at most: so "
    "few tell little about borders. Compare runs with the same segmenter."
)
_CONSTANT = (
    "The constant controls `centre`, `half` and `ones` reach a consistency of 1, as a map that ignores the image "
    "never moves."
)
_PRODUCT = "See `heatproof run refine`: whether refining helps depends on the network."

#: Name of a metric, or of a composite of pairs → what misleads.
METRIC_TRAPS: Mapping[str, tuple[str, ...]] = {
    "average-drop": (
        "`ones`, a map that is 1 everywhere, is as good as the best method on all five sets of images tried: "
        "nothing is masked, so nothing drops. `half` is on three of them.",
        "Where the evidence is smaller than a CAM's spot it prefers large maps, whether they are on it or not: its "
        "rank correlation with the ground truth is −.71 on planted shortcuts and −.49 on creatures.",
    ),
    "average-increase": (
        "`ones` is better than the best method on all five sets of images tried. `half` cannot be told from it on "
        "three of them.",
    ),
    "average-gain": (
        "On a network whose probabilities are near 1 it is 0 for most images. A test of ranks then sees ties, "
        "and controls cannot be told from methods: read the test of means beside it.",
    ),
    "coherency": (
        "It asks whether a map explains itself, not whether it is right: `centre`, `half` and `ones` were better than "
        "the best method on all five sets of images tried.",
    ),
    "complexity": (_AREA,),
    "sparseness": (_AREA,),
    "entropy": (_AREA,),
    "nonzero-count": (
        _AREA,
        "It is what paper F's Table 1 shows as effective complexity: 50,175 is the number of pixels above 1e-5.",
    ),
    "adcc": (
        "It holds a drop in probability and coherency, which both praise large maps. Where the evidence is "
        "smaller than a CAM's spot it turns round: rank correlation with the ground truth −.46 on planted "
        "shortcuts, −.44 on creatures, against .23 and .37 on large shapes.",
        "`half` and `centre` fooled it on a vision transformer, `centre` on creatures.",
    ),
    "arcc": (
        "No control fooled it on five sets of images. Where the evidence is very small, complexity agreed better "
        "with the ground truth (.81 against .66), on creatures `deletion-mean` (.76 against .67).",
        "That is within images. Over all images at once it agrees hardly where images differ more than methods: "
        ".06 and .16 on two networks, .55 to .69 on three other sets.",
        "Unlike ROAD it changes where a map is rescaled: .821 for Grad-CAM, .773 for its square root.",
    ),
    "road": (
        _ORDER,
        "On a network whose probabilities are near 1, all methods remove the object in time, and it hardly tells "
        "them apart (rank correlation with the ground truth −.10, elsewhere .23 to .63).",
    ),
    "road-morf": (_ORDER,),
    "road-lerf": (_ORDER,),
    "insertion": (_ORDER,),
    "deletion": (
        _ORDER,
        "Its rank correlation with the ground truth is .71 on creatures and −.32 on planted shortcuts.",
        "With black fill scattered holes destroy a prediction: on eight photographs `random` was as good as "
        "Grad-CAM (.036 against .066). `centre` fooled it on two of five sets of images, and nothing fooled "
        "`deletion-mean`.",
    ),
    "deletion-mean": (_ORDER,),
    "pixel-flipping": (_ORDER,),
    "monotonicity": (
        "`ones`, `half` and `random` fooled it on three of five sets of images, `centre`, a blob in the middle of "
        "every image, on four.",
    ),
    "local-accuracy": (
        "`ones` is better than the best method on all five sets of images tried: nothing is masked.",
        "Where the evidence is small it prefers large maps: rank correlation with the ground truth −.70 on planted "
        "shortcuts.",
    ),
    "sufficiency": (
        "`ones` cannot be told from the best method on any of the five sets of images tried.",
        "Where the evidence is small it prefers large maps: rank correlation with the ground truth −.75 on planted "
        "shortcuts, −.64 on creatures.",
    ),
    "part-sufficiency": ("The three scores of completeness alone are fooled by `centre` (.93 on creatures).",),
    "part-contrastivity": (
        "Computed with one map for both classes, as in paper R's code, it is 0 for every method; here each class "
        "has its own.",
    ),
    "average-sensitivity": (
        "Computed between two methods, as in paper F's code, it tells how far they lie apart (.88 for Grad-CAM), "
        "not how steady one is (.05).",
    ),
    "completeness-holds": ("By exact equality of floats, as in paper F's code, it is false for every map.",),
    "rbo": (_SEGMENTS, "A higher p spreads the weight to lower ranks: at .9 the first ten hold 86 % of it."),
    "kappa": (_SEGMENTS,),
    "l1": ("It can fall where RBO falls too (paper N); on the bundled networks that was not seen in 60 steps.",),
    "consistency": (_CONSTANT,),
    "responsiveness": (
        "With fewer than about fifteen changed predictions of 200 its interval is wider than .2: it then says "
        "little.",
        "Pooled over severities it is above .5 without any link within one: strong noise both changes "
        "predictions and moves maps. Read `responsiveness-within`.",
    ),
    "rm": (_CONSTANT, "With a responsiveness of .5 that is an RM of .5, by construction. RM₀ of these maps is 0."),
    "rm0": ("Pooled over severities it can be above 0 without any link within one: read `rm0-within`.",),
}  # fmt: skip

#: Name of a method → what misleads.
METHOD_TRAPS: Mapping[str, tuple[str, ...]] = {
    "gradcam": (
        "Before a global pooling and a linear layer it is the same map as HiResCAM and XGrad-CAM: three rows are "
        "then one method, and agreement between them is no evidence.",
        "At shallow stages the mean gradient of a channel says little, so the weighted sum is often negative on "
        f"the object: 15 of 60 refined maps were empty on the bundled network. {_PRODUCT}",
    ),
    "hirescam": ("Before a global pooling and a linear layer it is Grad-CAM's map.",),
    "xgradcam": ("Before a global pooling and a linear layer it is Grad-CAM's map.",),
    "gradcam++": (
        "Refined on a vision transformer, 54 of 57 maps were empty; on a convolutional network it gained most. "
        f"{_PRODUCT}",
    ),
    "layercam": (
        "Refined by the product it may cover under 1 % of the image: ARCC .73, by the geometric mean .87 "
        f"(bundled network). {_PRODUCT}",
    ),
    "shapleycam": (
        "On ReLU networks whose probability is near 1 its second-order term is 0, and before a LayerNorm it "
        "cancels: the map is then Grad-CAM's.",
    ),
    "eigencam": (
        "It never reads the class: for another class it shows the same map (contrastivity 0 on creatures).",
        "The sign of a principal component is arbitrary; here it is chosen so that the map is positive where "
        "activations are. With pytorch-grad-cam's sign insertion falls from .96 to .40 (bundled network).",
    ),
    "integrated-gradients": (
        "With few steps the map does not sum to the change of the output; the metric `completeness` measures the "
        "gap.",
    ),
    "guided-backprop": (
        "In training mode, as in paper F's code, its cosine with the map in evaluation mode is .29.",
    ),
    "ones": (
        "Metrics that reward keeping the image praise it: average drop, average increase, local accuracy, sufficiency.",
    ),
    "half": (
        "It is .5 nearly everywhere: coherency ranks it above every method, on some networks average drop as well.",
    ),
    "centre": ("Objects are often in the middle: a metric of location alone may praise it.",),
}  # fmt: skip
