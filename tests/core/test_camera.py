"""Cameras against homogeneous coordinates by hand, SciPy's and grid_sample's idea of where a pixel is."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.camera import Camera, look_at, weak_perspective
from throughline.core.rotation import so3_exp


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def camera(*batch: int, size: tuple[int, int] = (40, 60)) -> Camera:
    K = torch.tensor([[90.0, 1.5, 30.2], [0.0, 80.0, 18.9], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return Camera(K, so3_exp(random(*batch, 3)), random(*batch, 3, seed=1) + 4 * torch.eye(3)[2].double(), size)


def test_projects_as_homogeneous_coordinates_do() -> None:
    seen, points = camera(2), random(2, 7, 3, seed=2)
    uv, depth = seen.project(points)
    for b in range(2):
        P = seen.K @ torch.cat([seen.R[b], seen.t[b, :, None]], 1)
        x = torch.cat([points[b], torch.ones(7, 1).double()], 1) @ P.T
        torch.testing.assert_close(depth[b], x[:, 2])
        torch.testing.assert_close(uv[b], x[:, :2] / x[:, 2:])
    torch.testing.assert_close(seen.unproject(uv, depth), points)
    torch.testing.assert_close(seen.to_world(seen.to_camera(points)), points)
    torch.testing.assert_close(seen.to_camera(seen.center[:, None]), torch.zeros(2, 1, 3).double(), rtol=0, atol=1e-12)


def test_batches_of_cameras_and_of_points_broadcast() -> None:
    seen, points = camera(4, 1), random(3, 5, 3, seed=2)
    assert seen.batch_shape == (4, 1)
    uv, depth = seen.project(points)
    assert (uv.shape, depth.shape) == ((4, 3, 5, 2), (4, 3, 5))
    one = Camera(seen.K, seen.R[2, 0], seen.t[2, 0], seen.image_size)
    torch.testing.assert_close(uv[2, 1], one.project(points[1])[0])
    torch.testing.assert_close(seen.unproject(uv, depth), points.expand(4, 3, 5, 3))


def test_results_have_the_precision_of_the_points() -> None:
    points = random(5, 3)
    for dtype in (torch.float32, torch.bfloat16):
        uv, depth = camera().project(points.to(dtype))
        assert (uv.dtype, depth.dtype) == (dtype, dtype)
        torch.testing.assert_close(uv.double(), camera().project(points.to(dtype).double())[0], rtol=1e-2, atol=1e-3)
    moved = camera().to(torch.float32)
    assert {moved.K.dtype, moved.R.dtype, moved.t.dtype} == {torch.float32}


@pytest.mark.parametrize("depth", [0.0, 1e-9, -1e-9, 9.9e-7])
def test_what_is_in_the_plane_of_the_camera_has_a_finite_pixel(depth: float) -> None:
    seen = Camera(torch.eye(3).double(), torch.eye(3).double(), torch.zeros(3).double(), (8, 8))
    point = torch.tensor([[1.0, -2.0, depth]], dtype=torch.float64, requires_grad=True)
    uv, z = seen.project(point)
    torch.testing.assert_close(uv.detach(), torch.tensor([[1e6, -2e6]], dtype=torch.float64))
    assert z.item() == depth
    assert torch.autograd.grad(uv.sum(), point)[0].isfinite().all()


def test_what_is_behind_is_projected_as_it_is() -> None:
    seen = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (8, 8))
    uv, z = seen.project(torch.tensor([[1.0, 2.0, -4.0]]))
    assert (uv.tolist(), z.tolist()) == ([[-0.25, -0.5]], [-4.0])


def test_a_crop_sees_the_same_from_its_corner() -> None:
    points, seen = random(6, 3), camera()
    cropped = seen.crop(5, -7, 12, 20)
    assert cropped.image_size == (12, 20)
    shift = torch.tensor([-7.0, 5.0]).double()
    torch.testing.assert_close(cropped.project(points)[0] + shift, seen.project(points)[0])
    assert torch.equal(seen.K, camera().K)


def test_a_resized_camera_agrees_with_interpolation() -> None:
    """An image whose value is its own u: resampled by torch, the values are where the old pixels were."""
    points, seen = random(6, 3), camera(size=(40, 60))
    for height, width in ((20, 30), (80, 180), (10, 60)):
        small = seen.resize((height, width))
        assert small.image_size == (height, width)
        u, v = small.project(points)[0].unbind(-1)
        old = torch.stack([(u + 0.5) * 60 / width - 0.5, (v + 0.5) * 40 / height - 0.5], -1)
        torch.testing.assert_close(old, seen.project(points)[0])
    ramp = torch.arange(60.0).expand(1, 1, 40, 60)
    halved = F.interpolate(ramp, size=(20, 30), mode="bilinear", align_corners=False)[0, 0, 0]
    torch.testing.assert_close((torch.arange(30.0) + 0.5) * 2 - 0.5, halved)


def test_pixel_centres_are_where_grid_sample_has_them() -> None:
    image = random(1, 1, 5, 8)
    seen = Camera(torch.eye(3).double(), torch.eye(3).double(), torch.zeros(3).double(), (5, 8))
    uv, _ = seen.project(torch.tensor([[6.0, 3.0, 1.0]]).double())  # the pixel of column 6 and line 3
    grid = 2 * uv / torch.tensor([7.0, 4.0]) - 1
    assert F.grid_sample(image, grid.view(1, 1, 1, 2), align_corners=True).item() == pytest.approx(
        image[0, 0, 3, 6].item()
    )


def test_looks_at_the_target_with_up_upwards() -> None:
    eye, target, up = random(5, 3) * 3, random(5, 3, seed=1), random(5, 3, seed=2)
    seen = look_at(eye, target, up=up, focal_length=70.0, image_size=(31, 64))
    torch.testing.assert_close(seen.center, eye)
    torch.testing.assert_close(seen.R @ seen.R.mT, torch.eye(3).double().expand(5, 3, 3))
    torch.testing.assert_close(torch.linalg.det(seen.R), torch.ones(5).double())
    uv, depth = seen.project(target[:, None])
    torch.testing.assert_close(uv[:, 0], torch.tensor([31.5, 15.0]).double().expand(5, 2))
    torch.testing.assert_close(depth[:, 0], (target - eye).norm(dim=-1))
    above, _ = seen.project((target + 0.01 * up)[:, None])
    torch.testing.assert_close(above[:, 0, 0], torch.full((5,), 31.5).double())  # exactly above it
    assert (above[:, 0, 1] < 15.0).all()


def test_a_camera_in_front_sees_left_and_right_as_people_do() -> None:
    seen = look_at([0, 0, 5], focal_length=10, image_size=(11, 11))  # looks along -z, y up: x is to the right
    uv, _ = seen.project(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(uv, torch.tensor([[7.0, 5.0], [5.0, 3.0]]))


def test_a_gradient_reaches_what_is_looked_from() -> None:
    eye = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    focal = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)

    def pixel(eye: Tensor, focal: Tensor) -> Tensor:
        return look_at(eye, focal_length=focal, image_size=(8, 8)).project(random(4, 3) / 4)[0]

    assert torch.autograd.gradcheck(pixel, (eye, focal))


def test_a_weak_camera_scales_and_shifts_the_plane_of_the_origin() -> None:
    weak = torch.tensor([[0.8, 0.2, -0.1], [1.3, 0.0, 0.4]], dtype=torch.float64)
    points = random(2, 6, 3) * torch.tensor([1.0, 1.0, 0.0]).double()
    seen = weak_perspective(weak, (50, 80), focal_length=300.0)
    uv, _ = seen.project(points)
    shown = weak[:, None, :1] * (points[..., :2] + weak[:, None, 1:])  # in units of half the shorter side
    torch.testing.assert_close(uv, 25 * shown + torch.tensor([39.5, 24.5]).double(), rtol=1e-7, atol=1e-7)
    assert seen.t[0, 2].item() == pytest.approx(2 * 300 / (50 * 0.8))


def test_a_weak_camera_of_no_scale_is_finite() -> None:
    assert weak_perspective(torch.zeros(3), (4, 4)).t.isfinite().all()


def test_the_corners_of_the_image() -> None:
    """The image spans half a pixel beyond the centres of its outer pixels."""
    seen = look_at((0.0, 0.0, -1.0), focal_length=32.0, image_size=(64, 64))
    half = math.tan(math.atan(1.0))  # the view is as wide as it is far
    uv, _ = seen.project(torch.tensor([[half, half, 0.0], [-half, -half, 0.0]]))
    torch.testing.assert_close(uv, torch.tensor([[-0.5, -0.5], [63.5, 63.5]]))


def test_what_does_not_fit_is_named() -> None:
    K, R, t = torch.eye(3), torch.eye(3), torch.zeros(3)
    for bad, message in (
        ((K[:2], R, t, (4, 4)), r"K must be \(\.\.\., 3, 3\), got shape \(2, 3\)"),
        ((K, R[None, :, :2], t, (4, 4)), r"R must be \(\.\.\., 3, 3\), got shape \(1, 3, 2\)"),
        ((K, R, t[:2], (4, 4)), r"t must be \(\.\.\., 3\), got shape \(2,\)"),
        ((K, R.expand(2, 3, 3), t.expand(3, 3), (4, 4)), r"leading dimensions of K, R and t must broadcast"),
        ((K, R, t, (0, 4)), r"image_size must be at least 1, got \(0, 4\)"),
        ((K, R, t, (4, 4, 3)), r"image_size must be height and width, got \(4, 4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Camera(*bad)
    with pytest.raises(TypeError, match=r"K must be floating point, got torch\.int64"):
        Camera(K.long(), R, t, (4, 4))
    with pytest.raises(TypeError, match=r"image_size must be two integers, got 4\.5"):
        Camera(K, R, t, (4.5, 4))
    seen = camera(2)
    with pytest.raises(ValueError, match=r"points must be \(\.\.\., N, 3\), got shape \(5, 2\)"):
        seen.project(torch.zeros(5, 2))
    with pytest.raises(
        ValueError, match=r"leading dimensions of points must broadcast with those of the camera, \(2,\)"
    ):
        seen.to_camera(torch.zeros(3, 5, 3))
    with pytest.raises(ValueError, match=r"uv must be \(\.\.\., N, 2\)"):
        seen.unproject(torch.zeros(5, 3), torch.zeros(5))
    with pytest.raises(ValueError, match=r"depth must be \(\.\.\., 5\) for 5 pixels, got \(4,\)"):
        seen.unproject(torch.zeros(5, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"height and width must be at least 1, got \(3, 0\)"):
        seen.crop(0, 0, 3, 0)
    with pytest.raises(ValueError, match=r"image_size must be at least 1"):
        seen.resize((0, 3))
