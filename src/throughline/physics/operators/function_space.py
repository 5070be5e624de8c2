"""Finite-element spaces as scikit-fem has them, with what a network needs of one: unknowns, their graph, and maps."""

from collections.abc import Callable, Sequence
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from throughline.core._derivatives import eager, transformed
from throughline.core.checks import check_floating, readable
from throughline.physics.operators.linear_maps import LinearMap, Solver, grouped, shown

try:
    import skfem
except ImportError:
    raise ImportError('scikit-fem is not installed; pip install "throughline[physics]"') from None

from skfem.refdom import RefHex, RefLine, RefQuad, RefTet, RefTri

from throughline.physics.operators.assembly import load_matrix, local_projection, mass_matrix, value_matrix
from throughline.physics.operators.places import Finder
from throughline.physics.operators.unknowns import directions, held_facets, identified, tidied

__all__ = ["FunctionSpace", "finite"]

LINEAR = {
    RefLine: skfem.ElementLineP1,
    RefTri: skfem.ElementTriP1,
    RefQuad: skfem.ElementQuad1,
    RefTet: skfem.ElementTetP1,
    RefHex: skfem.ElementHex1,
}

Function = Callable[[Tensor], Tensor]


class FunctionSpace:
    """The finite-element space of a mesh and an element of scikit-fem's, with its boundary conditions.

    Input and output spaces of "Structure-Preserving Operator Learning" (arXiv 2410.01065). An unknown is a degree of
    freedom; those that periodic faces share are one. Everything in it is float64 on the CPU; results have the dtype
    and device of the tensors that are given. A projection needs a sparse decomposition, once: of n unknowns in the
    plane O(n^1.5) time and O(n log n) memory.

    Args:
        mesh: any mesh of lines, triangles, quadrilaterals, tetrahedra or hexahedra, curved ones too. Points that no
            cell uses, such as the circle centres of a mesh generator, are left out.
        element: of the mesh's cell type, scalar or vector-valued; linear by default.
        dirichlet: where values are prescribed: "all" of the boundary (periodic faces apart), the name or names of
            boundaries of the mesh, or a predicate on midpoints ``(d, n)`` of boundary facets.
        periodic: axes, or one axis, whose two faces of the bounding box are one.
        quadrature_order: of the cell's quadrature; twice the element's degree and two more by default.

    Attributes:
        dim: number of unknowns.
        coordinates: ``(dim, d)``, where each unknown sits.
        constrained: ``(dim,)``, whether its value is prescribed.
        directions: ``(dim, components)`` of a vector-valued element: which way the field of an unknown points at its
            place, of unit length; None of a scalar one.
        basis: the basis of scikit-fem.

    Raises:
        TypeError: no mesh or element of scikit-fem's, or an element of another cell type.
        ValueError: an unknown name or a predicate that selects nothing; faces that do not match node by node; a mesh
            that is bent through space, or a curved one with points that no cell uses.

    >>> import skfem
    >>> space = FunctionSpace(skfem.MeshTri().refined(3), dirichlet="all")
    >>> space.dim, int(space.constrained.sum())
    (81, 32)
    >>> space.norm(space.project(lambda x: (3.14159 * x[:, 0]).sin()))
    tensor(0.70..., dtype=torch.float64)
    """

    def __init__(
        self,
        mesh: Any,
        element: Any = None,
        *,
        dirichlet: str | Sequence[str] | Callable[[np.ndarray], np.ndarray] | None = None,
        periodic: int | Sequence[int] | None = None,
        quadrature_order: int | None = None,
    ) -> None:
        if not isinstance(mesh, skfem.Mesh) or mesh.refdom not in LINEAR:
            raise TypeError(
                "mesh must be a skfem.Mesh of lines, triangles, quadrilaterals, tetrahedra or hexahedra, "
                f"got {type(mesh).__name__}"
            )
        mesh = tidied(mesh)
        element = LINEAR[mesh.refdom]() if element is None else element
        if not isinstance(element, skfem.Element):
            raise TypeError(f"element must be a skfem.Element, got {type(element).__name__}")
        if element.refdom is not mesh.refdom:
            cell = {kind: type(made()).__name__ for kind, made in LINEAR.items()}[mesh.refdom]
            raise TypeError(
                f"element must be one of the cells of {type(mesh).__name__}, such as {cell}, got {_name(element)}"
            )
        box = mesh.refdom in (RefQuad, RefHex)  # where scikit-fem counts the degrees of all axes together
        degree = -(-element.maxdeg // mesh.dim()) if box else element.maxdeg
        order = 2 * degree + 2 if quadrature_order is None else quadrature_order
        if order < 1:
            raise ValueError(f"quadrature_order must be at least 1, got {quadrature_order}")
        self.basis = skfem.Basis(mesh, element, intorder=order)
        if len(self.basis.basis[0]) != 1:
            raise TypeError(f"element must have one field, got {_name(element)}; make a space of each")
        self.mesh, self.element = mesh, element
        field = np.asarray(self.basis.basis[0][0])
        if field.ndim > 3:
            raise TypeError(f"element must be scalar or vector-valued, got {_name(element)}")
        self.components = len(field) if field.ndim == 3 else None
        places = self.basis.doflocs.T
        if not np.isfinite(places).all():
            raise TypeError(f"element must say where its degrees of freedom are, got {_name(element)}")
        towards, self.nodal = directions(self.basis, self.components)
        axes: Any = () if periodic is None else periodic
        axes = (axes,) if isinstance(axes, Integral) else tuple(axes)
        if axes and not self.nodal:
            raise ValueError(f"periodic is for elements of nodal values, got {_name(element)}")
        self._unify, keep, self._periods = identified(mesh, places, towards, axes)
        self.dim = int(self._unify.shape[1])
        self.coordinates = torch.from_numpy(np.ascontiguousarray(places[keep]))
        self.directions = None if self.components is None else torch.from_numpy(towards[keep])
        held = np.zeros(self.basis.N)
        if dirichlet is not None:
            held[self.basis.get_dofs(held_facets(mesh, dirichlet, self._periods)).all()] = 1
        self.constrained = torch.from_numpy(self._unify.T @ held > 0)

    @cached_property
    @eager
    def edges(self) -> Tensor:
        """``(2, E)``, sources and targets of the unknowns that share a cell, in both directions, by target."""
        cells = self.basis.element_dofs
        n, count = cells.shape
        incidence = sp.csr_matrix(
            (np.ones(n * count, np.float32), (cells.T.ravel(), np.repeat(np.arange(count), n))), (self.basis.N, count)
        )
        incidence = self._unify.T.astype(np.float32) @ incidence
        graph = sp.coo_matrix(incidence @ incidence.T)
        apart = graph.row != graph.col
        target, source = graph.row[apart].astype(np.int64), graph.col[apart].astype(np.int64)
        order = np.lexsort((source, target))
        return torch.from_numpy(np.stack([source[order], target[order]]))

    @cached_property
    @eager
    def mass(self) -> Tensor:
        """The inner products of the basis functions, ``(dim, dim)`` and sparse."""
        made = self._mass.tocoo()
        where = torch.from_numpy(np.stack([made.row, made.col]).astype(np.int64))
        return torch.sparse_coo_tensor(
            where, torch.from_numpy(made.data), made.shape, check_invariants=False
        ).coalesce()

    @cached_property
    @eager
    def quadrature_points(self) -> Tensor:
        """``(Q, d)``: where `project` wants the values of a function."""
        points = np.asarray(self.basis.global_coordinates())
        return torch.from_numpy(np.ascontiguousarray(points.reshape(len(points), -1).T))

    def interpolate(self, f: Function) -> Tensor:
        """Coefficients of the interpolant: values at the nodes of Lagrange elements, and of vectors made of them.

        Other elements take the average over an unknown's cells of the projections on each: exact for fields that lie in
        the space.

        Args:
            f: from points ``(n, d)``, float64, to ``(n,)``, or ``(n, components)`` for a vector-valued element.

        Returns:
            ``(dim,)``, in the dtype that f returns.

        Raises:
            ValueError: f returns another shape.
        """
        if not self.nodal:
            return self._local(self._flat(f(self.quadrature_points), "f(quadrature_points)"))
        values = f(self.coordinates)
        shape = (self.dim,) if self.components is None else (self.dim, self.components)
        if values.shape != shape:
            raise ValueError(f"f must return shape {shape}, got {shown(values)}")
        return values if self.directions is None else (values * self.directions.to(values)).sum(-1)

    def project(self, f: Function | Tensor) -> Tensor:
        """Coefficients of the L² projection, M c = b, by one sparse decomposition and one solution for a whole batch.

        Args:
            f: a function as in `interpolate`, or values at ``quadrature_points``: ``(..., Q)``, or
                ``(..., Q, components)`` for a vector-valued element.

        Returns:
            ``(..., dim)``; constrained entries are projected like all others.

        Raises:
            ValueError: values of another shape, or not finite.
        """
        values, name = (f(self.quadrature_points), "f(quadrature_points)") if callable(f) else (f, "f")
        return self._solver(self._load(finite(self._flat(values, name), name)))

    def evaluate(self, coefficients: Tensor, points: Tensor) -> Tensor:
        """Values at points of the mesh; `Decoder` keeps the map for points that are asked again.

        Args:
            coefficients: ``(..., dim)``.
            points: ``(p, d)``; on a border of cells, one of them gives the value.

        Returns:
            ``(..., p)``, or ``(..., p, components)``.

        Raises:
            ValueError: a wrong shape, or points outside of the mesh.
        """
        self.check(coefficients)
        return self._shaped(LinearMap(self.values_at(points))(coefficients))

    def norm(self, coefficients: Tensor) -> Tensor:
        """The L² norm, ``(..., dim)`` to ``(...)``, through the mass matrix; its gradient at zero is zero.

        Raises:
            ValueError: a wrong shape.
        """
        self.check(coefficients)
        peak = coefficients.detach().abs().amax(-1, keepdim=True)
        scaled = coefficients / torch.where(peak > 0, peak, 1)
        square = (scaled * self._weigh(scaled)).sum(-1)
        some = square > 0
        return peak.squeeze(-1) * torch.where(some, torch.where(some, square, 1).sqrt(), 0)

    def check(self, coefficients: Tensor, name: str = "coefficients") -> None:
        """Raise unless it is a floating point tensor ``(..., dim)``."""
        check_floating(name, coefficients)
        if not coefficients.dim() or coefficients.shape[-1] != self.dim:
            raise ValueError(f"{name} must be (..., {self.dim}), got {shown(coefficients)}")

    @eager
    def values_at(self, points: Tensor, *, nearest: bool = False) -> sp.csr_matrix:
        """Values of all basis functions at points, ``(p · components, dim)``; the nearest cell's, where allowed."""
        check_floating("points", points)
        d = self.coordinates.shape[1]
        if points.dim() != 2 or points.shape[1] != d:
            raise ValueError(f"points must be (p, {d}), got {shown(points)}")
        tolerance = 1e-9 if points.dtype == torch.float64 else 1e-5  # of a cell; what rounding may cost
        wide = points.detach().double().cpu()
        # a transform of torch.func hides the memory of every tensor
        x = np.reshape(wide.tolist(), (-1, d)).T if transformed() else finite(wide, "points").numpy().T
        found = self._finder(x, tolerance)
        outside = found.distance > 0
        if outside.any() and not nearest:
            first = [round(float(v), 6) for v in x[:, outside][:, 0]]
            raise ValueError(f"points must lie in the mesh, got {int(outside.sum())} outside of it, the first {first}")
        made = sp.csr_matrix(value_matrix(self.basis, self.components, found.cells, found.local) @ self._unify)
        made.data[np.abs(made.data) < 1e-14] = 0  # rounding; without it coarse nodes would have many neighbours
        made.eliminate_zeros()
        return made

    def nodal_values(self, values: sp.csr_matrix) -> sp.csr_matrix:
        """Coefficients from a field's values at this space's nodes, ``(dim · components, n)``."""
        if self.directions is None:
            return values
        n, width = self.directions.shape
        rows, columns = np.repeat(np.arange(n), width), np.arange(n * width)
        return sp.csr_matrix(sp.csr_matrix((self.directions.numpy().ravel(), (rows, columns)), (n, n * width)) @ values)

    @cached_property
    @eager
    def local_projection(self) -> sp.csr_matrix:
        """Coefficients from values at quadrature points, ``(dim, Q · components)``, cell by cell and then averaged."""
        made = self._unify.T @ local_projection(self.basis, self.components)
        # an unknown is an average over its cells, and over the periodic faces that share it
        cells = self._unify.T @ np.bincount(self.basis.element_dofs.ravel(), minlength=self.basis.N)
        return sp.csr_matrix(sp.diags(1 / cells) @ made)

    @property
    def periods(self) -> Tensor:
        """``(d,)``: the length of each periodic axis, infinite of others."""
        return torch.from_numpy(self._periods)

    def _flat(self, values: Tensor, name: str) -> Tensor:
        count = len(self.quadrature_points)
        shape = (count,) if self.components is None else (count, self.components)
        check_floating(name, values)
        if values.shape[-len(shape) :] != shape:
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{name} must be (..., {wanted}), a value at each quadrature point, got {shown(values)}")
        return values.flatten(-2) if self.components is not None else values

    def _shaped(self, values: Tensor) -> Tensor:
        return values if self.components is None else grouped(values, self.components)

    @cached_property
    @eager
    def _mass(self) -> sp.csr_matrix:
        return sp.csr_matrix(self._unify.T @ mass_matrix(self.basis, self.components) @ self._unify)

    @cached_property
    @eager
    def load(self) -> sp.csr_matrix:
        """Inner products with the basis from values at quadrature points, ``(dim, Q · components)``."""
        return sp.csr_matrix(self._unify.T @ load_matrix(self.basis, self.components))

    @cached_property
    @eager
    def _weigh(self) -> LinearMap:
        return LinearMap(self._mass)

    @cached_property
    @eager
    def _load(self) -> LinearMap:
        return LinearMap(self.load)

    @cached_property
    @eager
    def _local(self) -> LinearMap:
        return LinearMap(self.local_projection)

    @cached_property
    @eager
    def _solver(self) -> Solver:
        return Solver(self._mass)

    @cached_property
    @eager
    def _finder(self) -> Finder:
        return Finder(self.mesh, self.basis.mapping)

    def __repr__(self) -> str:
        return f"FunctionSpace({type(self.mesh).__name__}, {_name(self.element)}, dim={self.dim})"


def finite(values: Tensor, name: str) -> Tensor:
    """``values``, unless some are not finite."""
    if readable(values) and not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {int((~values.isfinite()).sum())} values that are not")
    return values


def _name(element: Any) -> str:
    inner = getattr(element, "elem", None)
    return f"{type(element).__name__}({type(inner).__name__})" if inner is not None else type(element).__name__
