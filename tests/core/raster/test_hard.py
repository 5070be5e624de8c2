"""The z-buffer against ray casting by hand, closed forms and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.core.raster.meshes import centred, outside, plain, random, seeded, soup, sphere
from torch import Tensor

from throughline.core.camera import Camera, look_at
from throughline.core.raster import Fragments, hard, interpolate, rasterize, visible_vertices
from throughline.core.rotation import so3_exp


def cast(vertices: Tensor, faces: Tensor, camera: Camera, near: float = 1e-3) -> tuple[np.ndarray, ...]:
    """Every ray against every face, each a linear system: corners' weights and depth from [-d | ab | ac] x = -a."""
    points, K = camera.to_camera(vertices).numpy(), camera.K.numpy()
    height, width = camera.image_size
    face, weights = np.full((height, width), -1), np.zeros((height, width, 3))
    depth = np.full((height, width), np.inf)
    for i in range(height):
        for j in range(width):
            ray = np.linalg.solve(K, [j, i, 1.0])
            for number, corners in enumerate(points[faces.numpy()]):
                a, b, c = corners
                matrix = np.stack([-ray, b - a, c - a], 1)
                if np.linalg.det(matrix) == 0:
                    continue
                z, s, t = np.linalg.solve(matrix, -a)
                if min(s, t, 1 - s - t) >= 0 and z >= near and z < depth[i, j]:
                    face[i, j], depth[i, j], weights[i, j] = number, z, (1 - s - t, s, t)
    return face, weights, depth


def check_cast(vertices: Tensor, faces: Tensor, camera: Camera, near: float = 1e-3) -> Fragments:
    found = rasterize(vertices, faces, camera, near=near)
    for got, want in zip(found, cast(vertices, faces, camera, near), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-8, atol=1e-8)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [0.2, 1.0])
def test_agrees_with_ray_casting(seed: int, size: float) -> None:
    found = check_cast(*soup(12, seed=10 * seed, size=size), centred(11, 17, 14.0))
    assert 0 < (found.face >= 0).sum() < 11 * 17


@pytest.mark.parametrize("near", [1e-3, 0.7])
def test_faces_that_reach_behind_the_camera_are_drawn(near: float) -> None:
    vertices, faces = soup(14, seed=3, size=2.0)
    vertices[:, 2] -= 4.0
    depth = vertices[faces][..., 2]
    assert ((depth < near).any(1) & (depth > near).any(1)).sum() > 5
    check_cast(vertices, faces, centred(9, 12, 6.0), near)


