"""Both terms of semantic rendering against a rendering of each by itself, and what their gradients do to a body."""

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from throughline.core.camera import Camera, weak_perspective
from throughline.core.raster import rasterize, soft_rasterize
from throughline.geometry.body import (
    DSR_C_GROUPS,
    DSR_MC_LABELS,
    BodyModel,
    DSRLoss,
    clothing_loss,
    distance_loss,
    merge_labels,
    open_body,
    semantic,
    semantic_prior,
    soft_iou_loss,
)
from throughline.geometry.people import a_pose, random_outfits, synthetic_people

SIZE = (40, 40)
FACE, LEFT_ARM, RIGHT_ARM, UPPER = 13, 14, 15, 5


@cache
def scene() -> tuple[BodyModel, Tensor, Tensor, Camera]:
    """A body in the A-pose with the prior of 50 outfits, its vertices from the root, and who looks at it."""
    body = open_body(0.07).double()
    draw = torch.Generator().manual_seed(0)
    prior = semantic_prior(random_outfits(50, body, generator=draw).labels, 20).double()
    pose = a_pose()[None].double()
    out = body(torch.zeros(1, 10).double(), pose[:, 1:], pose[:, :1], pose2rot=False)
    camera = weak_perspective(torch.tensor([[0.95, 0.0, 0.0]]).double(), SIZE)
    return body, prior, out.vertices - out.joints[:, :1], camera


def parsed(vertices: Tensor, camera: Camera) -> Tensor:
    """What a perfect parser sees of bodies whose vertices wear their likeliest label."""
    body, prior, _, _ = scene()
    label = prior.argmax(1)[body.faces[:, 0]]
    face = rasterize(vertices, body.faces, camera).face
    return torch.where(face >= 0, label[face.clamp_min(0)], 0)


def criterion(**options: Any) -> DSRLoss:
    body, prior, _, _ = scene()
    return DSRLoss(prior, body.faces, **{"min_pixels": 4, "sigma": 1e-4, **options})


@pytest.mark.parametrize("minimal", ["distance", "iou"])
def test_is_what_two_renderings_give(minimal: str) -> None:
    body, prior, at, camera = scene()
    vertices = torch.cat([at, at + torch.tensor([0.2, 0.0, 0.0])])
    parsing = parsed(at, camera).expand(2, -1, -1).clone()
    parsing[1][parsing[1] == FACE] = 2  # the second has no face
    found = criterion(minimal=minimal, minimal_weight=0.5, clothing_weight=0.25)(vertices, camera, parsing)
    for n in range(2):
        one = (vertices[n], body.faces, Camera(camera.K, camera.R, camera.t[0], SIZE))
        q = soft_rasterize(*one, merge_labels(prior, DSR_C_GROUPS)).attributes
        assert q is not None
        clothing = clothing_loss(q, merge_labels(parsing[n], DSR_C_GROUPS), min_pixels=4)
        torch.testing.assert_close(found["clothing"][n], clothing)
        seen = [label for label in DSR_MC_LABELS if (parsing[n] == label).sum() > 4]
        assert (FACE in seen) == (n == 0)
        p = soft_rasterize(*one, prior[:, seen].sum(1, keepdim=True)).attributes
        assert p is not None
        mask = torch.isin(parsing[n], torch.tensor(seen))
        expected = {"distance": distance_loss, "iou": soft_iou_loss}[minimal](p[..., 0], mask)
        torch.testing.assert_close(found["minimal"][n], expected)
    total = (0.5 * found["minimal"] + 0.25 * found["clothing"]).mean()
    torch.testing.assert_close(found["total"], total)


