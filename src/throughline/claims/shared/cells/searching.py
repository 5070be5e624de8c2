"""A search in a setting: optimizers, epochs and their rates, and how accurate a supernet is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import Batches, Decisions
from throughline.lab import Log
from throughline.search.darts import DartsSearcher, Searcher, search
from throughline.search.selection import magnitude_selection
from throughline.search.supernet import arch_parameters, batch_statistics, choices, weight_parameters

__all__ = ["accuracy", "codes", "darts_searcher", "decide", "loss_of", "optimizers", "run_search", "shares"]

BETAS = (0.5, 0.999)
LARGEST = 500  # rows of a batch whose statistics normalise it


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of a batch."""
    return F.cross_entropy(net(batch[0]), batch[1])


def optimizers(net: nn.Module, config: CellConfig) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Of the weights and of the architecture, as DARTS has them."""
    weights = torch.optim.SGD(
        weight_parameters(net), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return weights, torch.optim.Adam(arch_parameters(net), config.arch_lr, betas=BETAS, weight_decay=config.arch_decay)


def darts_searcher(net: nn.Module, config: CellConfig, *, unrolled: bool = False) -> DartsSearcher:
    """DARTS on a supernet."""
    return DartsSearcher(net, loss_of, *optimizers(net, config), unrolled=unrolled, grad_clip=config.clip)


def run_search(
    searcher: Searcher,
    batches: tuple[Batches, Batches],
    config: CellConfig,
    log: Log,
    *,
    of: int,
    fixed: bool = False,
    on_epoch: Callable[[int], Any] | None = None,
) -> None:
    """All epochs of a search, the rate of the weights falling by a cosine; logs its losses.

    Args:
        searcher: with the optimizer of its weights as ``weight_optimizer``.
        of: how many epochs the whole unit has.
        fixed: leave the architecture as it is, and train the weights on the training half alone.
        on_epoch: called after every epoch with its number.
    """
    train, valid = batches
    optimizer: torch.optim.Optimizer = searcher.weight_optimizer  # type: ignore[attr-defined]
    cosine = CosineAnnealingLR(optimizer, config.epochs, config.least_lr)

    def told(epoch: int, means: dict[str, Tensor]) -> None:
        log(epoch, of=of, **means)
        if on_epoch is not None:
            on_epoch(epoch)

    search(searcher, train, None if fixed else valid, epochs=config.epochs, schedulers=[cosine], on_epoch=told)


@torch.no_grad()
def accuracy(net: nn.Module, part: tuple[Tensor, Tensor]) -> float:
    """The share of a part that a network is right on, normalised by its own batches."""
    with batch_statistics(net):
        hits = [(net(x).argmax(1) == y).sum() for x, y in zip(*(torch.split(t, LARGEST) for t in part), strict=True)]
    return float(torch.stack(hits).sum()) / len(part[1])


@torch.no_grad()
def shares(net: nn.Module) -> Tensor:
    """softmax(α) of all choices, ``(choices, options)``, NaN where a choice has fewer options than another."""
    rows = [choice.probabilities().cpu() for choice in choices(net).values()]
    most = max(map(len, rows))
    return torch.stack([F.pad(row, (0, most - len(row)), value=float("nan")) for row in rows])


def decide(net: nn.Module, config: CellConfig) -> Decisions:
    """By magnitude; the option "none" takes part where the space is that of NAS-Bench-201, and not where it is that of
    DARTS."""
    return magnitude_selection(net, exclude=() if config.space == "cells" else ("none",))


def codes(net: nn.Module, decisions: Decisions) -> Tensor:
    """The place of each choice's option among its names, -1 for a cut edge."""
    found = choices(net).items()
    return torch.tensor([-1 if (o := decisions[n]) is None else choice.names.index(o) for n, choice in found])
