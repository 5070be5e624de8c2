"""MNIST-1D, and the user's signals or images, as settings; the space follows the number of dimensions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import Setting
from throughline.claims.shared.class_tables import class_rows
from throughline.claims.shared.pictures import labelled_images
from throughline.data import DataError, Source, mnist1d
from throughline.errors import ThroughlineError
from throughline.search.spaces import cells_1d, nas_bench_201

__all__ = ["load", "mnist1d_rows", "own_parts", "space_of"]

OWN = {"test": 0.3, "validation": 0.35}  # shares of the user's rows; what is left trains
SHORTEST = 4  # of a signal or a side of an image


def load(config: CellConfig, seed: int) -> Setting:
    """The setting of a seed."""
    if config.data is not None:
        parts, classes = own_parts(config.data, seed)
    else:
        (x, y), test, classes = mnist1d_rows(config.samples)
        first, second = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).chunk(2)
        parts = [(x[first], y[first]), (x[second], y[second]), test]
    train, valid, test = ((x.to(config.device), y.to(config.device)) for x, y in parts)
    inputs = train[0]
    space = space_of(inputs, classes, config.channels, config.layers)
    final = space_of(inputs, classes, config.final_channels, config.final_layers)
    return Setting(train, valid, test, space, final, config, seed)


def mnist1d_rows(samples: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """The first ``samples`` training signals of MNIST-1D, its test signals, and how many classes there are."""
    train, test = mnist1d()
    if samples > len(train.signals):
        raise ThroughlineError(f"samples={samples}: MNIST-1D has {len(train.signals)}; --set samples=1000")
    return (train.signals[:samples], train.labels[:samples]), (test.signals, test.labels), len(train.classes)


def space_of(x: Tensor, classes: int, channels: int, layers: int) -> Callable[..., nn.Module]:
    """The builder of the space for such inputs, with everything set but decisions and generator."""
    if x.ndim == 3:
        return partial(cells_1d, channels, classes, in_channels=x.shape[1])
    return partial(nas_bench_201, channels, layers, classes, in_channels=x.shape[1])


def own_parts(source: Source, seed: int) -> tuple[list[tuple[Tensor, Tensor]], int]:
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
