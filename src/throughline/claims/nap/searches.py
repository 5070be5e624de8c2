"""The searches of every arm, and the regret that is left after each of their trials."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from throughline.claims.nap.config import Config
from throughline.claims.nap.problems import Problem, Task
from throughline.claims.nap.training import surfaces, trained
from throughline.lab import Log, require
from throughline.search.meta_bo import GPOptimizer, NAPOptimizer, NeuralAcquisitionProcess

__all__ = ["initial", "kernel", "optimizer_of", "regret", "search", "searched"]


class Optimizer(Protocol):
    def ask(self) -> Tensor: ...
    def tell(self, x: Tensor, y: float) -> None: ...


class RandomOptimizer(NamedTuple):
    """Candidates in a random order."""

    left: list[Tensor]

    def ask(self) -> Tensor:
        return self.left[-1]

    def tell(self, x: Tensor, y: float) -> None:
        self.left[:] = [candidate for candidate in self.left if not torch.equal(candidate, x)]


class SurrogateOptimizer(NAPOptimizer):
    """The expected improvement of the network's bars in the place of its acquisition values."""

    def _scores(self, x: Tensor, y: Tensor, candidates: Tensor, state: Tensor) -> Tensor:
        bars = self.policy.predict(x, y, candidates)
        return self.policy.bars.expected_improvement(bars, state[:, 0])[0]


def searched(arm: str, problem: Problem, config: Config, seed: int, log: Log) -> list[np.ndarray]:
    """Regret after every trial, of every search: once on each test task, or so often as chance wants it."""
    policy = trained(arm, problem, config, seed, log) if arm.startswith("nap") else None
    found = []
    for number, task in enumerate(problem.test):
        for repetition in range(1 if policy is not None and not config.initial else config.repetitions):
            draw = torch.Generator().manual_seed(10_000 * seed + 100 * number + repetition)
            start = initial(task, config, draw)  # first, so that it is the same in every arm
            optimizer = optimizer_of(arm, policy, task, config, draw)
            tried = search(optimizer, task, config.horizon, start)
            found.append(regret(task, tried))
            if policy is not None and number == 0 and repetition == 0:
                log.keep(tried=task.x[tried], outcomes=task.y[tried], x=task.x, y=task.y)
                if config.dataset == "svc" and config.data is None:
                    log.keep(surfaces=surfaces(arm, policy, task, tried, config))
        log(number, of=len(problem.test))
    return found


def optimizer_of(
    arm: str, policy: NeuralAcquisitionProcess | None, task: Task, config: Config, draw: Generator
) -> Optimizer:
    if arm == "gp_ei":
        covar_module = kernel(config.kernel, task.x.shape[1])
        return GPOptimizer(task.x, num_initial=max(1, config.initial), covar_module=covar_module, generator=draw)
    if policy is None:
        return RandomOptimizer([*task.x[torch.randperm(len(task.x), generator=draw)]])
    make = NAPOptimizer if arm == "nap" else SurrogateOptimizer
    return make(policy, task.x, horizon=config.horizon, y_bounds=(0.0, 1.0))


def kernel(name: str, width: int) -> nn.Module:
    """A kernel with a length for each of ``width`` inputs and BoTorch's priors: those that grow with the width, or with
    "matern-gamma" the older ones and a scale of its own."""
    made = require("botorch.models.utils.gpytorch_modules", extra="search")
    covar_module: nn.Module
    if name == "matern-gamma":
        covar_module = made.get_matern_kernel_with_gamma_prior(ard_num_dims=width)
    else:
        covar_module = made.get_covar_module_with_dim_scaled_prior(ard_num_dims=width, use_rbf_kernel=name == "rbf")
    return covar_module


def initial(task: Task, config: Config, draw: Generator) -> list[int]:
    """The settings that every arm starts from."""
    if task.start:
        return [*task.start[: config.initial]]
    return torch.randperm(len(task.x), generator=draw)[: config.initial].tolist()


def search(optimizer: Optimizer, task: Task, horizon: int, start: list[int]) -> list[int]:
    """The settings that were tried, in their order; nothing else of the task is shown to the optimizer."""
    tried: list[int] = []
    for trial in range(horizon):
        x = task.x[start[trial]] if trial < len(start) else optimizer.ask()
        place = int((task.x == x).all(-1).nonzero())
        optimizer.tell(x, float(task.y[place]))
        tried.append(place)
    return tried


def regret(task: Task, tried: list[int]) -> np.ndarray:
    """(y* − best so far) / (y* − y_min) after every trial."""
    best = task.y[tried].double().cummax(0).values
    highest, lowest = float(task.y.max()), float(task.y.min())
    return np.asarray((highest - best) / (highest - lowest))
