"""Self-supervision on clips whose truth is known, and the supervised loss against its definition."""

import copy
import math
import pickle

import pytest
import torch
from tests.geometry.motion.bodies import FOCAL, SIDE, body, camera, joints, motion, observed, vertices
from torch import Tensor, nn

import throughline.geometry.motion.supervision as inner
from throughline.core.camera import Camera
from throughline.core.raster import distance_transform, visible_vertices
from throughline.core.rotation import so3_exp
from throughline.geometry.body import BodyPrediction
from throughline.geometry.motion import (
    Clip,
    SelfSupervision,
    keypoint_loss,
    motion_loss,
    segmentation_loss,
    supervised_loss,
)


def stacked(*motions: BodyPrediction) -> BodyPrediction:
    return BodyPrediction(*(torch.stack(parts) for parts in zip(*motions, strict=True)))


def pixels(points: Tensor, seen: Camera) -> Tensor:
    """By the textbook."""
    x = points.double() @ seen.R.double().mT + seen.t.double()
    return FOCAL * x[..., :2] / x[..., 2:] + (SIDE - 1) / 2


# ---- SelfSupervision ----


def test_the_truth_costs_next_to_nothing_and_other_motions_more() -> None:
    true = motion()
    clip, losses = observed(true), SelfSupervision(body())
    right = losses(true, clip)
    assert right["keypoint"] < 1e-8
    assert right["motion"] < 0.5  # pixels: at the outline the flow is blurred with the background's, which is 0
    for wrong in (motion(seed=1), motion(yaw=0.6), true._replace(transl=true.transl.flip(0))):
        found = losses(wrong, clip)
        assert all(found[name] > right[name] for name in ("keypoint", "motion", "segmentation", "total"))


def test_each_term_is_the_function_on_projected_points() -> None:
    true, tried = motion(), motion(seed=3)
    clip = observed(true)._replace(confidence=torch.rand(3, 24, generator=torch.Generator().manual_seed(0)))
    found = SelfSupervision(body(), keypoint=2.0, motion=3.0, segmentation=0.5)(tried, clip)
    uv = pixels(vertices(tried), clip.camera)
    at = pixels(joints(tried), clip.camera)
    assert clip.confidence is not None
    assert clip.flow is not None
    assert clip.mask is not None
    visible = visible_vertices(vertices(tried), body().faces, clip.camera)
    expected = {
        "keypoint": keypoint_loss(at, clip.keypoints.double(), clip.confidence.double()).mean(),
        "motion": motion_loss(uv[:-1], uv[1:], clip.flow.double(), visible[:-1]).mean(),
        "segmentation": segmentation_loss(uv, clip.mask).mean(),
    }
    expected["total"] = 2 * expected["keypoint"] + 3 * expected["motion"] + 0.5 * expected["segmentation"]
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-5)


def test_every_frame_counts() -> None:
    """In the released code the second frame's keypoint loss takes the place of the first's."""
    true = motion(2)
    clip = observed(true)
    for frame in range(2):
        off = clip.keypoints.clone()
        off[frame] += 2.0
        found = SelfSupervision(body())(true, Clip(clip.camera, off))["keypoint"]
        assert found.item() == pytest.approx(8 / 2, rel=1e-4)


def test_the_gradient_of_motion_reaches_both_frames() -> None:
    true = motion(2)
    transl = motion(2, seed=2).transl.clone().requires_grad_()
    found = SelfSupervision(body())(true._replace(transl=transl + 0.05), observed(true))
    (gradient,) = torch.autograd.grad(found["motion"], transl)
    assert (gradient[:, :2].abs().sum(-1) > 0).all()


def test_what_is_not_observed_is_skipped() -> None:
    true = motion()
    clip, losses = observed(true), SelfSupervision(body())
    bare = losses(motion(seed=1), Clip(clip.camera, clip.keypoints))
    assert set(bare) == {"keypoint", "total"}
    assert bare["total"] == bare["keypoint"]
    assert set(losses(motion(seed=1), clip._replace(flow=None))) == {"keypoint", "segmentation", "total"}
    assert set(losses(motion(seed=1), clip._replace(mask=None))) == {"keypoint", "motion", "total"}
    single = clip._replace(keypoints=clip.keypoints[:1], flow=clip.flow[:0], mask=clip.mask[:1])  # type: ignore[index]
    assert set(losses(motion(1), single)) == {"keypoint", "segmentation", "total"}


def test_what_has_no_weight_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError

    true = motion()
    clip = observed(true)
    for name in ("visible_vertices", "motion_loss", "segmentation_loss"):
        monkeypatch.setattr(inner, name, forbidden)
    found = SelfSupervision(body(), motion=0, segmentation=0)(true, clip)
    assert set(found) == {"keypoint", "total"}
    nothing = SelfSupervision(body(), keypoint=0, motion=0, segmentation=0)(true, clip)
    assert nothing == {"total": torch.tensor(0.0)}


