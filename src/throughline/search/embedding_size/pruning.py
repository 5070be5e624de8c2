"""Searched tables cut at one threshold, and stored without what was cut ("Differentiable Neural Input Search for
Recommender Systems", arXiv 2006.04466).
"""

import math

import torch
from torch import Tensor, nn

from throughline.search.embedding_size.compressed import MixedDimEmbedding
from throughline.search.embedding_size.conversion import replace
from throughline.search.embedding_size.searchable import SearchableEmbedding, tables_of

__all__ = ["compress", "prune"]


@torch.no_grad()
def prune(model: nn.Module, *, sparsity: float | None = None, threshold: float | None = None) -> list[Tensor]:
    """Cut the entries of E = (α_b(i) ⊙ v_i)_i that are least in magnitude, over all searchable tables jointly.

    In place ("Differentiable Neural Input Search for Recommender Systems", arXiv 2006.04466): the weight of each table
    becomes what is left of E, its α becomes 1 and learns no more, and its mask keeps the entries that were cut at 0
    under any optimizer. A feature that keeps nothing is the zero vector.

    Args:
        model: with searchable tables, none of them pruned.
        sparsity: the share of all entries that is cut, in [0, 1): with a joint number T of them, exactly T − round(sT)
            are kept. Among equals the lower row and column, and the earlier table, is kept.
        threshold: in place of ``sparsity``, not negative: entries of at least this magnitude are kept. An entry that is
            0 already is never one: a threshold of 0 cuts what α has switched off.

    Returns:
        For each table, in module order, how many dimensions each feature has kept, ``(N,)`` int64.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: no searchable table, one that is pruned already or not finite; a ``sparsity`` or ``threshold`` out
            of range, both of them or neither.

    >>> table = SearchableEmbedding(2, 3, blocks=torch.tensor([0, 1]))
    >>> table.weight.data.copy_(torch.tensor([[3.0, -1.0, 0.5], [0.9, 0.2, -4.0]]))
    tensor([[ 3.0000, -1.0000,  0.5000],
            [ 0.9000,  0.2000, -4.0000]])
    >>> table.alpha.data[1] = 0.5
    >>> prune(table, sparsity=0.5), table.weight.data
    ([tensor([2, 1])], tensor([[ 3., -1.,  0.],
            [ 0.,  0., -2.]]))
    """
    if (sparsity is None) == (threshold is None):
        raise ValueError(f"sparsity or threshold must be given, and not both, got {sparsity} and {threshold}")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    if threshold is not None and not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be finite and not negative, got {threshold}")
    tables = _tables(model)
    if any(table.mask is not None for table in tables):
        raise ValueError("model must not be pruned already, got one whose tables have a mask")
    products = [table.product() for table in tables]
    place = products[0].device
    magnitudes = torch.cat([product.abs().flatten().to(place) for product in products])
    if not magnitudes.isfinite().all():
        raise ValueError("model must have finite embeddings to be pruned, got some that are not")
    if sparsity is not None:
        kept = _largest(magnitudes, len(magnitudes) - round(sparsity * len(magnitudes)))
    else:
        assert threshold is not None  # one of both is given
        kept = (magnitudes >= threshold) & (magnitudes > 0)
    sizes = []
    masks = torch.split(kept, [product.numel() for product in products])
    for table, product, mask in zip(tables, products, masks, strict=True):
        table.mask = mask.view(product.shape).to(product.device)
        table.weight.copy_(product).mul_(table.mask)
        table.alpha.fill_(1.0).requires_grad_(False)
        sizes.append(table.mask.sum(1))
    return sizes


@torch.no_grad()
def compress(model: nn.Module) -> nn.Module:
    """Store the searchable tables of a model as `MixedDimEmbedding`: the entries that `prune` has left, and no others.

    In place ("Differentiable Neural Input Search for Recommender Systems", arXiv 2006.04466); the model gives what it
    gave. A table that is not pruned keeps every entry of α ⊙ V. A padding row of zeros stays one, without entries.

    Returns:
        The model; the new table if the model is itself a table.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it has no searchable table.

    >>> table = SearchableEmbedding(5, 4, blocks=torch.tensor([0, 0, 0, 1, 1]))
    >>> sizes = prune(table, sparsity=0.6)
    >>> compress(table)
    MixedDimEmbedding(5, 4, entries=8)
    """
    new = {id(table): _compressed(table) for table in _tables(model)}
    return replace(model, lambda module: new.get(id(module)))


def _compressed(table: SearchableEmbedding) -> MixedDimEmbedding:
    product = table.product()
    mask = torch.ones_like(product, dtype=torch.bool) if table.mask is None else table.mask.clone()
    if table.padding_idx is not None:
        mask[table.padding_idx] &= product[table.padding_idx] != 0
    offsets = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    made = MixedDimEmbedding(product[mask], mask.nonzero()[:, 1], offsets, table.embedding_dim)
    made.values.requires_grad_(table.weight.requires_grad)
    return made.train(table.training)


def _largest(values: Tensor, count: int) -> Tensor:
    """Which of the values, 1-d, are the ``count`` largest; of equal ones at the border those that come first."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    border = values.kthvalue(len(values) - count + 1).values
    above, level = values > border, values == border
    return above | (level & (level.cumsum(0) <= count - above.sum()))


def _tables(model: nn.Module) -> list[SearchableEmbedding]:
    tables = tables_of(model)
    if not tables:
        raise ValueError("model must hold a SearchableEmbedding, got one without; make_searchable puts them in")
    return tables
