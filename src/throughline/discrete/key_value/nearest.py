"""The nearest keys of many codebooks, from blocks of scores that stay small."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["nearest"]

SCORES = 2**24  # held at once by a look-up: 64 MB in float32
CACHED = 2**18  # the same on a CPU, where they had better stay in its cache
FOLDS = 16  # of a row of scores: a maximum is found many times as fast as its place


def nearest(h: Tensor, keys: Tensor, topk: int) -> Tensor:
    """Places of the keys ``(C, K, d)`` nearest to ``h (C, n, d)`` in each codebook, nearest first: ``(C, n, topk)``.

    They are -1 for what is NaN, infinite or too far away for its distance to have a number.
    """
    centre = keys.mean(1, keepdim=True)  # distances stay; a common offset no longer cancels digits
    keys = keys - centre
    keys = torch.cat([keys, keys.square().sum(-1, keepdim=True) / -2], -1)
    h = F.pad(h - centre, (0, 1), value=1.0)  # the product is then ½‖h‖² - ½‖h - k‖²
    count, n, k = len(h), h.shape[1], keys.shape[1]
    if not n:
        return torch.zeros((count, 0, topk), dtype=torch.int64, device=h.device)
    most = CACHED if h.device.type == "cpu" else SCORES
    rows = min(max(1, most // k), n)
    books = max(1, most // (rows * k))
    found: list[tuple[Tensor, Tensor]] = []
    with torch.autocast(h.device.type, enabled=False):
        for c in range(0, count, books):
            own, some = keys[c : c + books].mT, h[c : c + books]
            blocks = [_largest(torch.bmm(some[:, i : i + rows], own), topk) for i in range(0, n, rows)]
            found.append((torch.cat([best for best, _ in blocks], 1), torch.cat([place for _, place in blocks], 1)))
    best, place = (torch.cat(parts) for parts in zip(*found, strict=True))
    return place.masked_fill_(~best.isfinite(), -1)


def _largest(scores: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The largest score, and the places of the ``topk`` largest."""
    if topk == 1:
        return place_of_largest(scores)
    best, place = scores.topk(topk)
    return best[..., :1], place


def place_of_largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """``scores.max(-1, keepdim=True)`` and its place, the first in a tie, in half the time."""
    if scores.shape[-1] % FOLDS:
        best, place = scores.max(-1, keepdim=True)
        return best, place
    folded = scores.view(*scores.shape[:-1], FOLDS, -1)
    fold = folded.amax(-1).max(-1, keepdim=True).indices
    row = folded.gather(-2, fold[..., None].expand(*fold.shape, folded.shape[-1])).squeeze(-2)
    best, place = row.max(-1, keepdim=True)
    return best, place + fold * folded.shape[-1]
