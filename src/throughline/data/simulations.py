"""Simulations of the user's own: meshes in files, and the inputs and outputs at the nodes of the finest."""

import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.data.download import DataError

__all__ = ["Simulation", "read_simulation"]


class Simulation(NamedTuple):
    """Meshes of scikit-fem, the coarsest first, and values ``(N, nodes)`` at the vertices of the last."""

    meshes: list[Any]
    inputs: Tensor
    outputs: Tensor


def read_simulation(folder: str | os.PathLike[str]) -> Simulation:
    """Read a folder with one ``.npz`` and one or more mesh files.

    The ``.npz`` holds ``inputs`` and ``outputs``, both ``(N, nodes)``: one row a simulation, one column a vertex of the
    finest mesh in the order of its file. A mesh file is anything that meshio reads; groups of boundary facets keep
    their names. Points that no cell uses are left out, and so are their values. Further files are coarser meshes of the
    same domain.

    Raises:
        DataError: files that are missing, unreadable or do not go together, values that are not finite, a mesh with an
            inverted or degenerate cell, with cells of two kinds, or bent through space; names the file.
        ImportError: scikit-fem is not installed.
    """
    place = Path(folder).expanduser()
    files = sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))
    values = [file for file in files if file.suffix == ".npz"]
    if len(values) != 1:
        raise DataError(f"{place}: one .npz with inputs and outputs is wanted, got {len(values)}")
    named = [(file, _mesh(file)) for file in files if file.suffix != ".npz"]
    if not named:
        raise DataError(f"{place}: no mesh file beside {values[0].name}; give one that meshio reads")
    named.sort(key=lambda pair: pair[1][0].p.shape[1])
    if len({type(mesh) for _, (mesh, _) in named}) > 1:
        kinds = ", ".join(f"{file.name} of {type(mesh).__name__}" for file, (mesh, _) in named)
        raise DataError(f"{place}: meshes must be of one kind of cell, got {kinds}")
    sizes = [mesh.p.shape[1] for _, (mesh, _) in named]
    if len(set(sizes)) < len(sizes):
        raise DataError(f"{place}: each mesh must be finer than the one before, got {sizes} nodes")
    file, (_, used) = named[-1]
    inputs, outputs = _values(values[0], file, used)
    return Simulation([mesh for _, (mesh, _) in named], inputs, outputs)


def _values(file: Path, mesh: Path, used: np.ndarray) -> tuple[Tensor, Tensor]:
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {name: np.asarray(content[name]) for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a readable .npz ({error})") from None
    made = []
    for name in ("inputs", "outputs"):
        if name not in found:
            raise DataError(f"{file}: no array {name!r}, got {', '.join(sorted(found)) or 'none'}")
        array = found[name]
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(f"{file}: {name} must be numbers of shape (N, nodes), got {array.dtype} {array.shape}")
        if array.shape[1] != len(used):
            raise DataError(
                f"{file}: {name} has {array.shape[1]} values a row, and the finest mesh ({mesh.name}) {len(used)} nodes"
            )
        array = array[:, used]
        wrong = ~np.isfinite(array)
        if wrong.any():
            raise DataError(
                f"{file}: {name} holds {int(wrong.sum())} values that are not finite, the first in row "
                f"{int(np.argwhere(wrong)[0, 0])}"
            )
        made.append(torch.from_numpy(array.astype(np.float32)))
    if len(made[0]) != len(made[1]):
        raise DataError(f"{file}: as many inputs as outputs are wanted, got {len(made[0])} and {len(made[1])}")
    if len(made[0]) < 4:
        raise DataError(f"{file}: at least 4 rows are wanted, three to learn from and one to test, got {len(made[0])}")
    return made[0], made[1]


def _mesh(file: Path) -> tuple[Any, np.ndarray]:
    """The mesh of a file, without points that no cell uses, and which of the file's points it does use."""
    try:
        import skfem
    except ImportError:
        raise ImportError('scikit-fem is not installed; pip install "throughline[physics]"') from None
    raw: list[Any] = ["points", "cells"]
    try:
        with _quiet():
            mesh = skfem.Mesh.load(str(file), out=raw)
    except (Exception, SystemExit) as error:  # each of meshio's readers raises its own, and some leave
        raise DataError(f"{file}: not a mesh that meshio reads ({error})") from None
    if mesh is None:
        raise DataError(f"{file}: no cells that scikit-fem knows")
    points, blocks = np.asarray(raw[0]), [block for block in raw[1] if len(block.data)]
    cells = {block.type: block.data for block in blocks if block.dim == max(other.dim for other in blocks)}
    if len(cells) > 1:
        raise DataError(f"{file}: {' and '.join(sorted(cells))} cells in one mesh; give a mesh of one kind of cell")
    if mesh.dim() == 2 and (beyond := np.ptp(points[:, 2:], axis=0)).any():
        raise DataError(
            f"{file}: a surface in space, {beyond[0]:.3g} high; give a mesh in the plane of x and y, or of volumes"
        )
    used = np.zeros(len(points), dtype=bool)
    for block in blocks:
        if block.type in cells:
            used[block.data] = True
    if not used.all():
        if mesh.p.shape[1] > mesh.nvertices + int((~used).sum()):
            raise DataError(f"{file}: {int((~used).sum())} points that no cell of the curved mesh uses; remove them")
        mesh = mesh.remove_unused_nodes()
    if not np.isfinite(mesh.p).all():
        raise DataError(f"{file}: the mesh has nodes that are not finite")
    bad = inverted(mesh)
    if len(bad):
        raise DataError(f"{file}: the mesh has {len(bad)} inverted or degenerate cells, the first is number {bad[0]}")
    return mesh, used


def inverted(mesh: Any) -> np.ndarray:
    """Cells without volume, turned inside out somewhere, or folded over a neighbour."""
    import skfem
    from skfem.refdom import RefTet, RefTri

    mapping = mesh._mapping()
    local = skfem.quadrature.get_quadrature(mesh.refdom, 3)[0]
    if mesh.refdom not in (RefTri, RefTet):  # the corners are the worst of a cell with straight edges
        local = np.array(mesh.elem.refdom.p, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):  # of cells without volume
        volume = np.broadcast_to(mapping.detDF(local), (mesh.nelements, local.shape[1]))
    scale = np.abs(volume).max()
    bad = (np.sign(volume) != np.sign(volume[:, :1])).any(1) | (np.abs(volume).min(1) <= 1e-12 * scale)
    if mesh.refdom in (RefTri, RefTet):  # whose order of nodes says nothing: neighbours must lie on two sides
        inner = np.flatnonzero(mesh.f2t[1] >= 0)
        corners = mesh.p[:, mesh.facets[:, inner]]  # (d, d, facets)
        edges = np.moveaxis(corners[:, 1:] - corners[:, :1], -1, 0)  # (facets, d, d - 1)
        centres = mesh.p[:, mesh.t].mean(1)
        sides = [
            np.linalg.det(np.concatenate([edges, (centres[:, cells] - corners[:, 0]).T[:, :, None]], 2))
            for cells in mesh.f2t[:, inner]
        ]
        folded = mesh.f2t[:, inner[np.sign(sides[0]) == np.sign(sides[1])]]
        # of two cells that lie over each other the smaller is taken for the wrong one
        size = np.abs(volume).mean(1)
        bad[np.where(size[folded[0]] < size[folded[1]], folded[0], folded[1])] = True
    return np.flatnonzero(bad)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the reader logs on its way."""
    log = logging.getLogger("skfem")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
