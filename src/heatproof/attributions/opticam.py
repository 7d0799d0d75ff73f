"""Opti-CAM: the weights of a CAM found by gradient ascent, for each image by itself."""

import torch

from heatproof.attributions.asking import checked_score, no_gradient
from heatproof.attributions.cam import weighted
from heatproof.attributions.catalogue import attribution
from heatproof.attributions.optimising import Adam, gradient, positive
from heatproof.masking import ground, masked
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.tensors import minmax, upsampled


@attribution("opticam", aliases=["opti-cam"], source="Zhang et al. 2023 (CVIU), §3.2", applies=no_gradient)
def opticam(
    activations: torch.Tensor,
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    *,
    steps: int = 100,
    lr: float = 0.1,
    of: str = "logit",
    fill: str = "mean",
) -> torch.Tensor:
    """Opti-CAM: `Σk w_k relu(A_k)`, w = softmax(u), u maximising the target's score of `z ⊙ minmax(up(Σk w_k A_k))`.

    u starts at 0, the mean of the channels, and takes `steps` steps of Adam at rate `lr`; 100 and 0.1 are the paper's.
    Passes: `steps` forwards and as many backwards. As in the authors' code activations are taken after a ReLU, so the
    displayed map is the mask that was optimised, at layers with signed activations too.

    That code masks before it normalises (`fill="black"`). It also stops when the summed loss of the batch no longer
    falls, so that an image's map depends on the batch; here every image has all its steps.
    """
    steps, lr = check_int("steps", steps), positive("lr", lr)
    checked_score(of)
    background = ground(fill, x, z).detach()
    found = []
    for part in parts(len(z), rows_per_pass(z)):
        seen = _MaskedImages(activations[part].detach().relu(), z[part].detach(), background[part])
        rows = torch.arange(part.start, part.stop, device=z.device)
        u = torch.zeros_like(seen.maps.flatten(2)[..., 0])
        adam = Adam(lr)
        for _ in range(steps):
            with torch.enable_grad():
                u.requires_grad_()
                total = score(seen.through(u), rows, of=of).sum()
            u = u.detach() + adam.update(gradient(total, u))
        found.append(u.softmax(1))
    return weighted(torch.cat(found), activations.relu())


class _MaskedImages:
    """Images seen through the masks that weights of their channels give."""

    def __init__(self, maps: torch.Tensor, z: torch.Tensor, background: torch.Tensor):
        self.maps, self.z, self.background = maps, z, background

    def through(self, u: torch.Tensor) -> torch.Tensor:
        mask = minmax(upsampled(weighted(u.softmax(1), self.maps), tuple(self.z.shape[2:])))
        return masked(self.z, mask, self.background)
