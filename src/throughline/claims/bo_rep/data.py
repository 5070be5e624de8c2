"""Bilevel problems of the BO-REP claim: a recurrent encoder under a softmax head on text, weights of rows with flipped
labels in a table; reviews and tweets lie in a module of their own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.data import DataError, Source, standardize, stratified_split
from throughline.errors import ThroughlineError

__all__ = [
    "Config",
    "Encoder",
    "Problem",
    "Tree",
    "check",
    "cleaning",
    "flip",
    "kind",
    "levels",
    "load",
    "parameters",
    "sampled",
]

Tree = dict[str, Tensor]

KEY = "text/tinyshakespeare.txt"
MOST_CHARACTERS = 256  # beyond, the rarer ones are one
LEAST_TEXT = 10  # sequences in the shortest part of a text
PENALTY = 1e-4  # of the head, λ/2 |y|²: G is strongly convex in it
CLEANING_PENALTY = 1e-3  # of hyper-cleaning, c |y|²
PROBE = 8_192  # predictions behind a point of the curves


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment; the step sizes of x are tuned, see `throughline.claims.bo_rep.training`."""

    dataset: Literal["descriptions", "shakespeare", "amazon", "sentiment140"] = "shakespeare"  # `data` takes its place
    gains: tuple[float, ...] = (2.0, 1.6, 1.3, 1.0)  # of the recurrent matrix: exploding first, benign last
    flipped: float = 0.4  # share of training labels, where samples are weighted; the benign problem flips none
    embedding: int = 32
    hidden: int = 96
    layers: int = 1
    length: int = 48  # characters of a sequence, words of a review
    batch: int = 16  # sequences
    rows: int = 512  # of a batch, where samples are weighted
    steps: int = 400
    warmup: int = 60  # lower steps before the first, in every arm
    lower_lr: float = 0.1
    adjoint_lr: float = 0.1
    momentum: float = 0.9
    period: int = 2  # of bo_rep
    lower_steps: int = 2  # of bo_rep; ma_soba takes one in every step
    neumann: int = 10  # terms, of stocbio
    lr: float = 0.0  # of x, in place of the tuned step sizes; 0 for those
    tasks: int = 20  # in a batch of reviews
    shots: int = 20  # reviews of a task on either level
    samples: int = 20_000  # tweets, or reviews of a domain at most
    vectors: str = ""  # file of word vectors, a word and its numbers in a line
    device: str = "cpu"
    data: Source | None = None


class Problem(NamedTuple):
    """min over x of F(x, y*(x)), with what is needed to learn and to judge it."""

    x: Tree
    y: Tree
    upper_loss: Callable[[Tree, Tree, Any], Tensor]
    lower_loss: Callable[[Tree, Tree, Any], Tensor]
    upper_batches: Iterator[Any]
    lower_batches: Iterator[Any]
    test: Callable[[Tree, Tree], dict[str, float]]  # loss and accuracy on the whole test part
    probe: Callable[[Tree, Tree], float]  # loss on some of it, for curves


class Encoder(nn.Module):
    """Tokens (n, t) to tanh hidden states (n, t, h); the recurrent matrices are orthogonal times ``gain``."""

    def __init__(self, words: int | Tensor, width: int, hidden: int, layers: int, gain: float) -> None:
        super().__init__()
        if isinstance(words, Tensor):  # given vectors are not learned
            self.register_buffer("vectors", words)
        else:
            self.vectors = nn.Parameter(torch.randn(words, width))
        self.rnn = nn.RNN(width, hidden, layers, batch_first=True)
        for name, matrix in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(matrix, gain)

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.rnn(F.embedding(tokens, self.vectors))[0]
        return states


