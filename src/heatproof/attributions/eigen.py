"""CAMs by principal components: what varies most over the positions of a layer.

The sign of a principal component is arbitrary. It is chosen so that the projection correlates positively, over the
positions, with the channel sum of what was decomposed; `sign="raw"` leaves what the solver gives, as peers do (the
object can then vanish under the ReLU).
"""

from collections.abc import Callable

import numpy as np
import torch

from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.tensors import CONSTANT, per_image
from heatproof.transfers import possibly

#: A kernel matrix holds positions × positions numbers: 64 × 64 positions take 134 MB.
KERNEL_POSITIONS = 4096

#: Up to here all eigenvectors of a kernel matrix are found at once; beyond, the leading one alone (Lanczos).
DENSE_PLACES = 512


@attribution("eigencam", aliases=["eigen-cam"], source="Muhammad & Yeasin 2020, eq. 2–3")
def eigencam(activations: torch.Tensor, *, sign: str = "activation") -> torch.Tensor:
    """Eigen-CAM: activations at each position projected on their first principal component; independent of the target.

    The positions × channels matrix is centred by channel. `sign="activation"`: the projection correlates positively
    with the summed activation; `sign="raw"`: what the singular value decomposition gives, as pytorch-grad-cam does.
    """
    check_choice("sign", sign, ("activation", "raw"))
    return _project_positions(activations, lambda centred: _projection(centred, sign == "raw"))


@attribution("eigengradcam", aliases=["eigengrad-cam", "eigen-grad-cam"], source="Gildenblat et al. 2021")
def eigengradcam(activations: torch.Tensor, gradients: torch.Tensor, *, sign: str = "product") -> torch.Tensor:
    """Eigen-CAM of gradient times activation, `G A`, which depends on the target.

    `sign="product"`: the projection correlates positively with the summed product Σk G A, so that what adds to the
    target's output is positive; `sign="raw"`: what the singular value decomposition gives, as pytorch-grad-cam does.
    """
    check_choice("sign", sign, ("product", "raw"))
    return _project_positions(gradients * activations, lambda centred: _projection(centred, sign == "raw"))


@attribution("segeigencam", aliases=["seg-eigen-cam"], source="Chung & Ying 2025 (Seg-Eigen-CAM), eq. 10–13")
def segeigencam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Seg-Eigen-CAM: Eigen-CAM of `|G| A`, turned so that its largest magnitude is positive.

    The absolute gradient lets channels that speak against the target count as well, so the map shows where the target
    is decided, not what speaks for it.
    """

    def turned(centred: torch.Tensor) -> torch.Tensor:
        found = _projection(centred, False)
        low, high = found.amin(1, keepdim=True), found.amax(1, keepdim=True)
        # Within rounding of each other the sign of `eigencam` stays.
        return torch.where(-low > high * (1 + CONSTANT), -found, found)

    return _project_positions(gradients.abs() * activations, turned)


#: Kernel of two sets of positions (P, C) and (Q, C), with its gamma.
KERNELS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "sigmoid": lambda positions, gamma: torch.tanh(gamma * (positions @ positions.T) + 1),
    "rbf": lambda positions, gamma: torch.exp(-gamma * torch.cdist(positions, positions).square()),
    "polynomial": lambda positions, gamma: (gamma * (positions @ positions.T) + 1) ** 3,
    "linear": lambda positions, _gamma: positions @ positions.T,
}


@attribution("kpcacam", aliases=["kpca-cam", "kernel-pca-cam"], source="Karmani et al. 2024")
def kpcacam(
    activations: torch.Tensor, *, kernel: str = "sigmoid", gamma: float = 0.0, sign: str = "activation"
) -> torch.Tensor:
    """KPCA-CAM: Eigen-CAM with a kernel, the first component of kernel PCA over positions; independent of the target.

    `√λ v` for the largest eigenvalue λ of the centred kernel matrix. `kernel` is one of `KERNELS` (`sigmoid` is
    tanh(γ ⟨a, b⟩ + 1), `polynomial` its third power); `gamma` = 0 is one over the number of channels. The sign as in
    `eigencam`. Takes a positions × positions matrix for each image, so at most `KERNEL_POSITIONS` positions.
    """
    check_choice("sign", sign, ("activation", "raw"))
    made = KERNELS[check_choice("kernel", kernel, KERNELS)]
    if gamma < 0:
        raise InvalidInput(f"`gamma` must be above 0, or 0 for one over the number of channels. Got {gamma}.")
    positions, channels = activations[0, 0].numel(), activations.shape[1]
    if positions > KERNEL_POSITIONS:
        raise NotApplicable(
            f"KPCA-CAM takes a matrix of positions × positions, for at most {KERNEL_POSITIONS} positions. "
            f"Got {positions}. Choose a deeper layer."
        )

    def components(centred: torch.Tensor) -> torch.Tensor:
        wide = centred.double()
        found = torch.stack([_kernel_component(made(one, gamma or 1 / channels)) for one in wide])
        return (found if sign == "raw" else _orient(found, wide.sum(2))).to(centred.dtype)

    return _project_positions(activations, components)


def _project_positions(values: torch.Tensor, projection: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`(N, C, *spatial)` → `(N, *spatial)` by a projection of the centred `(N, positions, C)` matrices."""
    positions = values.flatten(2).transpose(1, 2)
    centred = positions - positions.mean(1, keepdim=True)
    finite = torch.isfinite(centred).flatten(1).all(1)
    if some := possibly(~finite):  # eigensolvers raise on NaN; one bad image must not cost the batch
        centred = torch.where(per_image(finite, centred), centred, torch.zeros_like(centred))
    found = projection(centred)
    if some:
        found = found.masked_fill(~finite[:, None], float("nan"))
    return found.view(len(values), *values.shape[2:])


