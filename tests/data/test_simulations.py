"""Folders of simulations: real mesh files and arrays, and each way in which they can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch

from throughline.data import DataError, Source, read_simulation
from throughline.data.simulations import inverted

meshio = pytest.importorskip("meshio")
FINE = skfem.MeshTri.init_sqsymmetric().refined(1).with_boundaries({"left": lambda x: x[0] == 0})


def folder(root: Path, mesh: Any = FINE, suffix: str = "msh", **changes: Any) -> Path:
    mesh.save(root / f"plate.{suffix}")
    draw = np.random.default_rng(0)
    arrays = {name: draw.standard_normal((5, mesh.p.shape[1])) for name in ("inputs", "outputs")} | changes
    np.savez(root / "values.npz", **{name: a for name, a in arrays.items() if a is not None})
    return root


@pytest.mark.parametrize("suffix", ["msh", "vtk", "vtu"])
@pytest.mark.parametrize(
    "mesh", [FINE, skfem.MeshQuad().refined(2), skfem.MeshTet().refined(1), skfem.MeshHex().refined(1)]
)
def test_reads_meshes_and_values(mesh: Any, suffix: str, tmp_path: Path) -> None:
    found = read_simulation(folder(tmp_path, mesh, suffix))
    assert len(found.meshes) == 1
    assert type(found.meshes[0]) is type(mesh)
    np.testing.assert_allclose(found.meshes[0].p, mesh.p, atol=1e-12)
    with np.load(tmp_path / "values.npz") as values:
        torch.testing.assert_close(found.inputs.double(), torch.from_numpy(values["inputs"]), atol=1e-6, rtol=0)
    if mesh is FINE:
        assert "left" in found.meshes[0].boundaries


def test_coarser_meshes_come_first(tmp_path: Path) -> None:
    folder(tmp_path)
    skfem.MeshTri.init_sqsymmetric().save(tmp_path / "zz_coarse.msh")
    assert [mesh.p.shape[1] for mesh in Source.of(tmp_path).simulation().meshes] == [9, 25]


def test_cells_are_inverted() -> None:
    for mesh in (FINE, skfem.MeshQuad().refined(2), skfem.MeshTet().refined(1), skfem.MeshTri.init_circle(2)):
        assert len(inverted(mesh)) == 0
    for mesh, node, to in (
        (FINE, 4, (0.9, 0.9)),
        (skfem.MeshQuad().refined(1), 8, (1.2, 1.2)),
        (skfem.MeshTet().refined(1), 26, (0.9, 0.9, 0.9)),
    ):
        p = mesh.p.copy()
        node = int(((p - p.mean(1, keepdims=True)) ** 2).sum(0).argmin())
        p[:, node] = to
        assert len(inverted(type(mesh)(p, mesh.t)))


def pulled() -> Any:
    p = FINE.p.copy()
    p[:, int(((p - 0.5) ** 2).sum(0).argmin())] = 0.95
    return skfem.MeshTri(p, FINE.t)


def flat() -> Any:
    p = FINE.p.copy()
    cell = FINE.t[:, 3]
    p[:, cell[2]] = p[:, cell[:2]].mean(1)
    return skfem.MeshTri(p, FINE.t)


def values(**changes: Any) -> dict[str, Any]:
    return changes


@pytest.mark.parametrize(
    ("match", "mesh", "changes"),
    [
        (r"plate\.msh: the mesh has \d+ inverted or degenerate cells, the first is number \d+", pulled(), {}),
        (r"plate\.msh: the mesh has \d+ inverted or degenerate cells", flat(), {}),
        (r"no array 'outputs', got inputs", FINE, {"outputs": None}),
        (
            r"values\.npz: inputs has 24 values a row, and the finest mesh \(plate\.msh\) 25 nodes",
            FINE,
            {"inputs": np.zeros((5, 24))},
        ),
        (r"outputs must be numbers of shape \(N, nodes\), got float64 \(25,\)", FINE, {"outputs": np.zeros(25)}),
        (r"inputs must be numbers of shape \(N, nodes\), got <U1", FINE, {"inputs": np.full((5, 25), "a")}),
        (r"as many inputs as outputs are wanted, got 6 and 5", FINE, {"inputs": np.zeros((6, 25))}),
        (
            r"at least 4 rows are wanted, .* got 3",
            FINE,
            {"inputs": np.zeros((3, 25)), "outputs": np.zeros((3, 25))},
        ),
        (
            r"outputs holds 2 values that are not finite, the first in row 1",
            FINE,
            {"outputs": np.where(np.arange(125).reshape(5, 25) % 60 == 40, np.nan, 1.0)},
        ),
    ],
)
def test_names_what_is_wrong(match: str, mesh: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match):
        read_simulation(folder(tmp_path, mesh, **changes))


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    folder(tmp_path)
    FINE.save(tmp_path / "again.msh")
    with pytest.raises(DataError, match=r"each mesh must be finer than the one before, got \[25, 25\] nodes"):
        read_simulation(tmp_path)
    (tmp_path / "again.msh").unlink()
    skfem.MeshQuad().save(tmp_path / "squares.msh")
    with pytest.raises(DataError, match=r"one kind of cell, got squares\.msh of MeshQuad1, plate\.msh of MeshTri1"):
        read_simulation(tmp_path)
    (tmp_path / "squares.msh").write_text("nothing of a mesh")
    with pytest.raises(DataError, match=r"squares\.msh: not a mesh that meshio reads"):
        read_simulation(tmp_path)
    for file in ("squares.msh", "plate.msh"):
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=r"no mesh file beside values\.npz"):
        read_simulation(tmp_path)
    (tmp_path / "values.npz").write_bytes(b"PK nothing")
    FINE.save(tmp_path / "plate.msh")
    with pytest.raises(DataError, match=r"values\.npz: not a readable \.npz"):
        read_simulation(tmp_path)
    (tmp_path / "values.npz").unlink()
    with pytest.raises(DataError, match=r"one \.npz with inputs and outputs is wanted, got 0"):
        read_simulation(tmp_path)


@pytest.mark.parametrize("place", [0, 7, 25], ids=["first", "within", "last"])
def test_points_of_no_cell_are_left_out_with_their_values(place: int, tmp_path: Path) -> None:
    old = np.delete(np.arange(26), place)
    mesh = skfem.MeshTri(np.insert(FINE.p, place, 0.5, axis=1), old[FINE.t])
    mesh.with_boundaries({"left": lambda x: x[0] == 0}).save(tmp_path / "plate.msh")
    numbers = np.arange(5 * 26.0).reshape(5, 26)
    np.savez(tmp_path / "values.npz", inputs=numbers, outputs=-numbers)
    found = read_simulation(tmp_path)
    assert found.meshes[0].p.shape == (2, 25)
    np.testing.assert_allclose(found.meshes[0].p, FINE.p, atol=1e-12)
    np.testing.assert_array_equal(found.meshes[0].t, FINE.t)
    np.testing.assert_array_equal(found.inputs, np.delete(numbers, place, axis=1))
    np.testing.assert_array_equal(found.outputs, -np.delete(numbers, place, axis=1))
    boundary = found.meshes[0].boundaries["left"]
    assert (found.meshes[0].p[0, found.meshes[0].facets[:, boundary]] == 0).all()
    assert len(boundary) == len(FINE.boundaries["left"])


def written(folder: Path, points: Any, cells: Any) -> Path:
    meshio.Mesh(np.asarray(points, float), cells).write(folder / "plate.vtu")
    np.savez(folder / "values.npz", inputs=np.zeros((4, len(points))), outputs=np.zeros((4, len(points))))
    return folder


def test_cells_of_two_kinds_are_refused(tmp_path: Path) -> None:
    square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [2, 1, 0]]
    for cells in ([("quad", [[0, 1, 2, 3]]), ("triangle", [[1, 4, 5], [1, 5, 2]])],) * 2:
        with pytest.raises(
            DataError, match=r"plate\.vtu: quad and triangle cells in one mesh; give a mesh of one kind"
        ):
            read_simulation(written(tmp_path, square, cells))
        cells.reverse()
    found = read_simulation(written(tmp_path, square, [("triangle", [[1, 4, 5]]), ("triangle", [[1, 5, 2]])]))
    assert found.meshes[0].t.shape == (3, 2)  # two groups of one kind are one mesh
    assert found.inputs.shape == (4, 4)


def test_lines_and_single_points_are_no_cells(tmp_path: Path) -> None:
    points = [[0, 0, 0], [0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]]  # the second is a centre, as Gmsh leaves them
    cells = [("vertex", [[1]]), ("line", [[0, 2], [2, 3]]), ("triangle", [[0, 2, 3]])]
    found = read_simulation(written(tmp_path, points, cells))
    assert found.meshes[0].p.T.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert found.inputs.shape == (4, 3)


def test_a_surface_in_space_is_refused_and_a_raised_plane_is_not(tmp_path: Path) -> None:
    square = np.array([[0, 0, 3], [1, 0, 3], [1, 1, 3], [0, 1, 3.0]])
    cells = [("triangle", [[0, 1, 2], [0, 2, 3]])]
    assert read_simulation(written(tmp_path, square, cells)).meshes[0].p.shape == (2, 4)
    square[2, 2] = 3.5
    with pytest.raises(DataError, match=r"plate\.vtu: a surface in space, 0\.5 high; give a mesh in the plane"):
        read_simulation(written(tmp_path, square, cells))


def test_a_curved_mesh_with_points_of_no_cell_is_refused(tmp_path: Path) -> None:
    disc = skfem.MeshTri2.init_circle(1)
    disc.save(tmp_path / "plate.vtu")
    curved = meshio.read(tmp_path / "plate.vtu")
    assert read_simulation(written(tmp_path, curved.points, curved.cells)).meshes[0].p.shape[1] == len(curved.points)
    with pytest.raises(DataError, match="1 points that no cell of the curved mesh uses; remove them"):
        read_simulation(written(tmp_path, np.r_[curved.points, [[0, 0, 0]]], curved.cells))
