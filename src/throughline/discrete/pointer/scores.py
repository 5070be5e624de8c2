"""Additive scores v·tanh(W1 e + W2 d) with the one large activation kept once."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["additive_scores"]

LARGEST = 2**28  # bytes of activation at once where nothing is kept for a backward pass
SMALLEST, SHARE = 2**22, 8  # of the backward pass's temporaries: an eighth of the activation, or 4 MB


def additive_scores(query: Tensor, key: Tensor, vector: Tensor) -> Tensor:
    """``vector · tanh(query_i + key_j)`` for all pairs: ``(..., m, h)``, ``(..., n, h)``, ``(h,)`` to ``(..., m, n)``.

    The activation ``(..., m, n, h)`` is the whole cost. Plain autograd holds it three times over in its backward pass;
    here it is written once and read in slices of m. Without a backward pass it never exists beyond 256 MB.
    """
    if torch.compiler.is_compiling():  # the compiler fuses and slices by itself
        return torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3)) @ vector
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or vector.requires_grad):
        scores: Tensor = _AdditiveScores.apply(query, key, vector)[0]  # type: ignore[no-untyped-call]
        return scores
    rows = _rows(query, key, LARGEST)
    return torch.cat(
        [(part.unsqueeze(-2) + key.unsqueeze(-3)).tanh_() @ vector for part in torch.split(query, rows, -2)], -2
    )


class _AdditiveScores(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(query: Tensor, key: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        activation = (query.unsqueeze(-2) + key.unsqueeze(-3)).tanh_()
        return activation @ vector, activation

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return None, None, None
        query, key, vector, activation = ctx.saved_tensors
        if torch.is_grad_enabled():  # derivatives of derivatives: the activation must be a function of the inputs
            activation = torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3))
        size = activation.numel() * activation.element_size()
        rows = _rows(query, key, max(SMALLEST, size // SHARE))
        by_query, by_key, one = [], torch.zeros_like(key), activation.new_ones(())
        for part, weight in zip(torch.split(activation, rows, -3), torch.split(grad, rows, -2), strict=True):
            slope = torch.addcmul(one, part, part, value=-1).mul_(weight.unsqueeze(-1))  # tanh' = 1 - tanh²
            by_query.append(slope.sum(-2))
            by_key = by_key + slope.sum(-3)
            del slope  # before the next slice takes its memory
        by_vector = grad.flatten() @ activation.flatten(0, -2)
        return torch.cat(by_query, -2) * vector, by_key * vector, by_vector


def _rows(query: Tensor, key: Tensor, limit: int) -> int:
    """How many of the m queries make an activation of at most ``limit`` bytes; one at least."""
    each = key.numel() * key.element_size()
    return max(1, min(query.shape[-2], limit // max(each, 1)))
