"""Keys as moving averages of the heads that were nearest to them, as in a vector-quantised autoencoder."""

from typing import NamedTuple

import torch
from torch import Tensor

from throughline.discrete.key_value.nearest import nearest
from throughline.discrete.key_value.processes import SpreadBatch

__all__ = ["Averages", "drawn_from", "moved"]


class Averages(NamedTuple):
    """The state of all codebooks."""

    keys: Tensor  # (C, K, d)
    sums: Tensor  # (C, K, d)
    counts: Tensor  # (C, K)


def drawn_from(batch: SpreadBatch, like: Averages, generator: torch.Generator | None) -> Averages:
    """Where averages start: at keys drawn from the batch, each of which has been seen once."""
    books = torch.arange(len(like.counts), device=like.counts.device)
    keys = batch.draw(books[:, None].expand_as(like.counts), generator)
    return Averages(keys, keys, torch.ones_like(like.counts))


def moved(
    state: Averages,
    batch: SpreadBatch,
    decay: float,
    eps: float,
    dead_threshold: float,
    generator: torch.Generator | None,
) -> Averages:
    """One step of the moving averages; pairs that are hit too rarely start anew from the batch."""
    h, (books, pairs) = batch.own, state.counts.shape
    row = (nearest(h, state.keys, 1).squeeze(-1) + torch.arange(books, device=h.device)[:, None] * pairs).flatten()
    hits = torch.zeros_like(state.counts).view(-1).index_add_(0, row, h.new_ones(()).expand(len(row)))
    near = torch.zeros_like(state.sums).flatten(0, 1).index_add_(0, row, h.flatten(0, 1))
    counts = torch.lerp(batch.sum(hits).view_as(state.counts), state.counts, decay)
    sums = torch.lerp(batch.sum(near).view_as(state.sums), state.sums, decay)
    total = counts.sum(1, keepdim=True)
    smooth = (counts + eps) / (total + pairs * eps) * total
    keys = sums / smooth[..., None]
    least = dead_threshold * batch.total / pairs
    book, pair = (counts < least).nonzero(as_tuple=True)
    keys[book, pair] = batch.draw(book, generator)
    counts[book, pair] = least
    sums[book, pair] = least * keys[book, pair]
    return Averages(keys, sums, counts)
