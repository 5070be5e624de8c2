"""What a predicted body is compared with: the truth of synthetic people, or what detectors see in a clip."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.core.camera import Camera
from throughline.core.checks import check_floating, readable
from throughline.core.raster import distance_transform, visible_vertices
from throughline.geometry.body import BodyPrediction
from throughline.geometry.motion.checks import check_weight, widened
from throughline.geometry.motion.flow import motion_loss, sample_flow
from throughline.geometry.motion.keypoints import check_seen, keypoint_loss
from throughline.geometry.motion.segmentation import segmentation_loss

__all__ = ["Clip", "Posed", "SelfSupervision", "check_clip", "pose_body", "project", "supervised_loss"]

NEAREST = 0.1  # metres in front of the camera: what is nearer, or behind it, is projected from there


class Clip(NamedTuple):
    """What detectors see in T consecutive frames of one person.

    >>> Clip(None, torch.zeros(8, 24, 2)).flow is None
    True
    """

    camera: Camera  # one for all frames, or T of them
    keypoints: Tensor  # (T, K, 2), pixels; in the order of the body's joints
    confidence: Tensor | None = None  # (T, K), not negative; 0 where a joint was not found
    flow: Tensor | None = None  # (T - 1, H, W, 2), pixels: flow[t] goes from frame t to frame t + 1
    mask: Tensor | None = None  # (T, H, W), bool or in [0, 1]: the person


class Posed(NamedTuple):
    """A predicted body in the world."""

    vertices: Tensor  # (..., V, 3)
    joints: Tensor  # (..., K, 3)


def pose_body(body: nn.Module, prediction: BodyPrediction) -> Posed:
    """The body's call for a prediction with any leading dimensions."""
    pose, betas, transl = prediction
    frames = pose.shape[:-3]
    flat = pose.reshape(-1, *pose.shape[-3:])
    out = body(
        betas.expand(*frames, betas.shape[-1]).reshape(-1, betas.shape[-1]),
        flat[:, 1:],
        flat[:, :1],
        transl.expand(*frames, 3).reshape(-1, 3),
        pose2rot=False,
    )
    return Posed(*(points.view(*frames, *points.shape[1:]) for points in (out.vertices, out.joints)))


def supervised_loss(
    predicted: BodyPrediction,
    target: BodyPrediction,
    *,
    shape_weight: float = 0.05,
    translation_weight: float = 0.1,
) -> Tensor:
    """|θ̂ − θ|² + 0.05 |β̂ − β|² + |R̂ − R|² + 0.1 |T̂ − T|², means over entries: the loss of synthetic people.

    Of the training before "Self-supervised Learning of Motion Capture" (arXiv 1712.01337), whose code compares
    axis-angles, and sine and cosine of Euler angles for the root R; here both are rotation matrices, which agree with
    that to a factor near 1 for small differences and have no jump at half a turn.

    Args:
        predicted: pose ``(..., J, 3, 3)``, its first joint the root, betas ``(..., S)``, transl ``(..., 3)``.
        target: of the same shapes.
        shape_weight: of the shape, not negative.
        translation_weight: of the translation, likewise, per square metre.

    Returns:
        ``(...,)``, a number for each body, in the dtype of the pose.

    Raises:
        TypeError: a field is no floating point tensor.
        ValueError: shapes do not match, or a weight is out of range.

    >>> rest = BodyPrediction(torch.eye(3).expand(24, 3, 3), torch.zeros(10), torch.zeros(3))
    >>> supervised_loss(rest, rest._replace(transl=torch.tensor([0.0, 0.0, 3.0])))
    tensor(0.3000)
    """
    check_weight("shape_weight", shape_weight)
    check_weight("translation_weight", translation_weight)
    for field, ours, theirs in zip(predicted._fields, predicted, target, strict=True):
        check_floating(f"predicted.{field}", ours)
        check_floating(f"target.{field}", theirs)
        if ours.shape != theirs.shape:
            raise ValueError(
                f"predicted.{field} and target.{field} must have one shape, "
                f"got {tuple(ours.shape)} and {tuple(theirs.shape)}"
            )
    if predicted.pose.ndim < 3 or predicted.pose.shape[-2:] != (3, 3) or predicted.pose.shape[-3] < 2:
        raise ValueError(
            f"predicted.pose must be (..., joints, 3, 3) of two joints or more, got {tuple(predicted.pose.shape)}"
        )
    turn, shape, place = (ours - theirs for ours, theirs in zip(predicted, target, strict=True))
    turn = turn.square().mean((-1, -2))
    return (
        turn[..., 1:].mean(-1)
        + turn[..., 0]
        + shape_weight * shape.square().mean(-1)
        + translation_weight * place.square().mean(-1)
    )


