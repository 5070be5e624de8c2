"""What the stn claim trains on: an image or table task with its network, its hyperparameters and its augmentations."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.data import DataError, Source, digits, mnist, standardize, stratified_split
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.search.best_response import Hyperparameter

__all__ = [
    "Batches",
    "Config",
    "Score",
    "Task",
    "Values",
    "at",
    "check",
    "load",
    "moved",
    "scored",
    "shuffled",
    "started",
    "uniform",
]

MOST_FEATURES = 64 * 64 * 3  # of an image
DROPOUT = 0.9  # the end of its range
ROTATION, SHIFT = 60.0, 2 / 7  # degrees; of the side, 8 of 28 pixels

Values = dict[str, Tensor]
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    dataset: Literal["digits", "mnist", "cifar10", "ptb"] = "mnist"  # unless data is given
    train: int = 1_000  # rows; what is left goes unused
    valid: int = 1_000
    test: int = 5_000
    hidden: int = 300
    batch: int = 100
    lr: float = 0.03
    momentum: float = 0.9
    clip: float = 0.0  # norm of the gradient; 0 for none
    steps: int = 3_000  # of self-tuning, two on weights for each on hyperparameters
    warmup: int = 200  # of the steps
    trials: int = 3  # of the search, all of the steps of one trial each
    trial_steps: int = 1_500
    hyper_lr: float = 0.03
    scale_lr: float = 0.03
    scale: float = 0.5
    tune_scale: bool = True
    entropy_weight: float = 1e-3
    start: float = 0.05  # where all hyperparameters start, a share of their ranges
    other_start: float = 0.5
    every: int = 50  # steps between two looks at the validation set
    decay: float = 1.0  # of the rate, when the validation loss has not improved for `decay_after` looks
    decay_after: int = 0
    stop_after: int = 0  # looks without improvement; 0 for never
    least_lr: float = 0.0  # below which a run stops
    search: Literal["random", "tpe", "grid"] = "random"  # the last two by optuna
    length: int = 70  # of a window of text
    root: str = ""  # paper scale: torchvision's folder, or the one with ptb.train.txt
    device: str = "cpu"
    data: Source | None = None


class Score(NamedTuple):
    """Of a network on a part of the data."""

    loss: float
    accuracy: float


class Task(NamedTuple):
    """One data set, split for one seed, and all that a network, plain or self-tuning, needs to be trained on it."""

    network: Callable[[], nn.Module]
    hyperparameters: tuple[Hyperparameter, ...]
    dropout: Mapping[str, str]
    searched: Mapping[str, tuple[float, float]]  # the ranges of the search
    batches: Callable[[str, torch.Generator], Batches]  # of "train" or "valid", without end
    score: Callable[[nn.Module, str], Score]
    loss: Callable[[Any, Tensor], Tensor]
    augment: Callable[[Tensor, Values], Tensor] | None = None
    penalty: Callable[[Any, Values], Tensor] | None = None
    exclude: tuple[str, ...] = ()


def check(config: Config) -> None:
    """Fetch and read what the units will need, so that a fault is one line before anything runs."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    for name, share in (("start", config.start), ("other_start", config.other_start)):
        if not 0 < share < 1:
            raise ThroughlineError(f"{name} must be a share of the ranges in (0, 1), got {share}")
    if config.search != "random":
        require("optuna", extra="search")
    load(config, 0)


def load(config: Config, seed: int) -> Task:
    """The task of a seed, alike in every arm."""
    if config.data is None and config.dataset in ("cifar10", "ptb"):
        from throughline.claims.stn import paper

        return paper.cifar(config, seed) if config.dataset == "cifar10" else paper.penn(config, seed)
    if config.data is not None and config.data.kind == "table":
        return _table(config, seed)
    return _pictures(config, seed)


def at(share: float, low: float, high: float, name: str, scale: float, **options: bool) -> Hyperparameter:
    """A hyperparameter that starts at a share of its range."""
    middle = (low + high) // 2 if options.get("discrete") else (low + high) / 2
    return started(Hyperparameter(name, middle, low, high, scale=scale, **options), share)


def started(hyperparameter: Hyperparameter, share: float) -> Hyperparameter:
    """The same, started at a share of its range."""
    low, high = hyperparameter.low, hyperparameter.high
    initial = low + share * (high - low)
    return replace(hyperparameter, initial=round(initial) if hyperparameter.discrete else initial)


