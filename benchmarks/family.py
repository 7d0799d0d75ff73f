"""All gradient CAMs, EigenCAM and RefineCAM over four stages in one call, on four networks; EigenCAM by itself.

The floor is one forward and one backward to the shallowest stage, at the same batch.
"""

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import nn

import heatproof
from benchmarks.floor import Timing, Work, forward_pass, interleaved
from benchmarks.networks import frozen, photographs
from benchmarks.result import Part, Peer, Result, compared
from benchmarks.settings import Settings

GRADIENT = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam-elementwise")
METHODS = (*GRADIENT, "eigencam", "refine:layercam")
AIM, EIGEN_AIM = 1.2, 1.2
NETWORKS = ("resnet18", "resnet50", "convnext_tiny", "vit_b_16")
BATCH = 8
#: pytorch-grad-cam's and torchcam's classes of the same methods.
PEERS = {
    "gradcam": ("GradCAM", "GradCAM"),
    "gradcam++": ("GradCAMPlusPlus", "GradCAMpp"),
    "hirescam": ("HiResCAM", None),
    "xgradcam": ("XGradCAM", "XGradCAM"),
    "layercam": ("LayerCAM", "LayerCAM"),
    "gradcam-elementwise": ("GradCAMElementWise", None),
    "eigencam": ("EigenCAM", None),
}


def results(settings: Settings) -> Iterator[Result]:
    """Each network with all methods together and the peers method by method; EigenCAM on ResNet-50's last layer."""
    for name in NETWORKS:
        yield _together(name, settings)
    yield _eigencam(settings)


def network(name: str) -> nn.Module:
    """One of torchvision's, with random weights; a head of zeros (its ViT) would have no gradient."""
    import torchvision

    torch.manual_seed(0)
    net = frozen(getattr(torchvision.models, name)())
    for part in net.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)
    return net


def stage_pass(net: nn.Module, layer: str, z: torch.Tensor) -> torch.Tensor:
    """A forward whose graph begins at `layer`, and the gradient of the predicted logit back to it."""
    kept = []

    def cut(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()

    handle = net.get_submodule(layer).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            score = net(z).amax(1).sum()
    finally:
        handle.remove()
    return torch.autograd.grad(score, kept[0])[0]


def _together(name: str, settings: Settings) -> Result:
    net = network(name)
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(BATCH)
    z, stages = model.normalise(x), model.layers.stages
    peers = _peers(net, stages[-1], z, name)
    alone: dict[str, Work] = {
        f"ours {method}": lambda method=method: heatproof.explain(model, x, [method], layer=stages[-1])
        for method in PEERS
    }
    works: dict[str, Work] = {
        "floor": lambda: stage_pass(net, stages[0], z),
        "ours": lambda: heatproof.explain(model, x, METHODS, layer=stages[-1]),
        "forward": lambda: forward_pass(net, z),
        **alone,
        **peers,
    }
    seldom = dict.fromkeys([*alone, *peers], 1 if settings.quick else 2)
    times = interleaved(works, settings.repeats(9), seldom=seldom)
    return compared(
        f"family-{name}",
        f"{len(GRADIENT)} gradient CAMs, eigencam, refine:layercam over {len(stages)} stages, {name}, display maps",
        times["ours"],
        [times["floor"]],
        AIM,
        n=BATCH,
        threads=settings.threads,
        batch=BATCH,
        parts=[
            Part("forward + backward to the first stage", times["floor"].median),
            Part("of it forward", times["forward"].median),
        ],
        peers=_as_peers(list(peers), times),
        notes=[f"stages {', '.join(stages)}"],
    )


def _as_peers(names: list[str], times: dict[str, Timing]) -> list[Peer]:
    """One line for each peer and method, beside ours of that method alone, and one for pytorch-grad-cam's in turn."""
    found = []
    for name in names:
        ours = times[f"ours {name.partition(' ')[2]}"].median
        found.append(
            Peer(name, times[name].median, times[name].median / ours, f"one method, ours {1000 * ours:.0f} ms")
        )
    total = sum(peer.seconds for peer in found if peer.name.startswith("pytorch-grad-cam"))
    if total:
        together = times["ours"].median
        found.append(Peer("pytorch-grad-cam", total, total / together, "its seven in turn, without RefineCAM"))
    return found


def _peers(net: nn.Module, layer: str, z: torch.Tensor, name: str) -> dict[str, Work]:
    """The peers' work by name and method; tokens need a function of the user's there, so ViTs go without torchcam."""
    works: dict[str, Work] = {}
    trainable = network(name).requires_grad_(True)
    tokens = name.startswith("vit")
    for method, (theirs, torchcams) in PEERS.items():
        if work := _pytorch_grad_cam(theirs, trainable, layer, z, tokens):
            works[f"pytorch-grad-cam {method}"] = work
        if torchcams and not tokens and (work := _torchcam(torchcams, trainable, layer, z)):
            works[f"torchcam {method}"] = work
    return works


def _pytorch_grad_cam(name: str, net: nn.Module, layer: str, z: torch.Tensor, tokens: bool) -> Work | None:
    try:
        import pytorch_grad_cam as package
    except ImportError:
        return None

    def grid(native: torch.Tensor) -> torch.Tensor:
        side = int((native.shape[1] - 1) ** 0.5)
        return native[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def work() -> None:
        shape = {"reshape_transform": grid} if tokens else {}
        with getattr(package, name)(net, [net.get_submodule(layer)], **shape) as cam, redirect_stderr(StringIO()):
            cam(z, None)

    return work


def _torchcam(name: str, net: nn.Module, layer: str, z: torch.Tensor) -> Work | None:
    try:
        from torchcam import methods
    except ImportError:
        return None

    def work() -> None:
        with getattr(methods, name)(net, target_layer=layer) as extractor:
            scores = net(z.clone().requires_grad_())
            extractor(scores.argmax(1).tolist(), scores)

    return work


def _eigencam(settings: Settings) -> Result:
    """One forward is the floor; the peer decomposes the whole activation matrix, image by image, in numpy."""
    net = network("resnet50")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(BATCH)
    z = model.normalise(x)
    with torch.no_grad():
        activations = heatproof.models.capture.captured(model, x, ["layer4"], gradients=False).activations("layer4")
    from heatproof.attributions.eigen import eigencam

    works: dict[str, Work] = {
        "forward": lambda: forward_pass(net, z),
        "ours": lambda: heatproof.explain(model, x, ["eigencam"], layer="layer4"),
        "map alone": lambda: eigencam(activations),
    }
    peer = _pytorch_grad_cam("EigenCAM", network("resnet50").requires_grad_(True), "layer4", z, False)
    if peer:
        from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

        values = activations.numpy()
        works |= {"peer": peer, "peer's map alone": lambda: get_2d_projection(values)}
    times = interleaved(works, settings.repeats(6), seldom={"peer": 2, "peer's map alone": 2})
    ours, alone = times["ours"], times["map alone"]
    peers = []
    if peer:
        theirs = times["peer's map alone"]
        peers = [
            Peer("pytorch-grad-cam EigenCAM", times["peer"].median, times["peer"].median / ours.median, "whole call"),
            Peer("pytorch-grad-cam's decomposition", theirs.median, theirs.median / alone.median, "beside ours alone"),
        ]
    return compared(
        "eigencam-resnet50", "eigencam, resnet50, last layer, display maps", ours, [times["forward"]], EIGEN_AIM,
        n=BATCH, threads=settings.threads, batch=BATCH, peers=peers,
        parts=[Part("forward", times["forward"].median), Part("our decomposition", alone.median)],
    )  # fmt: skip
