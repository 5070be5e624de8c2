"""CelebA and Cityscapes for the sensor-layout claim, read as they come."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.sensor_layout.config import Config
from throughline.claims.sensor_layout.data import SHOWN, Task, sensor_size
from throughline.claims.sensor_layout.models import convolutional
from throughline.claims.shared.cityscapes import CLASSES, VOID, confusion, deeplab, scenes, scores, train_ids
from throughline.claims.shared.datasets import torchvision_set
from throughline.lab import require
from throughline.sensing.layout import SensorLayout

__all__ = ["load"]

PHOTOS = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # mean and deviation that backbones expect


def load(config: Config, seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    from torch.utils.data import DataLoader

    train, test = _stored(config, "train"), _stored(config, "test")
    size = sensor_size(config)
    segment = config.dataset == "cityscapes"
    shift, scale = PHOTOS.to(config.device)[:, :, None, None]
    codes = train_ids(train.classes).to(config.device) if segment else None

    def prepared(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = (part.to(config.device) for part in batch)
        return (x / 255 - shift) / scale, (y.float() if codes is None else codes[y.long().squeeze(1)])

    def batches(layout: SensorLayout) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            train,
            config.batch,
            shuffle=True,
            generator=draw,
            num_workers=config.workers,
            drop_last=len(train) >= config.batch,
        )
        for x, y in map(prepared, chain.from_iterable(loader for _ in range(config.epochs))):
            yield layout(x), y

    def network() -> nn.Module:
        if not segment:
            return convolutional(3, size, len(train.attr_names)).to(config.device)
        return deeplab().to(config.device)

    def loss(layout: SensorLayout, output: Tensor, target: Tensor) -> Tensor:
        if not segment:
            return F.binary_cross_entropy_with_logits(output, target)
        # on the regular grid, at the sensor's own resolution
        regular = F.interpolate(target[:, None].float(), size, mode="nearest-exact")[:, 0].long()
        return F.cross_entropy(layout.rectify(output, size), regular, ignore_index=VOID)

    @torch.no_grad()
    def measure(layout: SensorLayout, net: nn.Module) -> dict[str, float]:
        right = count = 0.0
        table = torch.zeros(CLASSES, CLASSES, dtype=torch.long, device=config.device)
        for x, y in map(prepared, DataLoader(test, config.batch, num_workers=config.workers)):
            output = net(layout(x))
            if segment:
                found = layout.rectify(output, (y.shape[-2], y.shape[-1])).argmax(1)
                table += confusion(y, found)
            else:
                right += ((output > 0) == y.bool()).sum().item()
                count += y.numel()
        return scores(table) if segment else {"accuracy": right / count}

    steps = len(train) // config.batch or 1
    shown = torch.stack([test[i][0] for i in range(min(SHOWN, len(test)))]).float() / 255
    return Task(network, steps, batches, loss, measure, shown, shown.mean(0))


def _stored(config: Config, part: str) -> Any:
    if config.dataset == "cityscapes":
        return scenes(config.root, {"train": "train", "test": "val"}[part])  # the test labels are not public
    pixels = require("torchvision.transforms.functional", extra="paper").pil_to_tensor
    return torchvision_set("CelebA", config.root, split=part, target_type="attr", transform=pixels, download=True)
