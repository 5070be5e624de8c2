"""What the arms of a claim about architecture search are given for a seed: data, halves of it, and a space."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.claims.shared.cells.config import CellConfig

__all__ = ["Augment", "Batches", "Decisions", "Setting"]

Decisions = Mapping[str, str | None]
Augment = Callable[[Tensor, torch.Generator], Tensor]
SUPERNET, TRAINING, VALIDATION = 1, 2, 3  # keep the draws of one seed apart


class Batches:
    """Batches of one size, in a new order each time they are asked for; what is left over is dropped."""

    def __init__(self, x: Tensor, y: Tensor, size: int, draw: torch.Generator, augment: Augment | None = None) -> None:
        self.x, self.y, self.size, self.draw, self.augment = x, y, min(size, len(x)), draw, augment

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.draw).to(self.x.device)
        for rows in torch.split(order[: len(self) * self.size], self.size):
            x = self.x[rows]
            yield x if self.augment is None else self.augment(x, self.draw), self.y[rows]

    def __len__(self) -> int:
        return len(self.x) // self.size


class Setting(NamedTuple):
    """One seed's data and space; what is drawn anew is drawn alike each time."""

    train: tuple[Tensor, Tensor]  # of the search, and with `valid` of the training of what it found
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    space: Callable[..., nn.Module]  # builds the supernet
    final: Callable[..., nn.Module]  # builds what is trained from scratch
    config: CellConfig
    seed: int
    augment: Augment | None = None  # of training batches

    def supernet(self) -> nn.Module:
        """The supernet of this seed, the same each time."""
        return self.space(generator=self.draw(SUPERNET)).to(self.train[0].device)

    def batches(self) -> tuple[Batches, Batches]:
        """Of the training half and of the validation half, in the same orders each time."""
        size = self.config.batch
        train = Batches(*self.train, size, self.draw(TRAINING), self.augment)
        return train, Batches(*self.valid, size, self.draw(VALIDATION), self.augment)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Both halves together."""
        x, y = (torch.cat(pair) for pair in zip(self.train, self.valid, strict=True))
        return x, y

    def draw(self, purpose: int) -> torch.Generator:
        """The seed's generator for one purpose; those below are taken."""
        return torch.Generator().manual_seed(100 * self.seed + purpose)
