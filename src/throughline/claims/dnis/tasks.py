"""What a task of the dnis claim is, and ratings as one: by default, of the user, and of the paper."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.dnis.config import Config
from throughline.claims.dnis.models import Recommender
from throughline.claims.shared import random_batches
from throughline.data import DataError, Ratings, read_ratings

__all__ = ["Task", "drawn_parts", "load", "rating_task", "scores"]

LOW, HIGH = 1.0, 5.0  # the scale that the user's ratings are mapped onto
FEWEST = 20  # ratings
CHUNK = 2**16  # rows at once, where no gradient is kept


class Task(NamedTuple):
    """One data set, split for one seed, and all that a recommender needs to be trained and judged on it."""

    counts: Tensor  # (N,) occurrences of each feature in the training part
    network: Callable[[int], Recommender]  # of a size
    batches: Callable[[str, torch.Generator], Iterator[Any]]  # of "train" or "valid", without end, all of one size
    steps: int  # of an epoch
    loss: Callable[[nn.Module, Any], Tensor]
    valid: Callable[[nn.Module], float]  # the less the better
    test: Callable[[nn.Module], dict[str, float]]
    metric: str = "mse"  # among those of test, the less the better


def load(config: Config, seed: int) -> Task:
    """The task of a seed: MovieLens-100k or the user's own ratings, moved onto its scale."""
    if config.data is None:
        return ratings_of(config, read_ratings("movielens-100k/u.data"), seed)
    found = config.data.ratings()
    low, high = found.ratings.min(), found.ratings.max()
    if low == high or len(found.ratings) < FEWEST:
        raise DataError(
            f"{config.data.path}: {FEWEST} ratings or more are wanted, not all of them alike, got "
            f"{len(found.ratings):,} from {low:g} to {high:g}"
        )
    scaled = LOW + (found.ratings - low) * ((HIGH - LOW) / (high - low))
    return ratings_of(config, found._replace(ratings=scaled), seed)


def ratings_of(config: Config, found: Ratings, seed: int) -> Task:
    """Ratings as a task: a user and an item are ids of one table, users first."""
    ids = np.stack([found.users, found.items + len(found.user_ids)], 1)
    return rating_task(config, ids, found.ratings, len(found.user_ids) + len(found.item_ids), seed)


def rating_task(
    config: Config, ids: NDArray[np.int64], ratings: NDArray[np.floating[Any]], features: int, seed: int
) -> Task:
    """Predict ratings from the ids of each row, by squared error."""
    x, y = torch.from_numpy(ids), torch.from_numpy(ratings).float()
    parts = {part: (x[rows], y[rows]) for part, rows in drawn_parts(config, len(x), seed).items()}
    counts = parts["train"][0].flatten().bincount(minlength=features)
    mean = parts["train"][1].double().mean().item()
    parts = {part: (x.to(config.device), y.to(config.device)) for part, (x, y) in parts.items()}

    def batches(part: str, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = parts[part]
        size = min(config.batch, len(x))
        for rows in random_batches.shuffled(torch.arange(len(x)), size, draw, drop_last=True):
            yield x[rows.to(x.device)], y[rows.to(x.device)]

    def error(part: str, model: nn.Module) -> float:
        x, y = parts[part]
        return (scores(model, x) - y).double().square().mean().item()

    return Task(
        counts=counts,
        network=lambda dim: Recommender(config.model, features, x.shape[1], dim, mean).to(config.device),
        batches=batches,
        steps=max(1, len(parts["train"][1]) // config.batch),
        loss=lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        valid=partial(error, "valid"),
        test=lambda model: {"mse": error("test", model)},
    )


def drawn_parts(config: Config, rows: int, seed: int) -> dict[str, Tensor]:
    """Row numbers of the three parts, at random."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[: config.rows or None]
    test, valid = (max(1, round(share * len(order))) for share in (config.test, config.valid))
    parts = torch.split(order, [test, valid, len(order) - test - valid])
    return dict(zip(("test", "valid", "train"), parts, strict=True))


@torch.no_grad()
def scores(model: nn.Module, x: Tensor) -> Tensor:
    """What a model makes of all rows, in parts."""
    return torch.cat([model(part) for part in torch.split(x, CHUNK)])
