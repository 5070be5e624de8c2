"""What all arms of the dsr claim train: an encoder of image and keypoints, and the regressor behind it."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from throughline.claims.dsr.config import Config
from throughline.geometry.body import BodyRegressor
from throughline.geometry.people import a_pose
from throughline.lab import require

__all__ = ["network"]

CHANNELS = (3, 16, 32, 48, 64)
GROUPS = 4
MIXED = 512
PHOTOS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation that backbones expect


class Small(nn.Module):
    """Four strided convolutions, and a detector's keypoints beside them: a network this small finds none in pixels."""

    def __init__(self, size: int, features: int, joints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise(CHANNELS):
            layers += [nn.Conv2d(a, b, 3, 2, padding=1), nn.GroupNorm(GROUPS, b), nn.ReLU()]
            size = -(-size // 2)
        self.image = nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * size**2, features))
        width = features + 2 * joints
        self.mix = nn.Sequential(nn.Linear(width, MIXED), nn.ReLU(), nn.Linear(MIXED, width))

    def forward(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """Features of images ``(n, 3, S, S)`` in [0, 1] and keypoints ``(n, J, 3)``, pixels and a confidence."""
        side = images.shape[-1]
        places = (keypoints[..., :2] - (side - 1) / 2) / (side / 4)
        seen = torch.where(keypoints[..., 2:] > 0, places, 0.0)
        joined = torch.cat([self.image(images), seen.flatten(1)], 1)
        features: Tensor = joined + self.mix(joined)  # the regressor behind it is linear
        return features


class Pooled(nn.Module):
    """ResNet-50 up to its mean features; keypoints are a target alone, as in the paper."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = require("torchvision.models", extra="paper").resnet50(
            weights=None
        )  # they come with the checkpoint
        self.resnet.fc = nn.Identity()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in PHOTOS)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor, keypoints: Tensor) -> Tensor:
        features: Tensor = self.resnet((images - self.get_buffer("mean")) / self.get_buffer("std"))
        return features


def network(config: Config, joints: int) -> BodyRegressor:
    """A new network, its weights from torch's global generator."""
    small = config.network == "small"
    encoder = Small(config.size, config.features, joints) if small else Pooled()
    return BodyRegressor(
        encoder,
        config.features + 2 * joints if small else 2_048,
        joints=joints,
        hidden=config.hidden,
        iterations=config.iterations,
        dropout=config.dropout,
        mean_pose=a_pose(),
    )
