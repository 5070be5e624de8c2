"""The paper's own problems for the BO-REP claim: hyper-representation on Amazon reviews, a task a domain, and
hyper-cleaning on tweets, both as word vectors under a recurrent encoder.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.claims.bo_rep.cleaning import cleaning
from throughline.claims.bo_rep.config import Config
from throughline.claims.bo_rep.problems import PENALTY, Encoder, Problem, Tree, parameters, sampled
from throughline.claims.shared.texts import encode, read_vectors
from throughline.errors import ThroughlineError
from throughline.lab import require

__all__ = ["Pooled", "load"]

REVIEWS = "hf://datasets/McAuley-Lab/Amazon-Reviews-2023/raw/review_categories/{}.jsonl"
TWEETS = "stanfordnlp/sentiment140"
DOMAINS = (
    *("All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products", "Books"),
    *("CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics"),
    *("Gift_Cards", "Grocery_and_Gourmet_Food", "Health_and_Household", "Home_and_Kitchen", "Kindle_Store"),
    *("Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments"),
    *("Office_Products", "Pet_Supplies", "Software", "Toys_and_Games", "Video_Games"),  # the last five are the test
)
UNSEEN = 5
TRAINING_TASKS, TEST_TASKS = 400, 50
HEAD = 1024  # width of the head's two hidden layers
ADAPTATION = 10  # lower steps of the head on the support of a test task


def load(config: Config, seed: int, level: float) -> Problem:
    """The problem of a seed at one level: reviews or tweets."""
    return (_amazon if config.dataset == "amazon" else _sentiment140)(config, seed, level)


class Pooled(nn.Module):
    """The encoder, and the maximum of its states over the words that are there: (n, t) to (n, h); token 0 is none."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        absent = (tokens == 0).unsqueeze(-1)
        pooled: Tensor = self.encoder(tokens).masked_fill(absent, -1.0).amax(1)  # of tanh, the least value
        return pooled


class Task(NamedTuple):
    """Reviews of one domain on both levels."""

    support: Tensor  # (shots, t)
    support_labels: Tensor  # (shots,)
    query: Tensor
    query_labels: Tensor


def _amazon(config: Config, seed: int, gain: float) -> Problem:
    """Stars of reviews: a task is a domain, the head sees its support, the encoder its queries."""
    words, vectors = _vectors(config)
    rows = [_reviews(domain, words, config) for domain in DOMAINS]
    draw = torch.Generator().manual_seed(seed)
    tasks = _tasks(rows[:-UNSEEN], TRAINING_TASKS, config, draw)
    unseen = _tasks(rows[-UNSEEN:], TEST_TASKS, config, draw)
    encoder = Pooled(Encoder(vectors, vectors.shape[1], config.hidden, config.layers, gain)).to(config.device)
    head = nn.Sequential(
        *(nn.Linear(config.hidden, HEAD), nn.Tanh(), nn.Linear(HEAD, HEAD), nn.Tanh(), nn.Linear(HEAD, 2))
    ).to(config.device)

    def loss(x: Tree, y: Tree, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(head, y, (functional_call(encoder, x, (batch[0],)),)), batch[1])

    def lower_loss(x: Tree, y: Tree, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss(x, y, batch) + PENALTY / 2 * sum(p.square().sum() for p in y.values())

    def batches(level: str, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = (getattr(tasks, name) for name in (level, f"{level}_labels"))

        def some(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            chosen = torch.randperm(len(inputs), generator=generator)[: config.tasks]
            return inputs[chosen].flatten(0, 1), labels[chosen].flatten()

        return sampled(some, seed)

    def test(x: Tree, y: Tree, most: int = TEST_TASKS) -> dict[str, float]:
        """The head is adapted to every unseen task on its support, and judged on its queries."""
        x = {name: p.detach() for name, p in x.items()}
        total, hits = 0.0, 0.0
        for support, truth, query, wanted in zip(*(part[:most] for part in unseen), strict=True):
            with torch.no_grad():
                seen, asked = (functional_call(encoder, x, (part,)) for part in (support, query))
            adapted = {name: p.detach().clone().requires_grad_() for name, p in y.items()}
            for _ in range(ADAPTATION):
                error = F.cross_entropy(functional_call(head, adapted, (seen,)), truth)
                for p, g in zip(adapted.values(), torch.autograd.grad(error, list(adapted.values())), strict=True):
                    p.data.sub_(g, alpha=config.lower_lr)
            with torch.no_grad():
                scores = functional_call(head, adapted, (asked,))
            total += F.cross_entropy(scores, wanted).item()
            hits += (scores.argmax(-1) == wanted).float().mean().item()
        count = min(most, len(unseen.query))
        return {"loss": total / count, "accuracy": hits / count}

    upper, lower = batches("query", 2 * seed), batches("support", 2 * seed + 1)
    return Problem(
        parameters(encoder), parameters(head), loss, lower_loss, upper, lower, test, lambda x, y: test(x, y, 5)["loss"]
    )


def _sentiment140(config: Config, seed: int, flipped: float) -> Problem:
    """Which tweets to trust: a weight for each of 60% of them, under a recurrent classifier; 20% are clean."""
    words, vectors = _vectors(config)
    datasets = require("datasets", extra="paper")
    found = datasets.load_dataset(TWEETS, revision="refs/convert/parquet", split="train").shuffle(seed=0)
    chosen = found.select(range(min(config.samples, len(found))))
    tokens = encode((row["text"] for row in chosen), words, config.length)
    labels = torch.tensor([int(row["sentiment"] > 2) for row in chosen])
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    ends = int(0.6 * len(order)), int(0.8 * len(order))
    rows = [order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]]
    model = nn.Sequential(
        Pooled(Encoder(vectors, vectors.shape[1], config.hidden, config.layers, 1.0)), nn.Linear(config.hidden, 2)
    )
    return cleaning(config, seed, flipped, model, [tokens[part] for part in rows], [labels[part] for part in rows], 2)


def _vectors(config: Config) -> tuple[dict[str, int], Tensor]:
    if not config.vectors:
        raise ThroughlineError(
            f"dataset={config.dataset} needs word vectors: --set vectors=FILE, a text file with a word and its numbers "
            "in each line, such as glove.6B.300d.txt"
        )
    return read_vectors(config.vectors)


def _reviews(domain: str, words: dict[str, int], config: Config) -> tuple[Tensor, Tensor]:
    """Reviews of a domain with one, two, four or five stars, and whether they like it."""
    datasets = require("datasets", extra="paper")
    stream: Iterable[Any] = datasets.load_dataset(
        "json", data_files=REVIEWS.format(domain), split="train", streaming=True
    )
    found = list(islice((row for row in stream if row["rating"] != 3), config.samples))
    if len(found) < 2 * config.shots:
        raise ThroughlineError(f"{domain}: {len(found)} reviews, and {2 * config.shots} are wanted; --set shots=…")
    labels = torch.tensor([int(row["rating"] > 3) for row in found])
    return encode((row["text"] for row in found), words, config.length), labels


def _tasks(rows: list[tuple[Tensor, Tensor]], count: int, config: Config, draw: torch.Generator) -> Task:
    """``count`` tasks of random domains, stacked: different reviews on the two levels."""
    made = []
    for domain in torch.randint(len(rows), (count,), generator=draw).tolist():
        tokens, labels = rows[domain]
        chosen = torch.randperm(len(tokens), generator=draw)[: 2 * config.shots]
        support, query = chosen.chunk(2)
        made.append(Task(tokens[support], labels[support], tokens[query], labels[query]))
    return Task(*(torch.stack(column).to(config.device) for column in zip(*made, strict=True)))
