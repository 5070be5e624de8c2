"""Sensor layouts against dense integration, boundary integrals and their own symmetries."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.sensing.layout.formulas import BEND, SHAPES, boundary, dense, layout, motion, placed, radiance, scene
from torch.nn import functional as F

from throughline.sensing.layout import SensorLayout, box_average, unwarp_points, warp_points


@pytest.mark.parametrize(("shape", "samples", "bar"), [("rectangular", 1, 2e-5), ("curvilinear", 16, 2e-3)])
@pytest.mark.parametrize("bend", [BEND, (-0.5, 0.55), (0.0, 0.0)])
def test_measures_the_mean_over_each_pixel(shape: Any, samples: int, bar: float, bend: tuple[float, float]) -> None:
    image = scene(9, 14)
    ours = layout(bend=bend, shape=shape, samples=samples)(image[None])[0]
    expected = dense(image.numpy(), (3, 5), bend, shape)
    np.testing.assert_allclose(ours.detach().numpy(), expected, atol=bar)


def test_default_quadrature_keeps_its_promise_on_pixel_noise() -> None:
    image = scene(24, 32)
    expected = dense(image.numpy(), (6, 8), BEND, "curvilinear", n=120)
    for samples, bar in ((4, 0.04), (16, 0.003)):
        ours = layout((6, 8), shape="curvilinear", samples=samples)(image[None])[0].detach().numpy()
        assert np.sqrt(np.square(ours - expected).mean()) / expected.mean() < bar


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_layout_is_area_interpolation_of_the_interpolated_image(shape: Any) -> None:
    # a pixel of the bilinear image holds 3/4 of itself and 1/8 of each neighbour; their mean is the area interpolation
    image = scene(2, 3, 12, 20)
    tap = torch.tensor([1, 6, 1], dtype=torch.float64) / 8
    smooth = F.conv2d(
        F.pad(image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate"), (tap[:, None] * tap)[None, None]
    )
    expected = F.interpolate(smooth, (3, 5), mode="area").view(2, 3, 3, 5)
    ours = layout(bend=(0.0, 0.0), shape=shape, samples=16)(image)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12 if shape == "rectangular" else 2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_the_boundary_integral(shape: Any) -> None:
    """Reynolds: dI/dθ = (∮ L (n·∂φ/∂θ) dl - I ∮ (n·∂φ/∂θ) dl) / |φ(C)|, which the paper samples."""
    image, size = scene(6, 10), (3, 5)
    sensor = layout(size, shape=shape, samples=32)
    ours = torch.autograd.functional.jacobian(
        lambda raw: torch.func.functional_call(sensor, {"raw": raw}, image[None]), sensor.raw.detach()
    )[0]
    ours = ours / (0.6 - torch.tensor(BEND, dtype=torch.float64) ** 2 / 0.6)  # from raw to curvature: c (1 - tanh²)
    for i in range(size[0]):
        for j in range(size[1]):
            u, v = boundary((i, j), size, 4000)
            x, y = placed(u, v, BEND, shape)
            mid = [(p[1:] + p[:-1]) / 2 for p in (u, v)]
            light = radiance(image.numpy(), *placed(*mid, BEND, shape))
            ds, dt = motion(*mid, BEND, shape)
            flows = (ds * np.diff(y), -dt * np.diff(x))  # n dl = (dy, -dx), outwards for a clockwise path with y down
            area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
            value = dense(image.numpy(), size, BEND, shape, n=60)[i, j]
            expected = [((light * f).sum() - value * f.sum()) / area for f in flows]
            np.testing.assert_allclose(ours[i, j].numpy(), expected, atol=2e-4 if shape == "rectangular" else 2e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck(shape: Any) -> None:
    points = torch.tensor([[0.3, -0.4], [-0.2, 0.7], [0.9, 0.8], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    bend = torch.tensor(BEND, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, c: warp_points(p, c, shape=shape), (points, bend))
    assert torch.autograd.gradcheck(lambda p, c: unwarp_points(p, c, shape=shape), (points, bend))
    sensor = layout((2, 3), shape=shape, samples=3)
    image = scene(1, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(sensor, (image,))
    assert torch.autograd.gradcheck(lambda f: sensor.rectify(f, (4, 5)), (scene(1, 2, 3).requires_grad_(),))


def test_parameter_gradient_of_the_curvilinear_sensor_is_that_of_its_quadrature() -> None:
    sensor, image = layout((2, 3), shape="curvilinear", samples=3), scene(2, 7, 9)
    weight = scene(2, 2, 3, seed=1)
    (sensor(image) * weight).sum().backward()
    numeric = []
    for k in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[k]
        ends = [torch.func.functional_call(sensor, {"raw": sensor.raw.detach() + e}, image) for e in (step, -step)]
        numeric.append(((ends[0] - ends[1]) * weight).sum() / 2e-6)
    assert sensor.raw.grad is not None
    torch.testing.assert_close(sensor.raw.grad, torch.stack(numeric), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_share_out_the_scene(shape: Any) -> None:
    image, sensor = scene(2, 12, 18), layout((4, 6), shape=shape, samples=24)
    x, y = np.meshgrid(np.linspace(-1, 1, 6 * 80 + 1), np.linspace(-1, 1, 4 * 80 + 1))
    x, y = placed(x, y, BEND, shape)
    cross = (x[1:, 1:] - x[:-1, :-1]) * (y[1:, :-1] - y[:-1, 1:]) - (x[1:, :-1] - x[:-1, 1:]) * (
        y[1:, 1:] - y[:-1, :-1]
    )
    area = torch.from_numpy(np.abs(cross).reshape(4, 80, 6, 80).sum((1, 3)) / 8)
    assert area.sum() == pytest.approx(1, abs=1e-9)  # the warp is a bijection of the scene
    energy, expected = (sensor(image) * area).sum((-2, -1)), image.mean((-2, -1))
    torch.testing.assert_close(energy, expected, rtol=0, atol=1e-9 if shape == "rectangular" else 1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_constant_scene_stays_constant(shape: Any, dtype: torch.dtype) -> None:
    sensor = SensorLayout((3, 5), shape=shape, curvature=(0.55, -0.55), dtype=dtype)
    seen = sensor(torch.full((2, 1, 30, 40), 0.7, dtype=dtype))
    assert seen.dtype == dtype
    torch.testing.assert_close(seen, torch.full_like(seen, 0.7))


@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_follows_double(shape: Any) -> None:
    image = scene(2, 3, 40, 300)
    expected = layout((4, 30), shape=shape)(image)
    ours = layout((4, 30), shape=shape).to(torch.bfloat16)(image.bfloat16())
    assert (ours.double() - expected).abs().max() < 0.02  # point coordinates in bfloat16 alone would be off by 0.2


def test_weights_of_the_quadrature_are_the_jacobian_determinant() -> None:
    # one sample per "pixel" would cancel it: read it off two scenes' pixel, one sample each, a half-black scene
    sensor = layout((1, 1), shape="curvilinear", samples=6)
    image = torch.zeros(36, 6, 6, dtype=torch.float64)
    centers = (torch.arange(6, dtype=torch.float64) * 2 - 5) / 6
    points = torch.stack(torch.meshgrid(centers, centers, indexing="xy"), -1).view(36, 2)
    bend = torch.tensor(BEND, dtype=torch.float64)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda p: warp_points(p, bend, shape="curvilinear"), p) for p in points]
    )
    weights = torch.linalg.det(jacobians) / torch.linalg.det(jacobians).sum()
    image.view(36, 36).fill_diagonal_(1)  # unit pulses: their readings are the weights spread by interpolation
    spread = F.grid_sample(
        image[None],
        warp_points(points, bend, shape="curvilinear").view(1, 1, 36, 2),
        padding_mode="border",
        align_corners=False,
    )
    torch.testing.assert_close(sensor(image)[:, 0, 0], (spread[0, :, 0] * weights).sum(-1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_sample_on_the_centre_is_harmless(shape: Any, samples: int) -> None:
    sensor = SensorLayout((3, 5), shape=shape, samples=samples, curvature=(0.3, -0.2))  # odd q·w and q·h
    image = scene(1, 9, 15).float().requires_grad_()
    seen = sensor(image)
    flat = sensor.rectify(seen, (3, 5))
    corner = torch.zeros(1, 2, requires_grad=True)
    moved = warp_points(corner, sensor.curvature, shape=shape) + unwarp_points(corner, sensor.curvature, shape=shape)
    (seen.sum() + flat.square().sum() + moved.sum()).backward()
    for value in (seen, flat, sensor.raw.grad, image.grad, corner.grad):
        assert value is not None
        assert value.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_x_and_y_are_not_swapped(shape: Any) -> None:
    stripes = torch.linspace(0, 1, 40).expand(1, 20, 40)  # brightness is the x coordinate
    bent = SensorLayout((2, 4), shape=shape, curvature=(0.5, 0.0))
    even = SensorLayout((2, 4), shape=shape)
    assert (bent(stripes)[0, :, 2] < even(stripes)[0, :, 2] - 0.02).all()  # x crowds the centre
    upright = SensorLayout((2, 4), shape=shape, curvature=(0.0, 0.5))
    if shape == "rectangular":
        torch.testing.assert_close(upright(stripes), even(stripes))
    torch.testing.assert_close(bent(stripes), bent(stripes.flip(-1)).flip(-1))
    corners = bent.vertices()
    assert corners.shape == (3, 5, 2)
    torch.testing.assert_close(corners[1, 3], torch.tensor([0.5 * (0.5 / (1.5 - 0.5)), 0.0]))  # φ(1/2, 0) at s = 1/2
    torch.testing.assert_close(
        corners[[0, 0, 2, 2], [0, 4, 0, 4]], torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_rectified_readings_land_where_they_came_from(shape: Any) -> None:
    ys, xs = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    sensor = SensorLayout((24, 32), shape=shape, curvature=(0.5, 0.2))
    ramps = torch.stack([xs / 64, ys / 48])
    flat = sensor.rectify(sensor(ramps), (48, 64))
    assert (flat - ramps)[:, 4:-4, 4:-4].abs().max() < 0.02  # the error of linear interpolation between bent pixels
    labels = (xs > 40).long()[None]
    seen = (sensor(ramps)[:1] > 40 / 64).long()
    rebuilt = sensor.rectify(seen, (48, 64), mode="nearest")
    assert rebuilt.dtype == torch.long
    assert (rebuilt != labels).double().mean() < 0.05
    assert sensor.rectify(seen.expand(2, 5, 1, -1, -1), (6, 7), mode="nearest").shape == (2, 5, 1, 6, 7)


def test_rectify_without_curvature_is_interpolation() -> None:
    features = scene(2, 3, 4, 6).float()
    expected = F.interpolate(features, (8, 18), mode="bilinear", align_corners=False)
    torch.testing.assert_close(SensorLayout((4, 6), shape="curvilinear").rectify(features, (8, 18)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_learns_where_the_scene_differs(shape: Any) -> None:
    torch.manual_seed(0)
    image = torch.zeros(2, 1, 32, 32)
    image[1, :, 15:17] = 1  # a thin line through the middle: smaller pixels along y see it better
    sensor = SensorLayout(4, shape=shape)
    optimizer = torch.optim.SGD(sensor.parameters(), lr=3.0)
    for _ in range(20):
        optimizer.zero_grad()
        (-sensor(image)[1].amax()).backward()
        optimizer.step()
    assert sensor.curvature[1] > 0.3
    assert sensor.curvature.abs().max() < 0.6
    if shape == "rectangular":
        assert sensor.curvature[0].abs() < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_compiles_whole_to_the_same_answer(shape: Any) -> None:
    sensor, image = layout(shape=shape), scene(2, 1, 9, 14)
    compiled = torch.compile(sensor, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), sensor(image))
    rectify = torch.compile(sensor.rectify, fullgraph=True, backend="eager")
    torch.testing.assert_close(rectify(image, (5, 6)), sensor.rectify(image, (5, 6)))
    points, bend = scene(5, 2), torch.tensor(BEND, dtype=torch.float64)
    warp = torch.compile(warp_points, fullgraph=True, backend="eager")
    torch.testing.assert_close(warp(points, bend, shape=shape), warp_points(points, bend, shape=shape))


POINTS, FLAT = torch.zeros(3, 2), torch.zeros(2)

EDGES = torch.tensor([-1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SensorLayout(4, shape="hexagonal"), ValueError, r"shape must be .*got 'hexagonal'"),  # type: ignore[arg-type]
        (lambda: warp_points(POINTS, FLAT, shape="round"), ValueError, r"shape must be .*got 'round'"),  # type: ignore[arg-type]
        (lambda: SensorLayout(0), ValueError, r"size must be at least 1 .*got 0"),
        (lambda: SensorLayout((4, 0)), ValueError, r"size must be at least 1 .*got \(4, 0\)"),
        (lambda: SensorLayout(4, samples=0), ValueError, r"samples must be at least 1, got 0"),
        (lambda: SensorLayout(4, max_curvature=1.0), ValueError, r"max_curvature must lie in \(0, 1\), got 1\.0"),
        (lambda: SensorLayout(4, max_curvature=0.0), ValueError, r"max_curvature must lie in \(0, 1\), got 0\.0"),
        (lambda: SensorLayout(4, curvature=(0.0, -0.6)), ValueError, r"curvature must be .*got \(0\.0, -0\.6\)"),
        (lambda: SensorLayout(4, curvature=(0.1,)), ValueError, r"curvature must be two numbers.*got \(0\.1,\)"),  # type: ignore[arg-type]
        (lambda: SensorLayout(4)(torch.rand(8, 8)), ValueError, r"image must have at least 3 dimensions.*\(8, 8\)"),
        (lambda: SensorLayout(4)(torch.rand(1, 8, 3)), ValueError, r"image must be at least as fine.*\(1, 8, 3\)"),
        (lambda: SensorLayout((4, 2))(torch.rand(1, 3, 8)), ValueError, r"image must be at least as fine"),
        (lambda: SensorLayout(4)(torch.ones(1, 8, 8).byte()), TypeError, "got torch.uint8"),
        (lambda: SensorLayout(2).rectify(torch.rand(2, 2), (4, 4)), ValueError, r"features must have at least 3"),
        (lambda: SensorLayout(2).rectify(torch.ones(2, 2).long(), (4, 4), mode="nearest"), ValueError, "features must"),
        (lambda: SensorLayout(2).rectify(torch.ones(1, 2, 2).long(), (4, 4)), TypeError, r"features must be floating"),
        (lambda: SensorLayout(2).rectify(torch.rand(1, 2, 2), (4, 0)), ValueError, r"size must .*\(4, 0\)"),
        (lambda: SensorLayout(2).rectify(torch.rand(1, 2, 2), (4, 4), mode="area"), ValueError, r"mode must .*'area'"),
        (lambda: box_average(torch.rand(4), EDGES, EDGES), ValueError, r"image must have at least 2 dimensions"),
        (lambda: box_average(torch.ones(4, 4).long(), EDGES, EDGES), TypeError, r"image must be floating point"),
        (lambda: box_average(torch.rand(4, 4), EDGES.flip(0), EDGES), ValueError, r"x_edges must increase, got \[1\.0"),
        (lambda: box_average(torch.rand(4, 4), EDGES, EDGES * 0), ValueError, r"y_edges must increase"),
        (lambda: box_average(torch.rand(4, 4), EDGES, EDGES * 1.5), ValueError, r"y_edges must lie in .*\[-1\.5"),
        (lambda: box_average(torch.rand(4, 4), EDGES + 0.5, EDGES), ValueError, r"x_edges must lie in \[-1, 1\]"),
        (lambda: box_average(torch.rand(4, 4), EDGES * torch.nan, EDGES), ValueError, r"x_edges must increase"),
        (lambda: box_average(torch.rand(4, 4), EDGES[None], EDGES), ValueError, r"x_edges must have shape \(n,\)"),
        (lambda: box_average(torch.rand(4, 4), EDGES[:1], EDGES), ValueError, r"x_edges must have"),
        (lambda: box_average(torch.rand(4, 4), EDGES, EDGES.long()), TypeError, r"y_edges must be floating point"),
        (lambda: warp_points(POINTS, torch.tensor([0.0, 1.0])), ValueError, r"curvature must lie .*\[0\.0, 1\.0\]"),
        (lambda: warp_points(POINTS, torch.tensor([0.0, torch.nan])), ValueError, r"curvature must lie in"),
        (lambda: unwarp_points(POINTS, torch.tensor([-1.0, 0.0])), ValueError, r"curvature must lie in"),
        (lambda: unwarp_points(POINTS, torch.zeros(3)), ValueError, r"curvature must have shape \(2,\), got \(3,\)"),
        (lambda: warp_points(torch.zeros(2, 3), FLAT), ValueError, r"points must have .* got \(2, 3\)"),
        (lambda: warp_points(torch.tensor(0.5), FLAT), ValueError, r"points must have shape"),
        (lambda: warp_points(POINTS.long(), FLAT), TypeError, r"points must be floating point, got torch.int64"),
    ],
)  # fmt: skip
def test_names_the_bad_argument(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", SHAPES)
def test_leading_dimensions_and_state(shape: Any) -> None:
    sensor, images = layout(shape=shape), scene(2, 3, 4, 9, 14)
    loop = torch.stack([torch.stack([sensor(image) for image in row]) for row in images])
    torch.testing.assert_close(sensor(images), loop)
    twin = SensorLayout((3, 5), shape=shape, dtype=torch.float64)
    assert list(sensor.state_dict()) == ["raw"]
    twin.load_state_dict(sensor.state_dict())
    torch.testing.assert_close(twin(images), sensor(images))
    assert f"shape='{shape}'" in repr(sensor)


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_as_people_have_them(shape: Any) -> None:
    image = scene(1, 9, 15)
    for size in (np.int64(3), [3, 3], (np.int32(3), 3)):
        sensor = SensorLayout(size, shape=shape, dtype=torch.float64)  # type: ignore[arg-type]
        assert sensor.size == (3, 3)
        assert [type(side) for side in sensor.size] == [int, int]
        torch.testing.assert_close(sensor(image), SensorLayout(3, shape=shape, dtype=torch.float64)(image))
        assert torch.equal(sensor.rectify(sensor(image), size), sensor.rectify(sensor(image), (3, 3)))
    for wrong in (3.0, (3, 3, 3), "3", None):
        with pytest.raises(TypeError, match="size must be one or two whole numbers of pixels, got"):
            SensorLayout(wrong, shape=shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_inside_of_autocast(shape: Any) -> None:
    sensor, image = SensorLayout((3, 5), shape=shape, curvature=BEND), scene(2, 3, 9, 15).float()
    outside = sensor(image), sensor.rectify(sensor(image), (6, 7)), sensor.vertices()
    with torch.autocast("cpu", torch.bfloat16):
        inside = sensor(image), sensor.rectify(sensor(image), (6, 7)), sensor.vertices()
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
