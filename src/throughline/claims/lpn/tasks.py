"""What a task of the lpn claim is, and what is said of R on all of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.lab import Log
from throughline.physics.proximal import LearnedProximalNetwork

__all__ = ["Phase", "Pictures", "Task", "rises"]


class Phase(NamedTuple):
    """A part of training in the arm of proximal matching; no γ means l1."""

    steps: int
    lr: float
    gamma: float | None


class Task(NamedTuple):
    """One data set for one seed, and all that is done with it."""

    network: Callable[[], nn.Module]
    draw: Callable[[torch.Generator, int], Tensor]  # clean samples
    sigma: float
    batch: int
    phases: tuple[Phase, ...]
    watch: Callable[[LearnedProximalNetwork], dict[str, float]]  # cheap, for the curves
    measure: Callable[[LearnedProximalNetwork, str, Log], dict[str, float]]


class Pictures(NamedTuple):
    """Images of one size, those to train on as they are asked for."""

    draw: Callable[[Tensor], Tensor]  # of row numbers
    rows: int
    test: Tensor


def rises(prior: Tensor, name: str = "noise") -> dict[str, float]:
    """R by sample and level of corruption: its mean rise from none to each, and in how many steps the mean rises."""
    means = prior.double().nanmean(0)
    gained = (means - means[0]).tolist()
    return {f"prior_rise_{name}": gained[-1], f"{name}_in_order": float((means.diff() > 0).double().mean())}
