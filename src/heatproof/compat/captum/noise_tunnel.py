"""Any attribution, over noisy copies of the inputs: its mean, its mean square or its variance."""

import inspect
from typing import Any

import torch

from heatproof.compat.captum.base import Attribution
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    alike,
    extra_of,
    inputs_of,
    repeated,
    repeated_target,
    tupled,
)
from heatproof.compat.captum.paths import noisy, one_for_each
from heatproof.passes import check_int, parts

#: What is made of the attributions of the noisy copies.
KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")


class NoiseTunnel(Attribution):
    """Attributions of noisy copies: SmoothGrad and its relatives, for any object with Captum's interface."""

    def __init__(self, attribution_method: Any):
        super().__init__(attribution_method.forward_func)
        self.attribution_method = attribution_method
        self._multiply_by_inputs = attribution_method.multiplies_by_inputs

    def has_convergence_delta(self) -> bool:
        """As the method."""
        return self.attribution_method.has_convergence_delta()

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        nt_type: str = "smoothgrad",
        nt_samples: int = 5,
        nt_samples_batch_size: int | None = None,
        stdevs: Any = 1.0,
        draw_baseline_from_distrib: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Of the method's shapes; with `return_convergence_delta` also the delta of every copy, `(N · nt_samples,)`.

        Args:
            nt_type: `smoothgrad` (mean), `smoothgrad_sq` (mean of squares) or `vargrad` (mean of squares less the
                square of the mean).
            nt_samples: noisy copies of each image, from torch's global generator.
            nt_samples_batch_size: how many of them are explained in one call; None: all.
            stdevs: the standard deviation of the noise, a number or one for each input.
            draw_baseline_from_distrib: each copy has a baseline of its own, a row of `baselines`.
            kwargs: the arguments of the method; what has one entry for each row is repeated.
        """
        if nt_type not in KINDS:
            raise InvalidArgument(f"`nt_type` must be one of {', '.join(KINDS)}. Got {nt_type!r}.")
        some, copies = inputs_of(inputs), check_int("nt_samples", nt_samples)
        deviations = one_for_each("stdevs", stdevs, some)
        with_delta = bool(kwargs.get("return_convergence_delta")) and self.has_convergence_delta()
        sizes = [len(range(copies)[part]) for part in parts(copies, nt_samples_batch_size or copies)]
        sums: list[list[Tensor]] = []
        deltas: list[Tensor] = []
        form: Any = None
        for times in sizes:
            given = tuple(
                noisy(one.repeat_interleave(times, 0), float(std)) for one, std in zip(some, deviations, strict=True)
            )
            more = self._repeated(kwargs, times, len(some[0]), draw_baseline_from_distrib)
            form = self.attribution_method.attribute(alike(inputs, given), **more)
            if with_delta:
                form, delta = form
                deltas.append(delta)
            found = [one.detach().unflatten(0, (-1, times)) for one in tupled(form)]
            sums.append([torch.stack([one.sum(1), (one**2).sum(1)]) for one in found])
        made = tuple(_made(nt_type, sum(batches) / copies) for batches in zip(*sums, strict=True))
        return (alike(form, made), torch.cat(deltas)) if with_delta else alike(form, made)

    def _repeated(self, given: dict[str, Any], times: int, count: int, drawn: bool) -> dict[str, Any]:
        found = dict(given)
        for name in ("baselines", "feature_mask"):
            if isinstance(found.get(name), Tensor | tuple):
                found[name] = repeated(found[name], times, count, each=True)
        if drawn and isinstance(given.get("baselines"), Tensor | tuple):
            pools = tupled(given["baselines"])
            chosen = torch.randint(max(len(p) for p in pools if isinstance(p, Tensor)), (count * times,))
            rows = tuple(pool[chosen.to(pool.device)] if isinstance(pool, Tensor) else pool for pool in pools)
            found["baselines"] = alike(given["baselines"], rows)
        elif "baselines" in given and _takes_a_distribution(self.attribution_method):
            found["baselines"] = given["baselines"]
        if "additional_forward_args" in found:
            found["additional_forward_args"] = repeated(
                extra_of(found["additional_forward_args"]), times, count, each=True
            )
        if "target" in found:
            found["target"] = repeated_target(found["target"], times, count, each=True)
        return found


def _takes_a_distribution(method: Any) -> bool:
    """Whether `baselines` has no default: there it is a distribution, as in GradientShap."""
    parameter = inspect.signature(method.attribute).parameters.get("baselines")
    return parameter is not None and (parameter.default is parameter.empty or type(method).__name__.endswith("Shap"))


def _made(kind: str, means: Any) -> Tensor:
    mean, square = means
    return {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean**2}[kind]
