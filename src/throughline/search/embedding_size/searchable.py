"""An embedding table behind a soft selection layer ("Differentiable Neural Input Search for Recommender Systems",
arXiv 2006.04466).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_tensor, integer

__all__ = ["SearchableEmbedding", "check_ids", "selection_parameters", "tables_of", "weight_parameters"]


class SearchableEmbedding(nn.Module):
    """A table whose rows are scaled dimension by dimension: feature i gives α_b(i) ⊙ v_i.

    The soft selection layer of "Differentiable Neural Input Search for Recommender Systems" (arXiv 2006.04466): one row
    of α for each block of features, in [0, 1], without normalisation. At the start α is 1, and the table is an
    ``nn.Embedding``. Rows of α are gathered for the batch; α is never expanded to the whole table. After `prune` the
    weight holds what is left of the product, and a mask keeps the rest at 0.

    Args:
        num_embeddings: N, at least 1.
        embedding_dim: K, at least 1: the largest size that a feature can have.
        blocks: the block of each feature, ``(N,)`` integers from 0, such as `frequency_blocks` gives.
        padding_idx: a feature whose row starts at 0 and does not learn, as of ``nn.Embedding``.
        device, dtype: of the parameters.

    Attributes:
        weight: V, ``(N, K)``; Xavier normal at the start.
        alpha: α, ``(L, K)`` with L = blocks.max() + 1.
        num_embeddings, embedding_dim, padding_idx: as given; a negative ``padding_idx`` counted from the front.

    A state_dict has the mask of a pruned table, and loading one makes a table pruned or not.

    Raises:
        ValueError: a size below 1, blocks of another length or below 0, ``padding_idx`` outside of the table.
        TypeError: blocks that are no integers; in `forward`, ids that are no int64 or int32.
        IndexError: in `forward`, ids outside of the table, as ``nn.Embedding`` raises it.

    >>> table = SearchableEmbedding(4, 3, blocks=torch.tensor([0, 0, 1, 1]))
    >>> _ = table.alpha.data[1, 2:].zero_()
    >>> (table(torch.tensor([[0, 3]])) != 0).int()
    tensor([[[1, 1, 1],
             [1, 1, 0]]], dtype=torch.int32)
    """

    blocks: Tensor  # the block of each feature, ``(N,)`` int64, a buffer
    mask: Tensor | None  # after `prune` the entries that are left, ``(N, K)`` bool, a buffer; else None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        blocks: Tensor,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_embeddings", num_embeddings), ("embedding_dim", embedding_dim)):
            if integer(name, value) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        count = _check_blocks(blocks, num_embeddings)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx must be one of the {num_embeddings} features, got {padding_idx}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.alpha = nn.Parameter(torch.empty(count, embedding_dim, device=device, dtype=dtype))
        self.register_buffer("blocks", blocks.detach().to(self.weight.device, torch.int64, copy=True))
        self.register_buffer("mask", None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weight, Xavier normal with a padding row of 0, and set α to 1."""
        nn.init.xavier_normal_(self.weight)
        if self.padding_idx is not None:
            self.weight[self.padding_idx].zero_()
        self.alpha.fill_(1.0)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of the product, ``(..., K)``, for ``ids`` ``(...)`` of int64 or int32."""
        check_ids(ids)
        rows = F.embedding(ids, self.weight, self.padding_idx)
        if self.mask is not None:
            return rows * self.mask[ids]
        scales = self.alpha.index_select(0, self.blocks[ids].flatten())  # whose gradient is quicker than F.embedding's
        return rows * scales.view(rows.shape)

    def product(self) -> Tensor:
        """The whole table as `forward` gives it, ``(N, K)``."""
        return self.weight * (self.alpha[self.blocks] if self.mask is None else self.mask)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}weight" in state_dict:
            pruned = f"{prefix}mask" in state_dict
            if pruned != (self.mask is not None):
                self.mask = torch.zeros_like(self.weight, dtype=torch.bool) if pruned else None
                self.alpha.requires_grad_(not pruned)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, num_blocks={len(self.alpha)}{padding}" + (
            "" if self.mask is None else ", pruned"
        )


def selection_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The α of every searchable table that is not pruned yet, each once, in module order (arXiv 2006.04466).

    >>> table = SearchableEmbedding(4, 3, blocks=torch.tensor([0, 0, 1, 1]))
    >>> [tuple(p.shape) for p in selection_parameters(nn.ModuleList([table, nn.Linear(3, 1)]))]
    [(2, 3)]
    """
    return list({id(t.alpha): t.alpha for t in tables_of(model) if t.mask is None}.values())


def weight_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but the α of searchable tables, each once, in module order: what a weight optimizer holds.

    >>> table = SearchableEmbedding(4, 3, blocks=torch.tensor([0, 0, 1, 1]))
    >>> [tuple(p.shape) for p in weight_parameters(nn.ModuleList([table, nn.Linear(3, 1)]))]
    [(4, 3), (1, 3), (1,)]
    """
    alphas = {id(table.alpha) for table in tables_of(model)}
    return [p for p in model.parameters() if id(p) not in alphas]


def tables_of(model: nn.Module) -> list[SearchableEmbedding]:
    """The searchable tables of a model, each once, in module order."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return [module for module in model.modules() if isinstance(module, SearchableEmbedding)]


def check_ids(ids: Tensor) -> None:
    """Raise a TypeError unless ``ids`` is a tensor of int64 or int32: one of uint8 would be read as a mask."""
    check_tensor("ids", ids)
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids must be int64 or int32, got {ids.dtype}")


def _check_blocks(blocks: Tensor, features: int) -> int:
    """The number of blocks, if there is one for each feature."""
    check_tensor("blocks", blocks)
    if blocks.dtype == torch.bool or blocks.is_floating_point() or blocks.is_complex():
        raise TypeError(f"blocks must be integers, got {blocks.dtype}")
    if blocks.shape != (features,):
        raise ValueError(f"blocks must be ({features},), a block for each feature, got shape {tuple(blocks.shape)}")
    if blocks.min() < 0:
        raise ValueError(f"blocks must not be negative, got {int(blocks.min())}")
    return int(blocks.max()) + 1