def check(config: Config) -> None:
    """Fetch and read what the units will need, so that a fault is one line before anything runs."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    if not config.gains or min(config.gains) <= 0:
        raise ThroughlineError(f"gains must be positive and at least one, got {config.gains}")
    if not 0 <= config.flipped < 1:
        raise ThroughlineError(f"flipped must be in [0, 1), got {config.flipped}")
    load(config, 0, levels(config)[0])


def kind(config: Config) -> str:
    """What is learned: "text", "table", "amazon" or "sentiment140". A .txt file with a target is a table."""
    if config.data is None:
        return "text" if config.dataset in ("descriptions", "shakespeare") else config.dataset
    return "text" if "text" in config.data.kinds and config.data.target is None else "table"


def levels(config: Config) -> tuple[float, ...]:
    """The problems of a unit, hardest first: gains of the recurrent matrix, or shares of flipped labels."""
    return (config.flipped, 0.0) if kind(config) in ("table", "sentiment140") else config.gains


def load(config: Config, seed: int, level: float) -> Problem:
    """The problem of a seed at one level, the same in every arm; the weights start alike at every level."""
    from throughline.claims.bo_rep import paper as reviews

    make = {"text": text, "table": table, "amazon": reviews.amazon, "sentiment140": reviews.sentiment140}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make[kind(config)](config, seed, level)


def sampled(draw: Callable[[torch.Generator], Any], seed: int) -> Iterator[Any]:
    """Batches without an end, the same for every arm: each level of the problem has a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield draw(generator)


