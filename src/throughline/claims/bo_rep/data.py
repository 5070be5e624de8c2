"""What the BO-REP claim learns: a text under a recurrent encoder, rows of the user's table, or the paper's own sets."""

from collections.abc import Iterator

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.claims.bo_rep import paper
from throughline.claims.bo_rep.cleaning import PROBE, cleaning
from throughline.claims.bo_rep.config import Config, kind
from throughline.claims.bo_rep.problems import PENALTY, Encoder, Problem, Tree, parameters, sampled
from throughline.claims.shared.class_tables import class_table
from throughline.claims.shared.texts import characters
from throughline.data import DataError, Source

__all__ = ["load"]

KEY = "text/tinyshakespeare.txt"
MOST_CHARACTERS = 256  # beyond, the rarer ones are one
LEAST_TEXT = 10  # sequences in the shortest part of a text


def load(config: Config, seed: int, level: float) -> Problem:
    """The problem of a seed at one level, the same in every arm; the weights start alike at every level."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = {"text": _text, "table": _table}.get(kind(config), paper.load)
        return make(config, seed, level)


def _text(config: Config, seed: int, gain: float) -> Problem:
    """Next characters: 45% of the text are for the head, the next 45% for the encoder, the last 10% are the test."""
    where = config.data.path if config.data is not None else f"dataset={config.dataset}"
    tokens, size = characters(_content(config), MOST_CHARACTERS)
    ends = int(0.45 * len(tokens)), int(0.9 * len(tokens))
    parts = [tokens[: ends[0]], tokens[ends[0] : ends[1]], tokens[ends[1] :]]
    if len(parts[2]) < LEAST_TEXT * (config.length + 1):
        least = 10 * LEAST_TEXT * (config.length + 1)
        raise DataError(
            f"{where}: the text has {len(tokens)} characters, and at least {least} are wanted; give a "
            f"longer one, or sequences shorter than length={config.length} (--set length=…)"
        )
    if size < 2:
        raise DataError(f"{where}: all characters are the same, and there is nothing to learn")
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


def _table(config: Config, seed: int, flipped: float) -> Problem:
    """Which rows to trust: a weight for each of 60% of the rows, some of whose labels are flipped; 20% are clean."""
    assert config.data is not None
    found, names = class_table(config.data, seed, test=0.2, validation=0.2)
    parts, classes = (list(column) for column in zip(*found, strict=True))
    model = nn.Linear(parts[0].shape[1], len(names))
    for p in model.parameters():
        nn.init.zeros_(p)
    return cleaning(config, seed, flipped, model, parts, classes, len(names))


def _content(config: Config) -> str:
    if config.data is None and config.dataset == "descriptions":  # of scikit-learn's data sets, which need no download
        return "".join(load().DESCR for load in (load_breast_cancer, load_diabetes, load_iris, load_wine))
    return (config.data or Source.of(KEY)).text()
