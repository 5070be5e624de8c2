"""Samples of a mesh by their statistics; the Chamfer distance against SciPy's tree."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import chisquare, kstest
from tests.geometry.isosurface.shapes import box, box_distance, normal, seeded
from torch import Tensor

from throughline.geometry.isosurface import chamfer_distance, sample_sdf, sample_surface, sampling

TRIANGLES = torch.tensor(  # of areas 1/2, 2 and 8, far from each other
    [
        [[0.0, 0, 0], [1, 0, 0], [0, 1, 0]],
        [[9.0, 0, 0], [9, 2, 0], [9, 0, 2]],
        [[20.0, 0, 0], [20, 4, 0], [20, 0, 4]],
    ],
    dtype=torch.float64,
)
MESH = TRIANGLES.flatten(0, 1), torch.arange(9).view(3, 3)


# ---- on the surface ----


def test_faces_are_chosen_by_area() -> None:
    x = sample_surface(*MESH, 8000, generator=seeded(1))
    counts = [int((x[:, 0] < 5).sum()), int(((x[:, 0] - 9).abs() < 1).sum()), int((x[:, 0] > 15).sum())]
    assert sum(counts) == 8000
    assert chisquare(counts, np.array([0.5, 2, 8]) / 10.5 * 8000).pvalue > 1e-3


def test_points_are_uniform_in_their_face() -> None:
    x = sample_surface(MESH[0], MESH[1][:1], 5000, generator=seeded(2))
    assert (x >= 0).all()
    assert (x[:, :2].sum(1) <= 1 + 1e-12).all()
    assert (x[:, 2] == 0).all()
    for coordinate in (x[:, 0], x[:, 1], 1 - x[:, :2].sum(1)):  # each weight has the law 1 − (1 − w)²
        assert kstest(coordinate.numpy(), lambda w: 1 - (1 - w) ** 2).pvalue > 1e-3
    ratio = x[:, 0] / x[:, :2].sum(1)  # along a line parallel to the side, uniform
    assert kstest(ratio.numpy(), "uniform").pvalue > 1e-3


def test_points_move_with_their_vertices() -> None:
    v = MESH[0].clone().requires_grad_()
    x = sample_surface(v, MESH[1], 50, generator=seeded())
    push = normal(50, 3)
    (by_vertex,) = torch.autograd.grad((push * x).sum(), v)
    torch.testing.assert_close(by_vertex.sum(0), push.sum(0))  # weights sum to one
    step = 1e-3 * normal(9, 3, seed=1)  # with the same draws; areas hardly change
    moved = sample_surface(MESH[0] + step, MESH[1], 50, generator=seeded())
    torch.testing.assert_close((push * (moved - x)).sum(), (by_vertex * step).sum(), rtol=0.2, atol=1e-2)


def test_a_mesh_without_area_is_sampled_by_face() -> None:
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])
    faces = torch.tensor([[0, 1, 1], [2, 2, 2]])
    x = sample_surface(v, faces, 2000, generator=seeded())
    assert 900 < int((x[:, 0] == 5).sum()) < 1100
    mixed = sample_surface(MESH[0].float(), torch.tensor([[3, 3, 4], [0, 1, 2]]), 200, generator=seeded())
    assert (mixed[:, 0] < 5).all()  # a face without area is not hit beside one with some


def test_the_generator_is_the_only_chance() -> None:
    state = torch.get_rng_state()
    first, again, other = (sample_surface(*MESH, 9, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_surface(MESH[0].bfloat16(), MESH[1], 4, generator=seeded()).dtype == torch.bfloat16
    single = sample_surface(MESH[0].float(), MESH[1], 9, generator=seeded())
    torch.testing.assert_close(single.double(), first, atol=1e-5, rtol=0)  # the same points in every precision


# ---- around it ----


def test_distances_are_those_of_the_mesh_and_shares_as_told() -> None:
    points, sdf = sample_sdf(*box(), 4000, std=0.05, near=0.6, generator=seeded())
    torch.testing.assert_close(sdf, box_distance(points), atol=1e-12, rtol=0)
    assert not sdf.requires_grad
    close, rest = points[:2400], points[2400:]
    off = box_distance(close)
    assert (off.abs() < 0.3).all()
    deviation = off[(close.abs().sort(1).values[:, 1] < 0.35)]  # beside the middle of a side, normal
    assert kstest(deviation.numpy() / 0.05, "norm").pvalue > 1e-3
    for axis in range(3):
        assert kstest((rest[:, axis].numpy() + 1) / 2, "uniform").pvalue > 1e-3
    assert rest.abs().max() > 0.99


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_either_share_may_be_all(near: float) -> None:
    points, sdf = sample_sdf(*box(), 100, std=0.0, near=near, generator=seeded())
    assert points.shape == (100, 3)
    assert bool((sdf.abs() < 1e-12).all()) == (near == 1)


def test_sdf_follows_the_dtype_and_keeps_no_graph() -> None:
    v, faces = box()
    points, sdf = sample_sdf(v.float().requires_grad_(), faces, 10, generator=seeded())
    assert points.dtype == sdf.dtype == torch.float32
    assert not points.requires_grad


# ---- between two sets ----


def by_tree(a: Tensor, b: Tensor) -> float:
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    return float((there**2).mean() + (back**2).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40))
def test_chamfer_by_the_tree(seed: int, n: int, m: int) -> None:
    a, b = normal(n, 3, seed=seed), 2 + normal(m, 3, seed=seed + 1)
    assert chamfer_distance(a, b).item() == pytest.approx(by_tree(a, b), rel=1e-9)
    assert chamfer_distance(a, b).item() == pytest.approx(chamfer_distance(b, a).item(), rel=1e-12)
    assert chamfer_distance(a, a).item() == 0


def test_chamfer_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(90, 3), normal(70, 3, seed=1)
    whole = chamfer_distance(a, b)
    monkeypatch.setattr(sampling, "PAIRS", 500)
    assert chamfer_distance(a, b) == whole
    monkeypatch.setattr(sampling, "PAIRS", 1)
    assert chamfer_distance(a, b) == whole


def test_chamfer_far_from_the_origin_keeps_its_digits() -> None:
    a, b = normal(30, 3), normal(30, 3, seed=1)
    far = 1000.0
    assert chamfer_distance((a + far).float(), (b + far).float()).item() == pytest.approx(by_tree(a, b), rel=1e-3)


def test_chamfer_gradient_pulls_to_the_nearest() -> None:
    a, b = normal(7, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    by_a, by_b = torch.autograd.grad(chamfer_distance(a, b), (a, b))
    x, y = a.detach(), b.detach()
    to_y, to_x = cKDTree(y).query(x)[1], cKDTree(x).query(y)[1]
    wanted_a, wanted_b = 2 * (x - y[to_y]) / 7, 2 * (y - x[to_x]) / 5
    wanted_a.index_add_(0, torch.as_tensor(to_x), -2 * (y - x[to_x]) / 5)
    wanted_b.index_add_(0, torch.as_tensor(to_y), -2 * (x - y[to_y]) / 7)
    torch.testing.assert_close(by_a, wanted_a)
    torch.testing.assert_close(by_b, wanted_b)


def test_samples_of_one_surface_are_near_each_other() -> None:
    """The squared spacing of n points on area A is about A / (π n), each way."""
    v, faces = box()
    a, b = (sample_surface(v, faces, 3000, generator=seeded(s)) for s in (0, 1))
    assert chamfer_distance(a, b).item() == pytest.approx(2 * 6 / (math.pi * 3000), rel=0.15)


# ---- bad input ----


def test_names_the_bad_argument() -> None:
    v, faces = box()
    for make in (sample_surface, sample_sdf):
        for bad, error, message in (
            ((v, faces, 0), ValueError, r"n must be at least 1, got 0"),
            ((v, faces, 2.0), TypeError, r"n must be an integer, got 2\.0"),
            ((v[:7], faces, 5), ValueError, r"faces must be in \[0, 7\), got 7"),
            ((v, faces.int(), 5), ValueError, r"faces must be int64"),
            ((v, faces[:0], 5), ValueError, r"faces must be \(F, 3\) with F at least 1"),
            ((v * torch.nan, faces, 5), ValueError, r"vertices must be finite"),
        ):
            with pytest.raises(error, match=message):
                make(*bad)
    for options, message in (
        ({"std": -1.0}, r"std must be at least 0 and finite, got -1\.0"),
        ({"std": math.nan}, r"std must be at least 0 and finite, got nan"),
        ({"near": 1.5}, r"near must be in \[0, 1\], got 1\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_sdf(v, faces, 5, **options)
    for a, b, error, message in (
        (v[:0], v, ValueError, r"a must be \(N, 3\) with at least one point, got shape \(0, 3\)"),
        (v, v[:, :2], ValueError, r"b must be \(N, 3\) with at least one point, got shape \(8, 2\)"),
        (v, v.long(), TypeError, r"b must be floating point"),
    ):
        with pytest.raises(error, match=message):
            chamfer_distance(a, b)
