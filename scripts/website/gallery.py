"""The gallery: photographs that come with scikit-image, explained by several methods, made when the site is built.

python scripts/website/gallery.py FOLDER     the pictures, and gallery.json with what they show
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODEL = "pypi:efficientnet-lite0"
#: File of scikit-image → what it shows, whose photograph it is, and its licence as scikit-image states it.
PHOTOGRAPHS: Mapping[str, tuple[str, str, str]] = {
    "chelsea.png": ("A cat", "Chelsea, by Stéfan van der Walt", "CC0"),
    "coffee.png": ("Coffee", "by Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    "rocket.jpg": ("A rocket", "the launch of DSCOVR, by SpaceX", "public domain"),
    "astronaut.png": ("An astronaut", "Eileen Collins, by NASA", "public domain"),
    "camera.png": ("A photographer", "by Lav Varshney", "CC0"),
    "clock_motion.png": ("A clock", "blurred by motion, by Stéfan van der Walt", "public domain"),
}
#: Methods, with the option that makes slow ones quick enough here.
METHODS = (
    "gradcam", "gradcam++", "layercam", "refine:layercam", "refine:gradcam++", "ablationcam", "finercam", "eigencam",
    "fullgrad", "guided-backprop", "smoothgrad[samples=15]", "edges",
)  # fmt: skip
#: The side of a picture, and its quality as JPEG.
SIDE, QUALITY = 240, 82


def draw(folder: Path) -> None:
    """Explains the photographs; writes `NUMBER-METHOD.jpg`, and `gallery.json`."""
    import numpy as np
    from PIL import Image

    import heatproof
    from heatproof.report.overlay import Look, overlay

    files = _files()
    model = heatproof.load_model(MODEL)
    maps = heatproof.explain(model, [str(path) for path in files.values()], METHODS, batch_size=1)
    found = []
    for number, (name, path) in enumerate(files.items()):
        with Image.open(path) as opened:
            image = np.asarray(model.geometry.image(opened).permute(1, 2, 0))
        probability, predicted = maps.logits[number].softmax(0).max(0)
        shown = {"": np.uint8(np.round(image * 255))}
        shown |= {method: overlay(shown[""], maps[method][number].cpu().numpy(), Look()) for method in METHODS}
        pictures = {}
        for place, (method, picture) in enumerate(shown.items()):
            pictures[method] = f"{number}-{place}.jpg"
            small = Image.fromarray(np.asarray(picture)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            small.save(folder / pictures[method], quality=QUALITY, optimize=True)
        classes = model.classes or []
        found.append({"file": name, "predicted": classes[int(predicted)], "probability": float(probability),
                      "pictures": pictures})  # fmt: skip
    (folder / "gallery.json").write_text(json.dumps(found), "utf-8")


def _files() -> dict[str, Path]:
    """The photographs that the installed scikit-image holds."""
    spec = find_spec("skimage")
    folders = [Path(place) / "data" for place in (spec.submodule_search_locations if spec else None) or ()]
    return {name: folder / name for name in PHOTOGRAPHS for folder in folders if (folder / name).is_file()}


def made(quick: bool) -> dict[str, str | bytes]:
    """Place on the site → content: the page, and its pictures unless nothing is to be run."""
    if quick:
        return {"gallery.md": page([])}
    from .kept import kept_at

    kept = kept_at("gallery", [Path(__file__).read_bytes()])
    if not (kept / "gallery.json").exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as name:
            path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, __file__, name], check=True, env=environment, cwd=ROOT)
            Path(name).rename(kept)
            Path(name).mkdir()  # what the context removes
    found = json.loads((kept / "gallery.json").read_text("utf-8"))
    names = [picture for photograph in found for picture in photograph["pictures"].values()]
    return {"gallery.md": page(found), **{f"gallery/{name}": (kept / name).read_bytes() for name in names}}


def page(found: Iterable[Mapping[str, Any]]) -> str:
    """The page."""
    parts = [INTRO]
    for photograph in found:
        title, credit, licence = PHOTOGRAPHS[photograph["file"]]
        parts.append(f"## {title}\n\n*{photograph['predicted']}*, {photograph['probability']:.0%}. "
                     f"Photograph: {credit}; {licence}.")  # fmt: skip
        figures = [_figure(title, method, picture) for method, picture in photograph["pictures"].items()]
        parts.append('<div class="gallery" markdown>\n' + "\n".join(figures) + "\n</div>")
    return "\n\n".join(parts) + "\n"


def _figure(title: str, method: str, picture: str) -> str:
    name = method or "the image, as the network sees it"
    caption = f"<code>{method}</code>" if method else name
    return (
        f'<figure markdown="span">![{title}: {name}](gallery/{picture}){{ loading=lazy width={SIDE} height={SIDE} }}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


INTRO = """---
hide: [navigation]
---

# Gallery

Photographs that come with scikit-image, explained for the predicted class of EfficientNet-Lite0
(`pypi:efficientnet-lite0`, trained on ImageNet). Every map is scaled by itself: yellow is the most important part of
*this* map. The last one, `edges`, is a [control](methods.md#controls): it shows the edges of the image and nothing of
the network. A map that looks like it tells nothing about the network.

Six photographs show how maps look, not which of them can be trusted. For that see
[an audit](tutorials/which-method.md) and [claims](claims.md). The pictures are made anew whenever this site is
built (`scripts/website/gallery.py`)."""


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
