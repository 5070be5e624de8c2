"""What the distill-quant claim trains on: images or a table in memory, and networks to go with them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.claims.distill_quant.config import Config
from throughline.claims.shared.class_tables import standardized_parts
from throughline.claims.shared.classes import class_split, class_table_of
from throughline.claims.shared.convnets import convnet, mlp
from throughline.claims.shared.pictures import labelled_images
from throughline.errors import ThroughlineError

__all__ = ["Task", "check", "load"]


class Task(NamedTuple):
    """Both parts of a data set, split for one seed, and the networks for it."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def to(self, device: str) -> "Task":
        """The same with its data on a device."""
        x, y, test_x, test_y = (part.to(device) for part in (self.x, self.y, self.test_x, self.test_y))
        return self._replace(x=x, y=y, test_x=test_x, test_y=test_y)


def check(config: Config) -> None:
    """Refuse what cannot be run, before any data is read."""
    if not {2, 4} <= set(config.bits):
        raise ThroughlineError(f"bits={list(config.bits)}: the checks want 2 and 4 among them; --set bits=[2,4]")


def load(config: Config, seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    return _table(config, seed) if config.data is not None and config.data.kind == "table" else _pictures(config, seed)


def _pictures(config: Config, seed: int) -> Task:
    images = labelled_images(config.data, config.dataset, size=32)
    rows = class_split(images.labels, images.classes, seed, config.test, source=config.data, setting="test")
    train, test = map(torch.from_numpy, rows)
    pixels = images.images
    std, mean = torch.std_mean(pixels[train], (0, 2, 3), keepdim=True)
    pixels = (pixels - mean) / std.clamp_min(1e-6)
    classes = len(images.classes)

    def network(widths: tuple[int, ...]) -> Callable[[], nn.Module]:
        return lambda: convnet(tuple(pixels.shape[1:]), widths, classes).to(config.device)

    parts = (pixels[train], images.labels[train], pixels[test], images.labels[test])
    return Task(*parts, network(config.teacher), network(config.student))


def _table(config: Config, seed: int) -> Task:
    assert config.data is not None
    table, names = class_table_of(config.data)
    rows = class_split(table.y, names, seed, config.test, source=config.data, setting="test")
    (x, y), (test_x, test_y) = standardized_parts(table, rows)

    def network(widths: tuple[int, ...]) -> Callable[[], nn.Module]:
        return lambda: mlp(x.shape[1], widths[-1], len(names)).to(config.device)

    return Task(x.float(), y, test_x.float(), test_y, network(config.teacher), network(config.student))
