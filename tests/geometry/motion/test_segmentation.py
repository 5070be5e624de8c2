"""The segmentation loss against SciPy's distance transform and KD-tree, its pulls, and slips of the released code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

import throughline.geometry.motion.segmentation as inner
from throughline.geometry.motion import segmentation_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def disc(height: int, width: int, x: float, y: float, radius: float) -> Tensor:
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (column - x) ** 2 + (row - y) ** 2 <= radius**2


def expected(uv: Tensor, mask: Tensor, alpha: float = 0.5, silhouette: Tensor | None = None) -> float:
    """Pixel by pixel, as it is written down."""
    inside = mask.numpy() > 0.5
    height, width = inside.shape
    outwards = distance_transform_edt(~inside) if inside.any() else np.full(inside.shape, max(height, width))
    y, x = np.mgrid[:height, :width]
    gap, _ = cKDTree(uv.numpy()).query(np.stack((x, y), -1).reshape(-1, 2))
    gap = gap.reshape(height, width)
    shown = np.clip(1 - gap, 0, 1) if silhouette is None else silhouette.numpy()
    lacking = np.where(gap < 0.5, 0, gap)
    return float(((alpha * shown * outwards + (1 - alpha) * inside * lacking) ** 2).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("spread", [0.4, 3.0, 30.0])
def test_the_loss_is_what_scipy_says(spread: float, alpha: float) -> None:
    masks = torch.stack([disc(13, 17, 5, 6, 3.5), disc(13, 17, 12, 2, 2.0), disc(13, 17, 8, 6, 0.0)])
    uv = normal(3, 40, 2) * spread + torch.tensor([8.0, 6.0])
    found = segmentation_loss(uv, masks, alpha=alpha)
    for value, points, mask in zip(found, uv, masks, strict=True):
        assert value.item() == pytest.approx(expected(points, mask, alpha), rel=1e-6, abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.floats(0.1, 8))
def test_any_mask_and_any_points(seed: int, height: int, width: int, vertices: int, spread: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(height, width, generator=draw)
    uv = (torch.rand(vertices, 2, generator=draw, dtype=torch.float64) - 0.3) * spread
    uv = torch.where(torch.rand(vertices, 1, generator=draw) < 0.3, uv.round(), uv)  # ties, and pixels' very centres
    for points in (uv, uv.float()):
        want = expected(points.double(), mask)
        assert segmentation_loss(points, mask).item() == pytest.approx(want, rel=1e-5, abs=1e-9)


def test_tiles_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.stack([disc(20, 20, 4 + 3 * k, 9, 2.0 + k) for k in range(4)])
    uv = normal(4, 9, 2) * 2 + 15
    whole = segmentation_loss(uv, masks)
    for tile in (1, 16 * 9 * 3, 16 * 9 * 50):
        monkeypatch.setattr(inner, "TILE", tile)
        torch.testing.assert_close(segmentation_loss(uv, masks), whole, rtol=0, atol=0)


def test_only_what_counts_is_compared_with_all_vertices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of the mask that no vertex touches, and no others."""
    asked = []
    real = inner._search
    monkeypatch.setattr(
        inner, "_search", lambda points, pixel, width: asked.append(pixel) or real(points, pixel, width)
    )
    mask = torch.zeros(2, 9, 9)
    mask[0, 2, 3:6] = 1
    mask[1, 7, 1:3] = 1
    segmentation_loss(torch.tensor([[[3.4, 2.2], [20.0, 1.0]], [[1.0, 7.0], [2.0, 7.0]]]), mask)
    assert [pixel.tolist() for pixel in asked] == [[[2 * 9 + 5], [0]]]


def test_both_terms_pull_without_any_overlap() -> None:
    mask = disc(16, 32, 6, 8, 3)
    uv = (normal(60, 2).clamp(-1.5, 1.5) + torch.tensor([24.3, 8.2])).requires_grad_()
    for alpha in (0.0, 1.0):
        (gradient,) = torch.autograd.grad(segmentation_loss(uv, mask, alpha=alpha), uv)
        if alpha == 0:
            assert gradient[:, 0].sum() > 0  # to the left, where the mask is
    before = segmentation_loss(uv, mask)
    assert segmentation_loss(uv - torch.tensor([5.0, 0.0]), mask) < before


