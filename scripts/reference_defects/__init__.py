"""Defects of the reference codes and peers (protocols §12), each switched on and off on the same images."""

from reference_defects import compared_libraries, paper_f, paper_r  # noqa: F401  (they declare their defects)
from reference_defects.arms import DEFECTS, Arms, Defect
from reference_defects.lab import Lab

__all__ = ["DEFECTS", "Arms", "Defect", "Lab"]
