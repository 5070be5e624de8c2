"""Heatmaps against Gaussians on the grid, keypoint losses against NumPy's average."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from throughline.geometry.motion import heatmaps, keypoint_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- heatmaps ----


@pytest.mark.parametrize("std", [0.6, 1.75, 5.0])
def test_heatmaps_are_gaussians_on_the_grid(std: float) -> None:
    keypoints = normal(2, 3, 2) * 4 + torch.tensor([9.0, 5.0])  # x is further to the right than y is down
    y, x = np.mgrid[:12, :20]
    u, v = (keypoints[..., k, None, None].numpy() for k in (0, 1))
    expected = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * std**2))
    expected /= expected.sum((-1, -2), keepdims=True)
    found = heatmaps(keypoints, (12, 20), std=std)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_heatmaps_in_single_precision_are_right_far_from_the_origin() -> None:
    keypoints = torch.tensor([[1000.25, 1003.5]])
    found, exact = heatmaps(keypoints, (1024, 1024)), heatmaps(keypoints.double(), (1024, 1024))
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


def test_half_precision_counts_pixels_in_single_precision() -> None:
    keypoints = torch.tensor([[290.0, 3.0]], dtype=torch.bfloat16)  # bfloat16 has no 291
    found = heatmaps(keypoints, (8, 300))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, heatmaps(keypoints.double(), (8, 300)).bfloat16())


def test_the_paper_draws_with_a_deviation_of_seven_quarters() -> None:
    keypoints = torch.tensor([[10.0, 10.0]], dtype=torch.float64)
    found = heatmaps(keypoints, (21, 21))[0]
    torch.testing.assert_close(found[10, 11] / found[10, 10], torch.tensor(math.exp(-1 / (2 * 1.75**2))).double())


@given(st.floats(-1e30, 1e30), st.floats(-50, 50), st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 100))
def test_heatmaps_sum_to_one_wherever_the_keypoint_is(x: float, y: float, height: int, width: int, std: float) -> None:
    for dtype in (torch.float32, torch.float64):
        found = heatmaps(torch.tensor([[x, y]], dtype=dtype), (height, width), std=std)
        assert found.shape == (1, height, width)
        assert (found >= 0).all()
        assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_keypoint_far_outside_lies_on_the_border() -> None:
    found = heatmaps(torch.tensor([[900.0, -1e7]]), (5, 7))[0]
    assert found[0, 6] == 1
    just = heatmaps(torch.tensor([[-3.0, 2.0]], dtype=torch.float64), (5, 7))[0]
    assert just[2, 0] > just[2, 1] > just[2, 2] > 0


def test_heatmaps_follow_the_keypoint_with_a_gradient() -> None:
    keypoints = torch.tensor([[3.2, 1.9]], dtype=torch.float64, requires_grad=True)
    x = (heatmaps(keypoints, (8, 8), std=1.0) * torch.arange(8.0)).sum()
    (gradient,) = torch.autograd.grad(x, keypoints)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 0.0]]).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, r"keypoints must be a tensor, got list", {"keypoints": [[1.0, 2.0]]}),
        (ValueError, r"keypoints must be points \(\.\.\., n, 2\), got shape \(2, 3\)", {"keypoints": torch.ones(2, 3)}),
        (ValueError, r"keypoints must be points \(\.\.\., n, 2\), got shape \(2,\)", {"keypoints": torch.ones(2)}),
        (ValueError, r"image_size must be height and width, got \(3,\)", {"image_size": (3,)}),
        (ValueError, r"image_size must be at least 1 by 1, got \(0, 4\)", {"image_size": (0, 4)}),
        (ValueError, r"image_size must be at least 1 by 1, got \(4, 0\)", {"image_size": (4, 0)}),
        (TypeError, r"image_size must be a height and a width in pixels, got 4\.5", {"image_size": (4, 4.5)}),
        (ValueError, r"std must be positive and finite, got 0", {"std": 0}),
        (ValueError, r"std must be positive and finite, got inf", {"std": math.inf}),
    ],
)
def test_heatmaps_refuse(error: type[Exception], match: str, changes: dict) -> None:
    given_ = {"keypoints": torch.ones(2, 2), "image_size": (4, 4), **changes}
    with pytest.raises(error, match=match):
        heatmaps(given_.pop("keypoints"), given_.pop("image_size"), **given_)


# ---- keypoint_loss ----


def test_the_loss_is_a_weighted_average_of_squared_distances() -> None:
    predicted, target = normal(3, 4, 5, 2, seed=1), normal(3, 4, 5, 2, seed=2)
    weight = normal(3, 4, 5, seed=3).abs()
    square = ((predicted - target) ** 2).sum(-1).numpy()
    expected = np.average(square, axis=-1, weights=weight.numpy())
    torch.testing.assert_close(keypoint_loss(predicted, target, weight), torch.from_numpy(expected))
    torch.testing.assert_close(keypoint_loss(predicted, target), torch.from_numpy(square.mean(-1)))


@given(st.floats(1e-12, 1e12))
def test_only_ratios_of_confidence_count(scale: float) -> None:
    predicted, target, weight = normal(5, 2, seed=1), normal(5, 2, seed=2), normal(5, seed=3).abs()
    torch.testing.assert_close(
        keypoint_loss(predicted, target, weight * scale), keypoint_loss(predicted, target, weight)
    )


def test_what_is_not_seen_does_not_count() -> None:
    predicted = normal(4, 2).requires_grad_()
    target = normal(4, 2, seed=1)
    weight = torch.tensor([0.5, 0.0, 1.0, 0.0], dtype=torch.float64)
    for stranger in (math.nan, math.inf, 1e300):
        spoilt = target.clone()
        spoilt[1] = stranger
        found = keypoint_loss(predicted, spoilt, weight)
        torch.testing.assert_close(found, keypoint_loss(predicted[::2], target[::2], weight[::2]))
        (gradient,) = torch.autograd.grad(found, predicted)
        assert torch.equal(gradient[1::2], torch.zeros(2, 2).double())
        assert (gradient[::2] != 0).all()


def test_frames_without_a_joint_cost_nothing() -> None:
    predicted = normal(2, 4, 2).requires_grad_()
    weight = torch.tensor([[0.0] * 4, [1.0] * 4]).double()
    found = keypoint_loss(predicted, normal(2, 4, 2, seed=1), weight)
    assert found[0] == 0
    assert found[1] > 0
    (gradient,) = torch.autograd.grad(found.sum(), predicted)
    assert gradient.isfinite().all()
    assert (gradient[0] == 0).all()


def test_leading_dimensions_broadcast() -> None:
    predicted, target, weight = normal(3, 4, 5, 2), normal(4, 5, 2, seed=1), normal(5, seed=2).abs()
    found = keypoint_loss(predicted, target, weight)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[2, 1], keypoint_loss(predicted[2, 1], target[1], weight))
    assert keypoint_loss(predicted[0, 0], target[0], normal(6, 5).abs()).shape == (6,)
    assert keypoint_loss(torch.ones(3, 0, 2), torch.ones(3, 0, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (
            ValueError,
            r"predicted and target .* got shapes \(4, 2\) and \(5, 2\)",
            (torch.ones(4, 2), torch.ones(5, 2)),
        ),
        (
            ValueError,
            r"confidence must be \(\.\.\., 4\), a number for each keypoint of target \(4, 2\), got shape \(3,\)",
            (torch.ones(4, 2), torch.ones(4, 2), torch.ones(3)),
        ),
        (
            ValueError,
            r"predicted and target must have leading dimensions that broadcast, got \(2,\) of predicted and \(3,\)",
            (torch.ones(2, 4, 2), torch.ones(3, 4, 2)),
        ),
        (ValueError, r"confidence must not be negative, got -1", (torch.ones(1, 2), torch.ones(1, 2), -torch.ones(1))),
        (
            ValueError,
            r"confidence must not be negative, got nan",
            (torch.ones(1, 2), torch.ones(1, 2), torch.tensor([torch.nan])),
        ),
        (
            ValueError,
            r"target must be finite where confidence is positive, got 1 keypoints that are not",
            (torch.ones(2, 2), torch.tensor([[1.0, torch.inf], [torch.nan, 1.0]]), torch.tensor([0.1, 0.0])),
        ),
        (ValueError, r"target must be finite", (torch.ones(1, 2), torch.tensor([[1.0, torch.nan]]))),
        (TypeError, r"predicted must be floating point, got torch.int64", (torch.ones(1, 2).long(), torch.ones(1, 2))),
        (TypeError, r"target must be floating point", (torch.ones(1, 2), torch.ones(1, 2).long())),
        (TypeError, r"confidence must be a tensor, got list", (torch.ones(1, 2), torch.ones(1, 2), [1.0])),
        (ValueError, r"predicted must be points \(\.\.\., n, 2\)", (torch.ones(2, 3), torch.ones(2, 3))),
    ],
)
def test_the_loss_refuses(error: type[Exception], match: str, args: tuple) -> None:
    with pytest.raises(error, match=match):
        keypoint_loss(*args)
