"""Losses on rendered labels against SciPy, PyTorch's own and loops, and how much an error can cost."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from throughline.geometry.body import class_weights, clothing_loss, distance_loss, soft_iou_loss


def drawn(seed: int = 0, shape: tuple[int, ...] = (2, 3, 9, 7)) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=draw, dtype=torch.float64), torch.rand(shape, generator=draw) < 0.2


# ---- distance ----


def test_distance_by_scipy() -> None:
    p, mask = drawn()
    found = distance_loss(p, mask)
    for place in np.ndindex(2, 3):
        distance = distance_transform_edt(~mask[place].numpy())  # of the complement: to the mask
        expected = (p[place].numpy() * distance).sum() / (p[place].sum().item() ** 1.5 + 1e-6)
        assert found[place].item() == pytest.approx(expected, rel=1e-6)


def test_distance_of_what_lies_inside_is_nothing() -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 2:6] = True
    assert distance_loss(mask.double() * 0.7, mask) == 0
    p = mask.double().requires_grad_()
    distance_loss(p, mask).backward()
    assert (p.grad[~mask] > 0).all()  # and only outside is anything pushed away
    assert (p.grad[mask] == 0).all()


def test_distance_to_nothing_is_the_longer_side() -> None:
    p = torch.zeros(6, 9, dtype=torch.float64)
    p[1, 1:5] = 1.0
    assert distance_loss(p, torch.zeros(6, 9)).item() == pytest.approx(9 * 4 / 4**1.5, rel=1e-6)
    assert distance_loss(torch.zeros(6, 9), torch.zeros(6, 9)) == 0


def test_distance_grows_as_it_moves_away() -> None:
    mask = torch.zeros(5, 30)
    mask[2, 3] = 1
    values = []
    for at in range(3, 25):
        p = torch.zeros(5, 30)
        p[1:4, at : at + 3] = 1
        values.append(float(distance_loss(p, mask)))
    assert values == sorted(values)


# ---- intersection over union ----


@given(st.integers(0, 2**20))
def test_iou_of_sets(bits: int) -> None:
    one, two = bits % 2**10, bits // 2**10
    p, m = (torch.tensor([[number >> k & 1 for k in range(10)]], dtype=torch.float64) for number in (one, two))
    both, either = (one & two).bit_count(), (one | two).bit_count()
    expected = 1 - both / either if either else 1.0
    assert soft_iou_loss(p, m.bool()).item() == pytest.approx(expected, abs=1e-6)
    assert soft_iou_loss(p, m).item() == soft_iou_loss(m, p).item()


def test_iou_of_soft_values() -> None:
    p, mask = drawn(1)
    m = mask.double()
    expected = 1 - (p * m).sum((-2, -1)) / (p.sum((-2, -1)) + m.sum((-2, -1)) - (p * m).sum((-2, -1)) + 1e-6)
    torch.testing.assert_close(soft_iou_loss(p, mask), expected)
    torch.testing.assert_close(soft_iou_loss(p, mask[:1, :1]), soft_iou_loss(p, mask[:1, :1].expand_as(p)))
    lower = p.requires_grad_()
    soft_iou_loss(lower, mask).sum().backward()
    assert (lower.grad[mask] < 0).all()  # cover the mask
    assert (lower.grad[~mask] > 0).all()  # and nothing else


@pytest.mark.parametrize("loss", [distance_loss, soft_iou_loss])
@pytest.mark.parametrize(
    ("error", "match", "p", "mask"),
    [
        (TypeError, "probability must be floating point, got torch.int64", torch.zeros(2, 2).long(), torch.zeros(2, 2)),
        (TypeError, "mask must be a tensor, got list", torch.zeros(2, 2), [[0]]),
        (ValueError, r"probability must be (..., H, W), got shape (2,)", torch.zeros(2), torch.zeros(2, 2)),
        (ValueError, r"probability must be (..., H, W), got shape (2, 0)", torch.zeros(2, 0), torch.zeros(2, 0)),
        (
            ValueError,
            "mask must be (..., H, W) of 2×3 pixels as probability, got (3, 2)",
            torch.zeros(2, 3),
            torch.zeros(3, 2),
        ),
        (ValueError, "mask must be (..., H, W)", torch.zeros(2, 3), torch.zeros(3)),
        (ValueError, "mask must hold 0 and 1, got other values", torch.zeros(2, 2), torch.full((2, 2), 0.5)),
        (ValueError, "mask must hold 0 and 1, got other values", torch.zeros(2, 2), torch.full((2, 2), 2)),
    ],
)
def test_losses_refuse(loss: object, error: type[Exception], match: str, p: Tensor, mask: Tensor) -> None:
    with pytest.raises(error, match=re.escape(match)):
        loss(p, mask)  # type: ignore[operator]


# ---- weights and clothes ----


def test_weights_by_hand() -> None:
    counts = [100, 60, 61, 59, 0, 600]
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)]).view(2, -1)
    found = class_weights(labels, 6)
    # the least of those with 60 or more is 60; it has no weight of its own, for it has no more than 60
    assert found.tolist() == pytest.approx([60 / 100, 0, 60 / 61, 0, 0, 60 / 600])
    assert class_weights(labels, 6, min_pixels=600).tolist() == [0] * 6
    every = [59 / 100, 59 / 60, 59 / 61, 1, 0, 59 / 600]  # the absent label is not the least
    assert class_weights(labels, 6, min_pixels=0).tolist() == pytest.approx(every)


def test_weights_without_a_frequent_label_are_nothing() -> None:
    assert class_weights(torch.zeros(3, 4, 5, dtype=torch.int64), 2).tolist() == [[0.0, 0.0]] * 3


def test_weights_are_those_of_each_image() -> None:
    labels = torch.randint(3, (2, 3, 11, 13), generator=torch.Generator().manual_seed(0))
    found = class_weights(labels, 3, min_pixels=40)
    for place in np.ndindex(2, 3):
        assert torch.equal(found[place], class_weights(labels[place], 3, min_pixels=40))


def test_clothing_by_pytorch() -> None:
    draw = torch.Generator().manual_seed(0)
    q = torch.rand(4, 9, 7, 5, generator=draw, dtype=torch.float64)
    labels = torch.randint(5, (4, 9, 7), generator=draw)
    found = clothing_loss(q, labels, min_pixels=11)
    for n in range(4):
        weights = class_weights(labels[n], 5, min_pixels=11).double()
        assert 0 < (weights > 0).sum() < 5
        expected = F.cross_entropy(q[n].flatten(0, 1), labels[n].flatten(), weights)
        torch.testing.assert_close(found[n], expected, rtol=1e-6, atol=0)  # weights in single precision here


def test_clothing_without_a_frequent_label_is_nothing() -> None:
    q = torch.rand(2, 4, 4, 8, requires_grad=True)
    loss = clothing_loss(q, torch.zeros(2, 4, 4, dtype=torch.int64))
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert (q.grad == 0).all()


def test_an_error_costs_a_bounded_amount(capsys: pytest.CaptureFixture[str]) -> None:
    """A sharp prior, a hard rendering: "inside" is soft, and what is not covered costs four times as much."""
    upper, background = 2, 0
    inside = torch.zeros(10, 20, 8, dtype=torch.float64)
    labels = torch.full((10, 20), background)
    labels[:, 10:] = upper
    inside[:, 10:, upper] = 1.0  # the body fills its clothes, nothing elsewhere
    outside, bare = inside.clone(), inside.clone()
    outside[:, :10, upper] = 1.0  # body on all of the background
    bare[:, 10:] = 0.0  # clothes without body
    base, on_ground, uncovered = (float(clothing_loss(q, labels)) for q in (inside, outside, bare))
    per_pixel = [2 * (value - base) for value in (on_ground, uncovered)]  # half of the weight is of these pixels
    print("body on background {:.3f}, clothes not covered {:.3f}".format(*per_pixel))  # noqa: T201
    assert per_pixel[0] == pytest.approx(math.log(math.e + 7) - math.log(8), abs=1e-6)
    assert per_pixel[1] == pytest.approx(math.log(8) - (math.log(math.e + 7) - 1), abs=1e-6)
    assert "0.195, clothes not covered 0.805" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "match", "q", "labels", "options"),
    [
        (TypeError, "probability must be floating point", torch.zeros(2, 2, 3).long(), torch.zeros(2, 2).long(), {}),
        (TypeError, "labels must be int64, got torch.float32", torch.zeros(2, 2, 3), torch.zeros(2, 2), {}),
        (
            ValueError,
            "probability must be (..., H, W, C), got shape (2, 2)",
            torch.zeros(2, 2),
            torch.zeros(2).long(),
            {},
        ),
        (ValueError, "probability must be (..., H, W, C)", torch.zeros(2, 2, 0), torch.zeros(2, 2).long(), {}),
        (
            ValueError,
            "labels must be (2, 2) as probability, got (2, 3)",
            torch.zeros(2, 2, 3),
            torch.zeros(2, 3).long(),
            {},
        ),
        (ValueError, "labels must lie in [0, 3), got 3 to 3", torch.zeros(2, 2, 3), torch.full((2, 2), 3), {}),
        (
            ValueError,
            "min_pixels must not be negative, got -1",
            torch.zeros(2, 2, 3),
            torch.zeros(2, 2).long(),
            {"min_pixels": -1},
        ),
        (
            TypeError,
            "min_pixels must be an integer, got 0.5",
            torch.zeros(2, 2, 3),
            torch.zeros(2, 2).long(),
            {"min_pixels": 0.5},
        ),
    ],
)
def test_clothing_refuses(
    error: type[Exception], match: str, q: Tensor, labels: Tensor, options: dict[str, int]
) -> None:
    with pytest.raises(error, match=re.escape(match)):
        clothing_loss(q, labels, **options)


@pytest.mark.parametrize(
    ("error", "match", "labels", "classes", "options"),
    [
        (TypeError, "labels must be int64", torch.zeros(2, 2), 3, {}),
        (ValueError, "labels must be (..., H, W), got shape (2,)", torch.zeros(2).long(), 3, {}),
        (ValueError, "labels must lie in [0, 3), got -1 to -1", torch.full((2, 2), -1), 3, {}),
        (ValueError, "num_classes must be at least 1, got 0", torch.zeros(2, 2).long(), 0, {}),
        (ValueError, "min_pixels must not be negative", torch.zeros(2, 2).long(), 3, {"min_pixels": -2}),
    ],
)
def test_weights_refuse(
    error: type[Exception], match: str, labels: Tensor, classes: int, options: dict[str, int]
) -> None:
    with pytest.raises(error, match=re.escape(match)):
        class_weights(labels, classes, **options)
