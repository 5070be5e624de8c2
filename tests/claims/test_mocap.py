"""The mocap claim: generated people by hand, what the arms share, errors, own clips, and the paper's network."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import Notes
from torch import Tensor, nn

from throughline.claims.mocap import data, models, people, training
from throughline.claims.mocap.claim import AdaptsToTheClip
from throughline.claims.mocap.config import Config, Population
from throughline.core.rotation import so3_log
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.geometry.body import BodyModel, BodyPrediction, open_body
from throughline.geometry.motion import SelfSupervision

CLAIM = AdaptsToTheClip()
SMOKE: Config = CLAIM.scales["smoke"]
QUICK = replace(SMOKE, steps=20, people=100)
WHO = Population(0.45, 0.7, 1.5, 0.5)


@cache
def body() -> BodyModel:
    return open_body(0.07)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def run(arm: str, seed: int = 0, config: Config = QUICK) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    return CLAIM.run(arm, config, seed, notes), notes


# ---- people ----


def test_populations_have_the_spread_they_say() -> None:
    who = Population(0.3, 0.4, 0.7, 0.0)
    found = people.crowd(4000, who, SMOKE, seeded())
    turns = so3_log(found.pose)
    assert turns[:, 0, 1].std().item() == pytest.approx(0.4, rel=0.05)
    assert turns[:, 0, [0, 2]].abs().max() < 1e-4
    assert turns[:, 1, 0].std().item() == pytest.approx(0.3, rel=0.05)
    assert turns[:, 1, 1].std().item() == pytest.approx(0.12, rel=0.05)
    assert turns[:, 3, 0].std().item() == pytest.approx(0.12, rel=0.05)
    assert turns[:, 9, 0].std().item() == pytest.approx(0.09, rel=0.05)
    assert turns[:, 4:6, 0].min() >= -1e-5
    assert turns[:, 18, 1].max() <= 1e-5  # both forearms come forward
    assert turns[:, 19, 1].min() >= -1e-5
    assert turns[:, 19, 1].square().mean().sqrt().item() == pytest.approx(0.6, rel=0.06)
    assert turns[:, 16, 2].mean().item() == pytest.approx(-0.9, abs=0.05)
    assert found.betas.std().item() == pytest.approx(0.7, rel=0.05)
    assert found.transl[:, 2].abs().max() <= 0.6
    assert found.transl[:, 2].std().item() == pytest.approx(1.2 / math.sqrt(12), rel=0.05)


def test_people_stand_upright_before_the_camera_and_bend_the_right_way() -> None:
    camera = people.stage(SMOKE)
    turns = torch.zeros(1, 24, 3)
    turns[0, 4:6, 0], turns[0, 18, 1], turns[0, 19, 1] = 1.0, -1.0, 1.0
    from throughline.core.rotation import so3_exp

    bent = BodyPrediction(so3_exp(turns), torch.zeros(1, 10), torch.zeros(1, 3))
    _, joints = people.posed(body(), bent)
    uv, depth = camera.project(joints)
    assert (depth > 3).all()
    assert (uv.min() > 0) & (uv.max() < 63)
    assert uv[0, 15, 1] < uv[0, 0, 1] < uv[0, 7, 1]  # head above pelvis above ankle
    assert (depth[0, 7:9] > depth[0, 4:6] + 0.1).all()  # heels go back
    assert (depth[0, 20:22] < depth[0, 18:20] - 0.1).all()  # hands come forward


def test_a_walk_goes_from_pose_to_pose() -> None:
    found = people.walk(WHO, replace(SMOKE, frames=5), seeded(1))
    turns = so3_log(found.pose)[:, 1:]
    torch.testing.assert_close(turns[2], (turns[0] + turns[4]) / 2, atol=1e-4, rtol=0)
    share = (1 - math.cos(math.pi / 4)) / 2
    torch.testing.assert_close(turns[1], turns[0] + share * (turns[4] - turns[0]), atol=1e-4, rtol=0)
    assert torch.equal(found.betas[0].expand_as(found.betas), found.betas)
    yaw = so3_log(found.pose)[:, 0, 1]
    torch.testing.assert_close(yaw.diff(), yaw.diff()[:1].expand(4), atol=1e-4, rtol=0)
    assert yaw.diff().abs().min() > 1e-3


def test_what_detectors_see_is_the_truth_and_noise() -> None:
    config = replace(SMOKE, frames=6, flow_noise=0.25)
    true = people.walk(WHO, config, seeded(2))
    camera = people.stage(config)
    _, joints = people.posed(body(), true)
    clean = people.recorded(body(), true, camera, replace(WHO, noise=0.0), replace(config, flow_noise=0.0), seeded())
    noisy = people.recorded(body(), true, camera, WHO, config, seeded())
    torch.testing.assert_close(clean.keypoints, camera.project(joints)[0])
    assert (noisy.keypoints - clean.keypoints).std().item() == pytest.approx(0.5, rel=0.1)
    assert (noisy.flow - clean.flow).std().item() == pytest.approx(0.25, rel=0.05)  # type: ignore[operator]
    assert torch.equal(noisy.mask, clean.mask)  # type: ignore[arg-type]
    losses = SelfSupervision(body())(true, clean)
    assert losses["keypoint"] < 1e-6
    assert losses["motion"] < 0.5  # at the outline the flow is blurred with the background's
    assert clean.mask is not None
    assert 0.03 < clean.mask.float().mean() < 0.3
    assert clean.flow is not None
    assert (clean.flow[~clean.mask[:-1]] == 0).all()


def test_projections_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    some, camera = people.crowd(7, WHO, SMOKE, seeded()), people.stage(SMOKE)
    whole = people.keypoints_of(body(), some, camera)
    monkeypatch.setattr(people, "CHUNK", 3)
    torch.testing.assert_close(people.keypoints_of(body(), some, camera), whole)
    torch.testing.assert_close(whole, camera.project(people.posed(body(), some)[1])[0], rtol=1e-4, atol=1e-3)


# ---- arms ----


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_units_count_their_steps(arm: str) -> None:
    metrics, notes = run(arm)
    assert set(metrics) == {"reprojection", "mpjpe", "absolute", "v2v", "loss", "clip_seconds"}
    assert all(math.isfinite(value) for value in metrics.values())
    of = {"optimization": 5, "pretrained": 21, "adapted": 25}[arm]
    assert {place[1] for place in notes.places} == {of}
    assert notes.places[-1] == (of, of)
    assert [step for step, _ in notes.places] == sorted(step for step, _ in notes.places)
    course = notes.curve("error_by_step")
    assert list(course) == {"optimization": [*range(6)], "pretrained": [0, 5], "adapted": [*range(6)]}[arm]
    assert list(course.values())[-1] == pytest.approx(metrics["mpjpe"], rel=1e-5)
    assert ("train_loss" in {n for _, v in notes.points for n in v}) == (arm != "optimization")
    assert notes.arrays["joints"].shape == notes.arrays["truth"].shape == (4, 24, 3)
    assert notes.arrays["mask"].shape == notes.arrays["covered"].shape == (4, 64, 64)


def test_a_fair_fight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clips in all arms, the same network in two; nothing but the truth is hidden from the baseline."""
    seen: dict[str, list[Any]] = {"cases": [], "models": []}
    real = training.measured

    def watched(arm: str, model: nn.Module | None, given: Any, config: Config, log: Any) -> dict[str, float]:
        seen["cases"].append(given)
        seen["models"].append(model)
        return real(arm, model, given, config, log)

    monkeypatch.setattr(training, "measured", watched)
    for arm in CLAIM.arms:
        torch.manual_seed(hash(arm) % 1000)
        CLAIM.run(arm, replace(QUICK, clips=2, adapt_steps=1, fit_steps=1), 3, Notes())
    for given in seen["cases"]:
        for one, other in zip(given, seen["cases"][0], strict=True):
            assert torch.equal(one.clip.keypoints, other.clip.keypoints)
            assert torch.equal(one.clip.flow, other.clip.flow)
            assert torch.equal(one.joints, other.joints)
    nothing, fixed, start = seen["models"]
    assert nothing is None
    assert all(torch.equal(a, b) for a, b in zip(fixed.parameters(), start.parameters(), strict=True))
    first, second = seen["cases"][0]
    assert not torch.equal(first.clip.keypoints, second.clip.keypoints)


