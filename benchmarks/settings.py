"""What the command line chose, for every benchmark alike."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`threads` for methods (a study's worker has one), `quick` for a few repetitions, `images` of the study."""

    threads: int
    quick: bool = False
    images: int = 8

    def repeats(self, usual: int) -> int:
        """How many repetitions: as usual, or a third of them and at least two."""
        return max(2, usual // 3) if self.quick else usual
