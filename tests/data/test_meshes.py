"""Mesh files: what is in them against what was written, and each way in which they can be wrong."""

from pathlib import Path

import pytest
import torch

from throughline.data import DataError, Source, read_mesh, read_meshes

TETRAHEDRON = """# a comment
v 0 0 0 0.5 0.5 0.5
v 1 0 0
v 0 1 0
v 0 0 1
vn 0 0 1
f 1 3 2
f 1//1 2//1 4//1
f -4 -1 -2
f 2/1 3/2 4/3
"""
CUBE = "\n".join(
    [f"v {i & 1} {i >> 1 & 1} {i >> 2}" for i in range(8)]
    + ["f 1 3 4 2", "f 5 6 8 7", "f 1 2 6 5", "f 3 7 8 4", "f 1 5 7 3", "f 2 4 8 6"]
)


def written(folder: Path, text: str, name: str = "shape.obj") -> Path:
    (folder / name).write_text(text)
    return folder / name


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices.double()[faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum()) / 6


def test_reads_positions_and_faces(tmp_path: Path) -> None:
    mesh = read_mesh(written(tmp_path, TETRAHEDRON, "four.obj"))
    assert mesh.name == "four"
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert mesh.faces.tolist() == [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (torch.float32, torch.int64)


def test_polygons_become_triangles_and_the_inside_is_inside(tmp_path: Path) -> None:
    for text in (
        CUBE,
        "\n".join(f"f {' '.join(reversed(x.split()[1:]))}" if x[0] == "f" else x for x in CUBE.split("\n")),
    ):
        mesh = read_mesh(written(tmp_path, text))
        assert mesh.faces.shape == (12, 3)
        assert volume(mesh.vertices, mesh.faces) == pytest.approx(1)


def test_vertices_at_one_place_are_one(tmp_path: Path) -> None:
    lines = TETRAHEDRON.split("\n")
    more = [*lines[:5], "v 1 0 0", "v 9 9 9", "f 1 3 5", "f 1 2 4", "f 1 4 3", "f 5 3 4", "f 5 2 3"]
    mesh = read_mesh(written(tmp_path, "\n".join(more)))
    assert mesh.vertices.shape == (4, 3)
    assert mesh.faces.tolist() == [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "vertices", "faces"),
    [("spot", 2930, 5856), ("cow", 2903, 5804), ("rocker-arm", 10044, 20088), ("homer", 6002, 12000)],
)
def test_the_downloaded_ones_are_closed(name: str, vertices: int, faces: int) -> None:
    mesh = read_mesh(f"meshes/{name}.obj")
    assert (len(mesh.vertices), len(mesh.faces)) == (vertices, faces)
    assert volume(mesh.vertices, mesh.faces) > 0
    with pytest.raises(DataError, match=r"teapot\.obj: [\d,]+ edges are not passed once in each direction"):
        read_mesh("meshes/teapot.obj")


@pytest.mark.parametrize("suffix", ["ply", "off", "stl"])
def test_other_formats_through_trimesh(suffix: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((1, 2, 3))
    box.export(tmp_path / f"box.{suffix}")
    mesh = read_mesh(tmp_path / f"box.{suffix}")
    assert mesh.vertices.shape == (8, 3)
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(6)
    (tmp_path / f"box.{suffix}").write_bytes(b"nothing")
    with pytest.raises(DataError, match=rf"box\.{suffix}: "):
        read_mesh(tmp_path / f"box.{suffix}")


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.obj", "a.OBJ", ".hidden.obj", "notes.txt"):
        written(tmp_path, CUBE, name)
    assert [mesh.name for mesh in read_meshes(tmp_path)] == ["a", "b"]
    source = Source.of(tmp_path)
    assert "meshes" in source.kinds
    assert [len(mesh.faces) for mesh in source.meshes()] == [12, 12]
    assert source.described("meshes").endswith(": 2 closed meshes (a 12 faces, b 12 faces)")


def test_names_what_is_wrong(tmp_path: Path) -> None:
    lines = TETRAHEDRON.split("\n")
    for text, message in (
        ("\n".join(lines[:-2]), r"shape\.obj: 3 edges are not passed once in each direction: the mesh has holes"),
        (TETRAHEDRON.replace("f 1 3 2", "f 1 2 3"), r"6 edges|3 edges"),
        ("", r"no triangle in this file"),
        (TETRAHEDRON.replace("f 1 3 2", "f 1 3 9"), r"a face has a vertex that is not there; the file has 4"),
        (TETRAHEDRON.replace("f 1 3 2", "f 0 3 2"), r"a face has a vertex that is not there"),
        (TETRAHEDRON.replace("v 1 0 0", "v 1 x 0"), r"line 3 is no position or face, 'v 1 x 0'"),
        (TETRAHEDRON.replace("v 1 0 0", "v 1 0"), r"line 3 has fewer than three coordinates"),
        (TETRAHEDRON.replace("f 1 3 2", "f"), r"line 7 is no position or face"),
        (TETRAHEDRON.replace("v 1 0 0", "v nan 0 0"), r"positions must be finite"),
    ):
        with pytest.raises(DataError, match=message):
            read_mesh(written(tmp_path, text))
    with pytest.raises(DataError, match=r"shape\.txt: not a mesh file"):
        read_mesh(written(tmp_path, CUBE, "shape.txt"))
    with pytest.raises(DataError, match="no such file, folder or registry key"):
        read_mesh(tmp_path / "none.obj")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no mesh in this folder"):
        read_meshes(empty)