def test_the_gradient_is_that_of_the_nearest_vertex() -> None:
    mask = torch.zeros(1, 9)
    mask[0, 0] = 1
    uv = torch.tensor([[4.25, 0.0], [7.5, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(segmentation_loss(uv, mask, alpha=0.0), uv)  # (4.25)² / 9
    torch.testing.assert_close(gradient, torch.tensor([[2 * 4.25 / 9, 0.0], [0.0, 0.0]]).double())


def test_the_vertex_splat_falls_with_distance() -> None:
    """In the released code it is 0.5 + d up to half a pixel: it grows."""
    mask = torch.zeros(1, 8)
    mask[0, 0] = 1
    shown = [segmentation_loss(torch.tensor([[5 + d, 0.0]]), mask, alpha=1.0).item() for d in (0.0, 0.2, 0.4)]
    # alone pixels 5 (C = 5) and 6 (C = 6) are touched: ((1 - d) 5)² + (d 6)²
    for d, value in zip((0.0, 0.2, 0.4), shown, strict=True):
        assert value == pytest.approx((((1 - d) * 5) ** 2 + (d * 6) ** 2) / 8, rel=1e-5)


def test_a_vertex_at_a_pixel_centre_has_a_finite_gradient() -> None:
    mask = torch.ones(3, 3)
    uv = torch.tensor([[1.0, 1.0], [2.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(segmentation_loss(uv, mask), uv)
    assert gradient.isfinite().all()


def test_a_perfect_cover_costs_nothing() -> None:
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    mask = disc(6, 6, 2, 3, 2)
    assert segmentation_loss(torch.stack((column, row), -1)[mask], mask) == 0


def test_without_a_mask_the_body_pays_the_longer_side() -> None:
    mask = torch.zeros(2, 7, dtype=torch.bool)
    assert segmentation_loss(torch.tensor([[3.0, 1.0]]), mask, alpha=1.0).item() == pytest.approx(49 / 14)


def test_a_silhouette_takes_the_place_of_the_splat() -> None:
    mask, uv = disc(9, 11, 4, 4, 2), normal(12, 2) + 6
    silhouette = torch.rand(9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = segmentation_loss(uv, mask, silhouette=silhouette)
    assert found.item() == pytest.approx(expected(uv, mask, silhouette=silhouette.detach()), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, silhouette)
    assert (gradient[~mask] > 0).all()


def test_a_distance_is_taken_as_given() -> None:
    mask, uv = disc(9, 11, 4, 4, 2), normal(12, 2) + 6
    own = torch.from_numpy(distance_transform_edt(~mask.numpy()))
    assert segmentation_loss(uv, mask, distance=own).item() == pytest.approx(expected(uv, mask), rel=1e-12)
    assert segmentation_loss(uv, mask, distance=2 * own) > segmentation_loss(uv, mask)


def test_leading_dimensions_broadcast() -> None:
    masks = torch.stack([disc(9, 11, 4, 4, 2), disc(9, 11, 7, 3, 3)])
    uv = normal(3, 2, 12, 2) * 2 + 5
    found = segmentation_loss(uv, masks)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found[2, 1], segmentation_loss(uv[2, 1], masks[1]))
    assert segmentation_loss(uv[0, 0], masks).shape == (2,)


@pytest.mark.parametrize("values", [torch.uint8, torch.float32, torch.bool, torch.int64])
def test_masks_of_any_kind(values: torch.dtype) -> None:
    mask, uv = disc(9, 11, 4, 4, 2), normal(12, 2) + 6
    torch.testing.assert_close(segmentation_loss(uv, mask.to(values)), segmentation_loss(uv, mask))


def test_a_lost_vertex_is_not_overlooked() -> None:
    uv = normal(2, 12, 2) + 6
    uv[1, 3, 0] = math.nan
    found = segmentation_loss(uv, disc(9, 11, 4, 4, 2))
    assert found[0].isfinite()
    assert found[1].isnan()


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, r"alpha must lie in \[0, 1\], got 1\.5", {"alpha": 1.5}),
        (ValueError, r"alpha must lie in \[0, 1\], got -0\.1", {"alpha": -0.1}),
        (ValueError, r"alpha must lie in \[0, 1\], got nan", {"alpha": math.nan}),
        (
            ValueError,
            r"distance must have the pixels of mask \(4, 5\), got shape \(5, 4\)",
            {"distance": torch.ones(5, 4)},
        ),
        (ValueError, r"silhouette must have the pixels of mask", {"silhouette": torch.ones(4, 6)}),
        (TypeError, r"silhouette must be floating point", {"silhouette": torch.ones(4, 5).bool()}),
        (ValueError, r"mask must be \(\.\.\., H, W\), not empty, got shape \(0, 5\)", {"mask": torch.ones(0, 5)}),
        (ValueError, r"mask must be \(\.\.\., H, W\), not empty, got shape \(5,\)", {"mask": torch.ones(5)}),
        (ValueError, r"mask must not hold NaN", {"mask": torch.full((4, 5), torch.nan)}),
        (TypeError, r"mask must be a tensor, got list", {"mask": [[1.0]]}),
        (TypeError, r"uv must be floating point", {"uv": torch.ones(3, 2).long()}),
        (ValueError, r"uv must be points", {"uv": torch.ones(3, 3)}),
        (ValueError, r"uv must hold at least one vertex, got shape \(0, 2\)", {"uv": torch.ones(0, 2)}),
        (
            ValueError,
            r"must have leading dimensions that broadcast, got \(2,\) of uv and \(3,\) of mask",
            {"uv": torch.ones(2, 3, 2), "mask": torch.ones(3, 4, 5)},
        ),
    ],
)
def test_the_loss_refuses(error: type[Exception], match: str, changes: dict) -> None:
    given_ = {"uv": torch.ones(3, 2), "mask": torch.ones(4, 5), **changes}
    with pytest.raises(error, match=match):
        segmentation_loss(**given_)
