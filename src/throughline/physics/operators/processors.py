"""Networks between the unknowns of finite-element spaces: message passing on one mesh, and on a hierarchy of them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating
from throughline.physics.operators.function_space import FunctionSpace
from throughline.physics.operators.linear_maps import LinearMap, shown
from throughline.physics.operators.messages import message_sums
from throughline.physics.operators.transfers import prolongation

__all__ = ["GraphProcessor", "MultigridProcessor"]


class GraphProcessor(nn.Module):
    """Message passing on the mesh of one space, in the manner of MeshGraphNets.

    The processor of SPON in "Structure-Preserving Operator Learning" (arXiv 2410.01065); hidden widths, activation and
    normalisation are this project's. Each of the steps, with weights of its own, is

        m_ij = GELU(W_s h_j + W_t h_i + W_e e_ij + b),   h_i ← h_i + LayerNorm(MLP[h_i, W_m · mean_j m_ij])

    over the unknowns j that share a cell with i, where e_ij is the way from one to the other and its length in units of
    the mesh's mean edge. Information travels as many edges as there are steps. Time and memory are O(edges).

    A state_dict holds weights alone, and loads on any mesh of the same dimension.

    Args:
        space: where it works.
        in_channels: values at each unknown.
        out_channels: of the result.
        hidden: width H.
        steps: number of message-passing steps.

    Raises:
        ValueError: sizes below 1, or an input of another shape.

    >>> import skfem
    >>> space = FunctionSpace(skfem.MeshTri().refined(2))
    >>> GraphProcessor(space, 2, 1, hidden=8, steps=3)(torch.zeros(4, space.dim, 2)).shape
    torch.Size([4, 25, 1])
    """

    def __init__(
        self, space: FunctionSpace, in_channels: int = 1, out_channels: int = 1, *, hidden: int = 64, steps: int = 10
    ) -> None:
        super().__init__()
        _positive(in_channels=in_channels, out_channels=out_channels, hidden=hidden, steps=steps)
        self.graph = _Graph(space)
        self.ends = _Ends(space, in_channels, out_channels, hidden)
        self.steps = nn.ModuleList(_MessageStep(self.graph, hidden) for _ in range(steps))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim, in_channels)`` to ``(..., dim, out_channels)``."""
        h = self.ends.enter(x)
        for step in self.steps:
            h = step(h, self.graph)
        return self.ends.leave(h)


