"""Marching cubes against scikit-image, closed forms, and the topology of what is inside."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import generate_binary_structure, label
from tests.geometry.isosurface.shapes import (
    area,
    ball,
    euler_number,
    grid,
    is_closed,
    normal,
    pieces,
    torus,
    volume,
)
from torch import Tensor

from throughline.geometry.isosurface import marching_cubes

N = 32
STEP = 2 / (N - 1)


def double_torus(x: Tensor) -> Tensor:
    """Two rings that overlap in one place: genus 2."""
    shift = x.new_tensor([0.42, 0.0, 0.0])
    return torch.minimum(torus(x - shift, 0.4, 0.13), torus(x + shift, 0.4, 0.13))


def shell(x: Tensor) -> Tensor:
    return torch.maximum(ball(x, 0.7), -ball(x, 0.4))


FIELDS = {
    "ball": (ball, 2),
    "torus": (torus, 0),
    "double torus": (double_torus, -2),
    "shell": (shell, 4),
    "two balls": (lambda x: torch.minimum(ball(x, 0.3, (-0.5, 0, 0)), ball(x, 0.3, (0.5, 0, 0))), 4),
}


def noise(seed: int, *shape: int) -> Tensor:
    """Random values, with a layer of outside around them."""
    return torch.nn.functional.pad(normal(*shape, seed=seed), (1,) * 6, value=1.0)


def in_order(vertices: Tensor | np.ndarray) -> np.ndarray:
    rows = np.asarray(vertices, dtype=float)
    return rows[np.lexsort(np.round(rows, 4).T)]


# ---- topology ----


@pytest.mark.parametrize("name", FIELDS)
def test_counts_the_holes(name: str) -> None:
    field, euler = FIELDS[name]
    vertices, faces = marching_cubes(field(grid(N)), spacing=STEP, origin=-1.0)
    assert is_closed(faces)
    assert euler_number(vertices, faces) == euler
    assert faces.unique().tolist() == list(range(len(vertices)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 7)] * 3))
def test_random_fields_are_closed_and_keep_their_pieces(seed: int, shape: tuple[int, int, int]) -> None:
    """Inside points are joined along the axes, outside points also across faces: each sheet lies between a piece of the
    one and a piece of the other, and these form a tree."""
    values = noise(seed, *shape)
    vertices, faces = marching_cubes(values)
    assert is_closed(faces)
    inside = values.numpy() < 0
    of_inside = label(inside, generate_binary_structure(3, 1))[1]
    of_outside = label(~inside, generate_binary_structure(3, 2))[1]
    assert pieces(len(vertices), faces) == of_inside + of_outside - 1
    assert euler_number(vertices, faces) % 2 == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_values_at_the_level_are_outside_and_tear_nothing(seed: int) -> None:
    values = noise(seed, 4, 5, 6).mul(1.5).round()
    assert (values == 0).any()
    vertices, faces = marching_cubes(values)
    assert is_closed(faces)
    assert vertices.isfinite().all()
    barely, other = marching_cubes(torch.where(values == 0, 1e-9, values))
    assert torch.equal(other, faces)
    torch.testing.assert_close(barely, vertices, atol=1e-8, rtol=0)


def test_a_vertex_is_on_each_crossed_edge_once() -> None:
    values = noise(3, 5, 6, 4)
    inside = values < 0
    crossed = sum(
        int((inside.narrow(d, 1, n - 1) ^ inside.narrow(d, 0, n - 1)).sum()) for d, n in enumerate(inside.shape)
    )
    vertices, _ = marching_cubes(values)
    assert len(vertices) == crossed == len(vertices.unique(dim=0))
    off = (vertices - vertices.round()).abs() > 1e-12
    assert (off.sum(1) == 1).all()


def test_is_open_where_it_leaves_the_grid() -> None:
    values = ball(grid(12), 1.2)
    vertices, faces = marching_cubes(values)
    assert not is_closed(faces)
    padded = torch.nn.functional.pad(values, (1,) * 6, value=1.0)
    assert is_closed(marching_cubes(padded)[1])
    one = torch.tensor([-1.0, 1.0]).view(2, 1, 1).expand(2, 2, 2)
    vertices, faces = marching_cubes(one)  # a single cube, cut in two
    assert len(vertices) == 4
    assert len(faces) == 2
    assert (vertices[:, 0] == 0.5).all()


# ---- geometry ----


@pytest.mark.parametrize("name", FIELDS)
def test_agrees_with_scikit_image_on_smooth_fields(name: str) -> None:
    from skimage.measure import marching_cubes as of_skimage

    values = FIELDS[name][0](grid(N)).float() + 1e-4
    ours = marching_cubes(values, 0.05, spacing=STEP)
    theirs = of_skimage(values.numpy(), 0.05, spacing=(STEP,) * 3)[:2]
    np.testing.assert_allclose(in_order(ours[0]), in_order(theirs[0]), atol=1e-5)
    other = torch.from_numpy(theirs[0].copy()).double(), torch.from_numpy(theirs[1].astype(np.int64))
    assert area(ours[0].double(), ours[1]).item() == pytest.approx(area(*other).item(), rel=1e-3)
    assert volume(ours[0].double(), ours[1]).item() == pytest.approx(abs(volume(*other).item()), rel=3e-3)


def test_agrees_with_scikit_image_on_the_vertices_of_noise() -> None:
    from skimage.measure import marching_cubes as of_skimage

    values = noise(0, 9, 8, 7).float()
    theirs = of_skimage(values.numpy(), 0.0, method="lorensen", allow_degenerate=True)[0]
    np.testing.assert_allclose(in_order(marching_cubes(values)[0]), in_order(np.unique(theirs, axis=0)), atol=1e-5)


def test_spacing_origin_and_level() -> None:
    values = ball(grid(24), 0.0)
    plain, faces = marching_cubes(values, 0.6)
    spacing, origin = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, -1.0, 0.0])
    moved, same = marching_cubes(values, 0.6, spacing=spacing, origin=origin)
    torch.testing.assert_close(moved, plain * spacing + origin.double())
    assert torch.equal(same, faces)
    torch.testing.assert_close(marching_cubes(values, 0.6, spacing=2.0, origin=1.0)[0], 2 * plain + 1)
    radii = torch.linalg.vector_norm(marching_cubes(values, 0.6, spacing=2 / 23, origin=-1.0)[0], dim=1)
    torch.testing.assert_close(radii, torch.full_like(radii, 0.6), atol=3e-3, rtol=0)
    assert radii.max() < 0.6 + 1e-9  # chords lie inside of a ball


def test_area_and_volume_converge() -> None:
    off = []
    for n in (20, 40):
        mesh = marching_cubes(torus(grid(n)), spacing=2 / (n - 1), origin=-1.0)
        off.append((volume(*mesh).item() - 2 * math.pi**2 * 0.5 * 0.04, area(*mesh).item() - 4 * math.pi**2 * 0.1))
    assert abs(off[1][0]) < 2e-2 * 2 * math.pi**2 * 0.5 * 0.04
    assert abs(off[0][0] / off[1][0]) == pytest.approx(4, rel=0.3)
    assert abs(off[1][1]) < 2e-2


def test_planes_are_exact_along_each_axis() -> None:
    for axis in range(3):
        for sign in (1.0, -1.0):
            x = grid(5)[..., axis]
            vertices, faces = marching_cubes(sign * (x - 0.3), spacing=0.5, origin=-1.0)
            torch.testing.assert_close(vertices[:, axis], torch.full((25,), 0.3, dtype=torch.float64))
            a, b, c = vertices[faces].unbind(1)
            up = torch.linalg.cross(b - a, c - a)[:, axis]
            assert (sign * up > 0).all()
            assert len(faces) == 32


# ---- gradient ----


def test_gradient_is_that_of_the_interpolation() -> None:
    values = noise(1, 3, 4, 3).requires_grad_()
    vertices, _ = marching_cubes(values, 0.1)
    along = (vertices - vertices.detach().floor()).detach()
    axis = along.argmax(1)
    low = vertices.detach().floor().long()
    high = low.scatter_add(1, axis[:, None], torch.ones_like(axis)[:, None])
    weight = normal(len(vertices), seed=2)
    chosen = vertices.gather(1, axis[:, None])[:, 0]
    (found,) = torch.autograd.grad((weight * chosen).sum(), values)
    a, b = (values.detach()[tuple(end.T)] for end in (low, high))
    wanted = torch.zeros_like(found)
    wanted.index_put_(tuple(low.T), weight * (0.1 - b) / (b - a) ** 2, accumulate=True)  # of (l − a) / (b − a)
    wanted.index_put_(tuple(high.T), weight * (a - 0.1) / (b - a) ** 2, accumulate=True)
    torch.testing.assert_close(found, wanted)


# ---- limits ----


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_no_surface_is_an_empty_mesh(value: float) -> None:
    values = torch.full((3, 4, 5), value, requires_grad=True)
    vertices, faces = marching_cubes(values)
    assert vertices.shape == faces.shape == (0, 3)
    assert faces.dtype == torch.int64
    assert vertices.dtype == torch.float32
    vertices.sum().backward()
    assert (values.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_has_the_same_faces(dtype: torch.dtype) -> None:
    values = ball(grid(16), 0.53).to(dtype)
    vertices, faces = marching_cubes(values, spacing=2 / 15, origin=-1.0)
    exact, same = marching_cubes(values.double(), spacing=2 / 15, origin=-1.0)
    assert vertices.dtype == dtype
    assert torch.equal(faces, same)
    torch.testing.assert_close(vertices.double(), exact, atol=1e-2, rtol=1e-2)


def test_the_level_is_rounded_as_the_values_are() -> None:
    values = torch.tensor([0.1, 1.0]).view(2, 1, 1).expand(2, 2, 2)
    assert not len(marching_cubes(values, 0.1)[0])  # the float32 nearest to 0.1 is at the level, not below it


def test_takes_any_layout() -> None:
    values = torus(grid(10)).permute(2, 0, 1)
    vertices, faces = marching_cubes(values)
    contiguous, same = marching_cubes(values.contiguous())
    assert torch.equal(vertices, contiguous)
    assert torch.equal(faces, same)
    assert not marching_cubes(noise(0, 2, 2, 2))[0].requires_grad


def test_names_the_bad_argument() -> None:
    values = torch.zeros(3, 3, 3)
    for bad, error, message in (
        (values.long(), TypeError, r"values must be floating point, got torch\.int64"),
        ([[[0.0]]], TypeError, r"values must be a tensor, got list"),
        (values[0], ValueError, r"values must be \(X, Y, Z\), at least 2 along each, got shape \(3, 3\)"),
        (values[:1], ValueError, r"values must be .* got shape \(1, 3, 3\)"),
        (values.index_fill(0, torch.tensor([1]), torch.nan), ValueError, r"values must be finite, got 9 of 27 values"),
        (values + torch.inf, ValueError, r"values must be finite, got 27 of 27"),
    ):
        with pytest.raises(error, match=message):
            marching_cubes(bad)  # type: ignore[arg-type]
    for options, message in (
        ({"level": math.nan}, r"level must be finite, got nan"),
        ({"spacing": torch.ones(2)}, r"spacing must be a number or \(3,\), got shape \(2,\)"),
        ({"origin": torch.ones(3, 1)}, r"origin must be a number or \(3,\), got shape \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            marching_cubes(values, **options)
