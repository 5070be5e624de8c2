"""What a task of the stn claim is, and what all of its tasks are made with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared import random_batches
from throughline.search.best_response import Hyperparameter

__all__ = ["Batches", "Score", "Task", "Values", "at", "scored", "shuffled", "started"]

Values = dict[str, Tensor]
Batches = Iterator[tuple[Tensor, Tensor]]


class Score(NamedTuple):
    """Of a network on a part of the data."""

    loss: float
    accuracy: float


class Task(NamedTuple):
    """One data set, split for one seed, and all that a network, plain or self-tuning, needs to be trained on it."""

    network: Callable[[], nn.Module]
    hyperparameters: tuple[Hyperparameter, ...]
    dropout: Mapping[str, str]
    searched: Mapping[str, tuple[float, float]]  # the ranges of the search
    batches: Callable[[str, torch.Generator], Batches]  # of "train" or "valid", without end
    score: Callable[[nn.Module, str], Score]
    loss: Callable[[Any, Tensor], Tensor]
    augment: Callable[[Tensor, Values], Tensor] | None = None
    penalty: Callable[[Any, Values], Tensor] | None = None
    exclude: tuple[str, ...] = ()


def at(share: float, low: float, high: float, name: str, scale: float, **options: bool) -> Hyperparameter:
    """A hyperparameter that starts at a share of its range."""
    middle = (low + high) // 2 if options.get("discrete") else (low + high) / 2
    return started(Hyperparameter(name, middle, low, high, scale=scale, **options), share)


def started(hyperparameter: Hyperparameter, share: float) -> Hyperparameter:
    """The same, started at a share of its range."""
    low, high = hyperparameter.low, hyperparameter.high
    initial = low + share * (high - low)
    return replace(hyperparameter, initial=round(initial) if hyperparameter.discrete else initial)


def shuffled(x: Tensor, y: Tensor, size: int, draw: torch.Generator) -> Batches:
    """Batches of one size, epoch after epoch, in ever new order."""
    for numbers in random_batches.shuffled(torch.arange(len(x)), min(size, len(x)), draw, drop_last=True):
        rows = numbers.to(x.device)
        yield x[rows], y[rows]


@torch.no_grad()
def scored(net: nn.Module, x: Tensor, y: Tensor) -> Score:
    """Mean cross-entropy and accuracy, in evaluation mode."""
    net.eval()
    logits = torch.cat([net(part) for part in torch.split(x, 1000)])
    return Score(F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).double().mean().item())