def text(config: Config, seed: int, gain: float) -> Problem:
    """Next characters: 45% of the text are for the head, the next 45% for the encoder, the last 10% are the test."""
    tokens, size = _tokens(_content(config))
    ends = int(0.45 * len(tokens)), int(0.9 * len(tokens))
    parts = [tokens[: ends[0]], tokens[ends[0] : ends[1]], tokens[ends[1] :]]
    if len(parts[2]) < LEAST_TEXT * (config.length + 1):
        least = 10 * LEAST_TEXT * (config.length + 1)
        raise DataError(f"the text has {len(tokens)} characters, and at least {least} are wanted; give a longer one")
    windows = [part.unfold(0, config.length + 1, 1).to(config.device) for part in parts]
    encoder = Encoder(size, config.embedding, config.hidden, config.layers, gain).to(config.device)
    head = nn.Linear(config.hidden, size).to(config.device)

    def loss(x: Tree, y: Tree, sequences: Tensor) -> Tensor:
        states = functional_call(encoder, x, (sequences[:, :-1],))
        return F.cross_entropy(functional_call(head, y, (states,)).flatten(0, 1), sequences[:, 1:].flatten())

    def lower_loss(x: Tree, y: Tree, sequences: Tensor) -> Tensor:
        return loss(x, y, sequences) + PENALTY / 2 * sum(p.square().sum() for p in y.values())

    def batches(part: Tensor, seed: int) -> Iterator[Tensor]:
        return sampled(lambda g: part[torch.randint(len(part), (config.batch,), generator=g)], seed)

    apart = windows[2][:: config.length]

    @torch.no_grad()
    def test(x: Tree, y: Tree) -> dict[str, float]:
        hits, total = 0.0, 0.0
        for sequences in torch.split(apart, 512):
            scores = functional_call(head, y, (functional_call(encoder, x, (sequences[:, :-1],)),)).flatten(0, 1)
            total += F.cross_entropy(scores, sequences[:, 1:].flatten(), reduction="sum").item()
            hits += (scores.argmax(-1) == sequences[:, 1:].flatten()).sum().item()
        count = len(apart) * config.length
        return {"loss": total / count, "accuracy": hits / count}

    @torch.no_grad()
    def probe(x: Tree, y: Tree) -> float:
        return loss(x, y, apart[: max(1, PROBE // config.length)]).item()

    x, y = parameters(encoder), parameters(head)
    return Problem(
        x, y, loss, lower_loss, batches(windows[1], 2 * seed), batches(windows[0], 2 * seed + 1), test, probe
    )


def table(config: Config, seed: int, flipped: float) -> Problem:
    """Which rows to trust: a weight for each of 60% of the rows, some of whose labels are flipped; 20% are clean."""
    assert config.data is not None
    data = config.data.table()
    names, labels = np.unique(data.y, return_inverse=True)
    if len(names) > 100:
        raise DataError(
            f"{data.name}: target {data.target!r} has {len(names)} different values, and at most 100 classes are "
            "wanted; name a column of classes with --target, or a text with none"
        )
    rows = stratified_split(labels, seed, test=0.2, validation=0.2)
    parts = [torch.from_numpy(part).float() for part in standardize(*(data.x[part] for part in rows))]
    classes = [torch.from_numpy(labels[part]).long() for part in rows]
    model = nn.Linear(parts[0].shape[1], len(names))
    for p in model.parameters():
        nn.init.zeros_(p)
    return cleaning(config, seed, flipped, model, parts, classes, len(names))


def cleaning(
    config: Config, seed: int, flipped: float, model: nn.Module, parts: list[Tensor], labels: list[Tensor], classes: int
) -> Problem:
    """Hyper-cleaning: G = mean σ(x_i) ℓ_i(y) + c|y|² over flipped labels, F the loss on clean ones.

    ``parts`` and ``labels`` are those of training, validation and test.
    """
    draw = torch.Generator().manual_seed(seed)
    noisy = flip(labels[0], flipped, classes, draw).to(config.device)
    parts, labels = ([part.to(config.device) for part in side] for side in (parts, labels))
    model = model.to(config.device)

    def lower_loss(x: Tree, y: Tree, rows: Tensor) -> Tensor:
        losses = F.cross_entropy(functional_call(model, y, (parts[0][rows],)), noisy[rows], reduction="none")
        penalty = CLEANING_PENALTY * sum(p.square().sum() for p in y.values())
        return (x["weights"][rows].sigmoid() * losses).mean() + penalty

    def loss(x: Tree, y: Tree, rows: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, y, (parts[1][rows],)), labels[1][rows])

    def batches(count: int, seed: int) -> Iterator[Tensor]:
        size = min(config.rows, count)
        return sampled(lambda g: torch.randperm(count, generator=g)[:size].to(config.device), seed)

    @torch.no_grad()
    def test(x: Tree, y: Tree, most: int | None = None) -> dict[str, float]:
        pairs = zip(*(torch.split(side[2][:most], 4096) for side in (parts, labels)), strict=True)
        found = [(functional_call(model, y, (rows,)), truth) for rows, truth in pairs]
        scores, truth = (torch.cat(side) for side in zip(*found, strict=True))
        hits = (scores.argmax(-1) == truth).float().mean()
        return {"loss": F.cross_entropy(scores, truth).item(), "accuracy": hits.item()}

    x = {"weights": torch.zeros(len(noisy), device=config.device)}
    y = parameters(model)
    upper, lower = batches(len(labels[1]), 2 * seed), batches(len(noisy), 2 * seed + 1)
    return Problem(x, y, loss, lower_loss, upper, lower, test, lambda x, y: test(x, y, PROBE)["loss"])


def parameters(module: nn.Module) -> Tree:
    return dict(module.named_parameters())


def flip(labels: Tensor, share: float, classes: int, draw: torch.Generator) -> Tensor:
    """Each label by chance ``share``, independently of all others, becomes another one, each as likely."""
    chosen = torch.rand(len(labels), generator=draw) < share
    moved = (labels + torch.randint(1, classes, labels.shape, generator=draw)) % classes
    return torch.where(chosen, moved, labels)


def _content(config: Config) -> str:
    if config.data is None and config.dataset == "descriptions":  # of scikit-learn's data sets, which need no download
        return "".join(load().DESCR for load in (load_breast_cancer, load_diabetes, load_iris, load_wine))
    return (config.data or Source.of(KEY)).text()


def _tokens(content: str) -> tuple[Tensor, int]:
    """Characters as numbers, and how many numbers there are."""
    points = np.frombuffer(content.encode("utf-32-le"), np.uint32)
    found, codes, counts = np.unique(points, return_inverse=True, return_counts=True)
    if len(found) <= MOST_CHARACTERS:
        return torch.from_numpy(codes.astype(np.int64)), len(found)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    return torch.from_numpy(np.minimum(rank, MOST_CHARACTERS - 1)[codes]), MOST_CHARACTERS
