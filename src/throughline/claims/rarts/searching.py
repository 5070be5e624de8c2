"""The arms of the rarts claim: four searches of one supernet, and what a step of each costs."""

import math
import statistics

import torch
from torch import nn

from throughline.claims.rarts import solvable
from throughline.claims.rarts.config import Config
from throughline.claims.shared.cells.searching import (
    accuracy,
    codes,
    darts_searcher,
    decide,
    loss_of,
    optimizers,
    run_search,
    shares,
)
from throughline.claims.shared.cells.setting import Decisions, Setting
from throughline.claims.shared.clocks import clock_of
from throughline.lab import Log
from throughline.search.darts import Searcher
from throughline.search.relaxed import RelaxedSearcher

__all__ = ["searched", "solved", "step_cost"]


def searched(arm: str, setting: Setting, config: Config, log: Log) -> tuple[Decisions, dict[str, float]]:
    """What an arm decides, and how accurate its supernet is; keeps how the weights of the options went."""
    net = setting.supernet()
    course = [shares(net)]
    run_search(
        searcher_of(arm, net, config),
        setting.batches(),
        config,
        log,
        of=config.epochs,
        on_epoch=lambda epoch: course.append(shares(net)),
    )
    decisions = decide(net, config)
    log.keep(shares=torch.stack(course), decisions=codes(net, decisions))
    return decisions, {"supernet_accuracy": accuracy(net, setting.valid)}


def searcher_of(arm: str, net: nn.Module, config: Config) -> Searcher:
    """The search of an arm."""
    if arm.startswith("darts"):
        return darts_searcher(net, config, unrolled=arm == "darts_second")
    return RelaxedSearcher(
        net,
        loss_of,
        *optimizers(net, config),
        lam=config.lam,
        beta=config.beta,
        sweep="fused" if arm == "rarts" else "gauss-seidel",
        grad_clip=config.clip,
    )


def step_cost(arm: str, setting: Setting, config: Config) -> float:
    """The median time of a step, in those of first-order DARTS on the same supernet, each in turn."""
    clock, cuda = clock_of(config.device), config.device.startswith("cuda")
    train, valid = (next(iter(batches)) for batches in setting.batches())
    searchers = [searcher_of(one, setting.supernet(), config) for one in (arm, "darts_first")]
    seconds: tuple[list[float], list[float]] = [], []
    for turn in range(config.warmup + config.timed):
        for place in (0, 1) if turn % 2 else (1, 0):
            start = clock()
            searchers[place].step(train, valid)
            if cuda:
                torch.cuda.synchronize()
            if turn >= config.warmup:
                seconds[place].append(clock() - start)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def solved(arm: str, config: Config, log: Log) -> dict[str, float]:
    """How far the arm ends from its closed form on the solvable model, and from the bilevel solution."""
    course = solvable.courses(arm, config.solvable_steps)
    log.keep(plane=course[:: max(1, len(course) // 500)])
    end = course[-1].tolist()
    return {
        "solvable_error": math.dist(end, solvable.limit(arm)),
        "solvable_distance": math.dist(end[:2], solvable.SOLUTION),
    }
