"""The networks of the mocap claim: a small one that reads joints, and the paper's, which reads pictures."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.rotation import rotation_from_6d, so3_exp
from throughline.geometry.body import BodyPrediction

__all__ = ["HeatmapNet", "JointNet"]

JOINTS, BETAS = 24, 10
REST = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the rotation that turns nothing, in six numbers


class JointNet(nn.Module):
    """From keypoints to a body: three hidden layers, and rotations as what is added to the rest pose.

    Keypoints come in the pixels of the images that it is trained on, as differences from their principal point.
    """

    def __init__(self, width: int, reach: float, *, confidence: bool = False) -> None:
        super().__init__()
        self.reach, self.confidence = reach, confidence  # reach: pixels from the principal point to the border
        sizes = ((3 if confidence else 2) * JOINTS, width, width, width)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 6 * JOINTS + BETAS + 3))

    def forward(self, centered: Tensor, confidence: Tensor | None = None) -> BodyPrediction:
        x = centered / self.reach
        if self.confidence:
            seen = torch.ones_like(x[..., :1]) if confidence is None else (confidence > 0).to(x).unsqueeze(-1)
            x = torch.cat((x * seen, seen), -1)
        six, betas, transl = self.layers(x.flatten(-2)).split((6 * JOINTS, BETAS, 3), -1)
        return BodyPrediction(rotation_from_6d(six.unflatten(-1, (JOINTS, 6)) + six.new_tensor(REST)), betas, transl)


class HeatmapNet(nn.Module):
    """The network of the released code: five strided stages over heatmaps and colours, and two heads.

    One head gives shape and pose, each joint as a unit axis times a signed angle, the other the root, as sine and
    cosine of three Euler angles, and its place.
    """

    def __init__(self, side: int = 128, base: int = 32) -> None:
        super().__init__()
        widths = [JOINTS + 3, *(base * 2**k for k in range(5))]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 5, 2, 2),
                    nn.BatchNorm2d(after),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(after, after, 3, 1, 1),
                    nn.BatchNorm2d(after),
                    nn.LeakyReLU(0.2),
                )
                for before, after in pairwise(widths)
            )
        )
        across = (side + 31) // 32
        self.trunk = nn.Linear(widths[-1] * across**2 + 1, 1024)
        self.body = nn.Linear(512, 512)
        self.shape = nn.Sequential(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 128), nn.LeakyReLU(0.2))
        self.betas = nn.Linear(128, BETAS)
        self.pose = nn.Sequential(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 4 * (JOINTS - 1)))
        self.place = nn.Linear(512 + 3, 512)
        self.root, self.transl = nn.Linear(512, 6), nn.Linear(512, 3)

    def forward(self, pictures: Tensor, gender: Tensor, scale: Tensor) -> BodyPrediction:
        """``pictures`` (B, 27, side, side), ``gender`` (B, 1), ``scale`` (B, 3): f s / 400 and c s / 100."""
        features = torch.cat((self.stages(pictures).flatten(1), gender), 1)
        first, second = F.leaky_relu(self.trunk(features), 0.2).tensor_split(2, 1)
        first = F.leaky_relu(self.body(first), 0.2)
        second = F.leaky_relu(self.place(torch.cat((second, scale), 1)), 0.2)
        turn = self.pose(first).unflatten(1, (JOINTS - 1, 4))
        joints = so3_exp(F.normalize(turn[..., :3], dim=-1) * turn[..., 3:])
        sine, cosine = F.normalize(self.root(second).unflatten(1, (3, 2)), dim=-1).unbind(-1)
        x, y, depth = self.transl(second).unbind(1)
        pose = torch.cat((turned(sine, cosine).unsqueeze(1), joints), 1)
        return BodyPrediction(pose, self.betas(self.shape(first)), torch.stack((x, y, 6 * depth.relu()), 1))


def turned(sine: Tensor, cosine: Tensor) -> Tensor:
    """R_z R_y R_x of Euler angles ``(B, 3)``, behind half a turn about x: SMPL's y is up, the camera's down."""
    axes = torch.eye(3, dtype=sine.dtype, device=sine.device)
    about = []
    for k in range(3):
        a, b = (k + 1) % 3, (k + 2) % 3
        s, c = sine[:, k, None, None], cosine[:, k, None, None]
        plane = axes[a, :, None] * axes[a] + axes[b, :, None] * axes[b]
        swap = axes[b, :, None] * axes[a] - axes[a, :, None] * axes[b]
        about.append(axes[k, :, None] * axes[k] + c * plane + s * swap)
    return about[2] @ about[1] @ about[0] @ torch.diag(sine.new_tensor([1.0, -1.0, -1.0]))
