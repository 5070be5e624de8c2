"""Beam search over positions, and what tours, polygons and triangulations may contain."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CONSTRAINTS", "Advance", "Allowed", "State", "beam_search"]

PAD = -100
State = tuple[Tensor, Tensor]  # of an LSTM: (1, B·k, H) each
Advance = Callable[[Tensor, State], tuple[Tensor, State]]  # prefix (B, k, t) and state -> log p (B, k, n+1) and state
Allowed = Callable[[Tensor, Tensor], Tensor]  # prefix (B, k, t) and lengths (B,) -> bool (B, k, n+1)


def beam_search(
    advance: Advance, state: State, lengths: Tensor, *, beam_size: int, max_steps: int, allowed: Allowed | None
) -> tuple[Tensor, Tensor]:
    """The best of ``beam_size`` sequences and its log-probability: ``(B, m)`` with PAD after the end, and ``(B,)``.

    The last column of ``advance`` ends a sequence. Log-probabilities only fall, so that an instance is done when its
    best sequence has ended. What is not allowed is left out, and the rest keeps its probability. An instance without
    any allowed sequence has log-probability -∞ and no points.
    """
    batch = len(lengths)
    state = (state[0].repeat_interleave(beam_size, 1), state[1].repeat_interleave(beam_size, 1))
    prefix = lengths.new_empty(batch, beam_size, 0)
    score = state[0].new_zeros(batch, beam_size)
    score[:, 1:] = -torch.inf  # one beam to begin with
    ended = torch.zeros_like(score, dtype=torch.bool)
    first_row = torch.arange(batch, device=lengths.device)[:, None] * beam_size
    for _ in range(max_steps):
        log_p, state = advance(prefix, state)
        if allowed is not None:
            log_p = log_p.masked_fill(~_checked(allowed(prefix, lengths), log_p), -torch.inf)
        columns = log_p.shape[-1]
        last = torch.arange(columns, device=log_p.device) == columns - 1
        at_rest = torch.where(last, 0.0, -torch.inf).to(log_p)  # an ended beam keeps its score, once
        log_p = torch.where(ended.unsqueeze(-1), at_rest, log_p)
        score, best = (score.unsqueeze(-1) + log_p).flatten(1).topk(beam_size)
        parent, column = best // columns, best % columns
        ended = column == columns - 1
        kept = prefix.gather(1, parent.unsqueeze(-1).expand(-1, -1, prefix.shape[-1]))
        prefix = torch.cat([kept, column.masked_fill(ended, PAD).unsqueeze(-1)], -1)
        rows = (first_row + parent).flatten()
        state = (state[0][:, rows], state[1][:, rows])
        if bool(ended[:, 0].all()):
            break
    found = score[:, 0]
    sequences = prefix[:, 0].masked_fill(~(found > -torch.inf).unsqueeze(-1), PAD)  # NaN is no likelihood either
    longest = int((sequences != PAD).sum(-1).max())
    return sequences[:, :longest], found


def tour(prefix: Tensor, lengths: Tensor, columns: int) -> Tensor:
    """Position 0 first, every point once, then the end."""
    step = prefix.shape[-1]
    mask = _unvisited(prefix, lengths, columns)
    if step == 0:
        mask[..., 1:] = False
    mask[..., -1] = (lengths == step).unsqueeze(-1)
    return mask


def polygon(prefix: Tensor, lengths: Tensor, columns: int) -> Tensor:
    """No point twice, and at least three before the end."""
    mask = _unvisited(prefix, lengths, columns)
    mask[..., -1] = prefix.shape[-1] >= 3
    return mask


def triangles(prefix: Tensor, lengths: Tensor, columns: int) -> Tensor:
    """Groups of three increasing indices, at least one, and the end between groups only."""
    step = prefix.shape[-1]
    place = step % 3
    index = torch.arange(columns, device=prefix.device)
    mask = (index + (2 - place) < lengths.view(-1, 1, 1)).expand(*prefix.shape[:-1], -1)  # room for larger ones
    mask = mask & (index > prefix[..., -1:]) if place else mask.clone()
    mask[..., -1] = step > 0 and place == 0
    return mask


CONSTRAINTS = {"tour": tour, "polygon": polygon, "triangles": triangles}


def _unvisited(prefix: Tensor, lengths: Tensor, columns: int) -> Tensor:
    index = torch.arange(columns, device=prefix.device)
    mask = (index < lengths.view(-1, 1, 1)).repeat(1, prefix.shape[1], 1)
    return mask.scatter(-1, torch.where(prefix < 0, columns - 1, prefix), False)


def _checked(mask: Tensor, log_p: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"constraint must return a bool mask, got {mask.dtype}")
    if mask.shape != log_p.shape:
        raise ValueError(f"constraint must return a mask {tuple(log_p.shape)}, got {tuple(mask.shape)}")
    return mask