def test_renders_once_and_no_more_channels_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, at, camera = scene()
    channels: list[int] = []

    def watched(vertices: Tensor, faces: Tensor, camera: Camera, attributes: Tensor, **options: Any) -> Any:
        channels.append(attributes.shape[-1])
        assert options == {"sigma": 2e-4, "gamma": 3e-2}
        return soft_rasterize(vertices, faces, camera, attributes, **options)

    monkeypatch.setattr(semantic, "soft_rasterize", watched)
    parsing = parsed(at, camera)
    for weights, wanted in (((0.1, 0.1), [9]), ((0.1, 0.0), [1]), ((0.0, 0.1), [8]), ((0.0, 0.0), [])):
        channels.clear()
        loss = criterion(minimal_weight=weights[0], clothing_weight=weights[1], sigma=2e-4, gamma=3e-2)
        found = loss(at, camera, parsing)
        assert channels == wanted
        for name, weight in zip(("minimal", "clothing"), weights, strict=True):
            assert bool(found[name] > 0) == (weight > 0)


def test_images_without_labels_cost_nothing() -> None:
    _, _, at, camera = scene()
    vertices = at.expand(2, -1, -1).clone().requires_grad_()
    parsing = parsed(at, camera).expand(2, -1, -1).clone()
    parsing[0][(parsing[0] != 0)] = UPPER
    for minimal in ("distance", "iou"):
        found = criterion(minimal=minimal, clothing_weight=0.0)(vertices, camera, parsing)
        assert found["minimal"][0] == 0
        assert found["minimal"][1] > 0
        (gradient,) = torch.autograd.grad(found["total"], vertices)
        assert (gradient[0] == 0).all()
        assert gradient[1].abs().max() > 0
    everything = criterion(min_pixels=10_000)(vertices, camera, parsing)
    assert everything["total"] == 0


def test_a_label_needs_more_than_min_pixels() -> None:
    _, _, at, camera = scene()
    parsing = torch.zeros(1, *SIZE, dtype=torch.int64)
    parsing[0, 5, 10:14] = FACE  # four pixels
    assert criterion(min_pixels=4)(at, camera, parsing)["minimal"] == 0
    assert criterion(min_pixels=3)(at, camera, parsing)["minimal"] > 0


