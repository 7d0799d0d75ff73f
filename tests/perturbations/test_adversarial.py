"""The attacks on networks that can be solved by hand, and against slow loops."""

import numpy as np
import pytest
import torch

from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.perturbations import Perturber, adversarial, deepfool_step

SEED = 7
IDS = ["a", "b", "c", "d"]


class Linear(torch.nn.Module):
    """`logits = W x + b` on flattened images."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def linear(classes: int, size: int = 6, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 3 * size * size, generator=generator, dtype=torch.float64)
    return Linear(weight, -weight.sum(1) / 2 + 0.3 * torch.randn(classes, generator=generator, dtype=torch.float64))


def small_network() -> torch.nn.Module:
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.AvgPool2d(3),
        torch.nn.Flatten(),
        torch.nn.Linear(6 * 4 * 4, 12),
    )
    return network.double().eval()


def gradient_of(network, x):
    """The loss gradient a study hands in: cross-entropy to the clean prediction, summed over rows."""
    clean = network(x).argmax(1)

    def loss_gradient(images):
        images = images.detach().requires_grad_()
        rows = clean[: len(images)]
        loss = torch.nn.functional.cross_entropy(network(images), rows, reduction="sum")
        return torch.autograd.grad(loss, images)[0]

    return loss_gradient


def interior(count: int = 4, size: int = 6, seed: int = 5) -> torch.Tensor:
    """Images in [.3, .7]: no attack here reaches the ends."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64)


def test_fgsm_on_a_linear_network_by_hand():
    network, x = linear(5), interior()
    y = Perturber(x, IDS, SEED, gradient_of(network, x)).apply("fgsm", 4)
    weight = network.weight.detach()
    for n in range(4):
        p = network(x[n : n + 1])[0].softmax(0)
        clean = p.argmax()
        gradient = sum((p[k] - (k == clean).double()) * weight[k] for k in range(5))
        torch.testing.assert_close(y[n].flatten(), x[n].flatten() + gradient.sign() / 255, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["fgsm", "pgd-linf"])
def test_l_infinity_attacks_flip_a_two_class_network_exactly_beyond_the_margin(kind):
    network, x = linear(2), interior(1)
    difference = (network.weight[0] - network.weight[1]).detach()
    scores = network(x)[0].detach()
    threshold = ((scores[0] - scores[1]).abs() / difference.abs().sum()).item()
    gradient = gradient_of(network, x)
    clean = scores.argmax()
    for factor, flips in [(0.98, False), (1.02, True)]:
        perturber = Perturber(x, ["a"], SEED, gradient)
        if kind == "fgsm":
            y = adversarial.fgsm(x, gradient(x), epsilon=factor * threshold)
        else:
            y = adversarial.pgd_linf(x, gradient, perturber._draws(kind), epsilon=factor * threshold)
        assert (network(y).argmax(1)[0] != clean).item() is flips
        # The gradient's sign never changes, and ten steps of ε/4 cross the ball from any start: the corner.
        sign = -difference.sign() if clean == 0 else difference.sign()
        torch.testing.assert_close(y.flatten(), x.flatten() + factor * threshold * sign, rtol=0, atol=1e-12)


def slow_pgd(x, gradient, start, epsilon, steps, norm):
    """One image, number by number (Madry et al. 2018): step, project on the ball, clip to [0, 1]."""
    y = np.clip(x + start, 0, 1)
    for _ in range(steps):
        g = gradient(y)
        if norm == "linf":
            y = y + 2.5 * epsilon / steps * np.sign(g)
            delta = np.maximum(-epsilon, np.minimum(epsilon, y - x))
        else:
            y = y + 2.5 * epsilon / steps * g / np.sqrt((g**2).sum())
            delta = y - x
            length = np.sqrt((delta**2).sum())
            delta = delta * epsilon / length if length > epsilon else delta
        y = np.clip(x + delta, 0, 1)
    return y


@pytest.mark.parametrize(("kind", "epsilon"), [("pgd-linf", 2 / 255), ("pgd-l2", 1.0)])
def test_pgd_against_a_slow_loop(kind, epsilon, field, make_images):
    network, x = small_network(), make_images(4, 12, 12).double()  # with black and white: clipping matters
    y = Perturber(x, IDS, SEED, gradient_of(network, x)).apply(kind, 5)
    for n in range(4):
        one = gradient_of(network, x[n : n + 1])

        def gradient(image, one=one):
            return one(torch.from_numpy(image)[None])[0].numpy()

        if kind == "pgd-linf":
            start = epsilon * (2 * field("uniform", (3, 12, 12), IDS[n], kind).double().numpy() - 1)
        else:
            radius = field("uniform", (), IDS[n], kind).double().item() ** (1 / (3 * 12 * 12))
            direction = field("normal", (3, 12, 12), IDS[n], kind, skip="uniform").double().numpy()
            start = epsilon * radius * direction / np.sqrt((direction**2).sum())
        expected = slow_pgd(x[n].numpy(), gradient, start, epsilon, 10, kind[4:])
        np.testing.assert_allclose(y[n], expected, atol=1e-10)


