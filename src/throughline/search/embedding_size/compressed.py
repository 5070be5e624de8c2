"""A table whose features have sizes of their own, entry by entry ("Differentiable Neural Input Search for Recommender
Systems", arXiv 2006.04466).
"""

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, check_tensor, integer
from throughline.search.embedding_size.searchable import check_ids

__all__ = ["MixedDimEmbedding", "index_dtype"]


class MixedDimEmbedding(nn.Module):
    """A table that stores for each feature the dimensions it has kept, and gives 0 in the others.

    What `compress` makes of a searched table ("Differentiable Neural Input Search for Recommender Systems", arXiv
    2006.04466): M values with a column each, row after row. Stored are 4M bytes of values in float32, M column indices
    in the smallest integer type (one byte at K <= 256) and N + 1 offsets of 4 bytes: at 90 % sparsity about a seventh
    of the dense table of K = 64. Below 20 % sparsity it is larger than the dense table.

    Args:
        values: ``(M,)``, floating point; becomes the only parameter, and can be trained further.
        columns: ``(M,)`` integers in [0, K), rising within each row.
        offsets: ``(N + 1,)`` integers from 0 to M: row i has the entries from ``offsets[i]`` up to ``offsets[i + 1]``.
        embedding_dim: K, at least 1.

    Attributes:
        values: a parameter; ``columns`` and ``offsets``: buffers.
        num_embeddings, embedding_dim: N and K.

    Raises:
        TypeError: values that are not floating point, columns or offsets that are no integers; in `forward`, ids that
            are no int64 or int32.
        ValueError: shapes, columns or offsets that do not fit together.
        IndexError: in `forward`, ids outside of the table, as ``nn.Embedding`` raises it.

    >>> table = MixedDimEmbedding(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 1]), torch.tensor([0, 2, 2, 3]), 3)
    >>> table(torch.tensor([2, 1, 0]))
    tensor([[0., 3., 0.],
            [0., 0., 0.],
            [1., 0., 2.]], grad_fn=<ViewBackward0>)
    """

    columns: Tensor
    offsets: Tensor

    def __init__(self, values: Tensor, columns: Tensor, offsets: Tensor, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = integer("embedding_dim", embedding_dim)
        _check(values, columns, offsets, self.embedding_dim)
        self.num_embeddings = len(offsets) - 1
        self.values = values if isinstance(values, nn.Parameter) else nn.Parameter(values.detach().clone())
        place = self.values.device
        self.register_buffer("columns", columns.to(place, index_dtype(self.embedding_dim - 1), copy=True))
        self.register_buffer("offsets", offsets.to(place, index_dtype(len(values), torch.int32), copy=True))

    def forward(self, ids: Tensor) -> Tensor:
        """Rows with zeros where a feature has no entry, ``(..., K)``, for ``ids`` ``(...)`` of int64 or int32.

        Time and memory go with the entries of the batch. A GPU is waited for once, for how many there are.
        """
        check_ids(ids)
        flat = ids.flatten()
        starts = self.offsets.index_select(0, flat).long()
        sizes = self.offsets.index_select(0, flat + 1) - starts
        rows = torch.arange(len(flat), device=ids.device).repeat_interleave(sizes)
        shift = starts - sizes.cumsum(0) + sizes  # from a place among the entries of the batch to one in the table
        places = torch.arange(len(rows), device=ids.device) + shift.index_select(0, rows)
        columns, values = self.columns.index_select(0, places), self.values.index_select(0, places)
        return self._scatter(len(flat), rows, columns, values).view(*ids.shape, self.embedding_dim)

    def sizes(self) -> Tensor:
        """How many dimensions each feature has, ``(N,)`` int64."""
        return self.offsets.diff().long()

    def to_dense(self) -> Tensor:
        """The whole table, ``(N, K)``, differentiable in the values."""
        rows = torch.arange(self.num_embeddings, device=self.values.device).repeat_interleave(self.sizes())
        return self._scatter(self.num_embeddings, rows, self.columns, self.values)

    def _scatter(self, count: int, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        flat = values.new_zeros(count * self.embedding_dim)
        return flat.index_copy(0, rows * self.embedding_dim + columns, values).view(count, self.embedding_dim)

    def extra_repr(self) -> str:
        entries = len(self.values)
        return f"{self.num_embeddings}, {self.embedding_dim}, entries={entries}"


def index_dtype(top: int, least: torch.dtype = torch.uint8) -> torch.dtype:
    """The smallest integer type, from ``least`` on, that holds the numbers from 0 to ``top``.

    >>> index_dtype(255), index_dtype(256), index_dtype(9, torch.int32)
    (torch.uint8, torch.int16, torch.int32)
    """
    kinds = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return next(kind for kind in kinds[kinds.index(least) :] if top <= torch.iinfo(kind).max)


def _check(values: Tensor, columns: Tensor, offsets: Tensor, dim: int) -> None:
    """Raise unless the entries are those of a table of so many columns."""
    check_floating("values", values)
    if dim < 1:
        raise ValueError(f"embedding_dim must be at least 1, got {dim}")
    for name, indices in (("columns", columns), ("offsets", offsets)):
        check_tensor(name, indices)
        if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
            raise TypeError(f"{name} must be integers, got {indices.dtype}")
    if values.ndim != 1:
        raise ValueError(f"values must be 1-d, one for each entry, got shape {tuple(values.shape)}")
    if columns.shape != values.shape:
        raise ValueError(f"columns must be ({len(values)},), as the values, got shape {tuple(columns.shape)}")
    steps = offsets.long().diff() if offsets.ndim == 1 else offsets
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(values) or (steps < 0).any():
        raise ValueError(
            f"offsets must be 1-d and rise from 0 to the {len(values)} entries, got shape {tuple(offsets.shape)}"
            + (f" from {int(offsets[0])} to {int(offsets[-1])}" if offsets.ndim == 1 and len(offsets) else "")
        )
    if not len(columns):
        return
    columns = columns.long()
    if columns.min() < 0 or columns.max() >= dim:
        wrong = int(columns.min() if columns.min() < 0 else columns.max())
        raise ValueError(f"columns must be in [0, {dim}), got {wrong}")
    rows = torch.arange(len(steps), device=columns.device).repeat_interleave(steps.to(columns.device))
    if ((rows[1:] == rows[:-1]) & (columns[1:] <= columns[:-1])).any():
        raise ValueError("columns must rise within each row, got some that do not")
