"""Errors against SciPy's Procrustes analysis, closed forms and loops."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from torch import Tensor

from throughline.geometry.body import joint_error, procrustes_error, vertex_error


def points(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, 3, generator=draw, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def test_joints_by_a_loop() -> None:
    pred, true = points(4, 6)
    for root in (0, 3, -1, None):
        found = joint_error(pred, true, root=root)
        for n in range(4):
            a, b = pred[n].numpy(), true[n].numpy()
            if root is not None:
                a, b = a - a[root], b - b[root]
            expected = np.mean([np.linalg.norm(p - q) for p, q in zip(a, b, strict=True)])
            assert found[n].item() == pytest.approx(expected)


def test_vertices_by_a_loop() -> None:
    pred, true = points(4, 6)
    roots = points(4, seed=1)
    found = vertex_error(pred, true, pred_root=roots[0], true_root=roots[1])
    for n in range(4):
        a, b = (x[n].numpy() - r[n].numpy() for x, r in zip((pred, true), roots, strict=True))
        assert found[n].item() == pytest.approx(np.mean([np.linalg.norm(p - q) for p, q in zip(a, b, strict=True)]))
    torch.testing.assert_close(vertex_error(pred, true), joint_error(pred, true, root=None))
    torch.testing.assert_close(
        vertex_error(pred, true, pred_root=pred[:, 2], true_root=true[:, 2]), joint_error(pred, true, root=2)
    )


def similarity(x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    turn = Rotation.from_rotvec(parameters[:3]).as_matrix()
    moved: np.ndarray = np.exp(parameters[3]) * x @ turn.T + parameters[4:]
    return moved


def test_procrustes_by_searching() -> None:
    """The least squares over rotation vectors, scale and shift, by BFGS from several starts."""
    pred, true = points(3, 7, seed=4)
    true[0] = true[0] * torch.tensor([1.0, 1.0, -1.0])
    for n in range(3):
        x, y = pred[n].numpy(), true[n].numpy()
        starts = [
            np.concatenate([r.as_rotvec(), np.zeros(4)]) for r in Rotation.random(12, rng=np.random.default_rng(n))
        ]
        runs = [minimize(lambda p, x=x, y=y: ((similarity(x, p) - y) ** 2).sum(), start, tol=1e-12) for start in starts]
        best = min(runs, key=lambda run: run.fun)
        expected = np.linalg.norm(similarity(x, best.x) - y, axis=1).mean()
        assert procrustes_error(pred[n], true[n]).item() == pytest.approx(expected, rel=1e-4)


@given(st.integers(0, 1000), st.floats(0.1, 9.0), st.floats(-50, 50))
def test_procrustes_undoes_a_similarity(seed: int, scale: float, shift: float) -> None:
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    turn = torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
    moved = scale * x @ turn.T + shift
    assert procrustes_error(moved, x) < 1e-9
    noisy = x + 0.1 * torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(procrustes_error(scale * noisy @ turn.T + shift, x), procrustes_error(noisy, x))


def test_procrustes_takes_no_reflection() -> None:
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0])
    assert procrustes_error(mirrored, x) > 0.1
    flat = x * torch.tensor([1.0, 1.0, 0.0])  # in a plane a reflection is a rotation
    assert procrustes_error(flat * torch.tensor([-1.0, 1.0, 1.0]), flat) < 1e-9


def test_procrustes_of_a_single_point_is_the_spread() -> None:
    true = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.vector_norm(true - true.mean(0), dim=1).mean()
    torch.testing.assert_close(procrustes_error(torch.full((5, 3), 2.0).double(), true), expected)


@pytest.mark.parametrize("size", [1e-30, 1e15])
def test_procrustes_of_tiny_and_huge_bodies(size: float) -> None:
    pred, true = (p.float() for p in points(6))
    torch.testing.assert_close(procrustes_error(size * pred, true), procrustes_error(pred, true))


@pytest.mark.parametrize("metric", [joint_error, procrustes_error, vertex_error])
def test_leading_dimensions_broadcast(metric: object) -> None:
    pred, true = points(2, 3, 5)
    found = metric(pred, true[0, 0])  # type: ignore[operator]
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[1, 2], metric(pred[1, 2], true[0, 0]))  # type: ignore[operator]


@pytest.mark.parametrize("metric", [joint_error, procrustes_error, vertex_error])
@pytest.mark.parametrize(
    ("error", "match", "pred", "true"),
    [
        (TypeError, "pred must be floating point, got torch.int64", torch.zeros(2, 3).long(), torch.zeros(2, 3)),
        (TypeError, "true must be a tensor, got list", torch.zeros(2, 3), [[0.0]]),
        (ValueError, "pred must be (..., n, 3) with n >= 1, got shape (2, 2)", torch.zeros(2, 2), torch.zeros(2, 3)),
        (ValueError, "true must be (..., n, 3) with n >= 1, got shape (0, 3)", torch.zeros(2, 3), torch.zeros(0, 3)),
        (ValueError, "pred and true must have as many points, got 2 and 4", torch.zeros(2, 3), torch.zeros(4, 3)),
    ],
)
def test_refuses(metric: object, error: type[Exception], match: str, pred: Tensor, true: Tensor) -> None:
    with pytest.raises(error, match=re.escape(match)):
        metric(pred, true)  # type: ignore[operator]


def test_refuses_roots() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="root must be one of 2 joints, got 2"):
        joint_error(x, x, root=2)
    with pytest.raises(TypeError, match=r"root must be a joint's number or None, got 0\.0"):
        joint_error(x, x, root=0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pred_root must be \(\.\.\., 3\), got shape \(2,\)"):
        vertex_error(x, x, pred_root=torch.zeros(2))
    with pytest.raises(TypeError, match="true_root must be a tensor, got float"):
        vertex_error(x, x, true_root=0.0)  # type: ignore[arg-type]