def _pictures(config: Config, seed: int) -> Task:
    if config.data is not None:
        images = config.data.images()
        if images.images[0].numel() > MOST_FEATURES:
            raise DataError(
                f"{config.data.path}: {images.images[0].numel()} values an image, and the most is {MOST_FEATURES}; "
                "give --size 32"
            )
    else:
        images = digits() if config.dataset == "digits" else mnist()
    side = images.images.shape[-1]
    ranges = {"shift": (0.0, side * SHIFT), "rotation": (0.0, ROTATION), "noise": (0.0, 1.0)}
    if config.data is not None:
        ranges["brightness"] = (0.0, 1.0)
    draw = torch.Generator().manual_seed(seed + 1)

    def augment(x: Tensor, values: Values) -> Tensor:
        made = moved(x, values["shift"], values["rotation"], draw)
        if "brightness" in values:
            made = made * (1 + values["brightness"] * uniform(len(x), draw, x)).view(-1, 1, 1, 1)
        return _noisy(made, values["noise"], draw)

    rows = _rows(images.labels, config, seed)
    parts = {part: (images.images[r], images.labels[r]) for part, r in rows.items()}
    return _classifier(config, parts, len(images.classes), ranges, augment)


def _table(config: Config, seed: int) -> Task:
    assert config.data is not None
    table = config.data.table()
    classes, labels = np.unique(table.y, return_inverse=True)
    if len(classes) > 100:
        raise DataError(
            f"{config.data.path}: the target holds {len(classes)} different values, and at most 100 classes are "
            "wanted; name a column of classes with --target"
        )
    rows = _rows(torch.from_numpy(labels), config, seed)
    scaled = standardize(*(table.x[r.numpy()] for r in rows.values()))
    parts = {
        part: (torch.from_numpy(x).float(), torch.from_numpy(labels)[r].long())
        for (part, r), x in zip(rows.items(), scaled, strict=True)
    }
    draw = torch.Generator().manual_seed(seed + 1)
    return _classifier(
        config, parts, len(classes), {"noise": (0.0, 1.0)}, lambda x, values: _noisy(x, values["noise"], draw)
    )


def _rows(labels: Tensor, config: Config, seed: int) -> dict[str, Tensor]:
    """Rows of the three parts; of the user's own data all, in shares of 50, 20 and 30 %."""
    shares: dict[str, Any] = {"test": config.test, "validation": config.valid}
    if config.data is not None:
        shares = {"test": 0.3, "validation": 0.2}
    train, valid, test = map(torch.from_numpy, stratified_split(labels, seed, **shares))
    return {"train": train if config.data is not None else train[: config.train], "valid": valid, "test": test}


def _classifier(
    config: Config,
    parts: dict[str, tuple[Tensor, Tensor]],
    classes: int,
    ranges: dict[str, tuple[float, float]],
    augment: Callable[[Tensor, Values], Tensor],
) -> Task:
    """A multilayer perceptron of two hidden layers with dropout before each of its three."""
    parts = {part: (x.to(config.device), y.to(config.device)) for part, (x, y) in parts.items()}
    rates = ("input dropout", "first dropout", "second dropout")
    limits = dict.fromkeys(rates, (0.0, DROPOUT)) | ranges
    inputs, hidden = parts["train"][0][0].numel(), config.hidden

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Flatten(), nn.Dropout(), nn.Linear(inputs, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, classes)),
        ).to(config.device)

    return Task(
        network=network,
        hyperparameters=tuple(at(config.start, *limit, name, config.scale) for name, limit in limits.items()),
        dropout=dict(zip(("1", "4", "7"), rates, strict=True)),
        # beyond half of the range of an augmentation few networks learn at all: it would waste the search's trials
        searched={name: (0.0, high if name in rates else high / 2) for name, (_, high) in limits.items()},
        batches=lambda part, draw: shuffled(*parts[part], config.batch, draw),
        score=lambda net, part: scored(net, *parts[part]),
        loss=F.cross_entropy,
        augment=augment,
    )


def shuffled(x: Tensor, y: Tensor, size: int, draw: torch.Generator) -> Batches:
    """Batches of one size, epoch after epoch, in ever new order."""
    size = min(size, len(x))
    while True:
        order = torch.randperm(len(x), generator=draw).to(x.device)
        for rows in order[: len(x) // size * size].view(-1, size):
            yield x[rows], y[rows]


@torch.no_grad()
def scored(net: nn.Module, x: Tensor, y: Tensor) -> Score:
    """Mean cross-entropy and accuracy, in evaluation mode."""
    net.eval()
    logits = torch.cat([net(part) for part in torch.split(x, 1000)])
    return Score(F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).double().mean().item())


def moved(x: Tensor, shift: Tensor, rotation: Tensor, draw: torch.Generator) -> Tensor:
    """Images ``(B, c, h, w)`` turned by up to ``rotation`` degrees, shifted by up to ``shift`` pixels, each its own."""
    n, _, height, width = x.shape
    angle = rotation * math.pi / 180 * uniform(n, draw, x)
    across, down = (2 * shift / extent * uniform(n, draw, x) for extent in (width, height))
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, across, sin, cos, down], 1).view(n, 2, 3).to(x.dtype)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def _noisy(x: Tensor, scale: Tensor, draw: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=draw).to(x.device)
    return x + scale.view(-1, *(1,) * (x.ndim - 1)) * noise


def uniform(n: int, draw: torch.Generator, like: Tensor) -> Tensor:
    """On ±1."""
    return (2 * torch.rand(n, generator=draw) - 1).to(like.device)
