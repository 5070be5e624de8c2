"""Endless training tasks from a few tables: samples of the Gaussian process that each table gives rise to."""

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor

__all__ = ["gp_prior_tasks", "search_extra"]


def gp_prior_tasks(
    tasks: Sequence[tuple[Tensor, Tensor]], *, num_candidates: int = 300, jitter: float = 0.1, max_points: int = 300
) -> Callable[[Generator], tuple[Tensor, Tensor]]:
    """A function that draws tasks related to ``tasks``, for `AcquisitionTrainer`; without it few tables are memorised.

    From "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (arXiv 2305.15930). To each table a
    Gaussian process (Matérn-5/2 with a length-scale for each input, outcomes standardised) is fitted here, by BoTorch.
    A draw takes one of them at random: inputs of its table with replacement, moved by noise and scaled back to [0, 1],
    and one sample of the posterior there, with observation noise, scaled to [0, 1].

    Args:
        tasks: inputs ``(N, d)`` in [0, 1] and outcomes ``(N,)`` each, N >= 2. A column that holds zeros and ones only
            is a category and gets no noise.
        num_candidates: rows of a drawn task.
        jitter: width of the uniform noise, centred on 0.
        max_points: rows of a table that its process is fitted to, evenly spaced in the table's order.

    Raises:
        ImportError: BoTorch is not installed.
        ValueError: an argument is out of range, or a table has another shape or constant outcomes.

    >>> x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    >>> draw = gp_prior_tasks([(x, x.sum(-1).sin())], num_candidates=50)
    >>> inputs, outcomes = draw(torch.Generator().manual_seed(0))
    >>> inputs.shape, outcomes.min(), outcomes.max()
    (torch.Size([50, 2]), tensor(0.), tensor(1.))
    """
    if not len(tasks):
        raise ValueError("tasks must hold at least one task, got none")
    if num_candidates < 2 or max_points < 2:
        raise ValueError(f"num_candidates and max_points must be at least 2, got {num_candidates} and {max_points}")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), got {jitter}")
    for number, (x, y) in enumerate(tasks):
        if x.ndim != 2 or y.shape != x.shape[:1] or len(x) < 2:
            raise ValueError(
                f"tasks[{number}] must be inputs (N, d) and outcomes (N,) with N >= 2, "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if bool((y == y[0]).all()):
            raise ValueError(f"tasks[{number}] has constant outcomes, and a process fitted to them is none")
    models = [_fitted(x, y, max_points) for x, y in tasks]

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device).cpu()

        which = int(uniform(1) * len(tasks))
        table = tasks[which][0].detach().cpu().double()
        x = table[(uniform(num_candidates) * len(table)).long()]
        continuous = ((table != 0) & (table != 1)).any(0)
        x = x + continuous * jitter * (uniform(*x.shape) - 0.5)
        x = _scaled(x)
        y = _scaled(_sample(models[which], x, generator))
        return x.to(tasks[which][0]), y.to(tasks[which][1])

    return draw


def search_extra(name: str) -> ModuleType:
    """A module of the optional packages for search."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f'{package} is not installed; pip install "throughline[search]"') from error


def _fitted(x: Tensor, y: Tensor, max_points: int) -> Any:
    models, kernels = search_extra("botorch.models"), search_extra("gpytorch.kernels")
    likelihoods, fit = search_extra("gpytorch.mlls"), search_extra("botorch.fit")
    transforms = search_extra("botorch.models.transforms")
    rows = torch.linspace(0, len(x) - 1, min(len(x), max_points)).round().long()
    inputs, outcomes = x.detach().cpu().double()[rows], y.detach().cpu().double()[rows].unsqueeze(-1)
    kernel = kernels.ScaleKernel(kernels.MaternKernel(nu=2.5, ard_num_dims=x.shape[1]))
    model = models.SingleTaskGP(
        inputs, outcomes, covar_module=kernel, outcome_transform=transforms.Standardize(1)
    ).double()
    fit.fit_gpytorch_mll(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
    return model.eval()


@torch.no_grad()
def _sample(model: Any, x: Tensor, generator: Generator) -> Tensor:
    posterior = model.posterior(x, observation_noise=True)
    root = search_extra("linear_operator.utils.cholesky").psd_safe_cholesky(posterior.distribution.covariance_matrix)
    noise = torch.randn(len(x), generator=generator, device=generator.device, dtype=torch.double).cpu()
    sample: Tensor = posterior.distribution.mean + root @ noise
    return sample


def _scaled(x: Tensor) -> Tensor:
    """To [0, 1] along the first dimension; a constant becomes 0."""
    low, high = x.amin(0), x.amax(0)
    return (x - low) / (high - low).masked_fill(high == low, 1)
