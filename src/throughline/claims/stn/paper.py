"""The stn claim at the paper's scale: CIFAR-10 with an AlexNet-like network, and the Penn Treebank with an LSTM."""

import math
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.stn.data import Batches, Config, Score, Task, Values, at, scored, shuffled, uniform
from throughline.data import DataError, fetch
from throughline.lab import require

__all__ = ["AlexNet", "LanguageModel", "cifar", "cutout", "jittered", "penn"]

WIDTHS, STRIDES, POOLED = (64, 192, 384, 256, 256), (2, 1, 1, 1, 1), (0, 1, 4)
RATE = 0.9  # the end of the range of a dropout
PENALTY = 4.0  # of the two penalties of the LSTM


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


def cifar(config: Config, seed: int) -> Task:
    """40,000 images to train on and 10,000 to validate, drawn by the seed; the data set's own test part."""
    datasets = require("torchvision.datasets", extra="paper")
    import pooch

    root = config.root or str(Path(pooch.os_cache("throughline")) / "torchvision")
    halves = [datasets.CIFAR10(root, train=train, download=True) for train in (True, False)]
    (x, y), (test_x, test_y) = (
        (torch.as_tensor(half.data).movedim(-1, 1).float() / 255, torch.as_tensor(half.targets)) for half in halves
    )
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


def jittered(x: Tensor, values: Values, draw: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue of ``(B, 3, h, w)`` in [0, 1], each by up to its value, by sample.

    Hue is turned in the plane of the two colour differences, by up to its share of a full turn.
    """

    def factor(name: str) -> Tensor:
        return (values[name].to(x.dtype) * uniform(len(x), draw, x)).view(-1, 1, 1, 1)

    x = (x * (1 + factor("brightness"))).clamp(0, 1)
    mean = _grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * (1 + factor("contrast"))).clamp(0, 1)
    grey = _grey(x)
    colour = (x - grey) * (1 + factor("saturation"))
    angle = 2 * math.pi * factor("hue")
    # a turn around the axis (1, 1, 1) keeps what is grey
    across = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)
    along = colour.mean(1, keepdim=True)
    turned = along + (colour - along) * angle.cos() + across * angle.sin()
    return (grey + turned).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def cutout(x: Tensor, holes: Tensor, length: Tensor, draw: torch.Generator) -> Tensor:
    """Zero squares of ``length`` pixels at random centres, ``holes`` of them in each image of ``(B, c, h, w)``."""
    n, _, height, width = x.shape
    most = int(holes.max()) if len(holes) else 0
    rows, columns = (torch.rand(n, most, 1, generator=draw).to(x.device) * extent for extent in (height, width))
    half = (length / 2).view(-1, 1, 1).to(x.device)
    inside = [
        (torch.arange(extent, device=x.device) + 0.5 - centre).abs() <= half  # (B, most, extent)
        for centre, extent in ((rows, height), (columns, width))
    ]
    used = (torch.arange(most, device=x.device) < holes[:, None].to(x.device))[..., None, None]
    gone = (inside[0][..., :, None] & inside[1][..., None, :] & used).any(1)
    return x.masked_fill(gone[:, None], 0.0)


class LanguageModel(nn.Module):
    """A two-layer LSTM with tied embeddings, and a dropout for each thing that may be dropped.

    It is written with ``nn.Linear`` and ``nn.Dropout``, so that it can be converted. Its state is carried on from one
    window of text to the next, for training and evaluation apart.
    """

    def __init__(self, words: int, hidden: int = 650, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.inputs = nn.ModuleList(nn.Linear(hidden, 4 * hidden) for _ in range(layers))
        self.hidden = nn.ModuleList(nn.Linear(hidden, 4 * hidden, bias=False) for _ in range(layers))
        self.decoder = nn.Linear(hidden, words)
        self.decoder.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        self.embedding_drop, self.weight_drop = nn.Dropout(), nn.Dropout()
        self.input_drop, self.hidden_drop, self.output_drop = nn.Dropout(), nn.Dropout(), nn.Dropout()
        self.carried: dict[bool, list[tuple[Tensor, Tensor]]] = {}

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``(B, T)`` to logits ``(B, words, T)``, and the last layer's states with and without dropout."""
        table = self.embedding.weight
        words = self.embedding_drop(table.new_ones(len(table), 1))  # the same words for all samples
        x = F.embedding(tokens, table * words)
        x = x * self._locked(self.input_drop, x)
        before = self.carried.get(self.training)
        after = []
        for place, (enter, inner) in enumerate(zip(self.inputs, self.hidden, strict=True)):
            if place:
                x = x * self._locked(self.hidden_drop, x)
            fresh = before is None or before[place][0].shape != x[:, 0].shape
            state = (torch.zeros_like(x[:, 0]),) * 2 if fresh or before is None else before[place]
            x, state = self._layer(enter(x), inner, state)
            after.append((state[0].detach(), state[1].detach()))
        self.carried[self.training] = after
        out = x * self._locked(self.output_drop, x)
        return self.decoder(out).mT, out, x

    def _layer(self, entered: Tensor, inner: nn.Module, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One layer over all steps, some of its recurrent weights dropped for the whole batch and window."""
        mask = self.weight_drop(torch.ones_like(inner.weight))  # type: ignore[arg-type]
        weights = {name: p * mask for name, p in inner.named_parameters() if name in ("weight", "response_weight")}
        h, c = state
        states = []
        for step in entered.unbind(1):
            i, f, g, o = (step + functional_call(inner, weights, (h,))).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, 1), (h, c)

    @staticmethod
    def _locked(drop: nn.Module, x: Tensor) -> Tensor:
        """One mask for all steps of a sample."""
        mask: Tensor = drop(torch.ones_like(x[:, :1]))
        return mask


def penn(config: Config, seed: int) -> Task:
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
        batches=lambda part, draw: windows(tokens[part], config.batch, config.length),
        score=lambda net, part: read(net, tokens[part], config),
        loss=lambda output, targets: F.cross_entropy(output[0], targets),
        penalty=penalty,
    )


def windows(tokens: Tensor, size: int, length: int) -> Batches:
    """Windows of ``size`` parallel streams, over and over: inputs and the words that follow."""
    while True:
        yield from once(tokens, size, length)


def once(tokens: Tensor, size: int, length: int) -> Batches:
    streams = tokens[: len(tokens) // size * size].view(size, -1)
    for start in range(0, streams.shape[1] - 1, length):
        stop = min(start + length, streams.shape[1] - 1)
        yield streams[:, start:stop], streams[:, start + 1 : stop + 1]


@torch.no_grad()
def read(net: nn.Module, tokens: Tensor, config: Config) -> Score:
    """Loss a word (its exponential is the perplexity) and accuracy, in ten streams from the beginning to the end."""
    net.eval()
    model: Any = getattr(net, "model", net)
    state, model.carried = model.carried, {}
    loss, right, count = 0.0, 0, 0
    for inputs, targets in once(tokens, min(10, len(tokens) // 2), config.length):
        logits = net(inputs)[0]
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        right += int((logits.argmax(1) == targets).sum())
        count += targets.numel()
    model.carried = state
    return Score(loss / count, right / count)
