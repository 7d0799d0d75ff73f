"""torchcam 0.5.0: agreement where its formula is right, on maps at the layer's resolution after the ReLU."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.models import wrap

from .. import nets
from ..attributions import reference

methods = pytest.importorskip("torchcam.methods")

PAIRS = {"gradcam": "GradCAM", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}
SIDE = 16


def theirs(name: str, module: nn.Module, layer: str, z: torch.Tensor, classes: list[int]) -> np.ndarray:
    with getattr(methods, name)(module, layer) as extractor:
        scores = module(z)
        return extractor(classes, scores, normalized=False)[0].detach().numpy()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("net", "layer"), [(nets.Plain, "one"), (nets.Plain, "two"), (nets.Signed, "two")])
def test_gradient_cams_agree(name, net, layer):
    module, x, classes = nets.seeded(net), nets.images(3, SIDE), [0, 4, 2]
    model = wrap(module, size=SIDE)
    ours = heatproof.explain(model, x, name, classes, layer, raw=True)[name].relu()
    other = theirs(PAIRS[name], module, layer, model.normalise(x), classes)
    assert other.max() > 0
    np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4 * other.max())


@pytest.mark.assets
def test_gradient_cams_agree_on_photographs(assets):
    model = heatproof.load_model(
        "timm:mobilenetv2_100",
        assets / "models" / "mobilenetv2_100_imagenet.safetensors",
        {"pad_type": "same"},
        mean=0.5,
        std=0.5,
        device="cpu",
    )
    paths = sorted((assets / "images").glob("*.JPEG"))[5:55:25]
    x = torch.stack([model.geometry.image(Image.open(path).convert("RGB")) for path in paths])
    found = heatproof.explain(model, x, list(PAIRS), raw=True)
    for name, other in PAIRS.items():
        expected = theirs(other, model.module, found.layer, model.normalise(x), found.target.tolist())
        np.testing.assert_allclose(found[name].relu(), expected, rtol=1e-3, atol=1e-4 * expected.max(), err_msg=name)


def test_gradcam_plus_plus_divides():
    """Theirs edits a copy in place, so α is never divided and the weights are Σ G² relu(G) (protocols, section 12)."""
    module, x, classes = nets.seeded(nets.Plain), nets.images(3, SIDE), [0, 4, 2]
    model = wrap(module, size=SIDE)
    z = model.normalise(x)
    activations, gradients, _ = reference.quantities(module, z, "two", classes)
    ours = heatproof.explain(model, x, "gradcam++", classes, "two", raw=True)["gradcam++"]
    np.testing.assert_allclose(ours, reference.gradcam_plus_plus(activations, gradients), rtol=1e-4, atol=1e-6)
    undivided = (gradients**2 * np.maximum(gradients, 0)).sum((2, 3))
    expected = np.maximum(np.einsum("nk,nkij->nij", undivided, activations), 0)
    other = theirs("GradCAMpp", module, "two", z, classes)
    np.testing.assert_allclose(other, expected, rtol=1e-3, atol=1e-4 * expected.max())
    shown = heatproof.attributions.display_maps
    difference = shown(ours, "cam", (SIDE, SIDE)) - shown(torch.from_numpy(other).float(), "cam", (SIDE, SIDE))
    assert float(difference.abs().max()) > 0.02
