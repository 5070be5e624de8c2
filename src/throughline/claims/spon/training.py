"""How the arms of the spon claim are trained, and what is measured of them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from throughline.claims.shared.clocks import clock_of
from throughline.claims.shared.random_batches import shuffled
from throughline.claims.spon.config import Config
from throughline.claims.spon.models import build, rebuilt
from throughline.claims.spon.tasks import Pairs, Task
from throughline.lab import Log
from throughline.physics.operators import Decoder, Encoder, FunctionSpace, OperatorNetwork

__all__ = ["measured"]

CHUNK = 16  # samples at once where nothing is learned
ORDER = 11  # keeps the draws of one seed apart

Predict = Callable[[Tensor], Tensor]


def fit(
    net: OperatorNetwork, config: Config, task: Task, seed: int, log: Log, done: int = 0, of: int = 0
) -> tuple[float, np.ndarray]:
    """Train; returns processor seconds an update, and updates, seconds and test error along the way."""
    space = task.spaces[-1]
    train, test = (Pairs(*(part.to(config.device) for part in pairs)) for pairs in (task.train, task.test))
    sizes = space.norm(train.outputs)
    optimizer = torch.optim.AdamW(net.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(config.updates, 1))
    draw = torch.Generator().manual_seed(seed * 100 + ORDER)
    clock = clock_of(config.device)
    seconds, course = 0.0, []
    every = max(1, config.updates // config.looks)
    every_row, size = torch.arange(len(train.inputs)), min(config.batch, len(train.inputs))
    batches = shuffled(every_row, size, draw, drop_last=True)
    for update in range(1, config.updates + 1):
        rows = next(batches).to(config.device)
        began = clock()
        loss = (space.norm(net(train.inputs[rows]) - train.outputs[rows]) / sizes[rows]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        seconds += clock() - began
        if update % every == 0 or update == config.updates:
            found = errors(net, space, test).mean().item()
            course.append([update, seconds, found])
            log(done + update, of=of or config.updates, loss=loss, relative_l2=found)
    return seconds / max(config.updates, 1), np.array(course)


@torch.no_grad()
def errors(predict: Predict, space: FunctionSpace, pairs: Pairs) -> Tensor:
    """Relative L² error of each sample."""
    made = torch.cat([predict(rows) for rows in torch.split(pairs.inputs, CHUNK)])
    return space.norm(made - pairs.outputs) / space.norm(pairs.outputs)


def asked(net: Predict, task: Task, inputs: FunctionSpace, outputs: FunctionSpace) -> Predict:
    """A network on a query of another mesh: projected onto its own, and decoded from there."""
    encode, decode = Encoder(task.inputs, inputs), Decoder(task.spaces[-1], outputs)
    return lambda x: decode(net(encode(x)))


def measured(arm: str, config: Config, tasks: list[Task], seed: int, log: Log) -> dict[str, float]:
    """One arm on one seed: the mean of each metric over the operators of the problem."""
    found = [trained(arm, config, task, seed, log, place, len(tasks)) for place, task in enumerate(tasks)]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: float(np.mean([one[name] for one in found if name in one])) for name in names}


def trained(arm: str, config: Config, task: Task, seed: int, log: Log, place: int, count: int) -> dict[str, float]:
    space, finest = task.spaces[-1], task.queries[-1]
    if arm == "mean":
        mean = task.train.outputs.mean(0)

        def predict(x: Tensor) -> Tensor:
            return mean.expand(len(x), -1)

        seconds, parameters, again = 0.0, 0, asked(predict, task, finest.inputs, finest.outputs)
    else:
        net = build(arm, config, task)
        seconds, course = fit(net, config, task, seed, log, place * config.updates, count * config.updates)
        parameters = sum(p.numel() for p in net.parameters())
        predict, again = net.eval(), rebuilt(arm, config, task, net, finest.inputs, finest.outputs)
        if place == 0:
            log.keep(course=course)
    with torch.no_grad():
        made = torch.cat([predict(rows.to(config.device)).cpu() for rows in torch.split(task.test.inputs, CHUNK)])
    here = (space.norm(made - task.test.outputs) / space.norm(task.test.outputs)).mean().item()
    queries = [
        errors(asked(predict, task, query.inputs, query.outputs), query.outputs, query.pairs).mean().item()
        for query in task.queries
    ]
    built = errors(again, finest.outputs, finest.pairs).mean().item()
    wanted, most = prescribed(task, made), task.test.outputs.abs().max()
    off = (made - wanted)[:, space.constrained].abs().max() / most if space.constrained.any() else torch.zeros(())
    if place == 0:
        sizes = [float(query.outputs.dim) for query in task.queries]
        log.keep(resolution=torch.tensor([sizes, queries]).T, rebuilt=torch.tensor(built))
        log.keep(**picture(task, made))
    metrics = {
        "relative_l2": here,
        "boundary_error": off.item(),
        "update_seconds": seconds,
        "parameters": float(parameters),
        "relative_l2_fine": queries[-1],
        "fine_gap": queries[-1] - here,
        "relative_l2_rebuilt": built,
    }
    if task.trajectories is not None:
        metrics["rollout_l2"] = rolled_out(predict, space, task.trajectories.to(config.device))
    return metrics


@torch.no_grad()
def rolled_out(predict: Predict, space: FunctionSpace, trajectories: Tensor) -> float:
    """Relative error behind the last step, each step made from the one before."""
    state = trajectories[:, 0]
    for _ in range(trajectories.shape[1] - 1):
        state = predict(state)
    last = trajectories[:, -1]
    return (space.norm(state - last) / space.norm(last)).mean().item()


def picture(task: Task, made: Tensor) -> dict[str, Tensor]:
    """Input, truth and prediction of the first test sample at the nodes of a plane mesh; sizes of vectors."""
    space = task.spaces[-1]
    mesh = space.mesh
    if mesh.dim() != 2:
        return {}
    nodes = torch.from_numpy(mesh.p.T.copy())
    cells = np.concatenate([mesh.t[:3], mesh.t[[0, 2, 3]]], 1) if len(mesh.t) == 4 else mesh.t  # halves of a square
    found = {"nodes": nodes.float(), "cells": torch.from_numpy(cells.T.copy()).long()}
    for name, of, values in (
        ("input", task.inputs, task.test.inputs[0]),
        ("truth", space, task.test.outputs[0]),
        ("made", space, made[0]),
    ):
        there = of.evaluate(values, nodes)
        found[name] = there if of.components is None else there.norm(dim=-1)
    return found


def prescribed(task: Task, like: Tensor) -> Tensor:
    """The boundary values, in the dtype of a result."""
    if callable(task.boundary):
        return task.spaces[-1].interpolate(task.boundary).to(like)
    return torch.full((task.spaces[-1].dim,), float(task.boundary)).to(like)
