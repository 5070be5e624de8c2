"""Direct optimisation: starts by hand, stages, restarts that do not see each other, and clips it solves."""

import math
from typing import Any

import pytest
import torch
from tests.geometry.motion.bodies import DISTANCE, FOCAL, body, camera, joints, motion, observed
from torch import Tensor

from throughline.core.camera import Camera, look_at
from throughline.core.rotation import geodesic_distance, so3_exp
from throughline.geometry.body import BodyPrediction, joint_error
from throughline.geometry.motion import Clip, SelfSupervision, fit_body
from throughline.geometry.motion.fitting import _start

KEYPOINTS = SelfSupervision(body(), motion=0, segmentation=0)


def seen(true: BodyPrediction, by: Camera | None = None) -> Clip:
    by = camera() if by is None else by
    return Clip(by, by.project(joints(true))[0])


def still(frames: int = 1, place: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> BodyPrediction:
    pose = torch.eye(3).expand(frames, 24, 3, 3)
    return BodyPrediction(pose, torch.zeros(frames, 10), torch.tensor(place).expand(frames, 3))


# ---- where it starts ----


def test_it_starts_upright_at_the_height_of_the_keypoints() -> None:
    true = still(2, (0.3, -0.2, 0.5))
    start = _start(body(), seen(true), 4).predicted()
    assert start.pose.shape == (4, 2, 24, 3, 3)
    for k, angle in enumerate((0.0, math.pi / 2, math.pi, 3 * math.pi / 2)):
        yaw = so3_exp(torch.tensor([0.0, angle, 0.0]))
        torch.testing.assert_close(start.pose[k, :, 0], yaw.expand(2, 3, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(start.pose[k, :, 1:], torch.eye(3).expand(2, 23, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(start.transl[0], true.transl, atol=0.1, rtol=0)  # a body is not flat
    depth = camera().to_camera(joints(BodyPrediction(*(part[2] for part in start))))[..., 2]
    assert (depth > 0).all()


def test_the_depth_is_focal_length_times_height_over_pixels() -> None:
    clip = seen(still())
    start = _start(body(), clip, 1).predicted()
    at = joints(BodyPrediction(*(part[0] for part in start)))[0]
    tall = (at[:, 1].max() - at[:, 1].min()).item()
    high = (clip.keypoints[0, :, 1].max() - clip.keypoints[0, :, 1].min()).item()
    middle = clip.camera.to_camera(at[None])[0].mean(0)
    assert middle[2].item() == pytest.approx(FOCAL * tall / high, rel=1e-4)
    centre = clip.keypoints[0].mean(0)
    torch.testing.assert_close(FOCAL * middle[:2] / middle[2] + 23.5, centre, rtol=1e-4, atol=1e-3)


def test_a_world_with_y_down_starts_with_a_turned_root() -> None:
    one = camera()
    plain = Camera(one.K, torch.eye(3), torch.zeros(3), one.image_size)
    clip = Clip(plain, seen(still()).keypoints)
    start = _start(body(), clip, 1).predicted()
    torch.testing.assert_close(start.pose[0, 0, 0], torch.diag(torch.tensor([1.0, -1.0, -1.0])), atol=1e-6, rtol=0)
    depth = plain.to_camera(joints(BodyPrediction(*(part[0] for part in start))))[..., 2]
    assert depth.mean().item() == pytest.approx(DISTANCE, abs=0.1)


def test_a_camera_anywhere_sees_the_same_start() -> None:
    side = look_at((3.0, 2.5, 1.0), (0.0, 0.9, 0.0), focal_length=FOCAL, image_size=(48, 48))
    start = _start(body(), Clip(side, seen(still()).keypoints), 2).predicted()
    front = _start(body(), seen(still()), 2).predicted()
    for k in range(2):
        there, here = (BodyPrediction(*(part[k] for part in each)) for each in (start, front))
        torch.testing.assert_close(
            side.to_camera(joints(there)), camera().to_camera(joints(here)), atol=1e-4, rtol=1e-4
        )


def test_frames_that_show_too_little_start_where_the_others_do() -> None:
    clip = seen(still(3, (0.2, 0.0, 0.3)))
    confidence = torch.ones(3, 24)
    confidence[1, 2:] = 0  # both hips at most
    confidence[2] = 0
    keypoints = clip.keypoints.clone()
    keypoints[2] = math.nan
    start = _start(body(), clip._replace(keypoints=keypoints, confidence=confidence), 2).predicted()
    assert start.transl.isfinite().all()
    torch.testing.assert_close(start.transl[:, 1:], start.transl[:, :1].expand(-1, 2, -1), atol=1e-4, rtol=0)


def test_only_what_is_seen_places_the_body() -> None:
    clip = seen(still())
    spoilt = clip.keypoints.clone()
    spoilt[0, 10:12] = 1e4
    confidence = torch.ones(1, 24)
    confidence[0, 10:12] = 0  # the feet: there is less of the body to be seen, and less in the image
    start = _start(body(), clip._replace(keypoints=spoilt, confidence=confidence), 1).transl
    torch.testing.assert_close(start[0], torch.zeros(1, 3), atol=0.06, rtol=0)


# ---- how it goes on ----


def test_root_and_place_come_first() -> None:
    moved: list[BodyPrediction] = []

    def watched(prediction: BodyPrediction, clip: Clip) -> dict[str, Tensor]:
        moved.append(BodyPrediction(*(part.detach().clone() for part in prediction)))
        return KEYPOINTS(prediction, clip)

    fit_body(body(), seen(motion(yaw=0.4)), watched, steps=9, restarts=2)
    assert len(moved) == 10  # and once more to choose
    first, rest = moved[0], moved[3]  # a quarter of nine is two
    assert torch.equal(moved[2].pose[:, :, 1:], first.pose[:, :, 1:])
    assert torch.equal(moved[2].betas, first.betas)
    assert not torch.equal(moved[1].pose[:, :, 0], first.pose[:, :, 0])
    assert not torch.equal(moved[1].transl, first.transl)
    assert not torch.equal(rest.pose[:, :, 1:], first.pose[:, :, 1:])
    assert not torch.equal(rest.betas, first.betas)
    assert torch.equal(rest.betas[:, :1].expand_as(rest.betas), rest.betas)  # one shape a clip


def test_it_finds_a_body_that_faces_the_camera() -> None:
    true = motion(2, amplitude=0.15)
    found = fit_body(body(), observed(true), SelfSupervision(body()), steps=60, lr=0.05, restarts=1, prior=0.01)
    start = BodyPrediction(*(part[0] for part in _start(body(), observed(true), 1).predicted()))
    assert joint_error(joints(found), joints(true)).mean() < 0.5 * joint_error(joints(start), joints(true)).mean()
    assert KEYPOINTS(found, seen(true))["keypoint"] < 0.5
    assert found.pose.shape == (2, 24, 3, 3)
    assert found.betas.shape == (2, 10)
    assert found.transl.shape == (2, 3)
    assert not any(part.requires_grad for part in found)


def test_a_body_that_turns_its_back_needs_restarts() -> None:
    true = motion(1, amplitude=0.1, yaw=math.pi)
    clip = seen(true)
    one, four = (fit_body(body(), clip, KEYPOINTS, steps=40, lr=0.05, restarts=k, prior=0.3) for k in (1, 4))
    turned = [geodesic_distance(each.pose[0, 0], true.pose[0, 0]).item() for each in (one, four)]
    assert turned[1] < 0.4 < turned[0]


def test_restarts_do_not_see_each_other_and_the_lowest_is_kept() -> None:
    true = motion(2, yaw=1.2)
    clip = seen(true)
    seen_totals: list[Tensor] = []
    finals: list[BodyPrediction] = []

    def watched(prediction: BodyPrediction, clip: Clip) -> dict[str, Tensor]:
        found = KEYPOINTS(prediction, clip)
        seen_totals.append(found["total"].detach())
        finals.append(prediction)
        return found

    best = fit_body(body(), clip, watched, steps=12, restarts=2, prior=0.0)
    winner = int(seen_totals[-1].argmin())
    torch.testing.assert_close(best.pose, finals[-1].pose[winner].detach())
    alone = fit_body(body(), clip, KEYPOINTS, steps=12, restarts=1, prior=0.0)  # the first of the two
    torch.testing.assert_close(alone.transl, finals[-1].transl[0].detach(), rtol=1e-3, atol=1e-4)


def test_a_start_that_is_lost_is_not_chosen() -> None:
    def lost(prediction: BodyPrediction, clip: Clip) -> dict[str, Tensor]:
        total = KEYPOINTS(prediction, clip)["total"]
        return {"total": total * torch.tensor([math.nan, 1.0])}

    assert all(part.isfinite().all() for part in fit_body(body(), seen(motion(1)), lost, steps=3, restarts=2))


def test_the_prior_draws_to_rest() -> None:
    clip = seen(motion(1, amplitude=0.4))
    bent = []
    for prior in (0.0, 1.0, 1000.0):
        found = fit_body(body(), clip, KEYPOINTS, steps=40, lr=0.05, restarts=1, prior=prior)
        bent.append(geodesic_distance(found.pose[0, 1:], torch.eye(3).expand(23, 3, 3)).sum().item())
    assert bent[0] > bent[1] > bent[2]
    assert bent[2] < 1.0


def test_the_prior_is_what_the_paper_has() -> None:
    """With nothing else to gain, its gradient alone moves the shape back; and it is summed over joints."""
    values: list[tuple[float, float]] = []

    def flat(prediction: BodyPrediction, clip: Clip) -> dict[str, Tensor]:
        pose = prediction.pose[:, :, 1:]
        bent = (pose[..., :2] - torch.eye(3)[:, :2]).square().sum((-1, -2, -3)).mean(-1)
        values.append((bent.sum().item(), prediction.betas[:, 0].square().sum().item()))
        pull = 3 * prediction.betas[:, 0].sum(-1) + pose[:, :, :, 0, 1].sum((-1, -2))
        return {"total": pull}

    # at the optimum of p·0.01 β² + 3 β each β is -150 / p
    fit_body(body(), seen(still()), flat, steps=400, lr=0.05, restarts=1, prior=300.0)
    assert values[-1][1] == pytest.approx(10 * 0.5**2, rel=0.05)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, r"steps must be at least 1, got 0", {"steps": 0}),
        (ValueError, r"restarts must be at least 1, got 0", {"restarts": 0}),
        (TypeError, r"restarts must be an integer, got 2\.0", {"restarts": 2.0}),
        (ValueError, r"lr must be positive and finite, got -1", {"lr": -1}),
        (ValueError, r"prior must be not negative and finite, got -1", {"prior": -1}),
        (
            ValueError,
            r'loss must give a "total" of shape \(4,\), got \(\)',
            {"loss": lambda p, c: {"total": p.pose.sum()}},
        ),
        (TypeError, r"the total of loss must be a tensor, got float", {"loss": lambda p, c: {"total": 1.0}}),
        (
            ValueError,
            r"clip.keypoints must span a quarter of the body's height in some frame, and none of 1 does",
            {"clip": Clip(camera(), torch.zeros(1, 24, 2))},
        ),
        (
            ValueError,
            r"clip.keypoints must hold a keypoint for each of the body's joints, got shapes \(1, 17, 2\) and",
            {"clip": Clip(camera(), torch.zeros(1, 17, 2))},
        ),
        (ValueError, r"clip.keypoints must be \(T, K, 2\)", {"clip": Clip(camera(), torch.zeros(24, 2))}),
        (
            ValueError,
            r"behind the camera at the start, at a depth of -0\.\d+ m; clip.camera.K must be of the very images",
            {"clip": Clip(camera(), 20 * seen(still()).keypoints)},
        ),
    ],
)
def test_refuses(error: type[Exception], match: str, changes: dict[str, Any]) -> None:
    given = {"clip": seen(still()), "loss": KEYPOINTS, "steps": 1, **changes}
    with pytest.raises(error, match=match):
        fit_body(body(), given.pop("clip"), given.pop("loss"), **given)
