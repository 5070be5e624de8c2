"""Warps and their inverses against the paper's formulas and SciPy's root finder."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from tests.sensing.layout.formulas import BEND, SHAPES, gain, motion, placed, scene

from throughline.sensing.layout import unwarp_points, warp_points


def test_warp_in_closed_form() -> None:
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 25), np.linspace(-1, 1, 9))
    for bend in (BEND, (-0.95, 0.9), (0.0, 0.5)):
        ours = warp_points(
            torch.from_numpy(np.stack([x, y], -1)), torch.tensor(bend, dtype=torch.float64), shape="curvilinear"
        )
        np.testing.assert_allclose(ours.numpy(), np.stack(placed(x, y, bend, "curvilinear"), -1), atol=1e-12)
    ours = warp_points(torch.from_numpy(np.stack([x, y], -1)).clamp(-1, 1), torch.tensor(BEND, dtype=torch.float64))
    np.testing.assert_allclose(ours.numpy(), np.stack(placed(x.clip(-1, 1), y, BEND, "rectangular"), -1), atol=1e-12)


def test_warp_has_the_slopes_of_the_paper() -> None:
    s, t = BEND
    bend = torch.tensor(BEND, dtype=torch.float64)
    for shape in SHAPES:
        jacobian = torch.autograd.functional.jacobian(
            lambda p, k=shape: warp_points(p, bend, shape=k), torch.zeros(2, dtype=torch.float64)
        )
        expected = torch.diag((1 - bend) / (1 + bend))  # also on the axes: the official code has 1 there
        torch.testing.assert_close(jacobian, expected)
    x, y = 0.3, -0.5
    r = np.hypot(x, y)
    ds, dt = (2 * c * (1 - c) / (1 + c - 2 * c * r) ** 2 for c in BEND)
    expected = torch.tensor(
        [[gain(r, s) + x * x * ds / r, x * y * ds / r], [x * y * dt / r, gain(r, t) + y * y * dt / r]]
    )
    point = torch.tensor([x, y], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda p: warp_points(p, bend, shape="curvilinear"), point)
    torch.testing.assert_close(jacobian, expected)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=6),
    st.tuples(st.floats(-0.95, 0.95), st.floats(-0.95, 0.95)),
    st.sampled_from(SHAPES),
)
def test_round_trip(points: list[tuple[float, float]], bend: tuple[float, float], shape: Any) -> None:
    scene_points, curvature = torch.tensor(points, dtype=torch.float64), torch.tensor(bend, dtype=torch.float64)
    back = warp_points(unwarp_points(scene_points, curvature, shape=shape), curvature, shape=shape)
    torch.testing.assert_close(back, scene_points, rtol=1e-10, atol=1e-11)
    there = unwarp_points(warp_points(scene_points, curvature, shape=shape), curvature, shape=shape)
    torch.testing.assert_close(there, scene_points, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bend", [(0.5, -0.4), (0.999, -0.999), (-0.95, -0.1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inverse_against_brentq(bend: tuple[float, float], dtype: torch.dtype) -> None:
    points = scene(40, 2, seed=3).to(dtype) * 1.4 - 0.7
    ours = unwarp_points(points, torch.tensor(bend, dtype=dtype), shape="curvilinear")
    assert ours.dtype == dtype
    s, t = torch.tensor(bend, dtype=dtype).tolist()
    for (x, y), found in zip(points.tolist(), ours.tolist(), strict=True):
        r = brentq(lambda r, x=x, y=y: np.hypot(x / gain(r, s), y / gain(r, t)) - r, 0, 1, xtol=1e-15, rtol=1e-14)
        np.testing.assert_allclose(
            found, [x / gain(r, s), y / gain(r, t)], atol=1e-9 if dtype == torch.float64 else 3e-7
        )


def test_inverse_carries_the_implicit_derivative() -> None:
    bend = torch.tensor(BEND, dtype=torch.float64)
    point = torch.tensor([0.4, -0.3], dtype=torch.float64)
    at = unwarp_points(point, bend, shape="curvilinear")
    inverse = torch.autograd.functional.jacobian(lambda p: unwarp_points(p, bend, shape="curvilinear"), point)
    forward = torch.autograd.functional.jacobian(lambda p: warp_points(p, bend, shape="curvilinear"), at)
    torch.testing.assert_close(inverse @ forward, torch.eye(2, dtype=torch.float64))
    ds, dt = motion(*at.numpy(), BEND, "curvilinear")
    by_bend = torch.autograd.functional.jacobian(lambda c: unwarp_points(point, c, shape="curvilinear"), bend)
    torch.testing.assert_close(by_bend, -inverse @ torch.diag(torch.tensor([ds, dt])))
