"""From one finite-element space to another: a hierarchy of meshes, and the maps between its levels."""

from typing import Any

import scipy.sparse as sp
import skfem

from throughline.physics.operators.function_space import FunctionSpace

__all__ = ["hierarchy", "prolongation", "transfer"]


def prolongation(coarse: FunctionSpace, fine: FunctionSpace) -> sp.csr_matrix:
    """The coefficients in ``fine`` of the functions of ``coarse``: values of the coarse basis at the fine nodes.

    Where a fine node lies outside of the coarse mesh, as it may at a curved boundary, the nearest cell's functions are
    continued to it. Of spaces without nodes (normal or tangential components) it is `FunctionSpace.interpolate`.

    Returns:
        ``(fine.dim, coarse.dim)``; the identity on coarse functions where the spaces are nested.

    Raises:
        ValueError: spaces of another dimension or number of components.

    >>> import skfem
    >>> coarse, fine = hierarchy(skfem.MeshLine(), 2)
    >>> prolongation(coarse, fine).toarray()
    array([[1. , 0. ],
           [0. , 1. ],
           [0.5, 0.5]])
    """
    if coarse.coordinates.shape[1] != fine.coordinates.shape[1] or coarse.components != fine.components:
        raise ValueError(f"coarse and fine must be of one dimension and kind, got {coarse} and {fine}")
    if fine.nodal:
        return fine.nodal_values(coarse.values_at(fine.coordinates, nearest=True))
    return sp.csr_matrix(fine.local_projection @ coarse.values_at(fine.quadrature_points, nearest=True))


def transfer(source: FunctionSpace, target: FunctionSpace) -> tuple[sp.csr_matrix, int]:
    """`prolongation`, or between scalar and vector-valued spaces the values at the target's nodes, ``(dim · channels,
    source.dim)``; with the number of channels.
    """
    if source.components == target.components:
        return prolongation(source, target), 1
    return source.values_at(target.coordinates, nearest=True), source.components or 1


def hierarchy(mesh: Any, levels: int, element: Any = None, **conditions: Any) -> list[FunctionSpace]:
    """Spaces on ``levels`` meshes, ``mesh`` first and each of the others the uniform refinement of the one before.

    Args:
        mesh: the coarsest.
        levels: at least 1.
        element: the same on all.
        conditions: ``dirichlet``, ``periodic`` and ``quadrature_order`` of `FunctionSpace`; scikit-fem carries names of
            boundaries along, and a predicate is asked anew on each mesh.

    >>> import skfem
    >>> [space.dim for space in hierarchy(skfem.MeshTri.init_lshaped(), 3, dirichlet="all")]
    [8, 21, 65]
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    if not isinstance(mesh, skfem.Mesh):
        raise TypeError(f"mesh must be a skfem.Mesh, got {type(mesh).__name__}")
    return [FunctionSpace(mesh.refined(level) if level else mesh, element, **conditions) for level in range(levels)]