def test_a_camera_with_skew_turned_and_moved() -> None:
    K = torch.tensor([[20.0, 3.0, 7.3], [0.0, 15.0, 4.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    camera = Camera(
        K, so3_exp(torch.tensor([0.2, -0.3, 0.1]).double()), torch.tensor([0.1, 0.2, 0.5]).double(), (9, 13)
    )
    check_cast(*soup(10, seed=5), camera)


def test_pixels_of_a_triangle_by_counting() -> None:
    """Corners on pixels (0, 0), (9, 0) and (0, 9): of line i the pixels 0 … 9 - i, the edges with them."""
    corners = torch.tensor([[0.0, 0.0, 1.0], [9.0, 0.0, 1.0], [0.0, 9.0, 1.0]], dtype=torch.float64)
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0]):
        found = rasterize(3 * corners, torch.tensor([order]), plain(12, 12))
        i, j = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
        assert torch.equal(found.face >= 0, i + j <= 9)
        inside = found.face >= 0
        weights = torch.stack([1 - (i + j) / 9, j / 9, i / 9], -1)[..., order].double()
        torch.testing.assert_close(found.barycentric[inside], weights[inside], rtol=0, atol=1e-6)
        assert (found.depth[inside] - 3).abs().max() < 1e-12
        assert torch.equal(found.depth[~inside], torch.full_like(found.depth[~inside], math.inf))
        assert not found.barycentric[~inside].any()


def test_a_sphere_has_its_silhouette_and_its_depth() -> None:
    vertices, faces = sphere(40)
    camera = outside(48)
    found = rasterize(vertices, faces, camera)
    i, j = torch.meshgrid(torch.arange(48.0).double(), torch.arange(48.0).double(), indexing="ij")
    ray = torch.stack([(j - 23.5) / 48, (i - 23.5) / 48, torch.ones_like(i)], -1)
    # |z ray - c|² = 1 with the centre c = (0, 0, 3)
    a, b, c = ray.square().sum(-1), 3 * ray[..., 2], 8.0
    root = b.square() - a * c
    sure = root.abs() > 0.06  # the polyhedron is a little smaller than the sphere
    assert torch.equal((found.face >= 0)[sure], (root > 0)[sure])
    exact = (b - root.clamp_min(0).sqrt()) / a
    seen = sure & (root > 0)
    assert (found.depth - exact)[seen].abs().max() < 0.02
    assert (found.depth >= exact - 1e-9)[seen].all()  # corners are on the sphere, faces inside


def test_barycentric_coordinates_give_the_point_on_the_ray() -> None:
    vertices, faces = soup(30, seed=2)
    camera = centred(20, 24, 18.0)
    found = rasterize(vertices, faces, camera)
    seen = found.face >= 0
    points = interpolate(found, faces, vertices)[seen]
    v, u = seen.nonzero().unbind(1)
    uv, z = camera.project(points)
    torch.testing.assert_close(uv, torch.stack([u, v], -1).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(z, found.depth[seen])
    torch.testing.assert_close(found.barycentric[seen].sum(-1), torch.ones(int(seen.sum())).double())


@given(st.integers(0, 2**16), st.floats(0.02, 1.0), st.sampled_from([torch.float32, torch.float64]))
def test_a_wall_has_no_cracks(seed: int, jitter: float, dtype: torch.dtype) -> None:
    """A triangulated plane that fills the image, in any position: no pixel may fall between two faces."""
    side = 9
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).double().flatten(0, 1)
    grid = grid + jitter * 0.3 * (torch.rand(grid.shape, generator=seeded(seed), dtype=torch.float64) - 0.5)
    vertices = torch.cat([grid - (side - 1) / 2, 0.2 * random(len(grid), 1, seed=seed)], 1)
    number = torch.arange(side**2).view(side, side)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).flatten(0, 1), torch.stack([c, b, d], -1).flatten(0, 1)])
    tilt = 0.3 * random(3, seed=seed + 1).tanh()
    camera = Camera(centred(31, 37, 30.0).K, so3_exp(tilt), torch.tensor([0.0, 0.0, 3.0]).double(), (31, 37))
    assert (rasterize(vertices.to(dtype), faces, camera.to(dtype)).face >= 0).all()


def test_pixels_on_a_common_edge_belong_to_somebody() -> None:
    """Edges through the centres of pixels, in both directions and on the diagonal."""
    side = 7
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).flatten(0, 1)
    number = torch.arange(side**2).view(side, side)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).flatten(0, 1), torch.stack([c, b, d], -1).flatten(0, 1)])
    for z in (1.0, 0.7, 3.1):
        for dtype in (torch.float32, torch.float64):
            vertices = torch.cat([2 * grid.to(dtype), torch.ones(side**2, 1, dtype=dtype)], 1) * z
            found = rasterize(vertices, faces, plain(13, 13, dtype=dtype)).face
            assert (found[1:-1, 1:-1] >= 0).all()  # the outer edge may be off by rounding


def test_the_nearest_wins_and_of_equals_the_first() -> None:
    corners = torch.tensor([[-50.0, -50.0, 1.0], [50.0, -50.0, 1.0], [0.0, 90.0, 1.0]], dtype=torch.float64)
    for depths, winner in (((3.0, 2.0, 5.0), 1), ((2.0, 2.0, 2.0), 0), ((5.0, 4.0, 4.0), 1), ((4.0, 9.0, 4.0), 0)):
        vertices = torch.cat([z * corners for z in depths])
        found = rasterize(vertices, torch.arange(9).view(3, 3), plain(5, 5))
        assert (found.face == winner).all()
        assert (found.depth - min(depths)).abs().max() < 1e-12


