"""Closed triangle meshes: the downloaded ones, and a folder of the user's own."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data.download import DataError, resolve

__all__ = ["MESH_FILES", "Mesh", "read_mesh", "read_meshes"]

MESH_FILES = (".obj", ".off", ".ply", ".stl")
Arrays = tuple[NDArray[np.float64], NDArray[np.int64]]


class Mesh(NamedTuple):
    """A closed surface of triangles, counter-clockwise as seen from outside."""

    name: str
    vertices: Tensor  # (V, 3) float32
    faces: Tensor  # (F, 3) int64


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a mesh that has an inside: a file of the user's own, or a registry key such as ``meshes/spot.obj``.

    Wavefront files, ``.obj``, are read as they are: positions and faces, whose polygons become fans of triangles. Other
    formats go through trimesh. Vertices at one place are one vertex, faces without three different ones are left out,
    and a mesh that is turned inside out is turned back.

    Raises:
        DataError: a file that is missing or no mesh, positions that are not finite, or a surface with holes or with
            faces turned against each other; names the file.
        ImportError: trimesh is not installed, and the file is no ``.obj``.

    >>> mesh = read_mesh("meshes/spot.obj")
    >>> mesh.name, mesh.vertices.shape, mesh.faces.shape
    ('spot', torch.Size([2930, 3]), torch.Size([5856, 3]))
    """
    file = resolve(path)
    suffix = file.suffix.lower()
    if suffix not in MESH_FILES:
        raise DataError(f"{file}: not a mesh file ({', '.join(MESH_FILES)})")
    points, faces = _wavefront(file) if suffix == ".obj" else _by_trimesh(file)
    if not np.isfinite(points).all():
        raise DataError(f"{file}: positions must be finite")
    points, faces = _merged(points, faces)
    if not len(faces):
        raise DataError(f"{file}: no triangle in this file")
    open_edges = _open_edges(faces, len(points))
    if open_edges:
        raise DataError(
            f"{file}: {open_edges:,} edges are not passed once in each direction: the mesh has holes, or faces turned "
            "against each other; a closed one is wanted"
        )
    a, b, c = points[faces].swapaxes(0, 1)
    if (a * np.cross(b, c)).sum() < 0:
        faces = faces[:, ::-1]
    return Mesh(file.stem, torch.from_numpy(points).float(), torch.from_numpy(np.ascontiguousarray(faces)))


def read_meshes(folder: str | os.PathLike[str]) -> list[Mesh]:
    """Read every mesh file that lies in a folder, in the order of their names; hidden ones are left out.

    Raises:
        DataError: there is none, or one is not what `read_mesh` wants.
    """
    place = Path(folder).expanduser()
    files = sorted(f for f in place.iterdir() if f.suffix.lower() in MESH_FILES and not f.name.startswith("."))
    if not files:
        raise DataError(f"{place}: no mesh in this folder ({', '.join(MESH_FILES)}); give one with some")
    return [read_mesh(file) for file in files]


def _wavefront(file: Path) -> Arrays:
    points, faces = [], []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    for number, line in enumerate(lines, 1):
        kind, *values = line.split() or [""]
        try:
            if kind == "v":
                points.append([float(x) for x in values[:3]])
            elif kind == "f":
                corners = [int(value.partition("/")[0]) for value in values]  # position/texture/normal
                corners = [c + len(points) if c < 0 else c - 1 for c in corners]
                faces += [[corners[0], corners[i], corners[i + 1]] for i in range(1, max(2, len(corners) - 1))]
        except (ValueError, IndexError):
            raise DataError(f"{file}: line {number} is no position or face, {line.strip()[:60]!r}") from None
        if kind == "v" and len(points[-1]) < 3:
            raise DataError(f"{file}: line {number} has fewer than three coordinates")
    found = np.array(points, dtype=np.float64).reshape(-1, 3), np.array(faces, dtype=np.int64).reshape(-1, 3)
    if len(faces) and (found[1].min() < 0 or found[1].max() >= len(points)):
        raise DataError(f"{file}: a face has a vertex that is not there; the file has {len(points):,}")
    return found


def _by_trimesh(file: Path) -> Arrays:
    try:
        import trimesh
    except ImportError:
        raise ImportError('trimesh is not installed; pip install "throughline[geometry]"') from None
    try:
        loaded = trimesh.load_mesh(file)
        return np.asarray(loaded.vertices, dtype=np.float64), np.asarray(loaded.faces, dtype=np.int64)
    except Exception as error:  # each of its readers raises its own
        raise DataError(f"{file}: not a mesh that trimesh reads ({error})") from None


def _merged(points: NDArray[np.float64], faces: NDArray[np.int64]) -> Arrays:
    """Without vertices that are doubled or in no face, in the order of the file, and faces that are none."""
    _, first, same = np.unique(points, axis=0, return_index=True, return_inverse=True)
    faces = first[same.reshape(-1)][faces]
    faces = faces[(faces != np.roll(faces, 1, 1)).all(1)]
    used, numbers = np.unique(faces, return_inverse=True)
    return points[used], numbers.reshape(-1, 3)


def _open_edges(faces: NDArray[np.int64], count: int) -> int:
    """Edges that are not passed as often in one direction as in the other."""
    a, b = faces.ravel(), np.roll(faces, -1, 1).ravel()
    edges, place = np.unique(np.minimum(a, b) * count + np.maximum(a, b), return_inverse=True)
    passed = np.bincount(place.reshape(-1), np.where(a < b, 1, -1), len(edges))
    return int((passed != 0).sum())
