"""Random search: what the budget of a search buys without one."""

import math
from functools import partial

import torch

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.searching import codes, decide
from throughline.claims.shared.cells.setting import Decisions, Setting
from throughline.claims.shared.cells.training import accuracies
from throughline.lab import Log
from throughline.search.supernet import arch_parameters, choices

__all__ = ["random_search"]

DRAWN = 19  # keeps the draws of one seed apart


def random_search(setting: Setting, log: Log) -> tuple[Decisions, dict[str, float]]:
    """Draw architectures, train each from scratch on the training half, and keep the most accurate on the other half.

    As many as a search of the supernet pays for; where that is one it needs no training.
    """
    config, draw = setting.config, setting.draw(DRAWN)
    net = setting.supernet()
    drawn: list[Decisions] = []
    for _ in range(affordable(config, [len(choice.names) for choice in choices(net).values()])):
        with torch.no_grad():
            for alpha in arch_parameters(net):
                alpha.copy_(torch.randn(alpha.shape, generator=draw))  # every option of an edge as likely as another
        drawn.append(dict(decide(net, config)))
    scores: list[float] = []
    for place, decisions in enumerate(drawn if len(drawn) > 1 else ()):
        build = partial(setting.final, decisions=decisions)
        scores += accuracies(build, setting.train, setting.valid, config, [setting.seed])
        log(place, of=len(drawn), held_out_accuracy=scores[-1])
    best = drawn[scores.index(max(scores)) if scores else 0]
    log.keep(decisions=codes(net, best))
    return best, {"candidates": float(len(drawn))}


def affordable(config: CellConfig, options: list[int]) -> int:
    """How many trainings on one half cost what a search does, which runs all options of each edge on both halves.

    In other spaces than the small ones a training from scratch costs more than a search: one.
    """
    if config.space != "cells" or config.benchmark:
        return 1
    mean = math.fsum(options) / len(options)
    return max(1, int(2 * mean * config.epochs / config.final_epochs))