def test_motions_are_judged_together_or_one_by_one() -> None:
    tried = [motion(seed=k) for k in range(3)]
    clip, losses = observed(motion()), SelfSupervision(body())
    together = losses(stacked(*tried), clip)
    for place, each in enumerate(tried):
        for name, value in losses(each, clip).items():
            assert value.shape == ()
            assert together[name].shape == (3,)
            torch.testing.assert_close(together[name][place], value, rtol=1e-4, atol=1e-5)


def test_a_camera_for_each_frame() -> None:
    true = motion()
    clip, losses = observed(true), SelfSupervision(body())
    one = clip.camera
    many = Camera(one.K.expand(3, 3, 3), one.R.expand(3, 3, 3), one.t.expand(3, 3), one.image_size)
    for name, value in losses(motion(seed=1), clip._replace(camera=many)).items():
        torch.testing.assert_close(value, losses(motion(seed=1), clip)[name])
    moving = Camera(one.K, one.R, one.t + torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0, 0, 0.2]]), one.image_size)
    assert losses(true, clip._replace(camera=moving))["keypoint"] > 1
    assert losses(true, observed(true, moving))["keypoint"] < 1e-8


def test_the_turn_from_up_to_down_may_be_in_the_root_as_well() -> None:
    """The same bodies before a camera without a turn."""
    tried = motion(seed=1)
    clip, losses = observed(motion()), SelfSupervision(body())
    one = clip.camera
    turned = Camera(one.K, torch.eye(3), torch.zeros(3), one.image_size)
    root = one.R @ tried.pose[:, :1]
    moved = tried._replace(pose=torch.cat((root, tried.pose[:, 1:]), 1), transl=torch.zeros(3, 3))
    there = one.to_camera(joints(tried))[:, 0] - joints(moved)[:, 0]
    for name, value in losses(moved._replace(transl=there), clip._replace(camera=turned)).items():
        torch.testing.assert_close(value, losses(tried, clip)[name], rtol=1e-3, atol=1e-4)


def test_the_distance_transform_is_computed_once_for_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(inner, "distance_transform", lambda mask: calls.append(mask) or distance_transform(mask))
    clip, losses, tried = observed(motion()), SelfSupervision(body()), motion(seed=1)
    first = losses(tried, clip)["segmentation"]
    assert losses(tried, Clip(clip.camera, clip.keypoints, mask=clip.mask))["segmentation"] == first
    assert len(calls) == 1
    assert clip.mask is not None
    clip.mask[:, :, :20] = False  # in place
    after = losses(tried, clip)["segmentation"]
    assert after != first
    assert len(calls) == 2
    torch.testing.assert_close(SelfSupervision(body())(tried, clip)["segmentation"], after)
    other = clip._replace(mask=~clip.mask)
    assert losses(tried, other)["segmentation"] != after
    assert losses(tried, clip)["segmentation"] == after
    assert len(calls) == 5


def test_bodies_at_the_camera_and_behind_it_have_finite_losses() -> None:
    clip, losses = observed(motion()), SelfSupervision(body())
    for distance in (3.8, 3.9, 20.0):  # the camera's own place, and behind
        transl = torch.tensor([0.0, 0.0, distance]).expand(3, 3).clone().requires_grad_()
        found = losses(motion(seed=1)._replace(transl=transl), clip)
        assert all(value.isfinite() for value in found.values())
        assert found["keypoint"] < 1e7
        assert torch.autograd.grad(found["total"], transl)[0].isfinite().all()


def test_it_is_a_module_that_copies_and_moves() -> None:
    losses = SelfSupervision(copy.deepcopy(body()), motion=0.5)
    clip, tried = observed(motion()), motion(seed=1)
    expected = losses(tried, clip)["total"]
    for twin in (copy.deepcopy(losses), pickle.loads(pickle.dumps(losses))):
        assert twin(tried, clip)["total"] == expected
    assert "keypoint=1.0, motion=0.5, segmentation=0.1" in repr(losses)
    wide = copy.deepcopy(losses).double()(BodyPrediction(*(part.double() for part in tried)), clip)
    assert wide["total"].dtype == torch.float64
    torch.testing.assert_close(wide["total"].float(), expected, rtol=1e-3, atol=1e-4)


CLIP = Clip(camera(), torch.zeros(3, 24, 2))


