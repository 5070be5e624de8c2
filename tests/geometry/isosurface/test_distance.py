"""Signed distances against closed forms, least squares of SciPy for the nearest point, and solid angles in NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from tests.geometry.isosurface.shapes import box, box_distance, normal, seeded, torus
from torch import Tensor

from throughline.geometry.isosurface import distance, marching_cubes, signed_distance


def around(count: int, size: float = 2.0, seed: int = 0) -> Tensor:
    return size * (torch.rand(count, 3, generator=seeded(seed), dtype=torch.float64) - 0.5)


def by_least_squares(point: np.ndarray, corners: np.ndarray) -> float:
    """The distance to a triangle: the nearest of its weights that are not negative and sum to one."""
    heavy = 1e4
    weights, _ = nnls(np.vstack([corners.T, heavy * np.ones(3)]), np.append(point, heavy))
    return float(np.linalg.norm(weights / weights.sum() @ corners - point))


def solid_angle(point: np.ndarray, corners: np.ndarray) -> float:
    """Of a triangle, signed, by its dihedral angles on the sphere (Girard), in units of the whole sphere."""
    a, b, c = ((x - point) / np.linalg.norm(x - point) for x in corners)
    total = -math.pi
    for p, q, r in ((a, b, c), (b, c, a), (c, a, b)):
        u, v = q - (q @ p) * p, r - (r @ p) * p
        total += math.acos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1))
    return float(math.copysign(total, np.linalg.det([a, b, c])) / (4 * math.pi))


# ---- how far ----


def test_a_cube_in_closed_form() -> None:
    x = around(3000)
    torch.testing.assert_close(signed_distance(x, *box()), box_distance(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(signed_distance(x.float(), *box()), box_distance(x).float(), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_any_triangles_by_least_squares(seed: int, count: int) -> None:
    v, x = normal(3 * count, 3, seed=seed), around(6, 6.0, seed)
    faces = torch.arange(3 * count).view(count, 3)
    if count > 2:
        v[1] = v[0]  # a face that is a segment
        v[4] = v[5] = v[3]  # and one that is a point
    found = signed_distance(x, v, faces).abs()
    for point, got in zip(x.numpy(), found.tolist(), strict=True):
        wanted = min(by_least_squares(point, c) for c in v[faces].numpy())
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_points_on_the_mesh_are_at_zero() -> None:
    v, faces = box()
    middles = v[faces].mean(1)
    on = torch.cat([v, middles, (v[faces][:, 0] + v[faces][:, 1]) / 2])
    assert signed_distance(on, v, faces).abs().max() < 1e-15


def test_parts_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, mesh = around(500), marching_cubes(torus(_grid()), spacing=0.1, origin=-1.0)
    wanted = signed_distance(x, *mesh)
    opened = signed_distance(x, mesh[0], mesh[1][1:])
    monkeypatch.setattr(distance, "PAIRS", 700)
    torch.testing.assert_close(signed_distance(x, *mesh), wanted, atol=1e-14, rtol=0)
    torch.testing.assert_close(signed_distance(x, mesh[0], mesh[1][1:]), opened, atol=1e-14, rtol=0)


def _grid() -> Tensor:
    axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def test_points_may_be_as_far_away_as_numbers_go() -> None:
    v, faces = box()
    x = torch.tensor([[0.0, 0, 0], [1e25, 0, 0], [0, 0, -3e30], [1, 0, 0]])
    torch.testing.assert_close(signed_distance(x[2:3], 1e-10 * v, faces), torch.tensor([3e30]))
    torch.testing.assert_close(signed_distance(x[:2], v, faces), torch.tensor([-0.5, 1e25]))


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e12])
def test_works_in_any_unit(size: float) -> None:
    x = around(200)
    v, faces = box()
    found = signed_distance((size * x).float(), (size * v).float(), faces)
    torch.testing.assert_close(found / size, box_distance(x).float(), atol=2e-6, rtol=0)


def test_gradients_are_the_normals() -> None:
    x, (v, faces) = around(300).requires_grad_(), box()
    signed_distance(x, v, faces).sum().backward()
    twin = x.detach().clone().requires_grad_()
    box_distance(twin).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    v.requires_grad_()
    signed_distance(x.detach(), v, faces).sum().backward()
    torch.testing.assert_close(v.grad.sum(0), -twin.grad.sum(0))  # all that moves the mesh moves the points back


# ---- on which side ----


def test_parts_that_overlap_are_one() -> None:
    (v, faces), (w, others) = box(1.0), box(1.0, (0.4, 0.3, 0.2))
    x = around(2000, 3.0)
    both = signed_distance(x, torch.cat([v, w]), torch.cat([faces, others + 8]))
    shift = torch.tensor([0.4, 0.3, 0.2], dtype=torch.float64)
    inside = (x.abs() < 0.5).all(1) | ((x - shift).abs() < 0.5).all(1)
    assert torch.equal(both < 0, inside)


def test_an_inner_surface_that_is_turned_makes_a_cavity() -> None:
    (v, faces), (w, others) = box(1.0), box(0.5)
    x = around(2000, 1.4)
    found = signed_distance(x, torch.cat([v, w]), torch.cat([faces, others.flip(1) + 8]))
    assert torch.equal(found < 0, (x.abs() < 0.5).all(1) & ~(x.abs() < 0.25).all(1))
    alike = signed_distance(x, torch.cat([v, w]), torch.cat([faces, others + 8]))
    assert torch.equal(alike < 0, (x.abs() < 0.5).all(1))  # wound twice is inside too


def test_a_mesh_turned_inside_out_has_no_inside() -> None:
    v, faces = box()
    x = around(200)
    found = signed_distance(x, v, faces.flip(1))
    torch.testing.assert_close(found, box_distance(x).abs(), atol=1e-12, rtol=0)


def test_holes_are_closed_as_by_a_skin() -> None:
    """Of an open mesh, by solid angles of spherical triangles."""
    v, faces = box()
    x = around(150, 1.6)
    for gone in ([0], [0, 1], [0, 1, 2, 3, 4, 5]):
        kept = torch.tensor([i for i in range(12) if i not in gone])
        found = signed_distance(x, v, faces[kept])
        turns = np.array([sum(solid_angle(p, c) for c in v[faces[kept]].numpy()) for p in x.numpy()])
        sure = np.abs(turns - 0.5) > 1e-6
        assert np.array_equal((found < 0).numpy()[sure], (turns > 0.5)[sure])
        assert 0 < int((found < 0).sum()) < 150


def test_a_ray_slips_through_no_edge() -> None:
    """On a mesh of thousands of faces every point is on the side that the field says."""
    values = torus(_grid())
    v, faces = marching_cubes(values, spacing=0.1, origin=-1.0)
    x = around(20_000)
    found = signed_distance(x, v, faces)
    clear = torus(x).abs() > 0.02  # further than chords are from the arc
    assert torch.equal(found[clear] < 0, torus(x)[clear] < 0)
    columns = _grid().flatten(0, 2)  # rays through vertices and edges of an upright cube
    w, cube = box(1.0)
    torch.testing.assert_close(signed_distance(columns, w, cube), box_distance(columns), atol=1e-12, rtol=0)


def test_a_mesh_split_along_its_edges_is_still_closed() -> None:
    """Faces of a soup share no vertices: only solid angles can tell, and they say the same."""
    v, faces = box()
    x = around(400)
    soup = signed_distance(x, v[faces].flatten(0, 1), torch.arange(36).view(12, 3))
    torch.testing.assert_close(soup, signed_distance(x, v, faces), atol=1e-12, rtol=0)


# ---- what it takes ----


def test_unused_vertices_do_not_count() -> None:
    v, faces = box()
    more = torch.cat([v, torch.full((1, 3), 1e9, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)])
    x = around(100)
    torch.testing.assert_close(signed_distance(x, more, faces), box_distance(x), atol=1e-12, rtol=0)


def test_no_points_and_other_dtypes() -> None:
    v, faces = box()
    assert signed_distance(torch.zeros(0, 3), v, faces).shape == (0,)
    x = around(50)
    half = signed_distance(x.bfloat16(), v, faces)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), box_distance(x.bfloat16().double()), atol=5e-3, rtol=1e-2)


def test_names_the_bad_argument() -> None:
    (v, faces), x = box(), torch.zeros(4, 3, dtype=torch.float64)
    for bad, error, message in (
        ((x[0], v, faces), ValueError, r"points must be \(N, 3\), got shape \(3,\)"),
        ((x.long(), v, faces), TypeError, r"points must be floating point"),
        ((x / 0, v, faces), ValueError, r"points must be finite, got 12 of 12"),
        ((x, v[:, :2], faces), ValueError, r"vertices must be \(N, 3\), got shape \(8, 2\)"),
        ((x, v / 0, faces), ValueError, r"vertices must be finite"),
        ((x, v, faces.int()), ValueError, r"faces must be int64, got torch\.int32"),
        ((x, v, faces[:0]), ValueError, r"faces must be \(F, 3\) with F at least 1, got shape \(0, 3\)"),
        ((x, v, faces[:, :2]), ValueError, r"faces must be \(F, 3\) with F at least 1, got shape \(12, 2\)"),
        ((x, v[:7], faces), ValueError, r"faces must be in \[0, 7\), got 7"),
        ((x, v, faces - 1), ValueError, r"faces must be in \[0, 8\), got -1"),
        ((x, v, faces.tolist()), TypeError, r"faces must be a tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            signed_distance(*bad)
