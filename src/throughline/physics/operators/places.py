"""Where points lie in a mesh: the cell and the place in its reference cell, for any cell of scikit-fem's."""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from skfem.refdom import RefTet, RefTri

__all__ = ["Finder", "Places"]

FIRST, GROWTH = 1, 6  # candidate cells of a point in the first round, and how many times more in each further one
CHUNK = 100_000  # candidates looked at together
NEWTON = 12  # steps towards a place in a curved cell


class Places(NamedTuple):
    """Cells ``(p,)``, reference coordinates ``(d, p)`` and the distance ``(p,)`` from the cell; 0 inside."""

    cells: np.ndarray
    local: np.ndarray
    distance: np.ndarray


class Finder:
    """Finds points by the cells whose centres are near: exactly, for as many centres are looked at as it takes."""

    def __init__(self, mesh: Any, mapping: Any) -> None:
        self.mesh, self.mapping = mesh, mapping
        corners = mesh.doflocs[:, mesh.dofs.element_dofs]  # (d, nodes, cells)
        centres = corners.mean(1)
        reach = np.sqrt(((corners - centres[:, None]) ** 2).sum(0)).max()
        straight = len(mesh.dofs.element_dofs) == len(mesh.t)
        self.tree, self.count, self.reach = cKDTree(centres.T), centres.shape[1], reach * (1.0 if straight else 1.5)

    def __call__(self, points: np.ndarray, tolerance: float) -> Places:
        """Of ``(d, p)``: the cell that holds each point within ``tolerance`` of its reference cell, or the nearest."""
        d, p = points.shape
        found = Places(np.zeros(p, np.int64), np.zeros((d, p)), np.full(p, np.inf))
        pending, k = np.arange(p), FIRST
        while len(pending):
            k = min(k, self.count)
            rest = []
            for part in np.array_split(pending, -(-len(pending) * k // CHUNK)):
                radius, cells = (np.reshape(a, (len(part), k)) for a in self.tree.query(points[:, part].T, k))
                inside = self._look(points, part, cells, tolerance, found)
                # no other cell comes nearer than the best so far once its centre lies this far off
                done = inside | (k == self.count) | (radius[:, -1] > self.reach * (1 + 1e-9) + found.distance[part])
                rest.append(part[~done])
            pending, k = np.concatenate(rest), k * GROWTH
        return found

    def _look(
        self, points: np.ndarray, part: np.ndarray, cells: np.ndarray, tolerance: float, found: Places
    ) -> np.ndarray:
        n, k = cells.shape
        x = np.repeat(points[:, part], k, axis=1)
        local = self._inverse(x, cells.ravel())
        clamped = self._clamp(local)
        missed = np.abs(local - clamped).max(0)
        distance = np.sqrt(((self._forward(clamped, cells.ravel()) - x) ** 2).sum(0))
        distance = np.where(missed <= tolerance, 0.0, distance).reshape(n, k)
        best = distance.argmin(1)
        rows = np.arange(n)
        better = distance[rows, best] < found.distance[part]
        at, of = part[better], (rows * k + best)[better]
        found.cells[at], found.distance[at] = cells.ravel()[of], distance.ravel()[of]
        found.local[:, at] = local[:, of]
        inside: np.ndarray = found.distance[part] == 0
        return inside

    def _forward(self, local: np.ndarray, cells: np.ndarray) -> np.ndarray:
        made: np.ndarray = self.mapping.F(local[:, :, None], cells)[:, :, 0]
        return made

    def _inverse(self, x: np.ndarray, cells: np.ndarray) -> np.ndarray:
        if type(self.mapping).__name__ == "MappingAffine":
            made: np.ndarray = self.mapping.invF(x[:, :, None], cells)[:, :, 0]
            return made
        local = np.full(x.shape, 1 / 3)
        for _ in range(NEWTON):  # a cell that the point is far from need not converge: it will not be the nearest
            jacobian = np.moveaxis(self.mapping.DF(local[:, :, None], cells)[..., 0], -1, 0)
            flat = np.abs(np.linalg.det(jacobian)) < np.finfo(float).tiny
            jacobian[flat] = np.eye(len(x))
            step = np.linalg.solve(jacobian, (x - self._forward(local, cells)).T[..., None])
            local = np.clip(local + step[..., 0].T, -0.5, 1.5)
        return local

    def _clamp(self, local: np.ndarray) -> np.ndarray:
        """The point of the reference cell near each place."""
        if self.mesh.refdom not in (RefTri, RefTet):
            return np.asarray(np.clip(local, 0.0, 1.0))
        kept = np.clip(local, 0.0, None)
        return np.asarray(kept / np.maximum(kept.sum(0), 1.0))
