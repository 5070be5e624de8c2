"""Search over given candidates by ask and tell: with a trained policy, or with a Gaussian process."""

import copy
import math
import warnings
from typing import Any

import torch
from torch import Generator, Tensor, nn

from throughline.core.checks import check_floating, check_tensor
from throughline.search.meta_bo.prior_tasks import search_extra
from throughline.search.meta_bo.process import NeuralAcquisitionProcess, plain_policy

__all__ = ["GPOptimizer", "NAPOptimizer", "best_place", "check_bounds", "scaled_outcomes"]


class NAPOptimizer:
    """Proposes what a trained policy would try next, among given candidates.

    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (NAP, arXiv 2305.15930). Nothing is
    fitted: a proposal is one pass. Minimising with bounds (a, b) is maximising −y with (−b, −a).

    Args:
        policy: a trained `NeuralAcquisitionProcess`, also compiled or averaged; used in evaluation mode.
        candidates: ``(m, d)``, scaled as in training, all different.
        horizon: T, the number of trials that the search will have, as in training.
        maximize: whether large outcomes are wanted.
        y_bounds: lowest and highest possible outcome, such as (0, 1) of an accuracy, which are mapped to [0, 1] (small
            excesses are harmless). Without them the least and largest outcome so far are, and a single value is 0.5.

    Attributes:
        trials: what was told, ``trials.inputs()`` and ``trials.outcomes()``, in order.

    Raises:
        TypeError: ``policy`` is none, or ``candidates`` no floating point tensor.
        ValueError: ``candidates`` has another width than the policy, is empty, not finite or holds a row twice;
            ``horizon`` is below 1; ``y_bounds`` is not increasing.

    >>> policy = NeuralAcquisitionProcess(3, d_model=64, num_layers=2, num_bars=50)
    >>> opt = NAPOptimizer(policy, torch.rand(256, 3), horizon=15, y_bounds=(0.0, 1.0))
    >>> x = opt.ask(); opt.tell(x, 0.7)
    >>> opt.best()[1]
    0.7
    """

    def __init__(
        self,
        policy: NeuralAcquisitionProcess,
        candidates: Tensor,
        *,
        horizon: int,
        maximize: bool = True,
        y_bounds: tuple[float, float] | None = None,
    ) -> None:
        width = plain_policy(policy).embed_x.in_features
        check_floating("candidates", candidates)
        if candidates.ndim == 2 and candidates.shape[1] != width:
            raise ValueError(
                f"candidates must be (m, {width}), as the policy's in_features, got {(*candidates.shape,)}"
            )
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        check_bounds(y_bounds)
        self.policy, self.horizon, self.y_bounds = policy.eval(), horizon, y_bounds
        self.trials = Trials(candidates, maximize)

    @torch.no_grad()
    def ask(self) -> Tensor:
        """The untried candidate with the largest acquisition value, ``(d,)``; the same until something is told.

        Raises:
            ValueError: every candidate was tried, ``horizon`` trials were told, or the policy's scores are NaN.
        """
        untried = self.trials.untried()
        told = len(self.trials.y)
        if told >= self.horizon:
            raise ValueError(f"horizon is used up: {told} of {self.horizon} trials were told; take best()")
        weight = plain_policy(self.policy).embed_x.weight
        x = self.trials.inputs().to(weight)
        y = scaled_outcomes(self.trials.outcomes(), self.y_bounds, self.trials.maximize).to(weight)
        state = torch.stack([y.max() if told else y.new_zeros(()), y.new_tensor(told / self.horizon)])
        return untried[best_place(self._scores(x[None], y[None], untried[None].to(weight), state[None]))]

    def _scores(self, x: Tensor, y: Tensor, candidates: Tensor, state: Tensor) -> Tensor:
        scores: Tensor = self.policy(x, y, candidates, state).acquisition[0]
        return scores

    def tell(self, x: Tensor, y: float) -> None:
        """Record a trial, of a candidate or of any other input.

        Raises:
            TypeError: ``x`` is no tensor.
            ValueError: ``x`` is not ``(d,)`` and finite, or ``y`` is not finite.
        """
        self.trials.add(x, y)

    def best(self) -> tuple[Tensor, float]:
        """The trial with the best outcome so far, the first of equals.

        Raises:
            ValueError: no trial was told.
        """
        return self.trials.best()