def test_pgd_takes_another_number_of_steps(field):
    network, x = linear(3), interior()
    gradient = gradient_of(network, x)
    y = Perturber(x, IDS, SEED, gradient).apply("pgd[steps=1]", 5)
    for n in range(4):
        start = 2 / 255 * (2 * field("uniform", (3, 6, 6), IDS[n], "pgd-linf").double().numpy() - 1)
        one = gradient_of(network, x[n : n + 1])
        expected = slow_pgd(
            x[n].numpy(), lambda i, g=one: g(torch.from_numpy(i)[None])[0].numpy(), start, 2 / 255, 1, "linf"
        )
        np.testing.assert_allclose(y[n], expected, atol=1e-12)
    with pytest.raises(InvalidInput, match=r"`steps` must be a whole number of at least 1\. Got 0"):
        Perturber(x, IDS, SEED, gradient).apply("pgd-linf[steps=0]", 1)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_attacks_stay_in_their_ball(severity):
    network, x = small_network(), interior(size=12)
    perturber = Perturber(x, IDS, SEED, gradient_of(network, x))
    for kind in ("fgsm", "pgd-linf"):
        epsilon = (0.125, 0.25, 0.5, 1, 2)[severity - 1] / 255
        change = (perturber.apply(kind, severity) - x).flatten(1).abs().amax(1)
        torch.testing.assert_close(change, torch.full_like(change, epsilon), rtol=1e-9, atol=0)
    epsilon = (0.0625, 0.125, 0.25, 0.5, 1)[severity - 1]
    length = (perturber.apply("pgd-l2", severity) - x).flatten(1).norm(dim=1)
    assert (length <= epsilon * (1 + 1e-9)).all()
    assert (length > 0.9 * epsilon).all()


def test_the_random_start_is_uniform_in_the_ball():
    """Without a gradient nothing moves, and the start is what comes out."""
    x = torch.full((200, 3, 2, 2), 0.5, dtype=torch.float64)
    perturber = Perturber(x, [str(i) for i in range(200)], SEED, torch.zeros_like)
    start = perturber.apply("pgd-l2", 4) - x  # ε = .5 in 12 dimensions, inside the box
    shares = (start.flatten(1).norm(dim=1) / 0.5) ** 12
    for quantile in (0.25, 0.5, 0.75):  # (r / ε)^d is uniform
        assert shares.quantile(quantile).item() == pytest.approx(quantile, abs=0.1)
    assert start.mean().abs().item() < 0.01
    torch.testing.assert_close(perturber.apply("pgd-l2", 3) - x, start / 2)  # the same start, scaled
    flat = perturber.apply("pgd-linf", 5) - x
    assert flat.abs().max() <= 2 / 255
    assert flat.std().item() == pytest.approx(2 / 255 / 3**0.5, rel=0.05)


def closed_form(network, x, classes=10):
    """δ of a linear network: 1.02 |f| w / ‖w‖² for the nearest boundary of the ten likeliest classes."""
    scores = network(x[None])[0].detach()
    order = scores.argsort(descending=True)[:classes]
    weight = network.weight.detach()
    steps = []
    for k in order[1:]:
        w = weight[k] - weight[order[0]]
        f = scores[k] - scores[order[0]]
        steps.append(f.abs() / (w @ w) * w)
    return 1.02 * min(steps, key=lambda step: step.norm()).view_as(x)


def test_deepfool_on_a_linear_network_is_the_closed_form():
    network, x = linear(14, seed=3), interior()
    perturber = Perturber(x, IDS, SEED, class_scores=network)
    expected = torch.stack([closed_form(network, one) for one in x])
    torch.testing.assert_close(perturber.minimal_step, expected, rtol=1e-9, atol=1e-12)
    clean = network(x).argmax(1)
    for severity, factor in zip((1, 2, 3, 4, 5), (0.25, 0.5, 0.75, 1, 1.25), strict=True):
        y = perturber.apply("deepfool", severity)
        torch.testing.assert_close(y, x + factor * expected, rtol=0, atol=1e-12)
        assert ((network(y).argmax(1) != clean) == (factor >= 1)).all()


