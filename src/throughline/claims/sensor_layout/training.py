"""Training a network, and a sensor's layout with it, and what is kept of both for the pictures."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.sensor_layout.config import Config
from throughline.claims.sensor_layout.data import Task
from throughline.lab import Log
from throughline.sensing.layout import SensorLayout

__all__ = ["fit", "keep"]

POINTS = 50  # of a training curve
STORED = 128  # pixels on a side of the scenes that are kept for the figures


def fit(
    task: Task, layout: SensorLayout, lr: float, config: Config, seed: int, log: Log, begin: int, total: int
) -> nn.Module:
    """Train a fresh network, and the layout with it unless that is frozen; the same network and batches in all arms."""
    torch.manual_seed(seed)
    network = task.network()
    groups = [
        {"params": list(network.parameters()), "lr": lr},
        {"params": list(layout.parameters()), "lr": config.layout_lr},
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, task.steps, config.decay)
    every = max(1, config.epochs * task.steps // POINTS)
    for step, (reading, target) in enumerate(task.batches(layout), begin):
        loss = task.loss(layout, network(reading), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step - begin) % every == 0 or step == total - 1:
            x, y = layout.curvature.detach()
            log(step, of=total, loss=loss, curvature_x=x, curvature_y=y)
    return network


@torch.no_grad()
def keep(task: Task, layout: SensorLayout, log: Log) -> None:
    """Store what the figures need: scenes and what the sensor reads of them, as bytes."""
    device = layout.raw.device
    seen = torch.cat([layout(scene[None].to(device)) for scene in task.scenes])
    log.keep(
        curvature=layout.curvature,
        mean_scene=_bytes(_smaller(task.mean_scene[None]))[0],
        scenes=_bytes(_smaller(task.scenes)),
        readings=_bytes(seen if max(seen.shape[-2:]) <= STORED else _smaller(seen)),
        aspect=np.array(task.scenes.shape[-2] / task.scenes.shape[-1]),
    )


def _smaller(images: Tensor) -> Tensor:
    size = [min(STORED, n) for n in images.shape[-2:]]
    return F.interpolate(images, size, mode="area")


def _bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().byte().movedim(-3, -1)
