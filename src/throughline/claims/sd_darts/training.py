"""The arms of the sd-darts claim: a search with or without teachers, and what the supernet looks like behind it."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.sd_darts.config import Config
from throughline.claims.shared.cells.searching import (
    accuracy,
    codes,
    darts_searcher,
    decide,
    loss_of,
    optimizers,
    run_search,
)
from throughline.claims.shared.cells.setting import Decisions, Setting
from throughline.claims.shared.cells.training import accuracies
from throughline.errors import ThroughlineError
from throughline.lab import Log
from throughline.search.darts import DartsSearcher
from throughline.search.self_distillation import SelfDistillationSearcher, dominant_eigenvalue, sharpness
from throughline.search.supernet import batch_statistics, choices, weight_parameters

__all__ = ["check", "searched"]

Part = tuple[Tensor, Tensor]
CURVATURE, DIRECTION = 13, 17  # keep the draws of one seed apart
UPHILL, ACROSS = 0.25, 0.5  # how far the slices go: a distance, and a share of each weight tensor's norm
POINTS = 11  # of a slice


def check(config: Config) -> None:
    """Refuse what cannot be tuned.

    Raises:
        ThroughlineError: naming the field.
    """
    if config.tuning and config.space != "cells":
        raise ThroughlineError(f"tuning is for space=cells, got space={config.space}; --set tuning=false")


def searched(arm: str, setting: Setting, config: Config, log: Log) -> tuple[Decisions, dict[str, float]]:
    """What an arm decides, and the measures of its supernet."""
    net = setting.supernet()
    batches = setting.batches()
    searcher = searcher_of(arm, net, config, len(batches[0]))
    seen = setting.valid[0][: config.measured], setting.valid[1][: config.measured]

    def look(epoch: int) -> None:
        decisions = decide(net, config)
        log(
            epoch,
            supernet_accuracy=accuracy(net, setting.valid),
            discrete_accuracy=discrete_accuracy(net, decisions, setting.valid),
        )
        if epoch % config.every == 0 or epoch == config.epochs - 1:
            log(epoch, eigenvalue=eigenvalue(net, seen, setting, config.products))

    run_search(searcher, batches, config, log, of=config.epochs, on_epoch=look)
    decisions = decide(net, config)
    whole, single = accuracy(net, setting.valid), discrete_accuracy(net, decisions, setting.valid)
    with torch.no_grad(), batch_statistics(net):
        loss = float(loss_of(net, seen))
    found = {
        "sharpness": float(sharpness(net, loss_of, seen, rho=config.rho)),
        "validation_loss": loss,
        "eigenvalue": float(eigenvalue(net, seen, setting, 3 * config.products)),
        "supernet_accuracy": whole,
        "discrete_accuracy": single,
        "gap": whole - single,
    }
    if config.tuning:
        found["held_out_accuracy"] = held_out(setting, decisions)
    uphill, across = slices(net, seen, setting.draw(DIRECTION))
    log.keep(uphill=uphill, across=across, decisions=codes(net, decisions))
    return decisions, found


def searcher_of(arm: str, net: nn.Module, config: Config, steps: int) -> DartsSearcher:
    """The search of an arm, with epochs of so many ``steps``."""
    if arm == "darts":
        return darts_searcher(net, replace(config, weight_decay=config.darts_decay, arch_lr=config.darts_arch_lr))
    return SelfDistillationSearcher(
        net,
        lambda logits, batch: F.cross_entropy(logits, batch[1]),
        *optimizers(net, config),
        teachers=1 if arm == "one_teacher" else config.teachers,
        interval=config.interval * steps,
        strength=config.strength,
        temperature=config.temperature,
        warmup=config.warmup * steps,
        grad_clip=config.clip,
    )


def discrete_accuracy(net: nn.Module, decisions: Decisions, part: Part) -> float:
    """The accuracy of what the decisions leave of a supernet, with its weights and the batch's statistics."""
    with decided(net, decisions):
        return accuracy(net, part)


@contextmanager
def decided(net: nn.Module, decisions: Decisions) -> Iterator[None]:
    """Inside, an open supernet is decided."""
    found = choices(net)
    try:
        for name, option in decisions.items():
            found[name].drop() if option is None else found[name].select(option)
        yield
    finally:
        for choice in found.values():
            choice.reset()


def eigenvalue(net: nn.Module, seen: Part, setting: Setting, iterations: int) -> Tensor:
    return dominant_eigenvalue(net, loss_of, seen, iterations=iterations, generator=setting.draw(CURVATURE))


def held_out(setting: Setting, decisions: Decisions) -> float:
    """Accuracy on the validation half after training from scratch on the training half: what settings are chosen by."""
    build = partial(setting.final, decisions=dict(decisions))
    found = accuracies(build, setting.train, setting.valid, setting.config, range(setting.config.retrainings))
    return math.fsum(found) / len(found)


def slices(net: nn.Module, seen: Part, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss along the gradient, and along a random direction whose part in each weight tensor has its norm.

    Returns:
        Twice ``(POINTS, 2)``: how far, in units of the whole direction's length and of each tensor's norm, and the
        loss there.
    """
    net = copy.deepcopy(net)
    weights = weight_parameters(net)
    with batch_statistics(net):
        gradient = torch.autograd.grad(loss_of(net, seen), weights, allow_unused=True)
        slope = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradient, strict=True)]
        length = torch.cat([g.flatten() for g in slope]).norm()
        uphill = [g / length for g in slope]
        drawn = [torch.randn(w.shape, generator=draw).to(w) for w in weights]
        across = [d * (w.detach().norm() / d.norm()) for w, d in zip(weights, drawn, strict=True)]
        return along(net, seen, weights, uphill, UPHILL), along(net, seen, weights, across, ACROSS)


@torch.no_grad()
def along(net: nn.Module, seen: Part, weights: list[nn.Parameter], direction: list[Tensor], reach: float) -> Tensor:
    """The loss at ``POINTS`` places on a line through the weights."""
    center, rows = [w.clone() for w in weights], []
    for step in torch.linspace(-reach, reach, POINTS).tolist():
        for w, c, d in zip(weights, center, direction, strict=True):
            w.copy_(c + step * d)
        rows.append([step, float(loss_of(net, seen))])
    for w, c in zip(weights, center, strict=True):
        w.copy_(c)
    return torch.tensor(rows)
