"""Batches of planar instances to train on, and instances of any scale in the unit square."""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from throughline.data.planar import PlanarBatch, make_planar
from throughline.discrete.pointer import PAD

__all__ = ["Task", "are_tours", "epochs", "fresh", "in_unit_square", "on_one_line", "resampled"]

POOL = 16  # batches that are drawn together
STRAIGHT = 1e-12  # of the squared extent: a smaller turn counts as none

Task = Literal["hull", "delaunay", "tsp"]


def fresh(task: Task, seen: tuple[int, int], batch: int, draw: torch.Generator) -> Iterator[PlanarBatch]:
    """Batches of instances of nearly one size each, in random order: little padding, and no two of the same points."""
    while True:
        pool = make_planar(task, POOL * batch, seen, generator=draw)
        rows = torch.split(pool.lengths.argsort(stable=True), batch)
        shuffled = torch.randperm(POOL, generator=draw, device=pool.points.device).tolist()
        yield from map(_trimmed, _selected(pool, (rows[i] for i in shuffled)))


def _trimmed(batch: PlanarBatch) -> PlanarBatch:
    """The same without columns that hold nothing but padding."""
    longest = int((batch.targets != PAD).sum(-1).max())
    return PlanarBatch(batch.points[:, : int(batch.lengths.max())], batch.targets[:, :longest], batch.lengths)


def epochs(pool: PlanarBatch, batch: int, seed: int) -> Iterator[PlanarBatch]:
    """Batches of a pool without end, each time through in a new order."""
    shuffle = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*pool), batch, shuffle=True, drop_last=True, generator=shuffle)
    while True:
        yield from (PlanarBatch(*parts) for parts in loader)


def resampled(pool: PlanarBatch, batch: int, seed: int) -> Iterator[PlanarBatch]:
    """Batches of a pool without end, each of its instances drawn from all."""
    count, device = len(pool.lengths), pool.lengths.device
    draw = torch.Generator().manual_seed(seed)
    return _selected(pool, iter(lambda: torch.randint(count, (batch,), generator=draw).to(device), None))


def _selected(pool: PlanarBatch, rows: Iterable[Tensor]) -> Iterator[PlanarBatch]:
    """A batch of a pool for each set of rows."""
    return (PlanarBatch(*(part[each] for part in pool)) for each in rows)


def on_one_line(points: Tensor) -> Tensor:
    """Whether the points ``(B, n, 2)`` of each instance lie on one line, or even at one place: ``(B,)``."""
    away = points.double() - points[:, :1].double()
    far = away.gather(1, away.square().sum(-1).argmax(1)[:, None, None].expand(-1, 1, 2))
    turn = (far[..., 0] * away[..., 1] - far[..., 1] * away[..., 0]).abs().amax(-1)
    return turn <= STRAIGHT * far.square().sum((-1, -2))


def in_unit_square(points: Tensor, lengths: Tensor) -> Tensor:
    """Every instance moved and scaled into the unit square, shape kept; zeros behind the last point."""
    there = (torch.arange(points.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    low = points.masked_fill(~there, torch.inf).amin(1, keepdim=True)
    extent = (points.masked_fill(~there, -torch.inf).amax(1, keepdim=True) - low).amax(-1, keepdim=True)
    return ((points - low) / extent.clamp_min(torch.finfo(points.dtype).tiny)).masked_fill(~there, 0).float()


def are_tours(labels: Tensor, lengths: Tensor) -> bool:
    """Whether every instance has a label, which visits each of its points once from the first on."""
    if labels.shape[1] <= int(lengths.max()):
        return False
    visited = torch.where(labels < 0, torch.iinfo(torch.int64).max, labels).sort(-1).values[:, : int(lengths.max())]
    place = torch.arange(visited.shape[1])
    all_once = ((visited == place) | (place >= lengths.unsqueeze(-1))).all()
    return bool(all_once & ((labels >= 0).sum(-1) == lengths).all() & (labels[:, 0] == 0).all())