def test_deepfool_looks_at_the_ten_likeliest_classes_only():
    """Class 11 is the least likely and its boundary the nearest by far (a huge weight): it is left out."""
    network, x = linear(11, seed=8), interior(1)
    with torch.no_grad():
        last = network(x)[0].argmin()
        network.weight[last] *= 60
        network.bias[last] += network(x)[0].min() - network(x)[0, last] - 1
        assert network(x)[0].argmin() == last
    step = deepfool_step(x, network)
    torch.testing.assert_close(step[0], closed_form(network, x[0]), rtol=1e-9, atol=1e-12)
    nearer = closed_form(network, x[0], classes=11)
    assert nearer.norm() < step.norm() / 2
    torch.testing.assert_close(deepfool_step(x, network, classes=11)[0], nearer, rtol=1e-9, atol=1e-12)


def slow_deepfool(network, x, iterations=50):
    """One image, class by class (algorithm 2), each trial clipped to [0, 1]."""
    order = network(x[None])[0].argsort(descending=True)[:10].tolist()
    total = torch.zeros_like(x)
    for _ in range(iterations):
        if network((x + 1.02 * total).clamp(0, 1)[None])[0].argmax().item() != order[0]:
            break
        trial = (x + total).clamp(0, 1).detach().requires_grad_()
        scores = network(trial[None])[0]
        own = torch.autograd.grad(scores[order[0]], trial, retain_graph=True)[0]
        best = None
        for k in order[1:]:
            w = torch.autograd.grad(scores[k], trial, retain_graph=True)[0] - own
            f = (scores[k] - scores[order[0]]).item()
            distance = abs(f) / w.norm()
            if best is None or distance < best[0]:
                best = distance, distance * w / w.norm()
        total = total + best[1]
    return 1.02 * total


def test_deepfool_against_a_slow_loop_with_rows_that_finish_apart(make_images):
    network, x = small_network(), make_images(4, 12, 12).double()
    step = deepfool_step(x, network)
    for n in range(4):
        torch.testing.assert_close(step[n], slow_deepfool(network, x[n]), rtol=0, atol=1e-10)
    assert (network((x + step).clamp(0, 1)).argmax(1) != network(x).argmax(1)).all()


def test_deepfool_says_when_a_prediction_cannot_be_changed():
    network, x = linear(3), interior()
    lifted = torch.zeros(4, 3, dtype=torch.float64)
    lifted[1, 0] = 1e4  # row 1 is beyond reach in [0, 1]

    def scores(images, offset=lifted):
        rows = torch.cdist(images.flatten(1), x.flatten(1)).argmin(1)
        return network(images) + offset[rows]

    with pytest.warns(HeatproofWarning, match="prediction of 1 of 4 images in 3 iterations"):
        step = deepfool_step(x, scores, iterations=3)
    assert step.isfinite().all()
    for n in (0, 2, 3):
        torch.testing.assert_close(step[n], closed_form(network, x[n]), rtol=1e-9, atol=1e-12)


def test_a_flat_network_moves_nothing():
    x = interior()
    with pytest.warns(HeatproofWarning, match="4 of 4"):
        step = deepfool_step(x, lambda images: images.flatten(1)[:, :3] * 0 + torch.tensor([0.0, 2, 1]), iterations=2)
    assert (step == 0).all()


def test_what_deepfool_refuses():
    x = interior()
    with pytest.raises(InvalidInput, match=r"at least two classes\. Got 1"):
        deepfool_step(x, lambda images: images.flatten(1).sum(1, keepdim=True))
    with pytest.raises(InvalidInput, match="must be differentiable"):
        deepfool_step(x, lambda images: images.detach().flatten(1))


@pytest.mark.parametrize("kind", ["fgsm", "pgd-linf", "pgd-l2", "deepfool-scaled"])
def test_parameters_are_left_alone_and_rows_do_not_mix(kind, make_images):
    network, x = small_network(), make_images(4, 12, 12).double()
    y = Perturber(x, IDS, SEED, gradient_of(network, x), network).apply(kind, 4)
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not y.requires_grad
    for n in range(4):
        alone = x[n : n + 1]
        single = Perturber(alone, IDS[n : n + 1], SEED, gradient_of(network, alone), network).apply(kind, 4)
        torch.testing.assert_close(single[0], y[n], rtol=0, atol=1e-9)


def test_attacks_work_inside_inference_mode():
    network, x = small_network().float(), interior(size=12).float()
    gradient = gradient_of(network, x)
    expected = [Perturber(x, IDS, SEED, gradient, network).apply(k, 3) for k in ("fgsm", "pgd-l2", "deepfool")]
    with torch.inference_mode():
        perturber = Perturber(x.clone(), IDS, SEED, gradient, network)
        got = [perturber.apply(k, 3) for k in ("fgsm", "pgd-l2", "deepfool")]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
