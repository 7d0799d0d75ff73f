"""Scores of maps by the names of pytorch-grad-cam: what an output loses or gains when pixels are covered.

`heatproof.score` has these and many more, from shared passes (docs/moving.md).
"""

from heatproof.compat.missing import missing_names

__getattr__ = missing_names(__name__, {})
