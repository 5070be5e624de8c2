"""What the arms of the proxylessnas claim are given for a seed: batches, and a space of networks."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from throughline.claims.proxylessnas.config import Config
from throughline.claims.shared.cells.laptop import mnist1d_rows, own_parts
from throughline.claims.shared.cells.setting import Batches
from throughline.search.spaces import mobile_space, mobile_space_1d
from throughline.search.supernet import choices

__all__ = ["Loader", "Task", "draw", "load", "reference"]

SUPERNET, TRAINING, VALIDATION, FINAL = 1, 2, 3, 4  # keep the draws of one seed apart; 5 and on are the arms'
TEST_BATCH = 1_000
SIDE = 224  # pixels of the paper's images
NARROWEST = 0.25  # width of the space for small images


class Loader(Protocol):
    """Batches on the device, in a new order each time they are asked for."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


class Task(NamedTuple):
    """One seed's batches and its space."""

    train: Loader
    valid: Loader
    final: Loader  # to train from scratch
    test: Iterable[tuple[Tensor, Tensor]]
    space: Callable[..., nn.Module]
    inputs: Tensor  # a batch: what memory and latency are measured on
    seed: int

    def supernet(self, device: str) -> nn.Module:
        """The supernet of this seed, the same each time."""
        return self.space(generator=draw(self.seed, SUPERNET)).to(device)


def load(config: Config, seed: int) -> Task:
    """The task of a seed: MNIST-1D, or the user's signals or images."""
    if config.data is not None:
        parts, classes = own_parts(config.data, seed)
    else:
        (x, y), test, classes = mnist1d_rows(config.samples)
        first, second = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).chunk(2)
        parts = [(x[first], y[first]), (x[second], y[second]), test]
    train, valid, test = ((x.to(config.device), y.to(config.device)) for x, y in parts)
    both = torch.cat([train[0], valid[0]]), torch.cat([train[1], valid[1]])
    learned, judged = (both, test) if config.held_out == "test" else (train, valid)
    return Task(
        Batches(*train, config.batch, draw(seed, TRAINING)),
        Batches(*valid, config.batch, draw(seed, VALIDATION)),
        Batches(*learned, config.batch, draw(seed, FINAL)),
        list(zip(*(torch.split(t, TEST_BATCH) for t in judged), strict=True)),
        space_of(train[0], classes),
        train[0][: config.batch].clone(),
        seed,
    )


def space_of(x: Tensor, classes: int) -> Callable[..., nn.Module]:
    """The builder of the space for such inputs; for images smaller than the paper's it is narrower, too."""
    if x.ndim == 3:
        return partial(mobile_space_1d, classes, in_channels=x.shape[1])
    width = min(1.0, max(NARROWEST, x.shape[-1] / SIDE))
    return partial(mobile_space, classes, in_channels=x.shape[1], width=width)


def reference(space: Callable[..., nn.Module]) -> nn.Module:
    """The network that times are compared with: the least kernel and expansion in every block."""
    with torch.device("meta"):
        names = list(choices(space()))
    return space(decisions=dict.fromkeys(names, "k3e3"), generator=draw(0, SUPERNET))


def draw(seed: int, purpose: int) -> torch.Generator:
    """The seed's generator for one purpose."""
    return torch.Generator().manual_seed(100 * seed + purpose)
