"""Quantised tensors against brute force, NumPy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.discrete.quantization.draws import random, seeded
from torch import Tensor

from throughline.discrete.quantization import (
    nonuniform_quantize,
    quantile_points,
    uniform_quantize,
)
from throughline.discrete.quantization.buckets import encode


def slowly(weight: Tensor, points: list[float], size: int | None) -> Tensor:
    """Bucket by bucket and weight by weight: the nearest of all α p + β, the upper one of two."""
    flat = weight.flatten().tolist()
    size = size or len(flat)
    found = []
    for start in range(0, len(flat), size):
        bucket = flat[start : start + size]
        low, span = min(bucket), max(bucket) - min(bucket)
        span = 1.0 if span < 1e-10 else span
        for v in bucket:
            distance = [abs((v - low) / span - p) for p in points]
            best = max(i for i, d in enumerate(distance) if d <= min(distance))
            found.append(span * points[best] + low)
    return torch.tensor(found, dtype=weight.dtype).view(weight.shape)


SIZES = [1, 4, 7, 12, 60, 256, None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [2, 3, 4, 16])
def test_uniform_is_the_nearest_level_of_the_bucket(size: int | None, levels: int) -> None:
    weight = random(3, 4, 5)
    even = [i / (levels - 1) for i in range(levels)]
    torch.testing.assert_close(uniform_quantize(weight, levels, bucket_size=size), slowly(weight, even, size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [2, 3, 16, 40])
def test_nonuniform_is_the_nearest_point_in_any_order(size: int | None, number: int) -> None:
    weight, points = random(3, 4, 5), torch.rand(number, generator=seeded(1), dtype=torch.float64)
    expected = slowly(weight, sorted(points.tolist()), size)
    torch.testing.assert_close(nonuniform_quantize(weight, points, bucket_size=size), expected)


def test_ties_round_to_even_levels_and_to_the_upper_point() -> None:
    weight = torch.tensor([0.0, 1.0, 3.0, 5.0, 8.0])  # u (s - 1) is 0, 0.5, 1.5, 2.5, 4
    assert uniform_quantize(weight, 5).tolist() == [0, 0, 4, 4, 8]
    assert nonuniform_quantize(weight, torch.linspace(0, 1, 5)).tolist() == [0, 2, 4, 6, 8]


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    st.integers(2, 20),
    st.sampled_from([1, 3, 8, None]),
)
def test_invariants(entries: list[float], levels: int, size: int | None) -> None:
    weight = torch.tensor(entries)
    rounded = uniform_quantize(weight, levels, bucket_size=size)
    for bucket, original in zip(rounded.split(size or 99), weight.split(size or 99), strict=True):
        span = original.max() - original.min()
        assert len(bucket.unique()) <= levels
        assert (bucket - original).abs().max() <= span / (levels - 1) / 2 + 1e-4
        assert bucket.min() == original.min()
        assert (bucket.max() - original.max()).abs() <= 1e-4
    torch.testing.assert_close(uniform_quantize(rounded, levels, bucket_size=size), rounded, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(uniform_quantize(4 * weight, levels, bucket_size=size), 4 * rounded, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-30, 1e30])
@pytest.mark.parametrize("size", [4, None])
def test_a_constant_bucket_comes_back_unchanged(value: float, size: int | None) -> None:
    weight = torch.full((10,), value)
    assert torch.equal(uniform_quantize(weight, 4, bucket_size=size), weight)
    assert torch.equal(nonuniform_quantize(weight, torch.linspace(0, 1, 4), bucket_size=size), weight)


def test_the_last_bucket_is_not_filled_with_zeros() -> None:
    weight = torch.cat([random(256), random(44, seed=1) * 0.1 + 5.0])
    rounded = uniform_quantize(weight, 16)
    torch.testing.assert_close(rounded[256:], uniform_quantize(weight[256:], 16))
    assert (rounded[256:] - weight[256:]).abs().max() < 0.05


def test_gradients_pass_straight_through_and_add_up_in_the_cells() -> None:
    weight, points = random(300).requires_grad_(), torch.tensor([0.9, 0.1, 0.4], dtype=torch.float64).requires_grad_()
    incoming = random(300, seed=2)
    uniform_quantize(weight, 4).backward(incoming)
    assert torch.equal(weight.grad, incoming)
    weight.grad = None
    nonuniform_quantize(weight, points, bucket_size=128).backward(incoming)
    assert torch.equal(weight.grad, incoming)
    expected = torch.zeros(3, dtype=torch.float64)
    for bucket, gradient in zip(weight.detach().split(128), incoming.split(128), strict=True):
        low, span = bucket.min(), bucket.max() - bucket.min()
        for v, g in zip((bucket - low) / span, gradient, strict=True):
            expected[(v - points.detach()).abs().argmin()] += span * g
    torch.testing.assert_close(points.grad, expected)


@pytest.mark.parametrize("size", [4, 128, None])  # with 4, there are more points than weights in a bucket
def test_gradient_of_many_points(size: int | None) -> None:
    weight, points = random(300), torch.rand(20, generator=seeded(3), dtype=torch.float64).requires_grad_()
    (nonuniform_quantize(weight, points, bucket_size=size) * random(300, seed=2)).sum().backward()
    step = 1e-6
    for i in range(20):
        shift = torch.zeros(20, dtype=torch.float64)
        shift[i] = step
        above, below = (
            (nonuniform_quantize(weight, points.detach() + s, bucket_size=size) * random(300, seed=2)).sum()
            for s in (shift, -shift)
        )
        assert points.grad[i].item() == pytest.approx(((above - below) / (2 * step)).item(), abs=1e-6)


def test_results_may_be_changed_in_place() -> None:
    weight = random(10).requires_grad_()
    uniform_quantize(weight, 4, bucket_size=3).mul_(2).sum().backward()
    assert weight.grad.tolist() == [2.0] * 10


def test_stochastic_rounding_is_right_on_average() -> None:
    weight = random(50)
    draw = seeded(7)
    drawn = torch.stack(
        [uniform_quantize(weight, 4, bucket_size=20, stochastic=True, generator=draw) for _ in range(4000)]
    )
    error = drawn.mean(0) - weight
    assert (error.abs() <= 5 * drawn.std(0) / 4000**0.5 + 1e-9).all()
    for place in range(50):
        assert len(drawn[:, place].unique()) <= 2  # the level below and the one above
    assert drawn[:, weight[:20].argmax()].unique().tolist() == pytest.approx([weight[:20].max().item()])


@pytest.mark.parametrize("size", [256, None])
@pytest.mark.parametrize("levels", [2, 5, 16])
def test_quantile_points_agree_with_numpy(levels: int, size: int | None) -> None:
    weight = random(3, 300)
    flat = weight.flatten().numpy()
    buckets = np.split(flat, range(size, len(flat), size)) if size else [flat]
    scaled = [(b - b.min()) / (b.max() - b.min()) for b in buckets]
    expected = np.quantile(np.concatenate(scaled), np.linspace(0, 1, levels))
    torch.testing.assert_close(quantile_points(weight, levels, bucket_size=size), torch.from_numpy(expected))


def test_quantile_points_leave_no_level_unused() -> None:
    weight = random(5000) ** 3  # heavy tails: most even levels stand empty
    points = quantile_points(weight, 16)
    used, even = (torch.bincount(encode(weight, grid, 256).symbols, minlength=16) for grid in (points, 16))
    assert used.min() >= 20  # of 5,000; each of 20 buckets has one smallest and one largest weight
    assert used.max() < 2 * 5000 / 16
    assert even.min() < 20


def test_half_precision_is_computed_in_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        weight = random(600).to(dtype)
        for quantize in (lambda w: uniform_quantize(w, 8), lambda w: nonuniform_quantize(w, quantile_points(w, 8))):
            assert torch.equal(quantize(weight), quantize(weight.float()).to(dtype))


def test_the_order_of_memory_does_not_matter() -> None:
    weight = random(8, 3, 5, 5).to(memory_format=torch.channels_last)
    assert torch.equal(uniform_quantize(weight, 4), uniform_quantize(weight.contiguous(), 4))


def test_noise_just_below_one_stays_on_the_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 3 + (1 - 2⁻²⁴) is 4: the largest weight would land a level above its bucket."""
    weight = torch.tensor([-1.0, -0.4, 0.3, 1.0])
    largest = 1 - 2.0**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, largest))
    assert uniform_quantize(weight, 4, stochastic=True).tolist() == pytest.approx([-1.0, -1 / 3, 1 / 3, 1.0])
    assert uniform_quantize(weight, 4, stochastic=True).max() == weight.max()


def test_levels_from_numpy() -> None:
    weight = random(300)
    assert uniform_quantize(weight, np.int64(4), bucket_size=np.int32(64)).equal(
        uniform_quantize(weight, 4, bucket_size=64)
    )


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_quantile_points_of_fewer_weights_than_levels(number: int) -> None:
    weight = random(number)
    scaled = (weight - weight.min()) / (weight.max() - weight.min()).clamp_min(1e-9)
    expected = np.quantile(scaled.numpy(), np.linspace(0, 1, 10))
    torch.testing.assert_close(quantile_points(weight, 10), torch.from_numpy(expected))
