"""What the lpn claim trains on: the paper's Laplace samples, of which all is known, own tables, or images."""

import math
import warnings
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from throughline.claims.lpn import paper
from throughline.claims.lpn.config import Config
from throughline.claims.lpn.images import folder, on_images
from throughline.claims.lpn.tasks import Phase, Task, rises
from throughline.data import DataError, Source
from throughline.data.download import resolve
from throughline.data.frames import read_frame
from throughline.lab import Log, require
from throughline.physics.proximal import InputConvexMLP, LearnedProximalNetwork, proximal_matching_loss

__all__ = ["load", "posterior_mean", "prior_values", "soft_threshold"]

LEVELS = (0.0, 0.25, 0.5, 1.0, 2.0)  # noise on own samples, in multiples of σ
MOST_COLUMNS = 64
TABLE_CONVEXITY = 0.02  # μ: own samples may lie anywhere


def load(config: Config, seed: int) -> Task:
    """The task of a seed, alike in every arm."""
    if config.data is None and config.dataset == "laplace":
        return _laplace(config)
    if config.data is not None and config.data.kind == "table":
        return _table(config, config.data, seed)
    require("deepinv", extra="imaging")
    require("skimage.metrics", extra="imaging")
    pictures = paper.pictures(config, seed) if config.data is None else folder(config.data, seed)
    return on_images(config, pictures, seed)


def _phases(config: Config, gammas: tuple[float, ...]) -> tuple[Phase, ...]:
    parts = len(config.pretrain_rates)
    ends = [config.pretrain * part // parts for part in range(parts + 1)]
    first = [Phase(ends[i + 1] - ends[i], lr, None) for i, lr in enumerate(config.pretrain_rates)]
    stages = zip(gammas, config.rates, strict=True)
    return (*first, *(Phase(config.matching, lr, gamma) for gamma, lr in stages))


# ---- the generator of the paper, of which all is known ----


def soft_threshold(y: Tensor) -> Tensor:
    """The proximal operator of the absolute value: what proximal matching should find for Laplace(0, 1), σ = 1."""
    return y.sign() * (y.abs() - 1).clamp(min=0)


def posterior_mean(y: Tensor) -> Tensor:
    """E[x | y] for x ~ Laplace(0, 1) and y = x + N(0, 1): what l2 should find.

    The posterior is a normal around y − 1 where x > 0 and around y + 1 where x < 0, weighted e^{∓y}; the densities at
    the cut cancel.
    """
    above = -y + torch.special.log_ndtr(y - 1)
    below = y + torch.special.log_ndtr(-y - 1)
    share = torch.sigmoid(above - below)
    return share * (y - 1) + (1 - share) * (y + 1)


def _laplace(config: Config) -> Task:
    inputs = torch.linspace(-3, 3, 301, dtype=torch.float64)[:, None]
    points = torch.linspace(-2, 2, 101, dtype=torch.float64)[:, None]

    def draw(generator: torch.Generator, size: int) -> Tensor:
        uniform = torch.rand(size, 1, generator=generator) - 0.5
        drawn: Tensor = -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-7))
        return drawn

    def outputs(f: LearnedProximalNetwork) -> Tensor:
        with torch.no_grad():
            made: Tensor = f(inputs.float())
        return made.double()

    def watch(f: LearnedProximalNetwork) -> dict[str, float]:
        return {"prox_rmse": _rmse(outputs(f), soft_threshold(inputs))}

    def measure(f: LearnedProximalNetwork, arm: str, log: Log) -> dict[str, float]:
        out, values = outputs(f), prior_values(f, points)
        values = values - values[50]  # R is known up to a constant: R(0) = 0
        log.keep(inputs=inputs[:, 0], outputs=out[:, 0], points=points[:, 0], prior=values)
        known = values.isfinite()
        found = {
            "prior_rmse": _rmse(values.where(known, 0.0), points[:, 0].abs()),
            "prior_defined": float(known.double().mean()),
            "prox_rmse": _rmse(out, soft_threshold(inputs)),
        }
        return found | ({"mean_rmse": _rmse(out, posterior_mean(inputs))} if arm == "l2" else {})

    return Task(
        network=lambda: InputConvexMLP(1, config.hidden, depth=config.depth, beta=config.beta),
        draw=draw,
        sigma=1.0,
        batch=config.batch,
        phases=_phases(config, config.gammas),
        watch=watch,
        measure=measure,
    )


def prior_values(f: LearnedProximalNetwork, x: Tensor) -> Tensor:
    """R(x) in float64, for f is all but flat in places; NaN outside the range of f, which the metrics count."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "inverse did not converge", RuntimeWarning)
        return deepcopy(f).double().prior(x.double(), tol=1e-6, max_iter=500)


def _rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


# ---- samples of the user's own ----


def _table(config: Config, source: Source, seed: int) -> Task:
    rows = _samples(source)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    test, train = rows[: len(rows) // 4], rows[len(rows) // 4 :]
    std, mean = torch.std_mean(train, 0)
    std = torch.where(std > 0, std, 1)
    train, test = ((part - mean) / std for part in (train, test))
    width = train.shape[1]
    gammas = tuple(gamma * config.table_sigma * math.sqrt(width) for gamma in config.table_gammas)

    def noise() -> Tensor:
        return torch.randn(test.shape, generator=torch.Generator().manual_seed(seed + 1))

    def matching(f: LearnedProximalNetwork) -> float:
        with torch.no_grad():
            denoised = f(test + config.table_sigma * noise())
        return float(proximal_matching_loss(denoised, test, gamma=gammas[-1]))

    def measure(f: LearnedProximalNetwork, arm: str, log: Log) -> dict[str, float]:
        few, steps = test[:200], torch.tensor(LEVELS) * config.table_sigma
        found = torch.stack([prior_values(f, few + step * noise()[:200]) for step in steps], 1)
        log.keep(noise=steps, prior_noise=found)
        known = float(found.isfinite().double().mean())
        return {"matching_loss": matching(f), **rises(found), "prior_defined": known}

    return Task(
        network=lambda: InputConvexMLP(
            width, config.hidden, depth=config.depth, beta=config.beta, strong_convexity=TABLE_CONVEXITY
        ),
        draw=lambda generator, size: train[torch.randint(len(train), (size,), generator=generator)],
        sigma=config.table_sigma,
        batch=config.batch,
        phases=_phases(config, gammas),
        watch=lambda f: {"matching_loss": matching(f)},
        measure=measure,
    )


def _samples(source: Source) -> Tensor:
    """Every column of numbers, or all but the one that ``--target`` names."""
    frame = read_frame(resolve(source.path))
    if source.target is not None:
        if source.target not in frame.columns:
            raise DataError(f"{source.path}: no column {source.target!r}; it has {', '.join(frame.columns)}")
        frame = frame.drop(columns=source.target)
    text = next((name for name in frame.columns if frame[name].dtype.kind not in "iufb"), None)
    if text is not None:
        raise DataError(f"{source.path}: column {text!r} holds no numbers; leave it out, or name it with --target")
    with np.errstate(over="ignore"):
        values = frame.to_numpy(dtype=np.float32, copy=True)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{source.path}: column {frame.columns[column]!r} has no number in row {row + 1}, or one that is "
            "infinite or above 3e38; mend or remove the row"
        )
    if len(values) < 100 or not 1 <= values.shape[1] <= MOST_COLUMNS:
        raise DataError(
            f"{source.path}: {values.shape[0]} rows of {values.shape[1]} columns; at least 100 rows and 1 to "
            f"{MOST_COLUMNS} columns are wanted"
        )
    return torch.from_numpy(values)
