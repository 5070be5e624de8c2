"""The dnis claim at the paper's scale: MovieLens-20M by its ratings, Criteo by clicks, MovieLens-1M by lists of items,
from files that the user has.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.dnis.config import Config
from throughline.claims.dnis.models import Recommender
from throughline.claims.dnis.tasks import Task, drawn_parts, rating_task, scores
from throughline.claims.shared import random_batches
from throughline.data import DataError

__all__ = ["load"]

FILES = {"movielens-20m": "ratings.csv", "criteo": "train.txt", "movielens-1m": "ratings.dat"}
NUMBERS, CATEGORIES = 13, 26  # columns of Criteo, behind the label
BUCKETS, RARE = 2**20, 10  # that a category is hashed into; rows below which a category is one of "others"
CHUNK = 500_000  # rows that are read at once
LENGTH = 10  # of a list of items
NEGATIVES = 20  # items for each held-out one, in the validation loss of lists
FEWEST = 5  # ratings of a user who is asked


def load(config: Config, seed: int) -> Task:
    """The task of a seed."""
    file = Path(config.root) / FILES[config.dataset]
    if not config.root or not file.is_file():
        raise DataError(f"{file}: no such file; get {config.dataset} and name its folder: --set root=FOLDER")
    if config.dataset == "movielens-20m":
        users, items, ratings, _ = _movielens(file)
        return rating_task(config, _ids(users, items), ratings, int(users.max() + items.max()) + 2, seed)
    if config.dataset == "movielens-1m":
        users, items, _, times = _movielens(file)
        return _lists(config, users, items, times, seed)
    return _clicks(config, *_criteo(file), seed)


def _movielens(file: Path) -> tuple[NDArray[Any], ...]:
    """Users and items from 0, ratings and times of a file of GroupLens: with commas and a header, or double colons."""
    import pandas as pd

    names = ["user", "item", "rating", "time"]
    if file.suffix == ".csv":
        frame = pd.read_csv(file, header=0, names=names)
    else:
        frame = pd.read_csv(file, sep="::", names=names, engine="python", encoding="latin-1")
    users, items = (pd.factorize(frame[name])[0].astype(np.int64) for name in names[:2])
    return users, items, frame["rating"].to_numpy(np.float32), frame["time"].to_numpy(np.int64)


def _ids(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([users, items + users.max() + 1], 1)


# ---- clicks ----


def _criteo(file: Path) -> tuple[Tensor, Tensor, int]:
    """Ids of one table ``(rows, 39)``, clicks ``(rows,)`` and the number of features.

    Whole numbers above 2 are binned by ⌊log²⌋, a missing one is a category of its own.
    """
    import pandas as pd

    columns = range(1 + NUMBERS + CATEGORIES)
    kinds: Any = {c: "float64" if c <= NUMBERS else "str" for c in columns}
    parts, clicks = [], []
    for frame in pd.read_csv(file, sep="\t", header=None, dtype=kinds, chunksize=CHUNK):
        clicks.append(frame[0].to_numpy(np.float32))
        codes = np.empty((len(frame), NUMBERS + CATEGORIES), np.int32)
        for place in columns[1:]:
            column = frame[place]
            if place <= NUMBERS:
                number = column.to_numpy()
                binned = np.where(number > 2, np.floor(np.log(np.maximum(number, 1)) ** 2) + 3, np.maximum(number, -3))
                codes[:, place - 1] = np.nan_to_num(binned + 4, nan=0.0)
            else:
                hashed = pd.util.hash_array(column.fillna("").to_numpy(dtype=object), categorize=True)
                codes[:, place - 1] = hashed % BUCKETS
        parts.append(codes)
    ids, features = np.concatenate(parts), 0
    for place in range(ids.shape[1]):  # those that occur often enough, numbered on from column to column
        count = np.bincount(ids[:, place])
        often = count >= RARE
        number = np.where(often, np.cumsum(often), 0)  # 0 for all others
        ids[:, place] = features + number[ids[:, place]]
        features += int(often.sum()) + 1
    return torch.from_numpy(ids), torch.from_numpy(np.concatenate(clicks)), features


def _clicks(config: Config, ids: Tensor, clicks: Tensor, features: int, seed: int) -> Task:
    """Tell clicks from others, by cross-entropy; judged by the area under the curve."""
    parts = drawn_parts(config, len(ids), seed)
    rate = clicks[parts["train"]].double().mean().clamp(1e-6, 1 - 1e-6)

    def batches(part: str, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        size = min(config.batch, len(parts[part]))
        for rows in random_batches.shuffled(parts[part], size, draw, drop_last=True):
            yield ids[rows].to(config.device), clicks[rows].to(config.device)

    def logits(model: nn.Module, part: str) -> Tensor:
        rows = torch.split(parts[part], 2**16)
        return torch.cat([scores(model, ids[some].to(config.device)).cpu() for some in rows])

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    def test(model: nn.Module) -> dict[str, float]:
        from sklearn.metrics import roc_auc_score

        found, truth = logits(model, "test"), clicks[parts["test"]]
        area = float(roc_auc_score(truth.numpy(), found.double().numpy()))
        return {"ranking_error": 1 - area, "log_loss": F.binary_cross_entropy_with_logits(found, truth).item()}

    return Task(
        counts=ids[parts["train"]].flatten().bincount(minlength=features),
        network=lambda dim: Recommender(config.model, features, ids.shape[1], dim, float(rate.logit())).to(
            config.device
        ),
        batches=batches,
        steps=max(1, len(parts["train"]) // config.batch),
        loss=loss,
        valid=lambda model: F.binary_cross_entropy_with_logits(logits(model, "valid"), clicks[parts["valid"]]).item(),
        test=test,
        metric="ranking_error",
    )


# ---- lists of items ----


def _lists(
    config: Config, users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.int64], seed: int
) -> Task:
    """Rank a user's last item above all that he has not rated; the one before it is for validation.

    Every rating is a positive, and each has one item at random beside it (Bayesian personalised ranking).
    """
    order = np.lexsort((np.arange(len(times)), times, users))
    pairs = torch.from_numpy(_ids(users, items)[order])
    people, many = int(users.max()) + 1, int(items.max()) + 1
    count = pairs[:, 0].bincount(minlength=people)
    asked = count[pairs[:, 0]] >= FEWEST
    behind = count.cumsum(0)[pairs[:, 0]] - torch.arange(len(pairs))  # 1 for a user's last
    held = {"test": asked & (behind == 1), "valid": asked & (behind == 2)}
    parts = {part: pairs[rows] for part, rows in held.items()} | {"train": pairs[~(held["test"] | held["valid"])]}
    fixed = torch.randint(many, (len(parts["valid"]), NEGATIVES), generator=torch.Generator().manual_seed(seed))

    def batches(part: str, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        x = parts[part]
        for rows in random_batches.shuffled(torch.arange(len(x)), min(config.batch, len(x)), draw, drop_last=True):
            other = people + torch.randint(many, (len(rows),), generator=draw)
            yield x[rows].to(config.device), torch.stack([x[rows, 0], other], 1).to(config.device)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -F.logsigmoid(model(batch[0]) - model(batch[1])).mean()

    def valid(model: nn.Module) -> float:
        x = parts["valid"]
        others = torch.stack([x[:, :1].expand(-1, NEGATIVES), people + fixed], -1).flatten(0, 1)
        worse = scores(model, others.to(config.device)).view(len(x), NEGATIVES)
        return -F.logsigmoid(scores(model, x.to(config.device))[:, None] - worse).mean().item()

    def test(model: nn.Module) -> dict[str, float]:
        known = torch.cat([parts["train"], parts["valid"]])
        seen = torch.zeros(people, many, dtype=torch.bool)
        seen[known[:, 0], known[:, 1] - people] = True
        every, ranks = people + torch.arange(many), []
        for user, item in parts["test"].tolist():
            row = torch.stack([torch.full_like(every, user), every], 1)
            found = scores(model, row.to(config.device)).cpu().masked_fill(seen[user], -torch.inf)
            own = found[item - people]
            ranks.append(int((found > own).sum()) + 1)
        place = torch.tensor(ranks, dtype=torch.float64)
        listed = (place <= LENGTH).double()
        gain = listed / (place + 1).log2()
        return {"ranking_error": 1 - gain.mean().item(), "hit_rate": listed.mean().item()}

    return Task(
        counts=parts["train"].flatten().bincount(minlength=people + many),
        network=lambda dim: Recommender(config.model, people + many, 2, dim, 0.0).to(config.device),
        batches=batches,
        steps=max(1, len(parts["train"]) // config.batch),
        loss=loss,
        valid=valid,
        test=test,
        metric="ranking_error",
    )
