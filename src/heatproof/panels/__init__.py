"""Maps to look at: overlays, panels, a page; in a notebook or in a folder.

`entry`, `panel` and `page` draw arrays and load no torch; `show` has `heatproof.show`.
"""
