"""The arms of the mocap claim: training on generated people, the three ways to a motion, and their errors."""

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from throughline.claims.mocap.config import Config
from throughline.claims.mocap.data import Case, moved
from throughline.claims.mocap.models import JointNet
from throughline.claims.mocap.people import crowd, keypoints_of, posed, rendered, stage
from throughline.claims.shared.clocks import clock_of
from throughline.errors import ThroughlineError
from throughline.geometry.body import BodyModel, BodyPrediction, joint_error, vertex_error
from throughline.geometry.motion import SelfSupervision, adapt, fit_body, supervised_loss
from throughline.lab import Log

__all__ = ["length", "measured", "pretrained"]

POINTS = 25  # of a training curve, and of an error against steps
OWN_HIDDEN = 0.25  # share of joints that are hidden in training, where own clips hide some


def length(arm: str, config: Config, clips: int) -> int:
    """Steps of a unit: of training, and then of each clip."""
    return config.steps * (arm != "optimization") + clips * steps_of(arm, config)


def steps_of(arm: str, config: Config) -> int:
    return {"adapted": config.adapt_steps, "optimization": config.fit_steps}.get(arm, 1)


def pretrained(body: BodyModel, config: Config, seed: int, log: Log, of: int) -> nn.Module:
    """`JointNet` trained on generated people; with every seed other people, the same in both arms."""
    draw = torch.Generator().manual_seed(10 * seed)
    camera, hidden = stage(config), config.hidden if config.data is None else max(config.hidden, OWN_HIDDEN)
    people = crowd(config.people, config.source, config, draw)
    seen = keypoints_of(body, people, camera) - camera.K[:2, 2]
    people, seen = BodyPrediction(*(part.to(config.device) for part in people)), seen.to(config.device)
    torch.manual_seed(seed)
    network = JointNet(config.width, (config.side - 1) / 2, confidence=hidden > 0).to(config.device)
    optimizer = torch.optim.Adam(network.parameters(), config.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    every = max(1, config.steps // POINTS)
    for step in range(config.steps):
        rows = torch.randint(config.people, (config.batch,), generator=draw)
        noise = config.source.noise * torch.randn(config.batch, *seen.shape[1:], generator=draw)
        shown = (torch.rand(config.batch, seen.shape[1], generator=draw) >= hidden).float()
        found = network(seen[rows] + noise.to(seen), shown.to(seen))
        loss = supervised_loss(found, BodyPrediction(*(part[rows] for part in people))).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == config.steps - 1:
            if not bool(loss.isfinite()):
                raise ThroughlineError(f"training diverged at lr={config.lr:g}; --set lr={config.lr / 2:g}")
            log(step, of=of, train_loss=loss)
    return network.eval()


def measured(arm: str, model: nn.Module | None, given: list[Case], config: Config, log: Log) -> dict[str, float]:
    """Every clip by one arm, each from the same start; means over the clips."""
    clock, rows, courses = clock_of(config.device), [], []
    steps, of = steps_of(arm, config), length(arm, config, len(given))
    for place, case in enumerate(given):
        case = moved(case, config.device)
        losses = SelfSupervision(
            case.body, keypoint=config.keypoint, motion=config.motion, segmentation=config.segmentation
        )
        course = Course(case, config.adapt_steps if arm == "pretrained" else steps)
        before = clock()
        found = solved(arm, model, case, losses, course, config)
        spent = clock() - before
        course.end(found)
        with torch.no_grad():
            loss = float(losses(found, case.clip)["total"])
        rows.append({**errors(case, found), "loss": loss, "clip_seconds": spent})
        courses.append(course.errors)
        if place == 0:
            log.keep(**pictured(case, found))
        log(of - (len(given) - place - 1) * steps, of=of)
    _log_courses(courses, config, log)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}


def solved(
    arm: str, model: nn.Module | None, case: Case, losses: SelfSupervision, course: "Course", config: Config
) -> BodyPrediction:
    """The motion of a clip."""
    if arm == "optimization":

        def total(found: BodyPrediction, clip: Any) -> Mapping[str, Tensor]:
            values: dict[str, Tensor] = losses(found, clip)
            course.see(found, values["total"])
            return values

        options = {"steps": config.fit_steps, "restarts": config.restarts}
        return fit_body(case.body, case.clip, total, lr=config.fit_lr, prior=config.prior, **options)
    assert model is not None
    if arm == "adapted":

        def cost(found: BodyPrediction) -> Tensor:
            value: Tensor = losses(found, case.clip)["total"]
            course.see(found, value)
            return value

        model = adapt(model, case.inputs, cost, steps=config.adapt_steps, lr=config.adapt_lr)
    with torch.no_grad():
        predicted: BodyPrediction = model(*case.inputs)
    return predicted


class Course:
    """The joint error along the way, of the restart whose loss is the lowest at the time."""

    def __init__(self, case: Case, steps: int) -> None:
        self.case, self.every, self.steps = case, max(1, steps // POINTS), steps
        self.seen, self.errors = 0, dict[int, float]()

    @torch.no_grad()
    def see(self, found: BodyPrediction, total: Tensor) -> None:
        if self.seen % self.every == 0 and self.seen < self.steps:
            if total.ndim:
                found = BodyPrediction(*(part[total.argmin()] for part in found))
            self._keep(self.seen, found)
        self.seen += 1

    def end(self, found: BodyPrediction) -> None:
        for step in (self.steps,) if self.seen else (0, self.steps):  # one that has no steps has been there all along
            self._keep(step, found)

    def _keep(self, step: int, found: BodyPrediction) -> None:
        if self.case.joints is not None:
            self.errors[step] = errors(self.case, found)["mpjpe"]


@torch.no_grad()
def errors(case: Case, found: BodyPrediction) -> dict[str, float]:
    """In millimetres, and in pixels of the user's images."""
    (vertices, joints), camera, clip = posed(case.body, found), case.clip.camera, case.clip
    off = case.scale * (camera.project(joints)[0] - clip.keypoints).norm(dim=-1)
    values = {"reprojection": _mean(off, clip.confidence)}
    if case.held is not None:
        values["held_out_reprojection"] = _mean(off, case.held)
    vertices, joints = camera.to_camera(vertices), camera.to_camera(joints)
    if case.joints is not None:
        values["mpjpe"] = 1000 * float(joint_error(joints, case.joints).mean())
        values["absolute"] = 1000 * float(joint_error(joints, case.joints, root=None).mean())
        if case.vertices is not None:
            roots = {"pred_root": joints[:, 0], "true_root": case.joints[:, 0]}
            values["v2v"] = 1000 * float(vertex_error(vertices, case.vertices, **roots).mean())
    return values


@torch.no_grad()
def pictured(case: Case, found: BodyPrediction) -> dict[str, Tensor]:
    """What the figures draw of a clip."""
    vertices, joints = posed(case.body, found)
    camera = case.clip.camera
    kept = {
        "joints": camera.to_camera(joints),
        "pixels": camera.project(joints)[0],
        "keypoints": case.clip.keypoints,
        "parents": torch.tensor(case.body.parents),
        "covered": rendered(case.body, vertices, camera)[0],
    }
    if case.joints is not None:
        kept["truth"] = case.joints
    if case.clip.mask is not None:
        kept["mask"] = case.clip.mask
    return {name: tensor.cpu() for name, tensor in kept.items()}


def _mean(off: Tensor, weight: Tensor | None) -> float:
    seen = off if weight is None else off[weight > 0]
    return float(seen.mean()) if seen.numel() else 0.0


def _log_courses(courses: list[dict[int, float]], config: Config, log: Log) -> None:
    """The mean over the clips that have a truth."""
    known = [course for course in courses if course]
    for step in dict.fromkeys(step for course in known for step in course):
        log(step, error_by_step=statistics.fmean(course[step] for course in known if step in course))