class MultigridProcessor(nn.Module):
    """Message passing in a V-cycle over a hierarchy of spaces: far in few steps, most of them on the small meshes.

    The processor of SPON-MG in "Structure-Preserving Operator Learning" (arXiv 2410.01065). From the finest level down,
    some steps, then restriction R = diag(1 / Pᵀ1) Pᵀ; on the coarsest, many steps; from there up, the
    `prolongation` P added to what the level had kept, and some steps. Steps are those of `GraphProcessor`, each with
    weights of its own. Where P has negative entries (quadratic elements, for example) R is made of their
    absolute values, so that it stays an average; between spaces without nodes P is too.

    Args:
        spaces: at least two, the coarsest first; of one element, nested or nearly so (`hierarchy` makes them).
        in_channels: values at each unknown of the finest space.
        out_channels: of the result.
        hidden: width.
        smoothing_steps: on each level but the coarsest, on the way down and again on the way up.
        coarse_steps: on the coarsest level.

    Raises:
        ValueError: fewer than two spaces, or spaces in another order or of several elements; sizes below 1, or an
            input of another shape.

    >>> import skfem
    >>> from throughline.physics.operators import hierarchy
    >>> spaces = hierarchy(skfem.MeshTri(), 3)
    >>> MultigridProcessor(spaces, hidden=8)(torch.zeros(4, spaces[-1].dim, 1)).shape
    torch.Size([4, 25, 1])
    """

    def __init__(
        self,
        spaces: Sequence[FunctionSpace],
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        hidden: int = 64,
        smoothing_steps: int = 1,
        coarse_steps: int = 4,
    ) -> None:
        super().__init__()
        _positive(in_channels=in_channels, out_channels=out_channels, hidden=hidden)
        _positive(smoothing_steps=smoothing_steps, coarse_steps=coarse_steps)
        if isinstance(spaces, FunctionSpace):
            raise TypeError("spaces must be a sequence of FunctionSpace, got one; on one level take GraphProcessor")
        if len(spaces) < 2:
            raise ValueError(f"spaces must be at least two, got {len(spaces)}; on one level take GraphProcessor")
        kinds = [_kind(space.element) for space in spaces]
        if len(set(kinds)) > 1:
            raise ValueError(f"spaces must be of one element, got {', '.join(map(str, spaces))}")
        sizes = [space.dim for space in spaces]
        if any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(f"spaces must go from coarse to fine, got {', '.join(map(str, sizes))} unknowns")
        graphs = [_Graph(space) for space in spaces]

        def smoothing(level: int, steps: int) -> nn.ModuleList:
            return nn.ModuleList(_MessageStep(graphs[level], hidden) for _ in range(steps))

        fine = range(1, len(spaces))
        self.graphs = nn.ModuleList(graphs)
        self.ends = _Ends(spaces[-1], in_channels, out_channels, hidden)
        self.coarsest = smoothing(0, coarse_steps)
        self.down = nn.ModuleList(smoothing(level, smoothing_steps) for level in fine)
        self.up = nn.ModuleList(smoothing(level, smoothing_steps) for level in fine)
        pairs = [_transfers(coarse, finer) for coarse, finer in pairwise(spaces)]
        self._prolong, self._restrict = ([LinearMap(pair[i]) for pair in pairs] for i in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim, in_channels)`` to ``(..., dim, out_channels)``, of the finest space."""
        h = self.ends.enter(x)
        levels = len(self.down)
        kept = []
        for level in reversed(range(levels)):
            for step in self.down[level]:  # type: ignore[attr-defined]
                h = step(h, self.graphs[level + 1])
            kept.append(h)
            h = self._restrict[level].features(h)
        for step in self.coarsest:
            h = step(h, self.graphs[0])
        for level in range(levels):
            h = kept.pop() + self._prolong[level].features(h)
            for step in self.up[level]:  # type: ignore[attr-defined]
                h = step(h, self.graphs[level + 1])
        return self.ends.leave(h)


class _Graph(nn.Module):
    """The unknowns of one space and their neighbours; no weights."""

    edges: Tensor
    shares: Tensor

    def __init__(self, space: FunctionSpace) -> None:
        super().__init__()
        source, target = space.edges.numpy()
        n, count = space.dim, len(source)
        way = space.coordinates[source] - space.coordinates[target]
        periods = space.periods
        wrapped = way - torch.where(periods.isfinite(), periods * (way / periods).round(), 0)  # the short way round
        edges = torch.cat([wrapped, wrapped.norm(dim=1, keepdim=True)], 1)
        mean = edges[:, -1].mean() if count else torch.ones(())
        degrees = np.bincount(target, minlength=n)
        self.register_buffer("edges", (edges / mean).to(torch.get_default_dtype()), persistent=False)
        shares = torch.from_numpy(1 / np.maximum(degrees, 1))[:, None]
        self.register_buffer("shares", shares.to(torch.get_default_dtype()), persistent=False)
        ones, at = np.ones(count), np.arange(count)
        self.from_source = LinearMap(sp.csr_matrix((ones, (at, source)), (count, n)))
        self.from_target = LinearMap(sp.csr_matrix((ones, (at, target)), (count, n)))


class _MessageStep(nn.Module):
    """One step: products with weights at the nodes, before the gather and after the mean, never at the edges."""

    def __init__(self, graph: _Graph, hidden: int) -> None:
        super().__init__()
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.target = nn.Linear(hidden, hidden)
        self.edge = nn.Linear(graph.edges.shape[1], hidden, bias=False)
        self.message = nn.Linear(hidden, hidden)
        self.update = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        )

    def forward(self, h: Tensor, graph: _Graph) -> Tensor:
        maps = (graph.from_source, graph.from_target)
        mean = message_sums(self.source(h), self.target(h), self.edge(graph.edges), maps) * graph.shares
        updated: Tensor = h + self.update(torch.cat([h, self.message(mean)], -1))
        return updated


class _Ends(nn.Module):
    """Into the hidden width, with what is known of every unknown beside its value, and out of it."""

    places: Tensor

    def __init__(self, space: FunctionSpace, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__()
        known = [space.coordinates, space.constrained[:, None].double()]
        if space.directions is not None:  # the components of a vector sit at one place
            known.append(space.directions)
        places = torch.cat(known, 1).to(torch.get_default_dtype())
        self.register_buffer("places", places, persistent=False)
        self.channels = in_channels
        self.first = _mlp(in_channels + places.shape[1], hidden, hidden)
        self.last = _mlp(hidden, hidden, out_channels)

    def enter(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        wanted = (len(self.places), self.channels)
        if x.shape[-2:] != wanted:
            raise ValueError(f"x must be (..., {wanted[0]}, {wanted[1]}), got {shown(x)}")
        h: Tensor = self.first(torch.cat([x, self.places.to(x.dtype).expand(*x.shape[:-1], -1)], -1))
        return h

    def leave(self, h: Tensor) -> Tensor:
        made: Tensor = self.last(h)
        return made


def _mlp(wide: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(wide, hidden), nn.GELU(), nn.Linear(hidden, out))


def _transfers(coarse: FunctionSpace, fine: FunctionSpace) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Prolongation and restriction of features; the rows of the second sum to one."""
    up = prolongation(coarse, fine)
    if not fine.nodal:  # an unknown has a sign, a feature has none
        up = _averaged(abs(up))
    return up, _averaged(abs(up).T)


def _averaged(matrix: Any) -> sp.csr_matrix:
    total = np.asarray(matrix.sum(1)).ravel()
    return sp.csr_matrix(sp.diags(1 / np.where(total > 0, total, 1)) @ matrix)


def _kind(element: Any) -> tuple[type, ...]:
    inner = getattr(element, "elem", None)
    return (type(element),) if inner is None else (type(element), type(inner))


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
