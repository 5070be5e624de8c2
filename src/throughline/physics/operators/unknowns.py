"""Which unknowns a finite-element space has: where they point, which of them are one, and which the boundary holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

__all__ = ["directions", "held_facets", "identified", "tidied"]

CLOSE = 1e-8  # of the size of the domain: places that are one


def tidied(mesh: Any) -> Any:
    """The mesh without points that no cell uses, whose unknowns nothing would determine."""
    if mesh.p.shape[0] != mesh.dim():
        raise ValueError(
            f"mesh must lie in a space of its own dimension, {mesh.dim()}, got points of {mesh.p.shape[0]} coordinates"
        )
    used = len(np.unique(mesh.dofs.element_dofs))
    spare = mesh.doflocs.shape[1] - used
    if not spare:
        return mesh
    if mesh.dofs.element_dofs.shape[0] > mesh.t.shape[0]:
        raise ValueError(f"mesh must have no points that no cell uses where it is curved, got {spare} of them")
    return mesh.remove_unused_nodes()


def directions(basis: Any, components: int | None) -> tuple[np.ndarray, bool]:
    """Which way the basis function of each degree of freedom points at its own place, and whether these functions
    are 1 there and 0 at all other places: then values are coefficients.
    """
    n = basis.element_dofs.shape[0]
    local = np.asarray(basis.elem.doflocs, dtype=float).T  # (d, k)
    cells = np.arange(basis.mesh.nelements)
    at = np.repeat(local[:, None], len(cells), axis=1)
    width = components or 1
    towards, nodal = np.zeros((basis.N, width)), True
    for k in range(n):
        values = np.asarray(basis.elem.gbasis(basis.mapping, at, k, tind=cells)[0])
        values = np.broadcast_to(values, (*((width,) if components else ()), len(cells), n)).reshape(width, -1, n)
        own = values[:, :, k].T
        size = np.linalg.norm(own, axis=1, keepdims=True)
        towards[basis.element_dofs[k]] = own / np.where(size > 0, size, 1)
        same = (np.abs(local - local[:, [k]]) < CLOSE).all(0)
        ones = np.isclose(size, 1) & (np.isclose(own, 0) | np.isclose(own, 1)).all(1, keepdims=True)
        nodal = nodal and bool(ones.all()) and bool(np.allclose(values[:, :, ~same], 0))
    return towards, nodal


def identified(
    mesh: Any, places: np.ndarray, towards: np.ndarray, periodic: Sequence[int]
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """The map from unknowns to degrees of freedom, the one that each unknown keeps its place of, and the period of each
    axis, infinite where there is none.

    Degrees of freedom of ``towards`` one direction, on opposite faces of a periodic axis, are one unknown.
    """
    n, d = places.shape
    low, high = mesh.p.min(1), mesh.p.max(1)
    periods = np.full(d, np.inf)
    pairs = []
    for axis in periodic:
        if axis not in range(d):
            raise ValueError(f"periodic must hold axes from 0 to {d - 1}, got {axis}")
        span = high - low
        periods[axis] = span[axis]
        first, second = (
            np.flatnonzero(np.abs(places[:, axis] - end[axis]) < CLOSE * span[axis]) for end in (low, high)
        )
        keys = np.concatenate([np.delete(places / span, axis, 1), towards], 1)
        distance, nearest = map(np.asarray, cKDTree(keys[first]).query(keys[second]))
        near = distance < 10 * CLOSE
        matched = list(zip(first[nearest[near]], second[near], strict=True))
        alone = len(first) + len(second) - 2 * len(matched)
        if alone:
            raise ValueError(
                f"periodic: the faces of axis {axis} must match node by node, got {alone} of "
                f"{len(first) + len(second)} degrees of freedom without a partner"
            )
        pairs += matched
    if not pairs:
        return sp.identity(n, format="csr"), np.arange(n), periods
    a, b = np.array(pairs).T
    # corners are identified in chains: what is connected is one
    _, group = sp.csgraph.connected_components(sp.csr_matrix((np.ones(len(a)), (a, b)), (n, n)), directed=False)
    order = np.lexsort((*places.T[::-1], group))  # the lowest place of each comes first
    keep = order[np.unique(group[order], return_index=True)[1]]
    rank = np.argsort(keep)
    keep = keep[rank]
    label = np.argsort(rank)[group]
    return sp.csr_matrix((np.ones(n), (np.arange(n), label)), (n, len(keep))), keep, periods


def held_facets(mesh: Any, dirichlet: Any, periods: np.ndarray) -> np.ndarray:
    """The boundary facets that ``dirichlet`` of `FunctionSpace` selects."""
    named = {**(mesh.boundaries or {})}
    if callable(dirichlet):
        facets = mesh.facets_satisfying(dirichlet, boundaries_only=True)
    elif isinstance(dirichlet, str) and dirichlet == "all" and "all" not in named:
        facets = mesh.boundary_facets()
        middles = mesh.p[:, mesh.facets[:, facets]].mean(1)
        facets = facets[~_on_faces(mesh, middles.T, periods)]
    else:
        names = [dirichlet] if isinstance(dirichlet, str) else list(dirichlet)
        for name in names:
            if name not in named:
                known = ", ".join(sorted(named)) or "none"
                raise ValueError(f'dirichlet must name boundaries of the mesh ({known}) or be "all", got {name!r}')
        facets = np.unique(np.concatenate([np.asarray(named[name]) for name in names] or [np.empty(0, int)]))
    if not len(facets):
        raise ValueError("dirichlet must select at least one boundary facet, got none")
    made: np.ndarray = np.asarray(facets)
    return made


def _on_faces(mesh: Any, places: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """Whether ``(n, d)`` lie on faces that are identified."""
    low, high = mesh.p.min(1), mesh.p.max(1)
    near = (np.abs(places - low) < CLOSE * (high - low)) | (np.abs(places - high) < CLOSE * (high - low))
    made: np.ndarray = (near & np.isfinite(periods)).any(1)
    return made
