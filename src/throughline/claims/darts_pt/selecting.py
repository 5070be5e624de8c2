"""The arms of the darts-pt claim: one supernet, and four ways to read an architecture out of it."""

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from throughline.claims.darts_pt.config import Config
from throughline.claims.shared.cells.searching import accuracy, codes, darts_searcher, decide, loss_of, run_search
from throughline.claims.shared.cells.setting import Batches, Decisions, Setting
from throughline.lab import Log
from throughline.search.darts import DartsSearcher, search
from throughline.search.selection import perturbation_selection
from throughline.search.supernet import choices, nodes, weight_parameters

__all__ = ["select"]

ORDER = 11  # keeps the draws of one seed apart
Rounds = list[tuple[str, ...]]


def select(arm: str, setting: Setting, config: Config, log: Log) -> tuple[Decisions, dict[str, float]]:
    """What an arm decides, and the supernet's accuracy before the first and after the last decision."""
    net = setting.supernet()
    rounds = rounds_of(net, setting.draw(ORDER))
    tunings = 0 if arm == "magnitude" else len(rounds) - 1
    total = config.epochs + tunings * config.tuning_epochs
    searcher, batches = darts_searcher(net, config), setting.batches()
    run_search(searcher, batches, config, log, of=total, fixed=arm == "fixed_alpha")
    course = [accuracy(net, setting.valid)]
    if arm == "magnitude":
        decisions: Decisions = decide(net, config)
        for name, choice in choices(net).items():
            option = decisions[name]
            choice.drop() if option is None else choice.select(option)
        course.append(accuracy(net, setting.valid))
    else:
        decisions = one_by_one(arm, net, searcher, batches, rounds, setting, config, log, course, total)
    log.keep(course=torch.tensor(course), decisions=codes(net, decisions))
    return decisions, {"searched_accuracy": course[0], "supernet_accuracy": course[-1]}


def one_by_one(
    arm: str,
    net: nn.Module,
    searcher: DartsSearcher,
    batches: tuple[Batches, Batches],
    rounds: Rounds,
    setting: Setting,
    config: Config,
    log: Log,
    course: list[float],
    total: int,
) -> Decisions:
    """Algorithm 1 of the paper; ``course`` gets the accuracy after each round, and after the tuning behind it."""
    train, valid = batches
    weights = torch.optim.SGD(
        weight_parameters(net), config.tuning_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    tuner = DartsSearcher(net, loss_of, weights, searcher.arch_optimizer, grad_clip=config.clip)
    epochs = (len(rounds) - 1) * config.tuning_epochs
    cosine = [] if config.space == "cells" else [CosineAnnealingLR(weights, epochs, config.least_lr)]
    done = config.epochs
    share: dict[str, Tensor] = {}
    removed: dict[str, dict[str, float]] = {}

    def tune(net: nn.Module) -> None:
        nonlocal done
        course.append(accuracy(net, setting.valid))
        search(
            tuner,
            train,
            None if arm == "fixed_alpha" else valid,
            epochs=config.tuning_epochs,
            schedulers=cosine,
            on_epoch=lambda epoch, means: log(done + epoch, of=total),
        )
        done += config.tuning_epochs
        course.append(accuracy(net, setting.valid))

    def told(name: str, scores: dict[str, float]) -> None:
        if name in found:
            share[name], removed[name] = found[name].probabilities().detach(), scores

    found = choices(net)
    by_weight = arm == "magnitude_tuned"
    picked = perturbation_selection(
        net,
        mass if by_weight else lambda net: accuracy(net, setting.valid),
        tune,
        order=rounds,
        on_step=told,
    )
    course.append(accuracy(net, setting.valid))
    if not by_weight:
        log.keep(share=padded([share[n].tolist() for n in found]))
        log.keep(removed=padded([list(removed[n].values()) for n in found]))
    return picked.decisions


@torch.no_grad()
def mass(net: nn.Module) -> float:
    """How much softmax weight is in force: the option that takes most of it away is the one of the largest alpha."""
    return sum(
        float(choice.probabilities()[choice.names.index(name)])
        for choice in choices(net).values()
        for name in choice.alive
    )


def rounds_of(net: nn.Module, draw: torch.Generator) -> Rounds:
    """The choices in random order, then the nodes that have edges to lose; a normal and a reduction cell in pairs."""
    found: Rounds = []
    joints = [name for name, (edges, keep) in nodes(net).items() if keep is not None and len(edges) > keep]
    reducing = {name for name in choices(net) if name.startswith("reduce.")}
    behind = {id(choice) for name, choice in choices(net).items() if name in reducing}
    reducing |= {name for name in joints if id(nodes(net)[name][0][0]) in behind}
    for names in (list(choices(net)), joints):
        kinds = [[n for n in names if n not in reducing], [n for n in names if n in reducing]]
        orders = [[kind[i] for i in torch.randperm(len(kind), generator=draw)] for kind in kinds if kind]
        found += list(zip(*orders, strict=True)) if orders else []
    return found


def padded(rows: list[list[float]]) -> Tensor:
    """Rows of unlike lengths as one tensor, with NaN behind the shorter ones."""
    most = max(map(len, rows))
    return torch.tensor([row + [float("nan")] * (most - len(row)) for row in rows])
