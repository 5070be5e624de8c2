"""The stn claim at the paper's scale: CIFAR-10 with an AlexNet-like network, and the Penn Treebank with an LSTM."""

from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.shared.datasets import halves, pictures
from throughline.claims.shared.distortion import cutout, jittered
from throughline.claims.shared.language_models import LanguageModel, endless_windows, windows
from throughline.claims.stn.config import Config
from throughline.claims.stn.tasks import Score, Task, Values, at, scored, shuffled
from throughline.data import DataError, fetch

__all__ = ["AlexNet", "load", "read"]

WIDTHS, STRIDES, POOLED = (64, 192, 384, 256, 256), (2, 1, 1, 1, 1), (0, 1, 4)
RATE = 0.9  # the end of the range of a dropout
PENALTY = 4.0  # of the two penalties of the LSTM


def load(config: Config, seed: int) -> Task:
    """The task of a seed: images or text."""
    return _cifar(config, seed) if config.dataset == "cifar10" else _penn(config)


class AlexNet(nn.Module):
    """Five 3 × 3 convolutions and three linear layers, a dropout for each but the last."""

    def __init__(self, wide: int = 4096, classes: int = 10) -> None:
        super().__init__()
        self.input_drop = nn.Dropout()
        layers: list[nn.Module] = []
        for place, ((a, b), stride) in enumerate(zip(pairwise((3, *WIDTHS)), STRIDES, strict=True)):
            layers += [nn.Conv2d(a, b, 3, stride, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (place in POOLED) + [nn.Dropout2d()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Sequential(
            *(nn.Linear(WIDTHS[-1] * 4, wide), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(wide, wide), nn.ReLU(), nn.Dropout(), nn.Linear(wide, classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(self.input_drop(x)))
        return logits


def _cifar(config: Config, seed: int) -> Task:
    """40,000 images to train on and 10,000 to validate, drawn by the seed; the data set's own test part."""
    (x, y), (test_x, test_y) = map(pictures, halves("CIFAR10", config.root))
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, valid = rows[: -(len(x) // 5)], rows[-(len(x) // 5) :]
    std, mean = torch.std_mean(x[train], (0, 2, 3), keepdim=True)
    pixels = {"train": (x[train], y[train]), "valid": (x[valid], y[valid]), "test": (test_x, test_y)}
    # training batches are augmented as pixels in [0, 1], and normalised behind
    parts = {
        part: ((x if part == "train" else (x - mean) / std).to(config.device), y.to(config.device))
        for part, (x, y) in pixels.items()
    }
    std, mean = std.to(config.device), mean.to(config.device)
    draw = torch.Generator().manual_seed(seed + 1)

    def augment(x: Tensor, values: Values) -> Tensor:
        made = (jittered(shifted_and_mirrored(x, draw), values, draw) - mean) / std
        size = (1 + values["input scaling"] * torch.rand(len(x), generator=draw).to(x.device)).view(-1, 1, 1, 1)
        grow = (torch.rand(len(x), 1, 1, 1, generator=draw) < 0.5).to(x.device)
        return cutout(made * torch.where(grow, size, 1 / size), values["holes"], values["length"], draw)

    convolutions = {f"features.{place}": f"dropout {i}" for i, place in enumerate(_places(nn.Dropout2d))}
    dropout = convolutions | {"classifier.2": "first dropout", "classifier.5": "second dropout", "input_drop": "input"}
    limits = (
        dict.fromkeys(dropout.values(), (0.0, RATE))
        | {"input scaling": (0.0, 0.3), "hue": (0.0, 0.5)}
        | dict.fromkeys(("contrast", "saturation", "brightness"), (0.0, 1.0))
    )
    begin = partial(at, scale=config.scale)
    return Task(
        network=lambda: AlexNet(config.hidden).to(config.device),
        hyperparameters=(
            *(begin(config.start, *limit, name) for name, limit in limits.items()),
            begin(1 / 4, 0, 4, "holes", discrete=True),
            begin(4 / 24, 0, 24, "length", discrete=True),
        ),
        dropout=dropout,
        searched=limits | {"holes": (0, 4), "length": (0, 24)},
        batches=lambda part, draw: shuffled(*parts[part], config.batch, draw),
        score=lambda net, part: scored(net, *parts[part]),
        loss=F.cross_entropy,
        augment=augment,
    )


def _places(kind: type[nn.Module]) -> list[int]:
    with torch.device("meta"):
        return [place for place, layer in enumerate(AlexNet(1).features) if isinstance(layer, kind)]


def _penn(config: Config) -> Task:
    """The Penn Treebank by words: three texts, cut into as many streams as a batch has samples."""
    texts = {"valid": fetch("text/ptb.valid.txt"), "test": fetch("text/ptb.test.txt")}
    texts["train"] = Path(config.root) / "ptb.train.txt"
    if not texts["train"].is_file():
        raise DataError(
            f"{texts['train']}: no such file; get ptb.train.txt of the Penn Treebank (Mikolov's version) and name its "
            "folder: --set root=FOLDER"
        )
    words = {part: file.read_text(encoding="utf-8").replace("\n", " <eos> ").split() for part, file in texts.items()}
    known = {word: i for i, (word, _) in enumerate(Counter(words["train"]).most_common())}
    unknown = known.get("<unk>", 0)
    tokens = {
        part: torch.tensor([known.get(word, unknown) for word in text], device=config.device)
        for part, text in words.items()
    }
    rates = {f"{name}_drop": f"{name} dropout" for name in ("input", "hidden", "output", "embedding", "weight")}
    limits = dict.fromkeys(rates.values(), (0.0, RATE)) | dict.fromkeys(("activation", "temporal"), (0.0, PENALTY))
    batchwise = ("embedding dropout", "weight dropout")

    def penalty(output: tuple[Tensor, Tensor, Tensor], values: Values) -> Tensor:
        _, dropped, raw = output
        activation = (values["activation"] * dropped.square().mean((1, 2))).mean()
        return activation + (values["temporal"] * raw.diff(dim=1).square().mean((1, 2))).mean()

    return Task(
        network=lambda: LanguageModel(len(known), config.hidden).to(config.device),
        hyperparameters=tuple(
            at(config.start, *limit, name, config.scale, shared=name in batchwise) for name, limit in limits.items()
        ),
        dropout=rates,
        searched=limits,
        batches=lambda part, draw: endless_windows(tokens[part], config.batch, config.length),
        score=lambda net, part: read(net, tokens[part], config),
        loss=lambda output, targets: F.cross_entropy(output[0], targets),
        penalty=penalty,
    )


@torch.no_grad()
def read(net: nn.Module, tokens: Tensor, config: Config) -> Score:
    """Loss a word (its exponential is the perplexity) and accuracy, in ten streams from the beginning to the end."""
    net.eval()
    model: Any = getattr(net, "model", net)
    state, model.carried = model.carried, {}
    loss, right, count = 0.0, 0, 0
    for inputs, targets in windows(tokens, min(10, len(tokens) // 2), config.length):
        logits = net(inputs)[0]
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        right += int((logits.argmax(1) == targets).sum())
        count += targets.numel()
    model.carried = state
    return Score(loss / count, right / count)