def _projection(centred: torch.Tensor, raw: bool) -> torch.Tensor:
    """`(N, positions, channels)`, centred → `(N, positions)` projections on the first principal component."""
    if raw:
        left, values, _ = torch.linalg.svd(centred, full_matrices=False)
        return left[:, :, 0] * values[:, :1]
    wide = centred.double()  # a Gram matrix squares the condition number
    if wide.shape[1] <= wide.shape[2]:
        value, vector = _leading_eigenvector(wide @ wide.transpose(1, 2))
        projection = vector * value.clamp_min(0).sqrt()
    else:
        _, vector = _leading_eigenvector(wide.transpose(1, 2) @ wide)
        projection = (wide @ vector[:, :, None])[:, :, 0]
    return _orient(projection, wide.sum(2)).to(centred.dtype)


def _orient(projection: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """Each projection `(N, positions)` or its negative, whichever correlates positively with the centred sums."""
    return torch.where((projection * sums).sum(1, keepdim=True) < 0, -projection, projection)


def _leading_eigenvector(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalue `(N, 1)` and its eigenvector `(N, n)` of symmetric matrices `(N, n, n)`."""
    values, vectors = torch.linalg.eigh(matrix.detach())
    value, vector = values[:, -1:], vectors[:, :, -1]
    if not matrix.requires_grad:
        return value, vector
    # The derivative of eigh divides by the gaps between all eigenvalues, and dead channels have none between
    # them. Of one eigenvector only its own gaps count: dv = Σ u (uᵀ dM v) / (λ − μ) over the others (μ, u).
    moved = (matrix @ vector[:, :, None])[:, :, 0]
    others, gaps = vectors[:, :, :-1], value - values[:, :-1]
    pull = (others.transpose(1, 2) @ moved[:, :, None])[:, :, 0] / gaps
    return (vector * moved).sum(1, keepdim=True), vector + (others @ pull[:, :, None])[:, :, 0]


def _kernel_component(kernel: torch.Tensor) -> torch.Tensor:
    """`√λ v` of a kernel matrix `(P, P)`, centred here; zero where no eigenvalue is above rounding."""
    rows = kernel.mean(0, keepdim=True)
    centred = kernel - rows - rows.T + kernel.mean()
    negligible, small = 1e-12 * len(kernel) * kernel.detach().abs().amax(), len(kernel) <= DENSE_PLACES
    asked = (
        centred.requires_grad or not small
    )  # where there is no component, it has no derivative, and Lanczos no start
    if asked and centred.detach().abs().amax() * len(kernel) <= negligible:
        return centred[0] * 0
    if small or centred.requires_grad:
        value, vector = (found[0] for found in _leading_eigenvector(centred[None]))
    else:
        value, vector = _lanczos(centred)
    return torch.where(value <= negligible, torch.zeros_like(vector), vector * value.clamp_min(0).sqrt())


def _lanczos(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).standard_normal(len(matrix))  # the default start is drawn anew in each process
    values, vectors = eigsh(matrix.cpu().numpy(), k=1, which="LA", v0=start)
    return matrix.new_tensor(values), matrix.new_tensor(vectors[:, 0])
