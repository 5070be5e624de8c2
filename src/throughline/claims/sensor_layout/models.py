"""The network behind the sensor."""

from torch import nn

__all__ = ["convolutional"]


def convolutional(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """The network of the authors' MNIST script, padded so that it fits sensors of 4 × 4 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Dropout2d(0.25), nn.Flatten()),
        *(nn.Linear(64 * (size[0] // 2) * (size[1] // 2), 128), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(128, classes),
    )