def test_the_channel_of_the_background_is_the_priors_own() -> None:
    """No vertex is background: its channel is 0, not what the silhouette leaves; logits of empty pixels are all 0."""
    body, _, at, camera = scene()
    only = torch.zeros(len(body.template), 20, dtype=torch.float64)
    only[:, UPPER] = 1.0
    parsing = torch.zeros(1, *SIZE, dtype=torch.int64)
    loss = DSRLoss(only, body.faces, minimal_weight=0.0, min_pixels=0)
    far = loss(at + torch.tensor([50.0, 0.0, 0.0]), camera, parsing)["clothing"]
    torch.testing.assert_close(far, torch.tensor([8.0]).double().log(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("minimal", ["distance", "iou"])
@pytest.mark.parametrize("shift", [-0.12, 0.15])
def test_gradients_lead_back(minimal: str, shift: float) -> None:
    _, _, at, camera = scene()
    parsing = parsed(at, camera)
    off = torch.tensor([shift, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    loss = criterion(minimal=minimal, clothing_weight=0.0, sigma=1e-3)
    (gradient,) = torch.autograd.grad(loss(at + off, camera, parsing)["total"], off)
    assert gradient[0] * shift > 0


@cache
def girths(sigma: float, **options: Any) -> dict[float, float]:
    """The mean loss of six people in clothes of 2 cm, by how far their number of girth is off."""
    body, draw = open_body(0.05), torch.Generator().manual_seed(0)
    K = torch.tensor([[140.0, 0.0, 47.5], [0.0, 140.0, 47.5], [0.0, 0.0, 1.0]])
    camera = Camera(K, torch.eye(3), torch.zeros(3), (96, 96))
    outfits = random_outfits(6, body, upper=(0.02, 0.02), lower=(0.02, 0.02), generator=draw)
    people = synthetic_people(body, torch.zeros(6, 10), outfits, camera, noise=0.0, generator=draw)
    prior = semantic_prior(random_outfits(100, body, generator=draw).labels, 20)
    loss = DSRLoss(prior, body.faces, **{"sigma": sigma, "min_pixels": 11, "minimal": "iou", **options})
    found = {}
    for off in (-3.0, -1.5, 0.0, 1.5, 3.0):
        betas = torch.zeros(6, 10)
        betas[:, 1] = off
        out = body(betas, people.pose[:, 1:], people.pose[:, :1], pose2rot=False)
        vertices = out.vertices - out.joints[:, :1] + people.joints[:, :1]
        found[off] = float(loss(vertices, camera, people.parsing)["total"])
    return found


def test_skin_finds_the_true_girth_where_the_renderer_is_sharp() -> None:
    """Labels reach half the side times √(9.2 σ) beyond an edge: 3 cm of a body at 1e-4, taken off its girth."""
    assert DSRLoss(scene()[1], scene()[0].faces).sigma == 1e-5
    for sigma, best in ((1e-5, 0.0), (1e-4, -1.5)):
        values = girths(sigma, clothing_weight=0.0)
        assert min(values, key=values.__getitem__) == best


def test_the_distance_draws_back_what_sticks_out_and_clothes_want_to_be_filled() -> None:
    outside = girths(1e-5, clothing_weight=0.0, minimal="distance")
    assert outside[0.0] < outside[1.5] < outside[3.0]
    clothes = girths(1e-5, minimal_weight=0.0)
    assert clothes[-3.0] > clothes[-1.5] > clothes[0.0]


def test_keeps_prior_and_faces() -> None:
    loss = criterion()
    assert set(loss.state_dict()) == {"prior", "faces"}
    assert "minimal='distance'" in repr(loss)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "prior must be floating point, got torch.int64", {"prior": torch.zeros(4, 20).long()}),
        (ValueError, "prior must be (V, 20), got shape (4, 8)", {"prior": torch.full((4, 8), 1 / 8)}),
        (
            ValueError,
            "prior must hold probabilities, rows that sum to 1: got a sum that is off by 1",
            {"prior": torch.zeros(4, 20)},
        ),
        (ValueError, "a least entry of -1", {"prior": torch.eye(20)[:4] * 2 - torch.eye(20)[4:8]}),
        (TypeError, "faces must be a tensor, got list", {"faces": [[0, 1, 2]]}),
        (ValueError, 'minimal must be "distance" or "iou", got \'mse\'', {"minimal": "mse"}),
        (ValueError, "minimal_weight must be finite and not negative, got -1", {"minimal_weight": -1}),
        (ValueError, "clothing_weight must be finite and not negative, got inf", {"clothing_weight": float("inf")}),
        (ValueError, "sigma must be positive and finite, got 0", {"sigma": 0}),
        (ValueError, "gamma must be positive and finite, got nan", {"gamma": float("nan")}),
        (ValueError, "min_pixels must not be negative, got -1", {"min_pixels": -1}),
    ],
)
def test_refuses_options(error: type[Exception], match: str, changes: dict[str, Any]) -> None:
    given = {"prior": torch.eye(20)[:4], "faces": torch.tensor([[0, 1, 2]])}
    with pytest.raises(error, match=re.escape(match)):
        DSRLoss(**(given | changes))


def test_refuses_inputs() -> None:
    body, _, at, camera = scene()
    count = len(body.template)
    parsing = torch.zeros(1, *SIZE, dtype=torch.int64)
    cases: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (
            ValueError,
            f"vertices must be (B, {count}, 3), of the prior's mesh, got (1, 8, 3)",
            (at[:, :8], camera, parsing),
        ),
        (ValueError, f"vertices must be (B, {count}, 3)", (at[0], camera, parsing)),
        (TypeError, "vertices must be floating point", (at.long(), camera, parsing)),
        (
            ValueError,
            "parsing must be (1, 40, 40), of the camera's size, got (1, 40, 39)",
            (at, camera, parsing[..., 1:]),
        ),
        (
            ValueError,
            "parsing must be (1, 40, 40), of the camera's size, got (2, 40, 40)",
            (at, camera, parsing.expand(2, -1, -1)),
        ),
        (ValueError, "parsing must lie in [0, 20), got 20 to 20", (at, camera, parsing + 20)),
        (TypeError, "parsing must be int64, got torch.uint8", (at, camera, parsing.byte())),
    ]
    for error, match, args in cases:
        with pytest.raises(error, match=re.escape(match)):
            criterion()(*args)
