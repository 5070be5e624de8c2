"""Sampled flow against SciPy's map_coordinates, motion losses against a loop and the paper's pitfalls."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from throughline.geometry.motion import motion_loss, sample_flow


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- sample_flow ----


@pytest.mark.parametrize("size", [(5, 9), (1, 6), (6, 1), (1, 1)])
def test_sampling_is_that_of_scipy(size: tuple[int, int]) -> None:
    flow = normal(*size, 2)
    uv = normal(40, 2, seed=1) * 6 + torch.tensor([size[1] / 2, size[0] / 2])  # some of them outside
    where = uv.flip(-1).T.numpy()  # row, column
    expected = np.stack([map_coordinates(flow[..., k].numpy(), where, order=1, mode="nearest") for k in (0, 1)], -1)
    torch.testing.assert_close(sample_flow(flow, uv), torch.from_numpy(expected))


def test_pixel_centres_are_integers() -> None:
    flow = normal(4, 7, 2)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(7.0), indexing="ij")
    uv = torch.stack((x, y), -1).double().flatten(0, 1)
    assert torch.equal(sample_flow(flow, uv), flow.flatten(0, 1))


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_plane_is_sampled_exactly(x: float, y: float) -> None:
    row, column = torch.meshgrid(torch.arange(6.0).double(), torch.arange(8.0).double(), indexing="ij")
    flow = torch.stack((2 * column - row, column + 3 * row), -1)
    u, v = min(max(x, 0), 7), min(max(y, 0), 5)
    found = sample_flow(flow, torch.tensor([[x, y]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[2 * u - v, u + 3 * v]], dtype=torch.float64))


def test_images_and_points_broadcast() -> None:
    flow, uv = normal(3, 5, 6, 2), normal(2, 3, 7, 2, seed=1) * 2 + 2
    found = sample_flow(flow, uv)
    assert found.shape == (2, 3, 7, 2)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], sample_flow(flow[j], uv[i, j]))
    many = sample_flow(normal(4, 1, 5, 6, 2), uv[0])
    assert many.shape == (4, 3, 7, 2)
    torch.testing.assert_close(many[2, 1], sample_flow(normal(4, 1, 5, 6, 2)[2, 0], uv[0, 1]))


def test_a_lost_point_has_no_flow() -> None:
    found = sample_flow(normal(4, 4, 2), torch.tensor([[math.nan, 1.0], [1.0, 1.0]]).double())
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


# ---- motion_loss ----


def scene(lead: tuple[int, ...] = (3,), vertices: int = 11) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    uv0 = normal(*lead, vertices, 2, seed=1) * 2 + 3
    uv1 = uv0 + normal(*lead, vertices, 2, seed=2)
    return uv0, uv1, normal(*lead, 7, 8, 2, seed=3), normal(*lead, vertices, seed=4) > 0


def test_the_loss_is_the_mean_over_visible_vertices() -> None:
    uv0, uv1, flow, visible = scene()
    found = motion_loss(uv0, uv1, flow, visible)
    for t in range(3):
        rows = []
        for i in range(11):
            if visible[t, i]:
                seen = [
                    map_coordinates(
                        flow[t, ..., k].numpy(), uv0[t, i].flip(0)[:, None].numpy(), order=1, mode="nearest"
                    )
                    for k in (0, 1)
                ]
                rows.append(sum(abs(float(uv1[t, i, k] - uv0[t, i, k]) - seen[k].item()) for k in (0, 1)))
        assert found[t].item() == pytest.approx(np.mean(rows))
    torch.testing.assert_close(motion_loss(uv0, uv1, sample_flow(flow, uv0), visible), found)


def test_flow_goes_from_the_first_frame_to_the_second_and_is_read_at_the_first() -> None:
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    flow = torch.stack((column, 0 * row), -1)  # faster to the right
    uv0 = torch.tensor([[2.0, 3.0]])
    seen = torch.tensor([True])
    assert motion_loss(uv0, uv0 + torch.tensor([2.0, 0.0]), flow, seen) == 0
    assert motion_loss(uv0 + torch.tensor([2.0, 0.0]), uv0, flow, seen) == 6


def test_the_gradient_reaches_both_frames_but_not_the_place_of_reading() -> None:
    uv0, uv1, flow, visible = scene(())
    uv0, uv1 = uv0.requires_grad_(), uv1.requires_grad_()
    slopes = torch.autograd.grad(motion_loss(uv0, uv1, flow, visible), (uv0, uv1))
    torch.testing.assert_close(slopes[0], -slopes[1])
    sign = (uv1 - uv0 - sample_flow(flow, uv0)).sign() * visible[:, None] / visible.sum()
    torch.testing.assert_close(slopes[1], sign.detach())


def test_how_much_is_hidden_does_not_change_the_weight() -> None:
    """The released code divides by all vertices."""
    uv0 = torch.zeros(10, 2)
    off = motion_loss(uv0, uv0 + 1, torch.zeros(10, 2), torch.arange(10) < 10)
    assert off == 2
    assert motion_loss(uv0, uv0 + 1, torch.zeros(10, 2), torch.arange(10) < 3) == off


@pytest.mark.parametrize("stranger", [math.nan, math.inf, 1e300])
def test_what_is_hidden_does_not_count(stranger: float) -> None:
    uv0, uv1, flow, visible = scene(())
    flow = sample_flow(flow, uv0)
    expected = motion_loss(uv0[visible], uv1[visible], flow[visible], visible[visible])
    hidden = (~visible).nonzero()[0, 0]
    for tensor in (uv0, uv1, flow):
        tensor[hidden] = stranger
    uv0, uv1 = uv0.requires_grad_(), uv1.requires_grad_()
    found = motion_loss(uv0, uv1, flow, visible)
    torch.testing.assert_close(found, expected)
    assert all((g[~visible] == 0).all() for g in torch.autograd.grad(found, (uv0, uv1)))


def test_nothing_visible_costs_nothing() -> None:
    uv0, uv1, flow, visible = scene()
    visible[1] = False
    uv1.requires_grad_()
    found = motion_loss(uv0, uv1, flow, visible)
    assert found[1] == 0
    assert torch.autograd.grad(found.sum(), uv1)[0].isfinite().all()


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, r"visible must be a boolean tensor, got torch.float32", {"visible": torch.ones(4)}),
        (TypeError, r"visible must be a boolean tensor, got list", {"visible": [True] * 4}),
        (ValueError, r"visible must be \(4,\), as uv0 \(4, 2\), got \(5,\)", {"visible": torch.ones(5).bool()}),
        (ValueError, r"uv0 and uv1 must have one shape, got \(4, 2\) and \(3, 2\)", {"uv1": torch.ones(3, 2)}),
        (
            ValueError,
            r"flow must be an image .* sampled as uv0 \(4, 2\), got shape \(5, 2\)",
            {"flow": torch.ones(5, 2)},
        ),
        (
            ValueError,
            r"flow and uv0 must have the same leading dimensions, got shapes \(2, 5, 5, 2\) and \(1, 4, 2\)",
            {
                "uv0": torch.ones(1, 4, 2),
                "uv1": torch.ones(1, 4, 2),
                "visible": torch.ones(1, 4).bool(),
                "flow": torch.ones(2, 5, 5, 2),
            },
        ),
        (
            ValueError,
            r"flow must be \(\.\.\., H, W, 2\), not empty, got shape \(0, 5, 2\)",
            {"flow": torch.ones(0, 5, 2)},
        ),
        (
            ValueError,
            r"flow must be \(\.\.\., H, W, 2\), not empty, got shape \(5, 5, 3\)",
            {"flow": torch.ones(5, 5, 3)},
        ),
        (TypeError, r"flow must be floating point", {"flow": torch.ones(4, 2).long()}),
        (TypeError, r"uv0 must be floating point", {"uv0": torch.ones(4, 2).long()}),
        (ValueError, r"uv1 must be points", {"uv1": torch.ones(4, 3)}),
    ],
)
def test_the_loss_refuses(error: type[Exception], match: str, changes: dict) -> None:
    given_ = {
        "uv0": torch.ones(4, 2),
        "uv1": torch.ones(4, 2),
        "flow": torch.ones(4, 2),
        "visible": torch.ones(4).bool(),
        **changes,
    }
    with pytest.raises(error, match=match):
        motion_loss(**given_)


def test_sampling_refuses() -> None:
    with pytest.raises(
        ValueError, match=r"flow and uv must have leading dimensions that broadcast, got \(2,\) of flow and \(3,\)"
    ):
        sample_flow(torch.ones(2, 4, 4, 2), torch.ones(3, 5, 2))
    with pytest.raises(TypeError, match=r"uv must be a tensor, got list"):
        sample_flow(torch.ones(4, 4, 2), [[1.0, 1.0]])
    with pytest.raises(ValueError, match=r"uv must be points"):
        sample_flow(torch.ones(4, 4, 2), torch.ones(5, 3))