def test_the_network_is_not_trained_on_the_test_people() -> None:
    """Other draws, and another population."""
    train = people.crowd(3, SMOKE.source, SMOKE, seeded(10 * 4))
    test = data.cases(body(), SMOKE, 4)[0]
    assert not torch.isclose(people.posed(body(), train)[1][:, 15], test.joints[:1, 15]).all(-1).any()
    assert SMOKE.target.amplitude > SMOKE.source.amplitude
    assert SMOKE.target.shape > SMOKE.source.shape


def test_training_lowers_the_loss_and_adaptation_that_of_the_clip() -> None:
    config = replace(QUICK, steps=150, people=500, adapt_steps=40, adapt_lr=1e-3)
    fixed, _ = run("pretrained", 1, config)
    tuned, notes = run("adapted", 1, config)
    curve = list(notes.curve("train_loss").values())
    assert curve[-1] < 0.7 * curve[0]
    assert tuned["loss"] < 0.5 * fixed["loss"]
    assert tuned["reprojection"] < fixed["reprojection"]


def test_what_the_arms_are_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def fit(body: Any, clip: Any, loss: Any, **options: Any) -> BodyPrediction:
        given["fit"] = options
        return people.walk(WHO, QUICK, seeded())

    def tune(model: Any, inputs: Any, loss: Any, **options: Any) -> Any:
        given["adapt"] = options
        return model

    monkeypatch.setattr(training, "fit_body", fit)
    monkeypatch.setattr(training, "adapt", tune)
    weights: list[SelfSupervision] = []

    class Watched(SelfSupervision):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            weights.append(self)

    monkeypatch.setattr(training, "SelfSupervision", Watched)
    config = replace(QUICK, keypoint=2.0, motion=3.0, segmentation=4.0, prior=5.0, restarts=3, fit_lr=0.3, adapt_lr=0.2)
    for arm in CLAIM.arms:
        CLAIM.run(arm, config, 0, Notes())
    assert given["fit"] == {"steps": 5, "lr": 0.3, "restarts": 3, "prior": 5.0}
    assert given["adapt"] == {"steps": 5, "lr": 0.2}
    assert [(w.keypoint, w.motion, w.segmentation) for w in weights] == [(2.0, 3.0, 4.0)] * 3
    laptop = CLAIM.scales["laptop"]
    assert (laptop.adapt_steps, laptop.adapt_lr, laptop.fit_steps, laptop.fit_lr, laptop.restarts) == (
        100,
        1e-4,
        200,
        0.02,
        4,
    )