@pytest.mark.parametrize(
    ("error", "match", "clip"),
    [
        (
            ValueError,
            r"clip.keypoints must hold .* got shapes \(3, 17, 2\) and \(3, 24, 3\)",
            {"keypoints": torch.zeros(3, 17, 2)},
        ),
        (
            ValueError,
            r"prediction.pose must be .* got shapes \(3, 24, 3, 3\) and \(2, 24, 2\)",
            {"keypoints": torch.zeros(2, 24, 2)},
        ),
        (
            ValueError,
            r"clip.keypoints must be \(T, K, 2\) of a frame or more, got shape \(24, 2\)",
            {"keypoints": torch.zeros(24, 2)},
        ),
        (ValueError, r"clip.keypoints must be \(T, K, 2\) of a frame or more", {"keypoints": torch.zeros(0, 24, 2)}),
        (
            TypeError,
            r"clip.keypoints must be floating point, got torch.int64",
            {"keypoints": torch.zeros(3, 24, 2).long()},
        ),
        (ValueError, r"clip.confidence must be \(3, 24\), .* got shape \(3, 23\)", {"confidence": torch.ones(3, 23)}),
        (TypeError, r"clip.flow must be a tensor, got list", {"flow": []}),
        (
            ValueError,
            rf"clip.flow must be \(2, {SIDE}, {SIDE}, 2\), for keypoints \(3, 24, 2\) and images of {SIDE} x {SIDE}, "
            r"got shape \(3,",
            {"flow": torch.zeros(3, SIDE, SIDE, 2)},
        ),
        (ValueError, rf"clip.flow must be \(2, {SIDE}, {SIDE}, 2\)", {"flow": torch.zeros(2, SIDE, SIDE - 1, 2)}),
        (
            ValueError,
            rf"clip.mask must be \(3, {SIDE}, {SIDE}\), .* got shape \(3, {SIDE}, 5\)",
            {"mask": torch.zeros(3, SIDE, 5)},
        ),
        (
            ValueError,
            r"clip.keypoints must be finite where clip.confidence is positive",
            {"keypoints": torch.full((3, 24, 2), math.nan)},
        ),
        (ValueError, r"clip.confidence must not be negative", {"confidence": -torch.ones(3, 24)}),
    ],
)
def test_clips_that_do_not_fit_are_refused(error: type[Exception], match: str, clip: dict) -> None:
    with pytest.raises(error, match=match):
        SelfSupervision(body())(motion(), CLIP._replace(**clip))


def test_bad_weights_are_refused() -> None:
    for name in ("keypoint", "motion", "segmentation"):
        with pytest.raises(ValueError, match=f"{name} must be not negative and finite, got -1"):
            SelfSupervision(body(), **{name: -1.0})
    with pytest.raises(TypeError, match=r"body must be an nn\.Module, got str"):
        SelfSupervision("body")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prediction\.pose must be"):
        SelfSupervision(body())(BodyPrediction(torch.eye(3), torch.zeros(10), torch.zeros(3)), CLIP)


# ---- supervised_loss ----


def test_the_supervised_loss_is_a_sum_of_four_means() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (
        BodyPrediction(
            torch.randn(4, 2, 5, 3, 3, generator=draw),
            torch.randn(4, 2, 7, generator=draw),
            torch.randn(4, 2, 3, generator=draw),
        )
        for _ in range(2)
    )
    found = supervised_loss(one, other, shape_weight=0.3, translation_weight=0.7)
    assert found.shape == (4, 2)
    mse = nn.functional.mse_loss
    a, b = (BodyPrediction(*(part[2, 1] for part in each)) for each in (one, other))
    expected = mse(a.pose[1:], b.pose[1:]) + mse(a.pose[0], b.pose[0])
    expected = expected + 0.3 * mse(a.betas, b.betas) + 0.7 * mse(a.transl, b.transl)
    torch.testing.assert_close(found[2, 1], expected)
    assert supervised_loss(one, one).abs().max() == 0


def test_the_papers_weights() -> None:
    zero = BodyPrediction(torch.eye(3).expand(3, 3, 3), torch.zeros(2), torch.zeros(3))
    assert supervised_loss(zero, zero._replace(betas=torch.ones(2))).item() == pytest.approx(0.05)
    assert supervised_loss(zero, zero._replace(transl=torch.ones(3))).item() == pytest.approx(0.1)


def test_rotations_cost_about_what_axis_angles_do() -> None:
    """The mean over nine entries is 2 |φ|² / 9, that over three angles |φ|² / 3."""
    small = 0.01 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(6, 3, dtype=torch.float64)
    place = torch.zeros(3, dtype=torch.float64)
    found = supervised_loss(
        BodyPrediction(so3_exp(small), torch.zeros(1).double(), place),
        BodyPrediction(so3_exp(still), torch.zeros(1).double(), place),
    )
    angles = small.square().mean(-1)
    expected = 2 / 3 * (angles[1:].mean() + angles[0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_bad_supervision_is_refused() -> None:
    good = BodyPrediction(torch.eye(3).expand(3, 3, 3), torch.zeros(2), torch.zeros(3))
    with pytest.raises(
        ValueError, match=r"predicted.betas and target.betas must have one shape, got \(2,\) and \(4,\)"
    ):
        supervised_loss(good, good._replace(betas=torch.zeros(4)))
    with pytest.raises(TypeError, match=r"target.pose must be floating point"):
        supervised_loss(good, good._replace(pose=good.pose.long()))
    with pytest.raises(
        ValueError, match=r"predicted.pose must be \(\.\.\., joints, 3, 3\) of two joints or more, got \(1, 3, 3\)"
    ):
        supervised_loss(*(good._replace(pose=torch.eye(3)[None]) for _ in range(2)))
    for name in ("shape_weight", "translation_weight"):
        with pytest.raises(ValueError, match=f"{name} must be not negative and finite, got nan"):
            supervised_loss(good, good, **{name: math.nan})
