"""LIME and KernelSHAP: a linear model of the output, fitted on inputs of which random features are replaced.

Draws come from torch's global generator: `torch.manual_seed` repeats them.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from heatproof.compat.captum.ablation import feature_masks
from heatproof.compat.captum.base import PerturbationAttribution
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    Tensors,
    alike,
    baselines_of,
    extra_of,
    inputs_of,
    output_of,
    repeated,
    repeated_target,
    reported,
    row_of,
    row_of_target,
    tupled,
)
from heatproof.passes import check_int


class LinearModel:
    """A weighted linear model of scikit-learn's, as `interpretable_model`: `fit`, then `representation`."""

    def __init__(self, model: Any):
        self.model = model

    def fit(self, train_data: DataLoader) -> None:
        """Fits to batches `(X, y, weights)`."""
        rows, outputs, weights = (torch.cat(parts).double().numpy() for parts in zip(*train_data, strict=True))
        self.model.fit(rows, outputs, sample_weight=weights)

    def representation(self) -> Tensor:
        """The coefficients, `(features,)`."""
        return torch.from_numpy(self.model.coef_).reshape(-1)


def get_exp_kernel_similarity_function(distance_mode: str = "cosine", kernel_width: float = 1.0) -> Callable:
    """`exp(−d² / 2w²)`, with d the cosine or euclidean distance from the inputs, as a `similarity_func`."""
    if distance_mode not in ("cosine", "euclidean"):
        raise InvalidArgument(f"`distance_mode` must be 'cosine' or 'euclidean'. Got {distance_mode!r}.")

    def similarity(original: Any, perturbed: Any, _features: Any, **_: Any) -> float:
        before, after = (torch.cat([one.flatten().float() for one in tupled(some)]) for some in (original, perturbed))
        distance = (
            1 - F.cosine_similarity(before, after, dim=0) if distance_mode == "cosine" else (before - after).norm()
        )
        return math.exp(-(float(distance) ** 2) / (2 * kernel_width**2))

    return similarity


class LimeBase(PerturbationAttribution):
    """A linear model fitted to perturbed inputs, each weighted by its similarity; all parts are functions.

    Args:
        interpretable_model: has `fit(DataLoader)` of batches `(X, y, weights)` and `representation()`.
        similarity_func: `(inputs, perturbed inputs, features, **options)` → the weight of a sample.
        perturb_func: `(inputs, **options)` → a sample, as features where `perturb_interpretable_space`, else as inputs;
            or a generator of them.
        from_interp_rep_transform: `(features, inputs, **options)` → inputs.
        to_interp_rep_transform: `(perturbed inputs, inputs, **options)` → features `(1, F)`.
    """

    _multiply_by_inputs = False

    def __init__(
        self,
        forward_func: Callable,
        interpretable_model: Any,
        similarity_func: Callable,
        perturb_func: Callable,
        perturb_interpretable_space: bool,
        from_interp_rep_transform: Callable | None,
        to_interp_rep_transform: Callable | None,
    ):
        super().__init__(forward_func)
        self.interpretable_model, self.similarity_func = interpretable_model, similarity_func
        self.perturb_func = perturb_func
        self.perturb_interpretable_space = perturb_interpretable_space
        self.from_interp_rep_transform, self.to_interp_rep_transform = (
            from_interp_rep_transform,
            to_interp_rep_transform,
        )

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        n_samples: int = 50,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """The coefficients of the features; the function gives one number for the inputs, which are explained together.

        `kwargs` are handed to the functions.
        """
        extra, count = extra_of(additional_forward_args), len(tupled(inputs)[0])
        samples = islice(self._samples(inputs, kwargs), check_int("n_samples", n_samples))
        features: list[Tensor] = []
        weights: list[float] = []
        outputs: list[Tensor] = []
        reported(self.get_name(), 0, n_samples, show_progress)
        with torch.no_grad():
            while group := list(islice(samples, check_int("perturbations_per_eval", perturbations_per_eval))):
                for perturbed, row in group:
                    features.append(row.detach().reshape(1, -1).float().cpu())
                    weights.append(float(self.similarity_func(inputs, perturbed, row, **kwargs)))
                given = tuple(torch.cat(parts) for parts in zip(*(tupled(one) for one, _ in group), strict=True))
                found = output_of(
                    self.forward_func,
                    given,
                    repeated_target(target, len(group), count, each=False),
                    repeated(extra, len(group), count, each=False),
                ).flatten()
                if len(found) != len(group):
                    raise InvalidArgument(
                        f"Expected the function to give one number for each of {len(group)} samples. Got {len(found)}. "
                        "Explain one image at a time, or set `perturbations_per_eval` to 1."
                    )
                outputs.append(found.float().cpu())
                reported(self.get_name(), len(features), n_samples, show_progress)
        data = TensorDataset(torch.cat(features), torch.cat(outputs), torch.tensor(weights, dtype=torch.float32))
        self.interpretable_model.fit(DataLoader(data, batch_size=len(features)))
        return self.interpretable_model.representation()

    def _samples(self, inputs: Any, options: dict[str, Any]) -> Iterator[tuple[Any, Tensor]]:
        """(perturbed inputs, features) of one sample after the other."""
        endless = self.perturb_func(inputs, **options) if inspect.isgeneratorfunction(self.perturb_func) else None
        while True:
            drawn = next(endless) if endless else self.perturb_func(inputs, **options)
            if self.perturb_interpretable_space:
                yield _called(self.from_interp_rep_transform, drawn, inputs, options), drawn
            else:
                yield drawn, _called(self.to_interp_rep_transform, drawn, inputs, options)