# ---- errors ----


def shifted(case: data.Case, off: Tensor) -> BodyPrediction:
    true = people.walk(SMOKE.target, SMOKE, seeded(10 * 5 + 1))
    return true._replace(transl=true.transl + off)


def test_errors_are_millimetres_with_and_without_the_root() -> None:
    case = data.cases(body(), SMOKE, 5)[0]
    right = training.errors(case, shifted(case, torch.zeros(3)))
    assert right["mpjpe"] < 1e-2
    assert right["v2v"] < 1e-2
    assert right["absolute"] < 1e-2
    assert right["reprojection"] == pytest.approx(0.5 * math.sqrt(math.pi / 2), rel=0.15)  # the mean of a Rayleigh
    moved = training.errors(case, shifted(case, torch.tensor([0.0, 0.3, 0.4])))
    assert moved["absolute"] == pytest.approx(500, rel=1e-4)
    assert moved["mpjpe"] < 1e-2
    assert moved["v2v"] < 1e-2


def test_the_course_follows_the_best_restart() -> None:
    case = data.cases(body(), SMOKE, 5)[0]
    course = training.Course(case, 50)
    good, bad = shifted(case, torch.zeros(3)), people.walk(WHO, SMOKE, seeded(9))
    both = BodyPrediction(*(torch.stack(parts) for parts in zip(bad, good, strict=True)))
    course.see(both, torch.tensor([2.0, 1.0]))
    course.see(bad, torch.tensor(3.0))  # not one of the points
    course.see(bad, torch.tensor(3.0))
    course.end(good)
    assert list(course.errors) == [0, 2, 50]
    assert course.errors[0] < 0.01 > course.errors[50]
    assert course.errors[2] > 1


# ---- own clips ----