class GPOptimizer:
    """Proposes by a Gaussian process and expected improvement, BoTorch's defaults as they are: the yardstick.

    ``SingleTaskGP`` is fitted anew to all trials at each proposal, and ``LogExpectedImprovement`` is evaluated at every
    untried candidate.

    Args:
        candidates: ``(m, d)`` in [0, 1], all different.
        num_initial: trials that are drawn at random among the untried before the first fit.
        maximize: whether large outcomes are wanted.
        covar_module: the kernel, a ``gpytorch.kernels.Kernel`` as BoTorch's models take it; theirs if None. Every
            fit starts from it as it was given, and leaves it so.
        generator: of the random trials; torch's global one if None.

    Attributes:
        trials: as of `NAPOptimizer`.

    Raises:
        ImportError: BoTorch is not installed.
        TypeError: ``covar_module`` is no kernel.
        ValueError: ``candidates`` is empty, not finite or holds a row twice, ``num_initial`` is below 1, or
            ``covar_module`` is for inputs of another width.

    >>> opt = GPOptimizer(torch.rand(100, 2), generator=torch.Generator().manual_seed(0))
    >>> for _ in range(3):
    ...     x = opt.ask()
    ...     opt.tell(x, float(x.sum()))
    """

    def __init__(
        self,
        candidates: Tensor,
        *,
        num_initial: int = 1,
        maximize: bool = True,
        covar_module: nn.Module | None = None,
        generator: Generator | None = None,
    ) -> None:
        search_extra("botorch")
        if num_initial < 1:
            raise ValueError(f"num_initial must be at least 1, got {num_initial}")
        self.num_initial, self.generator = num_initial, generator
        self.trials = Trials(candidates, maximize)
        check_kernel(covar_module, self.trials.candidates)
        self.covar_module = copy.deepcopy(covar_module)

    def ask(self) -> Tensor:
        """The untried candidate of largest expected improvement, ``(d,)``; one at random in the initial trials.

        Raises:
            ValueError: every candidate was tried.
        """
        untried = self.trials.untried()
        if len(self.trials.y) < self.num_initial:
            device = untried.device if self.generator is None else self.generator.device
            return untried[int(torch.randint(len(untried), (), generator=self.generator, device=device))]
        acquisition = self._fitted()
        with torch.no_grad():
            scores = acquisition(untried.double().unsqueeze(1))
        return untried[best_place(scores)]

    def tell(self, x: Tensor, y: float) -> None:
        """As of `NAPOptimizer`."""
        self.trials.add(x, y)

    def best(self) -> tuple[Tensor, float]:
        """As of `NAPOptimizer`."""
        return self.trials.best()

    def _fitted(self) -> Any:
        models, fit = search_extra("botorch.models"), search_extra("botorch.fit")
        likelihoods, analytic = search_extra("gpytorch.mlls"), search_extra("botorch.acquisition.analytic")
        y = self.trials.outcomes().unsqueeze(-1) * (1 if self.trials.maximize else -1)
        with warnings.catch_warnings():  # of a single outcome, which is standardised to 0
            warnings.filterwarnings("ignore", message=r"Data \(outcome observations\) is not standardized")
            kernel = copy.deepcopy(self.covar_module)
            model = models.SingleTaskGP(self.trials.inputs().double(), y, covar_module=kernel)
        fit.fit_gpytorch_mll(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
        return analytic.LogExpectedImprovement(model, best_f=y.max())


class Trials:
    """Candidates, which of them were tried, and every outcome that was told."""

    def __init__(self, candidates: Tensor, maximize: bool) -> None:
        check_floating("candidates", candidates)
        if candidates.ndim != 2 or 0 in candidates.shape:
            raise ValueError(f"candidates must be (m, d), none of them 0, got {tuple(candidates.shape)}")
        if not bool(candidates.isfinite().all()):
            raise ValueError("candidates must be finite")
        distinct = len(torch.unique(candidates, dim=0))
        if distinct < len(candidates):
            raise ValueError(
                f"candidates must all be different, got {len(candidates)} rows, {distinct} of them different"
            )
        self.candidates, self.maximize = candidates.detach().clone(), maximize
        self.tried = torch.zeros(len(candidates), dtype=torch.bool, device=candidates.device)
        self.x: list[Tensor] = []
        self.y: list[float] = []

    def untried(self) -> Tensor:
        left = self.candidates[~self.tried]
        if not len(left):
            raise ValueError(f"every one of {len(self.candidates)} candidates was tried; take best()")
        return left

    def inputs(self) -> Tensor:
        return torch.stack(self.x) if self.x else self.candidates[:0]

    def outcomes(self) -> Tensor:
        return torch.tensor(self.y, dtype=torch.double, device=self.candidates.device)

    def add(self, x: Tensor, y: float) -> None:
        check_tensor("x", x)
        if x.shape != self.candidates.shape[1:] or not bool(x.isfinite().all()):
            raise ValueError(f"x must be ({self.candidates.shape[1]},) and finite, got {tuple(x.shape)}")
        if not math.isfinite(y):
            raise ValueError(f"y must be finite, got {y}; a trial that failed is best not told")
        x = x.detach().to(self.candidates)
        self.tried |= (self.candidates == x).all(-1)
        self.x.append(x.clone())
        self.y.append(float(y))

    def best(self) -> tuple[Tensor, float]:
        if not self.y:
            raise ValueError("there is no best trial: none was told")
        place = self.y.index(max(self.y) if self.maximize else min(self.y))
        return self.x[place], self.y[place]


def best_place(scores: Tensor) -> int:
    """The place of the largest score.

    Raises:
        ValueError: one is NaN.
    """
    place = int(scores.argmax())  # NaN counts as the largest
    if scores[place].isnan():
        raise ValueError("acquisition values must be numbers, got NaN: the model that gives them is broken")
    return place


def check_kernel(covar_module: nn.Module | None, candidates: Tensor) -> None:
    """Refuse what is no kernel, or one that cannot be evaluated at the candidates."""
    if covar_module is None:
        return
    if not isinstance(covar_module, search_extra("gpytorch.kernels").Kernel):
        raise TypeError(f"covar_module must be a gpytorch.kernels.Kernel, got {type(covar_module).__name__}")
    some = candidates[:1].double()
    try:
        copy.deepcopy(covar_module).to(some)(some).to_dense()
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"covar_module must take inputs of {some.shape[1]} columns, as candidates have, got one that says: {error}"
        ) from None


def check_bounds(y_bounds: tuple[float, float] | None) -> None:
    if y_bounds is not None and not -math.inf < y_bounds[0] < y_bounds[1] < math.inf:
        raise ValueError(f"y_bounds must be increasing and finite, got {tuple(y_bounds)}")


def scaled_outcomes(y: Tensor, y_bounds: tuple[float, float] | None, maximize: bool) -> Tensor:
    """Outcomes as a policy sees them: 0 the worst and 1 the best, by the bounds or by the outcomes themselves."""
    y = y if maximize else -y
    if y_bounds is None:
        low, high = (float(y.min()), float(y.max())) if len(y) else (0.0, 0.0)
        return (y - low) / (high - low) if low < high else torch.full_like(y, 0.5)
    low, high = y_bounds if maximize else (-y_bounds[1], -y_bounds[0])
    return (y - low) / (high - low)
