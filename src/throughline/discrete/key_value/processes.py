"""One batch spread over the processes of torch.distributed; with one process it is what that one has."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

__all__ = ["END", "SpreadBatch", "all_or_none", "in_step", "sum_within_ddp"]

END = object()  # for a process that has no more batches while others have


class SpreadBatch:
    """Vectors ``(C, n, d)`` that are all processes' part of one batch, of as many as each has.

    Every process gets the same of `sum` and of `draw`, and takes part in both.
    """

    def __init__(self, own: Tensor) -> None:
        sizes = _gathered(own.shape[1], own.device)
        self.own, self.total = own, sum(sizes)
        self.first = sum(sizes[: distributed.get_rank()]) if _several() else 0

    def sum(self, x: Tensor) -> Tensor:
        """``x`` summed over the processes, in place."""
        if _several():
            distributed.all_reduce(x)
        return x

    def draw(self, books: Tensor, generator: torch.Generator | None) -> Tensor:
        """For each of ``books (...)`` one vector of the batch, drawn by the first process: ``(..., d)``."""
        device = books.device if generator is None else generator.device
        place = torch.randint(self.total, books.shape, generator=generator, device=device).to(books.device)
        if not _several():
            return self.own[books, place]
        distributed.broadcast(place, 0)
        place = place - self.first
        here = (place >= 0) & (place < self.own.shape[1])
        drawn = self.own.new_zeros(*books.shape, self.own.shape[2])
        drawn[here] = self.own[books[here], place[here]]
        return self.sum(drawn)


def sum_within_ddp(x: Tensor) -> Tensor:
    """In the forward pass of DistributedDataParallel ``x`` summed over the processes, in place; elsewhere ``x``."""
    if _several() and DistributedDataParallel._get_active_ddp_module() is not None:  # type: ignore[no-untyped-call]
        distributed.all_reduce(x)
    return x


@contextmanager
def all_or_none(device: torch.device) -> Iterator[None]:
    """Raise in every process what one of them raises: the others would wait for it."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    refused = _gathered(int(failed is not None), device)
    if failed is not None:
        raise failed
    if any(refused):
        raise ValueError(f"x must be good in every process, but process {refused.index(1)} refused its own")


def in_step(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The batches, and `END` for as long as another process has some left."""
    rest = iter(batches)
    while any(_gathered(int((batch := next(rest, END)) is not END), device)):
        yield batch


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _gathered(number: int, device: torch.device) -> list[int]:
    """The number that each process has."""
    if not _several():
        return [number]
    own = torch.tensor(number, device=device)
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return [int(one) for one in found]