def stored(folder: Path, *, truth: bool = True, scale: float = 5.0, **arrays: Any) -> Source:
    """A generated person in images that are larger, with another centre."""
    config = replace(SMOKE, frames=3, side=64)
    true = people.walk(Population(0.3, 0.3, 0.5, 0.0), config, seeded(3))
    camera = people.stage(config).crop(-4, -8, 80, 76)
    camera = camera.resize((round(80 * scale), round(76 * scale)))
    vertices, joints = people.posed(body(), true)
    mask, flow = people.rendered(body(), vertices, camera)
    found = {
        "keypoints": camera.project(joints)[0].numpy(),
        "mask": mask.numpy(),
        "flow": flow.numpy(),
        "K": camera.K.numpy(),
    }
    if truth:
        found["joints3d"] = camera.to_camera(joints).numpy()
    folder.mkdir(exist_ok=True)
    np.savez(folder / "clip.npz", **{**found, **arrays})
    return Source.of(folder)


def test_own_clips_are_shrunk_to_people_of_the_usual_size(tmp_path: Path) -> None:
    source = stored(tmp_path / "large")
    (case,) = data.cases(body(), replace(SMOKE, data=source), 0)
    clip = case.clip
    high = clip.keypoints[..., 1].amax(1) - clip.keypoints[..., 1].amin(1)
    assert high.median().item() == pytest.approx(80 * 1.45 / 3.8, rel=0.02)
    assert clip.mask is not None
    assert clip.flow is not None
    assert clip.mask.shape == (3, *clip.camera.image_size)
    assert clip.flow.shape == (2, *clip.camera.image_size, 2)
    at = clip.keypoints[:, 0].round().long()
    assert clip.mask[torch.arange(3), at[:, 1], at[:, 0]].all()  # the pelvis is within the mask
    moved = (clip.keypoints[1:, 0] - clip.keypoints[:-1, 0]).abs()
    seen = torch.stack([clip.flow[t, at[t, 1], at[t, 0]] for t in range(2)]).abs()
    torch.testing.assert_close(seen, moved, atol=0.6, rtol=0)
    # the truth is where the clip's own camera sees it
    K = clip.camera.K
    assert case.joints is not None
    uv = case.joints @ K.mT
    torch.testing.assert_close(uv[..., :2] / uv[..., 2:], clip.keypoints, atol=1e-2, rtol=0)
    torch.testing.assert_close(case.inputs[0], clip.keypoints - K[:2, 2])
    assert case.scale == pytest.approx(5.0 * 64 / 64 / (80 * 1.45 / 3.8 / (high.median().item())), rel=0.2)


def test_every_fifth_joint_is_held_out_of_losses_and_network(tmp_path: Path) -> None:
    confidence = np.ones((3, 24))
    confidence[0, 4], confidence[0, 5] = 0, 0.5
    (case,) = data.cases(body(), replace(SMOKE, data=stored(tmp_path / "a", confidence=confidence)), 0)
    assert case.clip.confidence is not None
    assert case.held is not None
    held = [4, 9, 14, 19]
    assert (case.clip.confidence[:, held] == 0).all()
    assert (case.clip.confidence > 0).sum() == 3 * 20
    assert case.clip.confidence[0, 5] == 0.5
    assert (case.held > 0).sum() == 3 * 4 - 1
    assert torch.equal(case.inputs[1], case.clip.confidence)


def test_takes_clips_of_the_users_own(tmp_path: Path) -> None:
    config = replace(QUICK, data=stored(tmp_path / "b", truth=False), motion=1.0, segmentation=0.1)
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        metrics, notes = run.__wrapped__(arm, 0, config)
        assert set(metrics) == {"reprojection", "held_out_reprojection", "loss", "clip_seconds"}
        assert not notes.curve("error_by_step")
        assert "truth" not in notes.arrays
    metrics, _ = run.__wrapped__("pretrained", 0, replace(config, data=stored(tmp_path / "c")))
    assert set(metrics) == {"reprojection", "held_out_reprojection", "mpjpe", "absolute", "loss", "clip_seconds"}


def test_reprojection_is_in_the_users_pixels(tmp_path: Path) -> None:
    config = replace(SMOKE, data=stored(tmp_path / "d"))
    (case,) = data.cases(body(), config, 0)
    true = people.walk(Population(0.3, 0.3, 0.5, 0.0), replace(SMOKE, frames=3), seeded(3))
    near = training.errors(case, true)
    uv = case.clip.camera.project(people.posed(body(), true)[1])[0]
    off = (uv - case.clip.keypoints).norm(dim=-1)
    kept = torch.ones(24, dtype=torch.bool)
    kept[4::5] = False
    assert near["reprojection"] == pytest.approx(float(off[:, kept].mean()) * case.scale, rel=1e-4)
    assert near["held_out_reprojection"] == pytest.approx(float(off[:, ~kept].mean()) * case.scale, rel=1e-4)


