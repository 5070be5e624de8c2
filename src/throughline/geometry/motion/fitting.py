"""Direct optimisation of a body's parameters on a clip, from several starts: what adaptation is compared with."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from throughline.core.checks import check_tensor, integer
from throughline.core.rotation import rotation_from_6d, rotation_to_6d, so3_exp
from throughline.geometry.body import BodyModel, BodyPrediction
from throughline.geometry.motion.checks import check_weight
from throughline.geometry.motion.supervision import Clip, check_clip, pose_body

__all__ = ["fit_body"]

TALL = 0.25  # the share of a body's height that a frame's keypoints must span to tell its depth
SHAPE = 0.01  # weight of the prior on the shape, in that on the pose


def fit_body(
    body: BodyModel,
    clip: Clip,
    loss: Callable[[BodyPrediction, Clip], Mapping[str, Tensor]],
    *,
    steps: int = 200,
    lr: float = 0.02,
    restarts: int = 4,
    prior: float = 1.0,
) -> BodyPrediction:
    """The pose and place of each frame, and one shape for the clip, of least ``loss`` and prior, without a network.

    The baseline of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337), in the manner of SMPLify: upright
    bodies in the rest pose at the depth that the keypoints' height tells, one for each of the evenly spaced
    ``restarts`` of yaw, the first facing the camera. Adam moves root and translation in the first quarter of the steps,
    then all. The prior is λ Σ |6D(θ) − 6D(rest)|² over a frame's joints but the root, and 0.01 λ |β|². All restarts run
    as one batch; the one of the lowest sum is kept.

    Args:
        body: whose joints, in their order, the keypoints are.
        clip: what is observed, and the camera; bodies start upright in its image, wherever y points in the world.
        loss: such as `SelfSupervision`: called with a prediction of leading dimensions ``(restarts, T)``; its "total"
            has the shape ``(restarts,)``.
        steps: of Adam, at least 1.
        lr: learning rate, positive and finite, of 6D rotations, metres and shape numbers alike.
        restarts: at least 1.
        prior: λ, not negative, in the unit of the loss.

    Returns:
        pose ``(T, J, 3, 3)``, betas ``(T, S)`` and transl ``(T, 3)``, detached.

    Raises:
        TypeError: an argument has another type than it should.
        ValueError: a number is out of range, shapes do not match, no frame shows a quarter of the body's height, joints
            are behind the camera at the start, or ``loss`` returns another shape.

    >>> from throughline.core.camera import look_at
    >>> from throughline.geometry.body import open_body
    >>> from throughline.geometry.motion.supervision import SelfSupervision
    >>> body, still = open_body(0.07), torch.eye(3).expand(1, 24, 3, 3)
    >>> camera = look_at((0.0, 0.9, 4.0), (0.0, 0.9, 0.0), focal_length=80.0, image_size=(64, 64))
    >>> true = BodyPrediction(still, torch.zeros(1, 10), torch.tensor([[0.2, 0.5, 0.3]]))
    >>> clip = Clip(camera, camera.project(pose_body(body, true).joints)[0])
    >>> fit_body(body, clip, SelfSupervision(body), steps=20, restarts=1).transl.round(decimals=1)
    tensor([[0.2000, 0.5000, 0.3000]])
    """
    for name, count in {"steps": steps, "restarts": restarts}.items():
        if integer(name, count) < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
    check_weight("prior", prior)
    check_clip(clip)
    with torch.no_grad():
        motion = _start(body, clip, restarts)
    late = (motion.joints, motion.betas)
    rest = rotation_to_6d(_still(motion.joints))

    def objective() -> Tensor:
        prediction = motion.predicted()
        total = loss(prediction, clip)["total"]
        check_tensor("the total of loss", total)
        if total.shape != (restarts,):
            raise ValueError(f'loss must give a "total" of shape ({restarts},), got {tuple(total.shape)}')
        bent = rotation_to_6d(prediction.pose[..., 1:, :, :]) - rest
        return total + prior * (bent.square().sum((-1, -2)).mean(-1) + SHAPE * motion.betas.square().sum((-1, -2)))

    optimizer = torch.optim.Adam(list(motion), lr)
    with torch.enable_grad():
        for step in range(steps):
            for parameter in motion:
                early = not any(parameter is other for other in late)
                parameter.requires_grad_(early or step >= steps // 4)
            optimizer.zero_grad()
            objective().sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        best = objective().nan_to_num(nan=math.inf).argmin()
        return BodyPrediction(*(part[best].detach().clone() for part in motion.predicted()))


class _Motion(NamedTuple):
    """What is optimised."""

    root: Tensor  # (restarts, T, 1, 6)
    transl: Tensor  # (restarts, T, 3)
    joints: Tensor  # (restarts, T, J - 1, 6)
    betas: Tensor  # (restarts, 1, S)

    def predicted(self) -> BodyPrediction:
        pose = rotation_from_6d(torch.cat((self.root, self.joints), -2))
        return BodyPrediction(pose, self.betas.expand(*pose.shape[:2], -1), self.transl)


def _start(body: BodyModel, clip: Clip, restarts: int) -> _Motion:
    """Bodies at rest, upright in the image, about their vertical axis by 0, 1 / restarts … of a turn."""
    like, frames = clip.keypoints, len(clip.keypoints)
    joints = len(body.parents)
    still = _still(like)
    turn = torch.diag(like.new_tensor([1.0, -1.0, -1.0]))  # y down, and facing the camera
    yaw = torch.arange(restarts, dtype=like.dtype, device=like.device) * (2 * math.pi / restarts)
    yaws = so3_exp(torch.stack((torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)), -1))
    upright = clip.camera.R.to(like).mT.expand(frames, 3, 3) @ turn
    root = upright @ yaws.unsqueeze(1)  # (restarts, T, 3, 3)
    pose = torch.cat((root.unsqueeze(2), still.expand(restarts, frames, joints - 1, 3, 3)), 2)
    betas = like.new_zeros(restarts, 1, body.shape_dirs.shape[-1])
    here = BodyPrediction(pose, betas.expand(-1, frames, -1), like.new_zeros(restarts, frames, 3))
    posed = pose_body(body, here).joints
    if posed.shape[-2] != like.shape[1]:
        raise ValueError(
            "clip.keypoints must hold a keypoint for each of the body's joints, "
            f"got shapes {tuple(like.shape)} and {tuple(posed.shape[1:])}"
        )
    transl = _places(clip, posed)
    depth = clip.camera.to_camera(posed + transl.unsqueeze(-2))[..., 2].amin()
    if not depth > 0:
        raise ValueError(
            f"clip.keypoints place the body's joints behind the camera at the start, at a depth of {depth.item():.3g} "
            "m; clip.camera.K must be of the very images that the keypoints are in"
        )
    return _Motion(
        rotation_to_6d(root).unsqueeze(2),
        transl,
        rotation_to_6d(still).expand(restarts, frames, joints - 1, 6).clone(),
        betas,
    )


def _still(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)


def _places(clip: Clip, posed: Tensor) -> Tensor:
    """Translations ``(restarts, T, 3)`` that bring the joints to where the keypoints are, at their height.

    Frames that show too little take the depth and the place of the others.
    """
    camera, seen = clip.camera, clip.keypoints.isfinite().all(-1)
    if clip.confidence is not None:
        seen = seen & (clip.confidence > 0)
    K, R, t = (part.to(posed) for part in (camera.K, camera.R, camera.t))
    many = seen.sum(-1).clamp(min=1)
    down = (posed[0] @ R.mT)[..., 1]  # along the image's vertical axis, the same in all restarts
    tall = _extent(down, seen)  # metres
    high = _extent(clip.keypoints[..., 1], seen)  # pixels
    whole = down.amax(-1) - down.amin(-1)
    good = (tall >= TALL * whole) & (high > 0)
    if not good.any():
        raise ValueError(
            f"clip.keypoints must span a quarter of the body's height in some frame, and none of {len(seen)} does"
        )
    depth = _filled(K[..., 1, 1] * tall / high, good)
    center = torch.where(seen.unsqueeze(-1), clip.keypoints, 0.0).sum(-2) / many.unsqueeze(-1)
    center = _filled(center, good)
    ray = torch.linalg.solve(K, torch.cat((center, torch.ones_like(center[:, :1])), -1).unsqueeze(-1)).squeeze(-1)
    middle = torch.where(seen.unsqueeze(-1), posed, 0.0).sum(-2) / many.unsqueeze(-1)
    middle = torch.where(good.unsqueeze(-1), middle, posed.mean(-2))
    wanted = (ray * depth.unsqueeze(-1) - t).unsqueeze(-1)  # in the camera's axes
    transl: Tensor = (R.mT @ wanted).squeeze(-1) - middle
    return transl


def _extent(values: Tensor, seen: Tensor) -> Tensor:
    """Largest less least of the values that are seen, along the last dimension."""
    high = torch.where(seen, values, -math.inf).amax(-1)
    low = torch.where(seen, values, math.inf).amin(-1)
    return torch.where(seen.any(-1), high - low, 0.0)


def _filled(values: Tensor, good: Tensor) -> Tensor:
    """Values by frame, the mean of the good ones in place of the others."""
    keep = good.view(-1, *(1,) * (values.ndim - 1))
    return torch.where(keep, values, values[good].mean(0))
