"""The arms of the proxylessnas claim: searches in one supernet, and the training of what they find."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from throughline.claims.proxylessnas.config import Config
from throughline.claims.proxylessnas.data import Task, draw, reference
from throughline.claims.proxylessnas.measuring import bytes_by_candidates, interleaved, one_thread, table_of
from throughline.claims.shared.cells.searching import codes, shares
from throughline.claims.shared.clocks import clock_of
from throughline.lab import Log
from throughline.search.binary_path import BinaryPathSearcher, LatencyTable
from throughline.search.darts import DartsSearcher, Searcher, search
from throughline.search.supernet import arch_parameters, choices, weight_parameters

__all__ = ["ARMS", "Occasional", "train_from_scratch"]

Metrics = dict[str, float]
Decisions = dict[str, str]
PATHS, BYTES, NETWORKS = 5, 6, 7  # purposes of draws, beside those of the data
POINT = ("relative_latency", "test_accuracy", "predicted_ms", "latency_ms")  # of a network, in the pictures


def searched(arm: str, task: Task, config: Config, log: Log) -> Metrics:
    """Search, then train what was found from scratch."""
    net = task.supernet(config.device)
    paths = 0 if arm == "softmax" else config.paths
    grown = bytes_by_candidates(task.supernet(config.device), task.inputs, paths, draw(task.seed, BYTES))
    table = table_of(net, task.inputs, config.repeats)
    searcher = searcher_of(arm, net, table, task, config)
    epochs, history = config.warmup + config.epochs, list[Tensor]()
    cosine = CosineAnnealingLR(searcher.weight_optimizer, epochs)  # type: ignore[attr-defined]
    total = epochs + config.final_epochs

    def told(epoch: int, means: dict[str, Tensor]) -> None:
        log(len(history), of=total, **means)
        history.append(shares(net))

    clock = clock_of(config.device)
    search(searcher, task.train, None, epochs=config.warmup, schedulers=[cosine], on_epoch=told)
    counted = Occasional(searcher, config.every)
    began = clock()
    search(counted, task.train, task.valid, epochs=config.epochs, schedulers=[cosine], on_epoch=told)
    seconds = (clock() - began) / counted.steps
    decisions = {name: choice.names[int(choice.alpha.argmax())] for name, choice in choices(net).items()}
    final, accuracy = train_from_scratch(task, decisions, config, log, before=epochs)
    found = {"test_accuracy": accuracy, **timed(final, task, table, decisions, config), "step_seconds": seconds}
    found |= {"saved_bytes": grown[-1], "blocks": float(sum(option != "zero" for option in decisions.values()))}
    log.keep(
        shares=torch.stack(history),
        bytes=torch.tensor(grown),
        point=torch.tensor([[found[name] for name in POINT]]),
        decisions=codes(net, decisions),
    )
    return found


def random_networks(arm: str, task: Task, config: Config, log: Log) -> Metrics:
    """Train networks drawn from the space, each option as probable; what the one is worth that did best on the
    validation half after training on the other."""
    net, pick = task.supernet(config.device), draw(task.seed, NETWORKS)
    table = table_of(net, task.inputs, config.repeats)
    halves = task._replace(final=task.train, test=task.valid)
    points, scores, every = list[list[float]](), list[float](), list[Decisions]()
    total = 2 * config.networks * config.final_epochs
    for place in range(config.networks):
        decisions = {
            name: choice.names[int(torch.randint(len(choice.names), (), generator=pick))]
            for name, choice in choices(net).items()
        }
        before = 2 * place * config.final_epochs
        _, held_out = train_from_scratch(halves, decisions, config, log, before=before, total=total)
        before += config.final_epochs
        final, accuracy = train_from_scratch(task, decisions, config, log, before=before, total=total)
        worth = timed(final, task, table, decisions, config) | {"test_accuracy": accuracy}
        points.append([worth[name] for name in POINT])
        scores.append(held_out)
        every.append(decisions)
    best = scores.index(max(scores))
    log.keep(point=torch.tensor(points), decisions=codes(net, every[best]))
    return dict(zip(POINT, points[best], strict=True)) | {"candidates": float(config.networks)}


def searcher_of(arm: str, net: nn.Module, table: LatencyTable, task: Task, config: Config) -> Searcher:
    weights = torch.optim.SGD(
        weight_parameters(net), config.lr, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
    )
    betas = (0.5 if arm == "softmax" else 0.0, 0.999)
    alphas = torch.optim.Adam(arch_parameters(net), config.arch_lr, betas=betas)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1], label_smoothing=config.smoothing)

    if arm == "softmax":
        return DartsSearcher(net, loss, weights, alphas, grad_clip=None)
    return BinaryPathSearcher(
        net,
        loss,
        weights,
        alphas,
        latency=table if arm == "paths_latency" else None,
        strength=config.strength,
        generator=draw(task.seed, PATHS),
    )


class Occasional:
    """A searcher whose every k-th step is one on the architecture, too; counts the steps."""

    def __init__(self, searcher: Searcher, every: int) -> None:
        self.searcher, self.every, self.model, self.steps = searcher, every, searcher.model, 0

    def step(self, train_batch: Any, valid_batch: Any) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps % self.every:
            return self.searcher.weight_step(train_batch)
        return self.searcher.step(train_batch, valid_batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)


def train_from_scratch(
    task: Task, decisions: Decisions, config: Config, log: Log, *, before: int, total: int | None = None
) -> tuple[nn.Module, float]:
    """The network of these decisions, trained anew, and its accuracy; the first weights depend on the seed alone.

    Args:
        before: epochs that the unit has had.
        total: epochs of the unit; by default these and the ones before.
    """
    net = task.space(decisions=decisions, generator=draw(task.seed, NETWORKS + 1)).to(config.device)
    optimizer = torch.optim.SGD(
        net.parameters(), config.final_lr, momentum=config.momentum, nesterov=True, weight_decay=config.final_decay
    )
    cosine = CosineAnnealingLR(optimizer, config.final_epochs * len(task.final))
    net.train()
    for epoch in range(config.final_epochs):
        for x, y in task.final:
            loss = F.cross_entropy(net(x), y, label_smoothing=config.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cosine.step()
        log(before + epoch, of=total or before + config.final_epochs, final_loss=loss)
    net.eval()
    with torch.no_grad():
        right = [net(x).argmax(1) == y for x, y in task.test]
    return net, float(torch.cat(right).double().mean())


def timed(net: nn.Module, task: Task, table: LatencyTable, decisions: Decisions, config: Config) -> Metrics:
    """How long a network takes, in milliseconds and beside the reference, and what the table says."""
    other = reference(task.space).to(config.device)
    with one_thread():
        ms, ratio = interleaved(net, other, task.inputs, config.rounds, config.repeats)
    return {"relative_latency": ratio, "latency_ms": ms, "predicted_ms": table.latency(decisions)}


ARMS: dict[str, Callable[[str, Task, Config, Log], Metrics]] = {
    "softmax": searched,
    "paths": searched,
    "paths_latency": searched,
    "random": random_networks,
}
