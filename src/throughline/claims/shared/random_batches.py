"""Rows in random order, in batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["by_task", "epochs", "shuffled"]


def epochs(count: int, rows: int, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Batches of row numbers, so many passes over them, each in a new order; the last of a pass may be smaller."""
    for _ in range(count):
        yield from torch.split(torch.randperm(rows, generator=draw), size)


def shuffled(rows: Tensor, size: int, draw: torch.Generator, *, drop_last: bool = False) -> Iterator[Tensor]:
    """Batches of ``rows`` without end, each pass in a new order; what is left of a pass is a smaller one, or dropped.

    Args:
        size: at most the number of rows where what is left is dropped.
    """
    whole = len(rows) // size * size if drop_last else len(rows)
    while True:
        yield from torch.split(rows[torch.randperm(len(rows), generator=draw)][:whole], size)


def by_task(
    stream: list[Tensor], size: int, epochs: int, draw: torch.Generator, *, mixed: bool
) -> Iterator[Iterator[Tensor]]:
    """For each task of a stream its batches of rows, over ``epochs`` passes; where ``mixed``, as many of all rows."""
    everything = shuffled(torch.cat(stream), size, draw)
    for task in stream:
        batches = everything if mixed else shuffled(task, size, draw)
        steps = epochs * -(-len(task) // size)
        yield (next(batches) for _ in range(steps))
