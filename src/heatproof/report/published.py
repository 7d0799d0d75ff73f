"""Numbers that papers published, beside which ours stand; data only, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper: method → numbers in the order of `columns`, NaN where it has none."""

    source: str
    about: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]


#: Paper F's Table 1. Per cent, but the last column. 100 − AD and 100 − D are higher for better maps.
FIDELITY = PublishedTable(
    source="Zhang, Torres & Hermanns 2024 (ACML), Table 1",
    about="ResNet-50 on the 50,000 images of ImageNet's validation set, class explained: the label",
    columns=("AI", "100 − AD", "AG", "I", "100 − D", "mono"),
    rows={
        "ones": (47.3, 99.2, 1.6, 60.1, 61.6, 0.57),
        "gradient": (2.2, 4.0, 0.0, 51.4, 81.3, -0.19),
        "integrated-gradients": (2.5, 5.1, 0.1, 53.5, 88.4, 0.36),
        "guided-backprop": (2.6, 4.8, 0.0, 53.5, 86.9, 0.08),
        "gradcam": (44.4, 87.6, 17.8, 66.8, 86.8, 0.53),
        "gradcam++": (42.3, 87.0, 16.3, 66.2, 86.5, 0.59),
        "scorecam": (50.0, 89.3, 21.7, 66.7, 85.1, 0.56),
        "rise": (39.0, 86.0, 13.9, 65.0, 80.4, 0.35),
        "lime": (9.7, 31.8, 2.9, 64.7, 84.0, 0.24),
        "iba": (36.8, 82.3, 14.5, 66.5, 85.7, 0.55),
    },
)
