"""Matrices of a basis of scikit-fem's: values at points, inner products, and projections cell by cell.

Rows and columns are its degrees of freedom, and points with their components; quadrature points go cell by cell.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
import skfem

__all__ = ["load_matrix", "local_projection", "mass_matrix", "value_matrix"]


def mass_matrix(basis: Any, components: int | None) -> sp.csr_matrix:
    """Inner products of the basis functions, ``(N, N)``."""
    form = skfem.BilinearForm(lambda u, v, w: u * v if components is None else (u * v).sum(0))
    return sp.csr_matrix(form.assemble(basis))


def load_matrix(basis: Any, components: int | None) -> sp.csr_matrix:
    """Inner products with the basis from values at quadrature points, ``(N, Q · components)``."""
    return sp.csr_matrix(_scattered(basis, _fields(basis, components) * np.asarray(basis.dx)).T)


def local_projection(basis: Any, components: int | None) -> sp.csr_matrix:
    """The sum over the cells of each degree of freedom of the projections on them, ``(N, Q · components)``."""
    phi, weights = _fields(basis, components), np.asarray(basis.dx)
    gram = np.einsum("kceq,lceq,eq->ekl", phi, phi, weights)
    dual = np.einsum("ekl,lceq,eq->kceq", np.linalg.inv(gram), phi, weights)
    return sp.csr_matrix(_scattered(basis, dual).T)


def value_matrix(basis: Any, components: int | None, cells: np.ndarray, local: np.ndarray) -> sp.csr_matrix:
    """Values of all basis functions at ``(d, p)`` places in the reference cells of ``(p,)`` cells, ``(p · components,
    N)``.
    """
    count, width = len(cells), components or 1
    columns = basis.element_dofs[:, cells]
    values = [
        np.asarray(basis.elem.gbasis(basis.mapping, local[:, :, None], k, tind=cells)[0]) for k in range(len(columns))
    ]
    data = np.stack([np.broadcast_to(v.reshape(width, -1), (width, count)) for v in values])  # (k, width, p)
    at = np.broadcast_to(np.arange(count) * width + np.arange(width)[:, None], data.shape)
    of = np.broadcast_to(columns[:, None], data.shape)
    return sp.csr_matrix((data.ravel(), (at.ravel(), of.ravel())), (count * width, basis.N))


def _fields(basis: Any, components: int | None) -> np.ndarray:
    """Basis functions at quadrature points, ``(k, components, cells, q)``."""
    shape = (components or 1, *basis.dx.shape)
    fields = (np.asarray(k[0]) for k in basis.basis)
    return np.stack([np.broadcast_to(f if f.ndim == 3 else f[None], shape) for f in fields])


def _scattered(basis: Any, fields: np.ndarray) -> sp.csr_matrix:
    """``(Q · components, N)`` of ``(k, components, cells, q)``."""
    _, width, cells, q = fields.shape
    columns = np.broadcast_to(basis.element_dofs[:, None, :, None], fields.shape)
    points = np.arange(cells * q).reshape(cells, q)
    rows = np.broadcast_to(points * width + np.arange(width)[:, None, None], fields.shape)
    return sp.csr_matrix((fields.ravel(), (rows.ravel(), columns.ravel())), (cells * q * width, basis.N))
