"""Optimisation runs that a policy learns from: tasks drawn as one batch, and all of their runs stepped together."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from throughline.core.checks import check_floating
from throughline.search.meta_bo.process import NeuralAcquisitionProcess

__all__ = ["Episodes", "Runs", "Task", "TaskPool", "collect", "generalized_advantages", "iid_context", "run_context"]

Task = tuple[Tensor, Tensor]  # inputs (N, d) and outcomes (N,), large ones wanted


class Episodes(NamedTuple):
    """A batch of tasks with the same number of candidates."""

    x: Tensor  # (E, m, d)
    y: Tensor  # (E, m)
    real: Tensor  # (E, m), False where a small task is filled up


class Runs(NamedTuple):
    """One run of T trials on each of E episodes, with what a later policy is compared with."""

    tried: Tensor  # (E, T), candidates in the order in which they were tried
    offered: Tensor  # (E, T, k), the candidates that the choice was among
    open: Tensor  # (E, T, k), False where fewer than k were left
    action: Tensor  # (E, T), the place of `tried` in `offered`
    log_prob: Tensor  # (E, T), of the action
    value: Tensor  # (E, T), of the state
    state: Tensor  # (E, T, 2)
    reward: Tensor  # (E, T)
    regret: Tensor  # (E, T), after each trial


class TaskPool:
    """Tables, or a function that makes them, from which batches of episodes are drawn."""

    def __init__(
        self,
        tasks: Sequence[Task] | Callable[[Generator], Task],
        *,
        in_features: int,
        horizon: int,
        num_candidates: int,
        like: Tensor,
    ) -> None:
        self.in_features, self.horizon, self.num_candidates, self.like = in_features, horizon, num_candidates, like
        self.make = tasks if callable(tasks) else None
        self.tables = None if callable(tasks) else self._stacked(self._usable(tasks))

    def draw(self, count: int, generator: Generator | None) -> Episodes:
        """``count`` episodes: a task each, with a random part of its candidates."""
        if self.make is not None:
            source = torch.default_generator if generator is None else generator
            made = [self.make(source) for _ in range(count)]
            for number, task in enumerate(made):
                self._check(f"tasks() in draw {number}", *task)
                if fault := _unfit(*task):
                    raise ValueError(f"tasks() gave a task with {fault}")
            x, y, real = self._stacked(made)
        else:
            assert self.tables is not None
            which = (_uniform((count,), generator, self.like) * len(self.tables.x)).long()
            x, y, real = (part[which] for part in self.tables)
        order = (_uniform(real.shape, generator, self.like) + ~real).argsort(-1)[:, : self.num_candidates]
        return Episodes(_rows(x, order), y.gather(1, order), real.gather(1, order))

    def _usable(self, tasks: Sequence[Task]) -> list[Task]:
        if not len(tasks):
            raise ValueError("tasks must hold at least one task, got none")
        found = []
        for number, (x, y) in enumerate(tasks):
            self._check(f"tasks[{number}]", x, y)
            if fault := _unfit(x, y):
                warnings.warn(f"tasks[{number}] is left out: {fault}", stacklevel=4)
                continue
            if len(torch.unique(x, dim=0)) < len(x):
                raise ValueError(f"tasks[{number}] has duplicate candidates; keep one of each")
            found.append((x, y))
        if not found:
            raise ValueError("tasks holds no task with two different outcomes")
        return found

    def _check(self, name: str, x: Tensor, y: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.in_features or y.shape != x.shape[:1]:
            raise ValueError(
                f"{name} must be inputs (N, {self.in_features}) and outcomes (N,), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not bool(x.isfinite().all() & y.isfinite().all()):
            raise ValueError(f"{name} must be finite")
        if _unfit(x, y) is None and min(len(x), self.num_candidates) < self.horizon:
            fewest = min(len(x), self.num_candidates)
            raise ValueError(f"horizon must be at most the candidates of {name}, got {self.horizon} and {fewest}")

    def _stacked(self, tasks: Sequence[Task]) -> Episodes:
        most = max(len(x) for x, _ in tasks)
        x, y = self.like.new_zeros(len(tasks), most, self.in_features), self.like.new_zeros(len(tasks), most)
        real = torch.zeros(len(tasks), most, dtype=torch.bool, device=self.like.device)
        for place, (inputs, outcomes) in enumerate(tasks):
            x[place, : len(inputs)], y[place, : len(inputs)], real[place, : len(inputs)] = inputs, outcomes, True
        return Episodes(x, y, real)


@torch.no_grad()
def collect(
    policy: NeuralAcquisitionProcess,
    episodes: Episodes,
    *,
    horizon: int,
    top_k: int,
    regret_floor: float,
    generator: Generator | None,
) -> Runs:
    """Run the policy on all episodes side by side, from an empty history: sampled among the top k untried candidates.

    The reward of a trial is −log10 of the simple regret after it, at least ``regret_floor``.
    """
    x, y, real = episodes
    best = y.masked_fill(~real, -torch.inf).amax(-1)
    taken = ~real
    tried = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
    incumbent = torch.zeros_like(best)  # the lower bound of the outcomes, before the first trial
    steps = []
    for t in range(horizon):
        state = torch.stack([incumbent, torch.full_like(incumbent, t / horizon)], -1)
        out = policy(_rows(x, tried), y.gather(1, tried), x, state)
        logits, offered = out.acquisition.masked_fill(taken, -torch.inf).topk(min(top_k, x.shape[1]))
        log_prob = logits.log_softmax(-1)
        clock = -_uniform(log_prob.shape, generator, log_prob).log()  # the first of exponential clocks: a sample
        action = (clock.log() - log_prob).argmin(-1, keepdim=True)
        choice = offered.gather(1, action)
        taken = taken.scatter(1, choice, True)
        tried = torch.cat([tried, choice], 1)
        outcome = y.gather(1, choice).squeeze(1)
        incumbent = outcome if t == 0 else torch.maximum(incumbent, outcome)
        regret = best - incumbent
        reward = -regret.clamp_min(regret_floor).log10()
        chosen = action.squeeze(1), log_prob.gather(1, action).squeeze(1)
        steps.append((offered, logits > -torch.inf, *chosen, out.value, state, reward, regret))
    return Runs(tried, *(torch.stack(column, 1) for column in zip(*steps, strict=True)))


def run_context(episodes: Episodes, runs: Runs, rows: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The history before step ``steps[i]`` of run ``rows[i]``, filled up: inputs, outcomes and which are real."""
    before = runs.tried[rows, :-1]
    mask = torch.arange(before.shape[1], device=rows.device) < steps.unsqueeze(-1)
    return _rows(episodes.x[rows], before), episodes.y[rows].gather(1, before), mask


