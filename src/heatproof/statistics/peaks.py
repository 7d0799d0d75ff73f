"""How often the highest pixel of a map lies on the ground truth, in a sentence for people.

The decision is that of the metric `pointing-game` without tolerance: 1 where every highest pixel is on the mask, 0
where none is, the share between them where several pixels are the highest, 0 for a degenerate map.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heatproof.statistics.wording import counted, listed


@dataclass(frozen=True)
class Peaks:
    """Of one method: `hits` of `images`; `shared` where highest pixels lie on and off the mask, `degenerate` maps."""

    hits: int
    images: int
    shared: int = 0
    degenerate: int = 0

    @classmethod
    def of(cls, decisions: Iterable[tuple[float, bool]]) -> "Peaks":
        """From (value of the metric, whether the map is degenerate) of each image; images without a value are left out.

        A peak that is shared is no hit, and neither is a degenerate map.
        """
        known = [(value, flat) for value, flat in decisions if math.isfinite(value)]
        return cls(
            hits=sum(value == 1 and not flat for value, flat in known),
            images=len(known),
            shared=sum(0 < value < 1 and not flat for value, flat in known),
            degenerate=sum(flat for _, flat in known),
        )

    @property
    def text(self) -> str:
        """`9 of 12`."""
        return f"{self.hits:,} of {self.images:,}"

    @property
    def remark(self) -> str:
        """What is no hit for another reason than a peak beside the mask; empty where there is nothing to say."""
        parts = [counted(self.shared, "shared peak")] if self.shared else []
        parts += [counted(self.degenerate, "degenerate map")] if self.degenerate else []
        return listed(parts)


def peak_sentences(
    peaks: Mapping[str, Peaks], controls: Iterable[str] = (), best: str = "", place: str = "ground truth"
) -> list[str]:
    """Sentences on methods, the best first: `gradcam: the peak lies on the ground truth in 9 of 12 images.`

    Args:
        peaks: by method, in order; methods without an image are left out.
        best: the method that the first sentence is about; by default the one with the most hits.
        place: what the mask shows, such as a class.
    """
    known = {method: found for method, found in peaks.items() if found.images}
    aside = set(controls)
    real = [method for method in known if method not in aside]
    if not real:
        return []
    first = best if best in real else max(real, key=lambda method: known[method].hits / known[method].images)
    lead = known[first]
    noun = "image" if lead.images == 1 else "images"
    sentences = [f"{first}: the peak lies on the {place} in {lead.text} {noun}{_remark(lead)}."]
    for heading, methods in (("Other methods", [m for m in real if m != first]), ("Controls", aside & known.keys())):
        if methods:
            ordered = [method for method in known if method in methods]
            listing = ", ".join(f"{method} {known[method].text}{_remark(known[method])}" for method in ordered)
            sentences.append(f"{heading}: {listing}.")
    if any(found.remark for found in known.values()):
        sentences.append("A peak that pixels on and off the mask share is no hit, and neither is a degenerate map.")
    return sentences


def place_of(names: Sequence[str]) -> str:
    """What the masks show: the class of the images, where all have the same label with a name; else `ground truth`."""
    different = set(names)
    return next(iter(different)) if len(different) == 1 and "" not in different else "ground truth"


def _remark(found: Peaks) -> str:
    return f" ({found.remark})" if found.remark else ""
