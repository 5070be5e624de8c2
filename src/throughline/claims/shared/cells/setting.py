"""What the arms of a claim about architecture search are given for a seed: data, halves of it, and a space."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.class_tables import class_rows
from throughline.claims.shared.pictures import labelled_images
from throughline.data import DataError, Source, mnist1d
from throughline.errors import ThroughlineError
from throughline.search.spaces import cells_1d, nas_bench_201

__all__ = ["Batches", "Decisions", "Setting", "load", "mnist1d_rows"]

Decisions = Mapping[str, str | None]
OWN = {"test": 0.3, "validation": 0.35}  # shares of the user's rows; the second half of the rest validates a search
SHORTEST = 4  # of a signal or a side of an image
SUPERNET, TRAINING, VALIDATION = 1, 2, 3  # keep the draws of one seed apart


class Batches:
    """Batches of one size, in a new order each time they are asked for; what is left over is dropped."""

    def __init__(self, x: Tensor, y: Tensor, size: int, draw: torch.Generator) -> None:
        self.x, self.y, self.size, self.draw = x, y, min(size, len(x)), draw

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.draw).to(self.x.device)
        for rows in torch.split(order[: len(self) * self.size], self.size):
            yield self.x[rows], self.y[rows]

    def __len__(self) -> int:
        return len(self.x) // self.size


class Setting(NamedTuple):
    """One seed's data and space; what is drawn anew is drawn alike each time."""

    train: tuple[Tensor, Tensor]  # of the search, and with `valid` of the training of what it found
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    space: Callable[..., nn.Module]
    seed: int
    size: int  # of a batch

    def supernet(self) -> nn.Module:
        """The supernet of this seed, the same each time."""
        return self.space(generator=self._draw(SUPERNET)).to(self.train[0].device)

    def batches(self) -> tuple[Batches, Batches]:
        """Of the training half and of the validation half, in the same orders each time."""
        train, valid = self._draw(TRAINING), self._draw(VALIDATION)
        return Batches(*self.train, self.size, train), Batches(*self.valid, self.size, valid)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Both halves together."""
        x, y = (torch.cat(pair) for pair in zip(self.train, self.valid, strict=True))
        return x, y

    def _draw(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(100 * self.seed + purpose)


def load(config: CellConfig, seed: int) -> Setting:
    """The setting of a seed: MNIST-1D, or the user's signals or images; the space follows their dimensions."""
    if config.data is not None:
        parts, classes = _own(config.data, seed)
    else:
        (x, y), test, classes = mnist1d_rows(config.samples)
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        first, second = rows.chunk(2)
        parts = [(x[first], y[first]), (x[second], y[second]), test]
    train, valid, test = ((x.to(config.device), y.to(config.device)) for x, y in parts)
    if min(len(train[0]), len(valid[0])) < 2:
        raise ThroughlineError(f"samples={config.samples}: at least 4 are wanted, two for each half")
    return Setting(train, valid, test, space_of(config, train[0], classes), seed, config.batch)


def mnist1d_rows(samples: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """The first ``samples`` training signals of MNIST-1D, its test signals, and how many classes there are."""
    train, test = mnist1d()
    if samples > len(train.signals):
        raise ThroughlineError(f"samples={samples}: MNIST-1D has {len(train.signals)}; --set samples=1000")
    return (train.signals[:samples], train.labels[:samples]), (test.signals, test.labels), len(train.classes)


def space_of(config: CellConfig, x: Tensor, classes: int) -> Callable[..., nn.Module]:
    """The builder of the space for such inputs, with everything set but decisions and generator."""
    if x.ndim == 3:
        return partial(cells_1d, config.channels, classes, in_channels=x.shape[1])
    return partial(nas_bench_201, config.channels, config.layers, classes, in_channels=x.shape[1])


def _own(source: Source, seed: int) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """The user's rows: training and validation half of the search, and a test part; standardised by the first."""
    x, labels, names = source.signals() if source.kind == "signals" else labelled_images(source, "")
    if min(x.shape[2:]) < SHORTEST:
        raise DataError(f"{source.path}: {SHORTEST} values or pixels along each side are wanted, got {_size(x)}")
    train, valid, test = class_rows(source, np.array(names)[labels], seed, **OWN)
    std, mean = torch.std_mean(x[train], (0, *range(2, x.ndim)), keepdim=True)
    x = (x - mean) / std.clamp_min(1e-6)
    return [(x[rows], labels[rows]) for rows in map(torch.from_numpy, (train, valid, test))], len(names)


def _size(x: Any) -> str:
    return " × ".join(map(str, x.shape[2:]))
