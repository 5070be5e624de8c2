"""From the features of an image to the parameters of a body, in a few corrections of a mean."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, integer
from throughline.core.rotation import rotation_from_6d, rotation_to_6d

__all__ = ["BodyPrediction", "BodyRegressor"]

START = (0.9, 0.0, 0.0)  # the camera before any correction
GAIN = 0.01  # of the last layers: a new network predicts the mean


class BodyPrediction(NamedTuple):
    """A body in the camera's world: rotations ``(..., J, 3, 3)``, root first, β ``(..., S)`` and place ``(..., 3)``."""

    pose: Tensor
    betas: Tensor
    transl: Tensor


class BodyRegressor(nn.Module):
    """The head of HMR (arXiv 1712.06584) as SPIN (arXiv 1909.12828) and arXiv 2110.03480 have it.

    A state of pose (six numbers a joint), β and camera starts at a mean; ``iterations`` times state += decoders(drop(FC
    (drop(FC([φ, state]))))), with φ the features of the image. As in SPIN there is no activation between the layers:
    what is not linear happens in the encoder. Parameters have the names of SPIN's; its pose has the two columns of a
    rotation interleaved: permute rows of ``decpose`` and columns of ``fc1`` when loading.

    Args:
        encoder: any module, ``encoder(*inputs) -> (B, features)``.
        features: of φ.
        joints: J.
        num_betas: of β.
        hidden: width of the two layers.
        iterations: corrections, at least 1.
        dropout: probability, in [0, 1).
        mean_pose: rotations to start from, ``(J, 3, 3)``; None for the rest pose with the root turned by π about x,
            from y up to y down.

    Raises:
        TypeError: a size is no integer, or ``mean_pose`` no floating point tensor.
        ValueError: a size or ``dropout`` is out of range, or ``mean_pose`` no ``(J, 3, 3)``.

    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 32), nn.ReLU())
    >>> pose, betas, camera = BodyRegressor(encoder, 32, hidden=64)(torch.rand(2, 3, 16, 16))
    >>> pose.shape, betas.shape, camera.shape
    (torch.Size([2, 24, 3, 3]), torch.Size([2, 10]), torch.Size([2, 3]))
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        *,
        joints: int = 24,
        num_betas: int = 10,
        hidden: int = 1024,
        iterations: int = 3,
        dropout: float = 0.5,
        mean_pose: Tensor | None = None,
    ) -> None:
        super().__init__()
        sizes = {"features": features, "joints": joints, "num_betas": num_betas}
        for name, size in {**sizes, "hidden": hidden, "iterations": iterations}.items():
            if integer(name, size) < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.encoder = encoder
        self.features, self.iterations = features, iterations
        state = 6 * joints + num_betas + len(START)
        self.fc1 = nn.Linear(features + state, hidden)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.drop2 = nn.Dropout(dropout)
        self.decpose = nn.Linear(hidden, 6 * joints)
        self.decshape = nn.Linear(hidden, num_betas)
        self.deccam = nn.Linear(hidden, len(START))
        for decoder in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(decoder.weight, gain=GAIN)
        mean = _turned(joints) if mean_pose is None else mean_pose
        check_floating("mean_pose", mean)
        if mean.shape != (joints, 3, 3):
            raise ValueError(f"mean_pose must be ({joints}, 3, 3), got shape {tuple(mean.shape)}")
        like = self.fc1.weight
        self.register_buffer("init_pose", rotation_to_6d(mean.detach()).flatten()[None].to(like))
        self.register_buffer("init_shape", torch.zeros_like(like[:1, :1]).detach().repeat(1, num_betas))
        self.register_buffer("init_cam", torch.tensor([START], dtype=like.dtype, device=like.device))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pose, shape and weak-perspective camera of a batch.

        Args:
            inputs: whatever the encoder takes.

        Returns:
            Rotations ``(B, J, 3, 3)``, root first, β ``(B, num_betas)``, and (s, t_x, t_y) ``(B, 3)`` as
            `throughline.core.camera.weak_perspective` takes it.

        Raises:
            ValueError: the encoder gives no ``(B, features)``.
        """
        features = self.encoder(*inputs)
        if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] != self.features:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"encoder must give (B, {self.features}), got {got}")
        count = len(features)
        pose, betas, camera = (start.expand(count, -1) for start in (self.init_pose, self.init_shape, self.init_cam))
        for _ in range(self.iterations):
            state = torch.cat([features, pose, betas, camera], 1)
            state = self.drop2(self.fc2(self.drop1(self.fc1(state))))
            pose = pose + self.decpose(state)
            betas = betas + self.decshape(state)
            camera = camera + self.deccam(state)
        return rotation_from_6d(pose.view(count, pose.shape[1] // 6, 6)), betas, camera

    def extra_repr(self) -> str:
        """Its settings."""
        return f"features={self.features}, iterations={self.iterations}"


def _turned(joints: int) -> Tensor:
    """The rest pose, its root turned by π about x."""
    pose = torch.eye(3).repeat(joints, 1, 1)
    pose[0, 1, 1] = pose[0, 2, 2] = -1
    return pose
