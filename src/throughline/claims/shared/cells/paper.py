"""The papers' own scale: CIFAR and SVHN, the space of DARTS with its variants, and NAS-Bench-201 as a table."""

import importlib
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.laptop import space_of
from throughline.claims.shared.cells.setting import Batches, Decisions, Setting
from throughline.claims.shared.datasets import halves, pictures, torchvision_set
from throughline.claims.shared.distortion import cutout
from throughline.errors import ThroughlineError
from throughline.search.spaces import DARTS_OPS, darts

__all__ = ["PRIMITIVES", "load", "looked_up", "trained"]

PRIMITIVES = {
    "darts": DARTS_OPS,
    "s2": ("skip_connect", "sep_conv_3x3"),
    "s3": ("none", "skip_connect", "sep_conv_3x3"),
    "s4": ("noise", "sep_conv_3x3"),
}
HOLE, DROP_PATH, AUXILIARY = 16, 0.2, 0.4  # of the training from scratch: pixels, rate at its end, weight
LARGEST = 250  # images of a forward pass without gradient


def load(config: CellConfig, seed: int) -> Setting:
    """The setting of a seed: half of the training images to learn from, half to validate, and the set's own test part.

    Images are normalised first, so that what a shift brings in is grey, not black as in the papers' code.
    """
    (x, y), (test_x, test_y) = _images(config)
    std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    first, second = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).chunk(2)
    parts = [((x[rows] - mean) / std, y[rows]) for rows in (first, second)]
    parts.append(((test_x - mean) / std, test_y))
    train, valid, test = ((images.to(config.device), labels.to(config.device)) for images, labels in parts)
    classes = int(y.max()) + 1
    if config.space == "cells":
        space = space_of(train[0], classes, config.channels, config.layers)
        return Setting(train, valid, test, space, space, config, seed, shifted_and_mirrored)
    primitives = PRIMITIVES[config.space]
    space = partial(darts, config.channels, config.layers, classes, primitives=primitives)
    final = partial(darts, config.final_channels, config.final_layers, classes, primitives=primitives, auxiliary=True)
    return Setting(train, valid, test, space, final, config, seed, shifted_and_mirrored)


def trained(setting: Setting, decisions: Decisions) -> float:
    """Test accuracy after training from scratch on all training images: cutout, drop path that rises, and a second
    classifier on the way; the mean over the retrainings."""
    found = [_trained(setting, decisions, seed) for seed in range(setting.config.retrainings)]
    return sum(found) / len(found)


def looked_up(config: CellConfig, decisions: Decisions) -> float:
    """Test accuracy of an architecture of NAS-Bench-201, the mean of its trainings of 200 epochs.

    Raises:
        ThroughlineError: the package that reads the file is not installed.
    """
    api = _api(config.benchmark)
    edges = [[f"{decisions[f'edge.{i}_{j}']}~{j}" for j in range(i)] for i in (1, 2, 3)]
    place = api.query_index_by_arch("+".join(f"|{'|'.join(into)}|" for into in edges))
    info = api.get_more_info(place, config.dataset, None, hp="200", is_random=False)
    return float(info["test-accuracy"]) / 100


def _trained(setting: Setting, decisions: Decisions, seed: int) -> float:
    config, draw = setting.config, torch.Generator().manual_seed(seed)
    net: Any = setting.final(decisions=dict(decisions), generator=draw).to(config.device)
    torch.manual_seed(seed)  # drop path draws from the global generator
    batches = Batches(*setting.whole(), config.final_batch, draw, _augmented)
    optimizer = torch.optim.SGD(
        net.parameters(), config.final_lr, momentum=config.momentum, weight_decay=config.final_decay
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.final_epochs)
    for epoch in range(config.final_epochs):
        net.train()
        net.drop_path = DROP_PATH * epoch / config.final_epochs
        for x, y in batches:
            logits, extra = net(x)
            loss = F.cross_entropy(logits, y) + AUXILIARY * F.cross_entropy(extra, y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            optimizer.step()
        cosine.step()
    net.eval()
    x, y = setting.test
    with torch.no_grad():
        labels = torch.cat([net(part).argmax(1) for part in torch.split(x, LARGEST)])
    return float((labels == y).double().mean())


def _augmented(x: Tensor, draw: torch.Generator) -> Tensor:
    ones = torch.ones(len(x), dtype=torch.int64)
    return cutout(shifted_and_mirrored(x, draw), ones, HOLE * ones, draw)


def _images(config: CellConfig) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The training and the test part, images in [0, 1]."""
    if config.dataset == "svhn":
        parts = [torchvision_set("SVHN", config.root, split=split, download=True) for split in ("train", "test")]
        train, test = ((torch.as_tensor(p.data).float() / 255, torch.as_tensor(p.labels).long()) for p in parts)
    else:
        train, test = map(pictures, halves(config.dataset.upper(), config.root))
    if config.samples < len(train[0]):
        train = train[0][: config.samples], train[1][: config.samples]
    return train, test


@cache
def _api(file: str) -> Any:
    try:
        module = importlib.import_module("nas_201_api")
    except ImportError:
        raise ThroughlineError(
            "benchmark: nas_201_api, which reads the file of NAS-Bench-201, is not installed; pip install nas-bench-201"
        ) from None
    return module.NASBench201API(file, verbose=False)