def _called(function: Callable | None, drawn: Any, inputs: Any, options: dict[str, Any]) -> Any:
    if function is None:
        raise InvalidArgument(
            "A function that turns samples into inputs, or inputs into features, is needed. Got None."
        )
    return function(drawn, inputs, **options)


class Lime(LimeBase):
    """LIME: features are replaced by the baseline with probability ½; the weights fall with the distance.

    The default model is a Lasso with alpha .01, the default kernel the cosine distance of width 1.
    """

    def __init__(
        self,
        forward_func: Callable,
        interpretable_model: Any = None,
        similarity_func: Callable | None = None,
        perturb_func: Callable | None = None,
    ):
        if interpretable_model is None:
            from sklearn.linear_model import Lasso  # scikit-learn is slow to import

            interpretable_model = LinearModel(Lasso(alpha=0.01))
        super().__init__(
            forward_func,
            interpretable_model,
            similarity_func or get_exp_kernel_similarity_function(),
            perturb_func or _half_of_them,
            True,
            _with_features,
            None,
        )

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        n_samples: int = 25,
        perturbations_per_eval: int = 1,
        return_input_shape: bool = True,
        show_progress: bool = False,
    ) -> Any:
        """The coefficient of its feature for every value, of the inputs' shapes; each row has a model of its own.

        Args:
            feature_mask: the number of the feature of every value, from 0, `(1 or N, …)` for each input.
            return_input_shape: False: the coefficients themselves, `(N, features)`.
        """
        some = inputs_of(inputs)
        masks, bases = feature_masks(feature_mask, some), baselines_of(baselines, some)
        number = max(int(mask.max()) for mask in masks if mask.numel()) + 1
        count, extra = len(some[0]), extra_of(additional_forward_args)
        more = {"n_samples": n_samples, "perturbations_per_eval": perturbations_per_eval}
        with torch.no_grad():
            together = count > 1 and output_of(self.forward_func, some, target, extra).numel() == 1
        found, rows = [], [None] if together else range(count)
        for row in rows:
            one, base, mask = (part if row is None else row_of(part, row, count) for part in (some, bases, masks))
            coefficients = super().attribute(
                alike(inputs, one),
                target if row is None else row_of_target(target, row, count),
                extra if row is None else row_of(extra, row, count),
                baselines=alike(inputs, base),
                feature_mask=alike(inputs, mask),
                num_interp_features=number,
                show_progress=show_progress,
                **more,
            )
            found.append(coefficients.reshape(1, -1).float())
        if not return_input_shape:
            return torch.cat(found)
        spread = (
            torch.cat([one.to(mask.device)[0][row_of(mask, i, len(rows))] for i, one in enumerate(found)])
            for mask in masks
        )
        shaped = (one if together else one.expand_as(given) for one, given in zip(spread, some, strict=True))
        return alike(inputs, tuple(shaped))


def _half_of_them(inputs: Any, **options: Any) -> Tensor:
    return torch.bernoulli(torch.full((1, options["num_interp_features"]), 0.5)).long()


def _with_features(drawn: Tensor, inputs: Any, **options: Any) -> Any:
    given: tuple[Tensors, ...] = tuple(tupled(part) for part in (inputs, options["baselines"], options["feature_mask"]))
    kept = drawn[0].bool()
    return alike(inputs, tuple(torch.where(kept.to(m.device)[m], x, b) for x, b, m in zip(*given, strict=True)))
