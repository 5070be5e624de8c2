"""What the TELL claim clusters and with which networks: images or table columns in [0, 1], dense or convolutional."""

import pickle
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughline.data import DataError, Source, digits
from throughline.errors import ThroughlineError
from throughline.lab import require

__all__ = ["Config", "Samples", "check", "load", "networks"]

MOST_CLASSES = 100
MOST_FEATURES = 64 * 64 * 3  # of a row for the dense network


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "digits"  # `data` takes its place
    samples: int = 0  # drawn by the seed; 0 for all
    network: Literal["dense", "convolutional"] = "dense"
    hidden: tuple[int, ...] = (256, 256)  # widths of the dense encoder
    latent: int = 10
    epochs: int = 200
    pretrain: int = 150  # of the epochs: reconstruction alone
    batch: int = 256
    optimizer: Literal["Adam", "Adadelta"] = "Adam"
    lr: float = 1e-3
    clustering_weight: float = 0.025
    passes: int = 100  # of the layer and of mini-batch k-means, which have no network
    root: str = ""  # folder of torchvision's data sets; the cache by default
    device: str = "cpu"
    data: Source | None = None


class Samples(NamedTuple):
    """Rows to cluster, and the classes that a clustering is compared with."""

    x: Tensor  # (n, ...) float32 in [0, 1], in the shape that the network takes
    labels: np.ndarray  # (n,) in 0 … clusters - 1
    clusters: int
    shape: tuple[int, ...]  # of one sample as a picture, (c, h, w), or of a row of a table, (D,)

    @property
    def flat(self) -> Tensor:
        return self.x.flatten(1)


def check(config: Config) -> None:
    """Fetch and read what the units will need, so that a fault is one line before anything runs."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    if not 0 <= config.pretrain < config.epochs:
        raise ThroughlineError(f"pretrain must be in [0, epochs), got {config.pretrain} of {config.epochs}")
    samples = load(config, 0)
    if config.network == "convolutional" and len(samples.shape) != 3:
        raise ThroughlineError("network=convolutional clusters images, and this is a table; --set network=dense")
    if config.network == "dense" and samples.flat.shape[1] > MOST_FEATURES:
        raise DataError(
            f"{samples.flat.shape[1]} features a row, and the most for the dense network is {MOST_FEATURES}; "
            "give --size 32, or --set network=convolutional"
        )
    if len(samples.x) < max(samples.clusters, 2):
        raise DataError(f"{samples.clusters} clusters need at least as many samples, got {len(samples.x)}")


def load(config: Config, seed: int) -> Samples:
    """The samples of a seed: all of them, or as many as the configuration wants."""
    x, labels = _read(config)
    names, labels = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"the labels hold {len(names)} different values, and a cluster for each of at most {MOST_CLASSES} classes "
            "is wanted; name a column of classes with --target"
        )
    shape = tuple(x.shape[1:])
    if config.samples:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: config.samples]
        x, labels = x[rows], labels[rows.numpy()]
    return Samples(x.flatten(1) if config.network == "dense" else x, labels, len(names), shape)


def networks(config: Config, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder for samples of a shape, drawn from the global generator."""
    if config.network == "dense":
        widths = (int(np.prod(shape)), *config.hidden, config.latent)
        return _dense(widths), nn.Sequential(_dense(widths[::-1]), nn.Sigmoid())
    encoder, decoder = _convolutional(shape, config.latent)
    return encoder.to(config.device), decoder.to(config.device)


def _dense(widths: tuple[int, ...]) -> nn.Sequential:
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _convolutional(shape: tuple[int, ...], latent: int) -> tuple[nn.Module, nn.Module]:
    """The authors' network: four convolutions and two linear layers, and their mirror image."""
    channels, strides = (shape[0], 16, 32, 32, 16), (1, 2, 1, 2)
    sizes = [shape[1:]]
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for (a, b), stride in zip(pairwise(channels), strides, strict=True):
        height, width = sizes[-1]
        down += [nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU()]
        extra = (1 - height % 2, 1 - width % 2) if stride == 2 else (0, 0)  # what the stride has rounded away
        back = nn.ConvTranspose2d(b, a, 3, stride, 1, output_padding=extra)
        up = [back, *((nn.BatchNorm2d(a), nn.ReLU()) if up else (nn.Sigmoid(),)), *up]
        sizes.append((-(-height // stride), -(-width // stride)))
    last = (channels[-1], *sizes[-1])
    wide = int(np.prod(last))
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, latent))
    decoder = nn.Sequential(
        *(nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, wide), nn.ReLU(), nn.Unflatten(1, last)), *up
    )
    return encoder, decoder


def _read(config: Config) -> tuple[Tensor, np.ndarray]:
    if config.data is not None and config.data.kind == "table":
        table = config.data.table()
        low, high = table.x.min(0), table.x.max(0)
        scaled = (table.x - low) / np.where(high > low, high - low, 1.0)
        return torch.as_tensor(scaled, dtype=torch.float32), table.y
    if config.data is not None:
        images = config.data.images()
        return images.images, images.labels.numpy()
    if config.dataset == "digits":
        found = digits()
        return found.images, found.labels.numpy()
    return _torchvision(config)


def _torchvision(config: Config) -> tuple[Tensor, np.ndarray]:
    """Training and test images together, as the paper clusters them; CIFAR-100 with its twenty superclasses."""
    datasets = require("torchvision.datasets", extra="paper")
    import pooch

    root = Path(config.root) if config.root else Path(pooch.os_cache("throughline")) / "torchvision"
    make = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[config.dataset]
    try:
        parts = [getattr(datasets, make)(str(root), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise DataError(f"torchvision.datasets.{make}: {error}") from None
    pixels = torch.cat([torch.as_tensor(part.data) for part in parts]).float() / 255
    x = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    if config.dataset == "cifar100":
        files = [root / parts[0].base_folder / name for name in ("train", "test")]
        return x, np.concatenate([_coarse(file) for file in files])
    return x, np.concatenate([np.asarray(part.targets) for part in parts])


def _coarse(file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        return np.asarray(pickle.load(stream, encoding="latin1")["coarse_labels"])