@pytest.mark.parametrize("z", [2.0, 1e3, 1e6, 1e-2])
def test_far_and_close_faces_are_seen(z: float) -> None:
    corners = torch.tensor([[-50.0, -50.0, 1.0], [50.0, -50.0, 1.0], [0.0, 90.0, 1.0]])
    found = rasterize(z * corners, torch.tensor([[0, 1, 2]]), plain(3, 3, dtype=torch.float32))
    torch.testing.assert_close(found.depth, torch.full((3, 3), z))


def test_what_is_nearer_than_near_or_behind_is_not_drawn() -> None:
    corners = torch.tensor([[-50.0, -50.0, 1.0], [50.0, -50.0, 1.0], [0.0, 90.0, 1.0]], dtype=torch.float64)
    faces = torch.arange(6).view(2, 3)
    both = torch.cat([0.5 * corners, 2 * corners])
    assert (rasterize(both, faces, plain(3, 3)).face == 0).all()
    assert (rasterize(both, faces, plain(3, 3), near=0.6).face == 1).all()
    assert (rasterize(-both, faces, plain(3, 3)).face == -1).all()


def test_nothing_to_draw_is_an_empty_image() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    for vertices in (random(5, 3), random(0, 3)):
        found = rasterize(vertices, none, plain(2, 3))
        assert torch.equal(found.face, torch.full((2, 3), -1))
        assert torch.equal(found.depth, torch.full((2, 3), math.inf).double())
        image = interpolate(found, none, torch.ones(len(vertices), 4), background=torch.arange(4.0))
        assert torch.equal(image, torch.arange(4.0).expand(2, 3, 4))
    flat = torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
    assert (rasterize(flat, torch.tensor([[0, 1, 2], [0, 0, 0]]), plain(3, 3)).face == -1).all()


