"""Maps as people look at them: overlays, panels, a page; in a notebook, in a folder.

`entry`, `panel` and `page` draw arrays and load no torch; `shown` has `heatproof.show`.
"""
