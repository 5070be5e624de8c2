"""Attention that points: scores of keys for queries, as logits."""

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, check_tensor, integer
from throughline.discrete.pointer.scores import additive_scores

__all__ = ["PointerAttention"]


class PointerAttention(nn.Module):
    """Scores of every key for every query, u = vᵀ tanh(W1 key + W2 query) (eq. 3), as logits over the keys.

    "Pointer Networks", arXiv 1506.03134. The three maps have no bias. It goes on top of any encoder: the keys are its
    hidden states, and there is a query for each thing to be pointed at.

    Args:
        key_dim: k, the width of the keys.
        query_dim: q, that of the queries; k if None.
        hidden_dim: of the tanh layer; k if None.

    Under autocast its maps follow, as those of nn.Linear do.

    Attributes:
        key, query, score: the maps W1, W2 and vᵀ.

    Raises:
        TypeError: a width is no integer.
        ValueError: a width is not positive.

    >>> span = PointerAttention(8, hidden_dim=16)  # the start and the end of an answer among 5 tokens
    >>> span(torch.zeros(3, 2, 8), torch.zeros(3, 5, 8)).shape
    torch.Size([3, 2, 5])
    """

    def __init__(self, key_dim: int, query_dim: int | None = None, *, hidden_dim: int | None = None) -> None:
        super().__init__()
        query_dim = key_dim if query_dim is None else query_dim
        hidden_dim = key_dim if hidden_dim is None else hidden_dim
        named = {"key_dim": key_dim, "query_dim": query_dim, "hidden_dim": hidden_dim}
        key_dim, query_dim, hidden_dim = (integer(name, width) for name, width in named.items())
        if min(key_dim, query_dim, hidden_dim) < 1:
            widths = f"{key_dim}, {query_dim} and {hidden_dim}"
            raise ValueError(f"key_dim, query_dim and hidden_dim must be at least 1, got {widths}")
        self.key = nn.Linear(key_dim, hidden_dim, bias=False)
        self.query = nn.Linear(query_dim, hidden_dim, bias=False)
        self.score = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """``(..., m, q)`` and ``(..., n, k)`` to logits ``(..., m, n)``.

        Args:
            queries: what looks.
            keys: what can be pointed at.
            mask: bool, True where it may; ``(..., n)``, or ``(..., m, n)``. Elsewhere the logit is -∞, in whole rows
                too.

        Raises:
            TypeError: something is no tensor, or ``mask`` is not bool.
            ValueError: widths, leading shapes or the shape of ``mask`` do not fit.
        """
        self._check(queries, keys)
        logits = self.point(queries, self.key(keys))
        if mask is None:
            return logits
        check_tensor("mask", mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, got {mask.dtype}")
        if mask.shape == logits.shape[:-2] + logits.shape[-1:]:
            mask = mask.unsqueeze(-2)
        elif mask.shape != logits.shape:
            *batch, m, n = logits.shape
            raise ValueError(f"mask must be {(*batch, n)} or {(*batch, m, n)}, got {tuple(mask.shape)}")
        return logits.masked_fill(~mask, -torch.inf)

    def point(self, queries: Tensor, projected: Tensor) -> Tensor:
        """Logits over keys that went through `key` already: ``(..., m, q)``, ``(..., n, h)`` to ``(..., m, n)``."""
        query = self.query(queries)
        return additive_scores(query, projected, self.score.weight[0].to(query.dtype))

    def _check(self, queries: Tensor, keys: Tensor) -> None:
        for name, x, width in (("queries", queries, self.query.in_features), ("keys", keys, self.key.in_features)):
            check_floating(name, x)
            if x.ndim < 2 or x.shape[-1] != width:
                raise ValueError(f"{name} must be (..., {name[0]}, {width}), got {tuple(x.shape)}")
        if queries.shape[:-2] != keys.shape[:-2]:
            raise ValueError(
                f"queries and keys must have one leading shape, got {tuple(queries.shape)} and {tuple(keys.shape)}"
            )