class SelfSupervision(nn.Module):
    """What a predicted motion costs in a clip without labels: joints, motion and outline, each as detectors see it.

    "Self-supervised Learning of Motion Capture" (arXiv 1712.01337): `keypoint_loss` of the projected joints,
    `motion_loss` of the vertices that are visible in a frame, by a z-buffer, and `segmentation_loss` of the projected
    vertices, each a mean over frames. Weights are for pixels of images of about 64 × 64. Depths below 0.1 m are
    projected from there, so that no loss jumps to infinity.

    Args:
        body: a `throughline.geometry.body.BodyModel`, or a module that is called and answers alike.
        keypoint: λ of the keypoints, not negative.
        motion: likewise; at 0 no visibility is computed and nothing is said of it.
        segmentation: likewise.

    Raises:
        TypeError: ``body`` is no module; in a call, a tensor is none or not floating point.
        ValueError: a weight is out of range; in a call, shapes of ``prediction`` and ``clip`` do not match, a keypoint
            of positive confidence is not finite, or a vertex is not while visibility is asked for.

    >>> from throughline.core.camera import look_at
    >>> from throughline.geometry.body import open_body
    >>> body, still = open_body(0.07), torch.eye(3).expand(2, 24, 3, 3)
    >>> camera = look_at((0.0, 0.9, 4.0), (0.0, 0.9, 0.0), focal_length=80.0, image_size=(64, 64))
    >>> prediction = BodyPrediction(still, torch.zeros(2, 10), torch.zeros(2, 3))
    >>> clip = Clip(camera, camera.project(pose_body(body, prediction).joints)[0] + 1)
    >>> {name: round(float(value), 3) for name, value in SelfSupervision(body)(prediction, clip).items()}
    {'keypoint': 2.0, 'total': 2.0}
    """

    def __init__(
        self, body: nn.Module, *, keypoint: float = 1.0, motion: float = 1.0, segmentation: float = 0.1
    ) -> None:
        super().__init__()
        if not isinstance(body, nn.Module):
            raise TypeError(f"body must be an nn.Module, got {type(body).__name__}")
        for name, weight in {"keypoint": keypoint, "motion": motion, "segmentation": segmentation}.items():
            check_weight(name, weight)
        self.body = body
        self.keypoint, self.motion, self.segmentation = keypoint, motion, segmentation
        self._outside: tuple[Tensor, int, Tensor] | None = None  # a mask, its version, and its distance transform

    def forward(self, prediction: BodyPrediction, clip: Clip) -> dict[str, Tensor]:
        """The losses of a motion.

        Args:
            prediction: pose ``(..., T, J, 3, 3)``, betas ``(..., T, S)`` and transl ``(..., T, 3)``.
            clip: of T frames, with a keypoint for each joint of the body; what is None is left out.

        Returns:
            "keypoint", "motion" and "segmentation", as far as they are observed and have a weight, and "total", their
            weighted sum: ``(...,)`` each, means over frames.
        """
        for field, part in zip(prediction._fields, prediction, strict=True):
            check_floating(f"prediction.{field}", part)
        check_clip(clip)
        if prediction.pose.ndim < 4 or prediction.pose.shape[-4] != len(clip.keypoints):
            raise ValueError(
                "prediction.pose must be (..., T, joints, 3, 3) for the T frames of clip.keypoints, "
                f"got shapes {tuple(prediction.pose.shape)} and {tuple(clip.keypoints.shape)}"
            )
        posed = pose_body(self.body, prediction)
        if posed.joints.shape[-2] != clip.keypoints.shape[-2]:
            raise ValueError(
                f"clip.keypoints must hold a keypoint for each of the body's joints, "
                f"got shapes {tuple(clip.keypoints.shape)} and {tuple(posed.joints.shape)}"
            )
        values = {}
        if self.keypoint:
            found = project(clip.camera, posed.joints)
            values["keypoint"] = keypoint_loss(found, clip.keypoints, clip.confidence).mean(-1)
        moves = self.motion > 0 and clip.flow is not None and len(clip.keypoints) > 1
        if moves or (self.segmentation and clip.mask is not None):
            uv = project(clip.camera, posed.vertices)
            if moves:
                values["motion"] = self._motion(posed.vertices, uv, clip)
            if self.segmentation and clip.mask is not None:
                away = self._distance(clip.mask)
                values["segmentation"] = segmentation_loss(uv, clip.mask, distance=away).mean(-1)
        zero = posed.joints.sum((-1, -2, -3)) * 0.0
        return {**values, "total": sum((getattr(self, name) * value for name, value in values.items()), zero)}

    def extra_repr(self) -> str:
        return f"keypoint={self.keypoint}, motion={self.motion}, segmentation={self.segmentation}"

    def _motion(self, vertices: Tensor, uv: Tensor, clip: Clip) -> Tensor:
        assert clip.flow is not None
        faces = torch.as_tensor(self.body.faces, dtype=torch.int64, device=vertices.device)
        visible = visible_vertices(vertices.detach(), faces, clip.camera)[..., :-1, :]
        first, second = uv[..., :-1, :, :], uv[..., 1:, :, :]
        return motion_loss(first, second, sample_flow(clip.flow, first.detach()), visible).mean(-1)

    def _distance(self, mask: Tensor) -> Tensor:
        """The distance transform of a mask, once for all steps that see it."""
        if not readable(mask):
            return distance_transform(mask > 0.5)
        version, kept = 0 if mask.is_inference() else mask._version, self._outside
        if kept is None or kept[0] is not mask or kept[1] != version:
            kept = self._outside = (mask, version, distance_transform(mask > 0.5))
        return kept[2]