def gradient(vertices: Tensor, faces: Tensor, camera: Camera) -> None:
    seen = rasterize(vertices, faces, camera).face >= 0
    assert seen.sum() >= 20
    weights, more = random(int(seen.sum()), 3, seed=7), random(int(seen.sum()), seed=8)

    def value(vertices: Tensor, K: Tensor, R: Tensor, t: Tensor) -> Tensor:
        found = rasterize(vertices, faces, Camera(K, R, t, camera.image_size))
        return (found.barycentric[seen] * weights).sum() + (found.depth[seen] * more).sum()

    leaves = [x.clone().requires_grad_() for x in (vertices, camera.K, camera.R, camera.t)]
    assert torch.autograd.gradcheck(value, leaves, eps=1e-7, atol=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    gradient(*soup(6, seed=1, size=1.5), centred(8, 9, 7.0))


def test_gradients_of_faces_that_reach_behind_the_camera() -> None:
    vertices = torch.tensor([[-3.0, 1.0, -2.0], [4.0, 1.0, -1.0], [0.5, 1.2, 9.0]], dtype=torch.float64)
    gradient(vertices, torch.tensor([[0, 1, 2]]), centred(8, 9, 7.0))


def test_gradients_in_a_batch_stay_in_their_image() -> None:
    vertices, faces = soup(6, seed=1, size=1.5)
    batch = torch.stack([vertices, vertices + 0.1, vertices - 0.1]).requires_grad_()
    depth = rasterize(batch, faces, centred(8, 9, 7.0)).depth
    depth[1][depth[1].isfinite()].sum().backward()
    assert not batch.grad[[0, 2]].any()
    alone = batch[1].detach().requires_grad_()
    depth = rasterize(alone, faces, centred(8, 9, 7.0)).depth
    depth[depth.isfinite()].sum().backward()
    torch.testing.assert_close(batch.grad[1], alone.grad, rtol=1e-12, atol=1e-12)


def test_single_precision_has_the_gradients_of_double() -> None:
    vertices, faces = sphere(20)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        x = vertices.to(dtype, copy=True).requires_grad_()
        found = rasterize(x, faces, outside(40).to(dtype))
        points = interpolate(found, faces, vertices.sin().to(dtype))
        (points.square().sum() + found.depth[found.depth.isfinite()].sum()).backward()
        gradients.append(x.grad.double())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


def test_cameras_and_meshes_broadcast() -> None:
    vertices, faces = soup(8, seed=4)
    moved = torch.stack([vertices, vertices + 0.2, vertices - 0.3])
    cameras = centred(7, 8, 6.0, 2, 1)
    cameras.t[1, 0] = torch.tensor([0.3, -0.1, 0.5])
    found = rasterize(moved, faces, cameras)
    assert found.barycentric.shape == (2, 3, 7, 8, 3)
    for i in range(2):
        for j in range(3):
            one = rasterize(moved[j], faces, Camera(cameras.K, cameras.R, cameras.t[i, 0], (7, 8)))
            for got, want in zip(found, one, strict=True):
                torch.testing.assert_close(got[i, j], want)


@pytest.mark.parametrize("pairs", [1, 7, 40])
def test_meshes_larger_than_a_block_go_in_several(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = soup(12, seed=4)
    batch = torch.stack([vertices, vertices + 0.2, vertices - 0.3]).requires_grad_()
    results = []
    for limit in (hard.PAIRS, pairs):
        monkeypatch.setattr(hard, "PAIRS", limit)
        found = rasterize(batch, faces, centred(7, 8, 6.0))
        results.append((*found, torch.autograd.grad(found.barycentric.square().sum(), batch)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_second_derivative_is_refused() -> None:
    vertices, faces = soup(8, seed=4)
    vertices.requires_grad_()
    total = rasterize(vertices, faces, centred(7, 8, 6.0)).barycentric.square().sum()
    (first,) = torch.autograd.grad(total, vertices, create_graph=True)
    with pytest.raises(RuntimeError, match="rasterisation is differentiable once"):
        first.sum().backward()


# Interpolation


def test_attributes_are_interpolated_in_space_and_not_in_the_image() -> None:
    """A floor that recedes: its own coordinate at each pixel is that of the ray's meeting with the plane."""
    floor = torch.tensor([[-40.0, 1.0, 2.0], [40.0, 1.0, 2.0], [0.0, 1.0, 90.0]], dtype=torch.float64)
    faces, camera = torch.tensor([[0, 1, 2]]), centred(21, 21, 30.0)
    found = rasterize(floor, faces, camera)
    seen = (found.face >= 0).nonzero()
    value = interpolate(found, faces, floor[:, 2:])[found.face >= 0][:, 0]
    torch.testing.assert_close(value, 30.0 / (seen[:, 0] - 10).double())  # z = f / (v - c_y) on the plane y = 1


def test_gradients_of_attributes_background_and_vertices() -> None:
    vertices, faces = soup(6, seed=1, size=1.5)
    camera = centred(8, 9, 7.0)

    def image(vertices: Tensor, attributes: Tensor, background: Tensor) -> Tensor:
        return interpolate(rasterize(vertices, faces, camera), faces, attributes, background=background)

    leaves = [x.requires_grad_() for x in (vertices, random(len(vertices), 2), random(2, seed=1))]
    assert torch.autograd.gradcheck(image, leaves, eps=1e-7, atol=1e-4)


def test_attributes_and_fragments_broadcast() -> None:
    vertices, faces = soup(8, seed=4)
    batch = torch.stack([vertices, vertices + 0.2])
    found = rasterize(batch, faces, centred(7, 8, 6.0))
    for attributes in (random(len(vertices), 3), random(2, len(vertices), 3), random(4, 1, len(vertices), 3)):
        image = interpolate(found, faces, attributes, background=0.5)
        lead = torch.broadcast_shapes((2,), attributes.shape[:-2])
        assert image.shape == (*lead, 7, 8, 3)
        wide = attributes.expand(*lead, *attributes.shape[-2:])
        for place in np.ndindex(*lead):
            b = place[-1]
            taken = (found.barycentric[b].unsqueeze(-1) * wide[place][faces[found.face[b]]]).sum(-2)
            want = torch.where((found.face[b] >= 0).unsqueeze(-1), taken, 0.5)
            torch.testing.assert_close(image[place], want)


def test_what_is_not_seen_does_not_spoil_what_is() -> None:
    vertices, faces = soup(8, seed=4)
    attributes = torch.ones(len(vertices), 1, dtype=torch.float64)
    found = rasterize(vertices, faces, centred(7, 8, 6.0))
    hidden = sorted(set(range(8)) - set(found.face.unique().tolist()))
    attributes[faces[hidden].flatten()] = torch.nan
    assert interpolate(found, faces, attributes).isfinite().all()


# Visibility


def test_the_front_of_a_sphere_is_visible() -> None:
    vertices, faces = sphere(24)
    camera = outside(96)
    seen = visible_vertices(vertices, faces, camera)
    facing = (vertices * (camera.center / camera.center.norm())).sum(-1) - 1 / 3  # of the tangent cone's circle
    assert seen[facing > 0.06].all()
    assert not seen[facing < -0.35].any()  # those closer to the outline have a pixel beside it


def test_visibility_by_casting_a_ray_to_each_vertex() -> None:
    """Two walls, of which the near one hides a part of the far one."""
    far = torch.cartesian_prod(torch.linspace(-2, 2, 9), torch.linspace(-2, 2, 9)).double()
    vertices = torch.cat(
        [
            torch.cat([far, torch.full((81, 1), 4.0)], 1),
            torch.tensor([[-9.0, -9, 2], [0.3, -9, 2], [0.3, 9, 2], [-9, 9, 2]]),
        ]
    )
    corner = torch.arange(81).view(9, 9)[:-1, :-1].flatten()
    faces = torch.cat(
        [
            torch.stack([corner, corner + 1, corner + 9], -1),
            torch.stack([corner + 1, corner + 10, corner + 9], -1),
            torch.tensor([[81, 82, 83], [81, 83, 84]]),
        ]
    )
    camera = centred(64, 64, 48.0)
    seen = visible_vertices(vertices, faces, camera)[:81]
    uv = camera.project(vertices[:81])[0]
    edge = 0.3 / 2 * 48 + 31.5
    sure = (uv[:, 0] - edge).abs() > 1
    assert torch.equal(seen[sure], (uv[:, 0] > edge)[sure] & (uv <= 63.5).all(-1)[sure] & (uv >= -0.5).all(-1)[sure])
    assert visible_vertices(vertices, faces, camera, tolerance=2.1)[:81][
        (uv.abs() < 63).all(-1) & (uv > 0).all(-1)
    ].all()


def test_only_what_is_in_the_image_and_in_front_is_visible() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    points = torch.tensor(
        [[-0.5, 0.0], [-0.51, 0.0], [3.5, 1.5], [3.51, 0.0], [0.0, 1.51], [0.0, -0.51], [2.0, -0.5]]
    ).double()
    for z, seen in ((1.0, [1, 0, 1, 0, 0, 0, 1]), (5e-4, [0] * 7), (-1.0, [0] * 7)):
        vertices = torch.cat([points * z, torch.full((7, 1), z).double()], 1)
        assert visible_vertices(vertices, none, plain(2, 4)).tolist() == [bool(s) for s in seen]


def test_each_image_of_a_batch_has_its_own_visible_vertices() -> None:
    vertices, faces = sphere(12)
    eyes = torch.tensor([[0.0, 0, -3], [3.0, 0, 0]]).double()
    cameras = look_at(eyes, focal_length=40.0, image_size=(40, 40))
    both = visible_vertices(vertices, faces, cameras)
    for eye, seen in zip(eyes, both, strict=True):
        assert torch.equal(
            seen, visible_vertices(vertices, faces, look_at(eye, focal_length=40.0, image_size=(40, 40)))
        )
    assert not torch.equal(both[0], both[1])