def iid_context(episodes: Episodes, most: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Random candidates of each task as a history, their number uniform in 1 … ``most``."""
    x, y, real = episodes
    order = (_uniform(real.shape, generator, y) + ~real).argsort(-1)[:, :most]
    size = 1 + (_uniform((len(x), 1), generator, y) * most).long()
    mask = torch.arange(order.shape[1], device=x.device) < size
    return _rows(x, order), y.gather(1, order), mask & real.gather(1, order)


def generalized_advantages(
    rewards: Tensor, values: Tensor, *, gamma: float = 0.98, gae_lambda: float = 0.98
) -> tuple[Tensor, Tensor]:
    """Advantages A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t, and returns A + V, of whole runs.

    Generalised advantage estimation as in "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes"
    (arXiv 2305.15930): a run ends with its last reward, and nothing is worth anything after it.

    Args:
        rewards: ``(..., T)``.
        values: ``(..., T)``, of the states before the rewards.
        gamma: discount γ, in [0, 1].
        gae_lambda: λ, in [0, 1]: 0 compares neighbours, 1 whole runs.

    Raises:
        TypeError: ``rewards`` or ``values`` is no floating point tensor.
        ValueError: shapes differ, T is 0, or a factor is out of range.

    >>> generalized_advantages(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3), gamma=0.5, gae_lambda=1.0)[0]
    tensor([0.2500, 0.5000, 1.0000])
    """
    check_floating("rewards", rewards)
    check_floating("values", values)
    if rewards.shape != values.shape or rewards.ndim < 1 or not rewards.shape[-1]:
        raise ValueError(
            f"rewards and values must be (..., T) with T >= 1, got {tuple(rewards.shape)} and {tuple(values.shape)}"
        )
    for name, factor in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {factor}")
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    surprise = rewards + gamma * following - values
    backwards = [surprise[..., -1]]
    for t in range(rewards.shape[-1] - 2, -1, -1):
        backwards.append(surprise[..., t] + gamma * gae_lambda * backwards[-1])
    advantages = torch.stack(backwards[::-1], -1)
    return advantages, advantages + values


def _unfit(x: Tensor, y: Tensor) -> str | None:
    if len(x) < 2:
        return f"{len(x)} candidates, where two or more are needed"
    return "constant outcomes" if bool((y == y[0]).all()) else None


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (E, k) of ``x`` (E, m, d)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _uniform(shape: tuple[int, ...] | torch.Size, generator: Generator | None, like: Tensor) -> Tensor:
    """Uniform in [0, 1), drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(like)