def test_the_network_learns_to_do_without_joints_where_some_are_hidden(tmp_path: Path) -> None:
    config = replace(QUICK, steps=2, data=stored(tmp_path / "e"))
    network = training.pretrained(body(), config, 0, Notes(), 2)
    x, shown = torch.randn(2, 24, 2), torch.ones(2, 24)
    shown[:, 3] = 0
    assert network.confidence
    changed = x.clone()
    changed[:, 3] = 1e3
    assert torch.equal(network(changed, shown).pose, network(x, shown).pose)
    assert not torch.equal(network(x, torch.ones(2, 24)).pose, network(x, shown).pose)
    assert torch.equal(network(x).pose, network(x, torch.ones(2, 24)).pose)
    assert not training.pretrained(body(), replace(config, data=None), 0, Notes(), 2).confidence


def test_training_shows_noisy_joints_and_hides_some(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Tensor, Tensor]] = []

    class Watched(models.JointNet):
        def forward(self, centered: Tensor, confidence: Tensor | None = None) -> BodyPrediction:
            assert confidence is not None
            shown.append((centered, confidence))
            return super().forward(centered, confidence)

    monkeypatch.setattr(training, "JointNet", Watched)
    training.pretrained(body(), replace(QUICK, people=1, steps=3, hidden=0.3), 0, Notes(), 3)
    seen, confidence = (torch.cat(parts) for parts in zip(*shown, strict=True))
    assert seen.std(0).mean().item() == pytest.approx(SMOKE.source.noise, rel=0.05)
    assert confidence.mean().item() == pytest.approx(0.7, abs=0.03)
    middle = people.stage(SMOKE).K[:2, 2]
    truth = people.keypoints_of(body(), people.crowd(1, SMOKE.source, SMOKE, seeded()), people.stage(SMOKE))
    torch.testing.assert_close(seen.mean(0), truth[0] - middle, atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("match", "arrays"),
    [
        (
            r"clip: 24 joints are wanted, in SMPL's order, got 17",
            {"keypoints": np.ones((3, 17, 2)), "joints3d": np.ones((3, 17, 3))},
        ),
        (r"clip: no frame shows a person from head to foot", {"confidence": np.zeros((3, 24))}),
        (r"clip: no frame shows a person from head to foot", {"keypoints": np.ones((3, 24, 2))}),
    ],
)
def test_own_clips_that_cannot_be_used_are_refused(match: str, arrays: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match):
        CLAIM.prepare(replace(SMOKE, data=stored(tmp_path / "f", **arrays)))


# ---- the paper's scale ----


def test_the_paper_scale_says_what_it_needs() -> None:
    with pytest.raises(
        ThroughlineError, match=r"SURREAL and SMPL are licensed: .* --set root=SURREAL --set smpl=MODELS"
    ):
        CLAIM.prepare(CLAIM.scales["paper"])
    with pytest.raises(ThroughlineError, match="keypoint must be positive"):
        CLAIM.prepare(replace(SMOKE, keypoint=0.0))


def test_euler_angles_turn_about_x_first() -> None:
    from scipy.spatial.transform import Rotation

    angles = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix() @ np.diag([1.0, -1.0, -1.0])
    torch.testing.assert_close(models.turned(angles.sin(), angles.cos()), torch.from_numpy(expected))


def test_the_papers_network_gives_bodies() -> None:
    torch.manual_seed(0)
    network = models.HeatmapNet(64, 4).eval()
    found = network(torch.rand(2, 27, 64, 64), torch.zeros(2, 1), torch.rand(2, 3))
    assert found.pose.shape == (2, 24, 3, 3)
    torch.testing.assert_close(found.pose @ found.pose.mT, torch.eye(3).expand(2, 24, 3, 3), atol=1e-5, rtol=0)
    assert found.betas.shape == (2, 10)
    assert (found.transl[:, 2] >= 0).all()
    whole = models.HeatmapNet()
    assert sum(p.numel() for p in whole.parameters()) > 10_000_000
    other = network(torch.rand(2, 27, 64, 64), torch.zeros(2, 1), torch.rand(2, 3))
    assert not torch.equal(other.pose, found.pose)
    assert not torch.equal(network(torch.rand(2, 27, 64, 64), torch.ones(2, 1), torch.rand(2, 3)).betas, other.betas)