def project(camera: Camera, points: Tensor) -> Tensor:
    """Pixels ``(..., N, 2)`` of points of the world, none of them nearer than `NEAREST`."""
    seen = widened(camera.to_camera(points))
    ahead = torch.cat((seen[..., :2], seen[..., 2:].clamp(min=NEAREST)), -1)
    homogeneous = (camera.K.to(ahead).unsqueeze(-3) * ahead.unsqueeze(-2)).sum(-1)
    return (homogeneous[..., :2] / homogeneous[..., 2:]).to(points.dtype)


def check_clip(clip: Clip) -> None:
    """Raise unless the observations are tensors whose shapes agree with each other and with the camera's image."""
    for name in ("keypoints", "confidence", "flow"):
        if getattr(clip, name) is not None or name == "keypoints":
            check_floating(f"clip.{name}", getattr(clip, name))
    keypoints, size = clip.keypoints, tuple(clip.camera.image_size)
    if keypoints.ndim != 3 or keypoints.shape[-1] != 2 or len(keypoints) == 0:
        raise ValueError(f"clip.keypoints must be (T, K, 2) of a frame or more, got shape {tuple(keypoints.shape)}")
    frames = len(keypoints)
    wanted = {"confidence": keypoints.shape[:2], "flow": (frames - 1, *size, 2), "mask": (frames, *size)}
    for name, shape in wanted.items():
        found = getattr(clip, name)
        if found is not None and tuple(found.shape) != tuple(shape):
            raise ValueError(
                f"clip.{name} must be {tuple(shape)}, for keypoints {tuple(keypoints.shape)} and images of "
                f"{size[0]} x {size[1]}, got shape {tuple(found.shape)}"
            )
    check_seen("clip.keypoints", keypoints, "clip.confidence", clip.confidence)
