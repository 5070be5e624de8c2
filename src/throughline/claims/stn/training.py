"""The arms of the stn claim: self-tuning, and searches over plain networks of the same size."""

import copy
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.shared.clocks import clock_of
from throughline.claims.stn.config import Config
from throughline.claims.stn.tasks import Task, Values, started
from throughline.errors import ThroughlineError
from throughline.lab import Log, require
from throughline.search.best_response import HyperparameterSpace, SelfTuner, SelfTuningNetwork, convert

__all__ = ["ARMS", "Trainer"]

Metrics = dict[str, float]
Choice = dict[str, float]  # values of all hyperparameters
ORDER, PERTURBED, CHOICES = 11, 13, 17  # keep the draws of one seed apart


class Best:
    """The best network of a run by validation loss, and what it took: seconds of this process, look by look."""

    def __init__(self, task: Task, config: Config, log: Log) -> None:
        self.task, self.config, self.log = task, config, log
        self.network: nn.Module | None = None
        self.loss, self.since, self.rate = float("inf"), 0, float("inf")
        self.clock = clock_of(config.device)
        self.began, self.course = self.clock(), [[0.0, float("inf")]]

    def look(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer, own: float = float("inf")) -> float:
        """Score ``network``, keep the best so far, and let the rate decay if nothing improves on ``own``."""
        loss = self.task.score(network, "valid").loss
        if loss < self.loss:
            self.loss, self.network = loss, copy.deepcopy(network)
        self.since = 0 if loss < own else self.since + 1
        self.course.append([self.clock() - self.began, self.loss])
        self.log(step, valid_loss=loss)
        if self.config.decay_after and self.since and self.since % self.config.decay_after == 0:
            for group in optimizer.param_groups:
                group["lr"] *= self.config.decay
        self.rate = max(group["lr"] for group in optimizer.param_groups)
        return min(loss, own)

    @property
    def stopped(self) -> bool:
        """Whether there has been no improvement for too long, or the rate has decayed to nothing."""
        config = self.config
        return (bool(config.stop_after) and self.since >= config.stop_after) or self.rate < config.least_lr

    def metrics(self) -> Metrics:
        """The best network on the test set, and its compute kept for the pictures."""
        assert self.network is not None  # every run is looked at
        score = self.task.score(self.network, "test")
        self.log.keep(course=torch.tensor(self.course, dtype=torch.float64))
        found = {"test_loss": score.loss, "test_accuracy": score.accuracy, "valid_loss": self.loss}
        return found | {"cpu_seconds": self.course[-1][0]}


class Trainer:
    """What the arms share for one seed."""

    def __init__(self, task: Task, config: Config, seed: int, log: Log) -> None:
        self.task, self.config, self.seed, self.log = task, config, seed, log

    def draw(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 100 + purpose)

    def network(self) -> nn.Module:
        """A plain network, the same one for a seed each time."""
        torch.manual_seed(self.seed)
        return self.task.network()

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(network.parameters(), self.config.lr, momentum=self.config.momentum)
        if self.config.clip:

            def clip(*_: Any) -> None:
                nn.utils.clip_grad_norm_(network.parameters(), self.config.clip)

            optimizer.register_step_pre_hook(clip)
        return optimizer

    def tune(self, start: float, log: Log) -> tuple[Best, SelfTuningNetwork]:
        """One self-tuning run; keeps the schedule."""
        config, task = self.config, self.task
        given = task.hyperparameters
        space = HyperparameterSpace(given if start == config.start else [started(h, start) for h in given])
        network = convert(self.network(), space, dropout=task.dropout, exclude=task.exclude).to(config.device)
        optimizer = self.optimizer(network)
        tuner = SelfTuner(
            network,
            optimizer=optimizer,
            loss=task.loss,
            augment=task.augment,
            penalty=task.penalty,
            hyper_lr=config.hyper_lr,
            scale_lr=config.scale_lr,
            tune_scale=config.tune_scale,
            entropy_weight=config.entropy_weight,
            warmup_steps=config.warmup,
            generator=torch.Generator(config.device).manual_seed(self.seed * 100 + PERTURBED),
        )
        train, valid = (task.batches(part, self.draw(ORDER)) for part in ("train", "valid"))
        best, least, bands = Best(task, config, log), float("inf"), []
        for step in range(1, config.steps + 1):
            tuner.step(train, valid)
            if step % config.every == 0 or step == config.steps:
                least = best.look(step, network, optimizer, least)
                bands.append(torch.cat([torch.tensor([float(step)]), *band(space)]))
                log(step, of=config.steps, **space.values())
                if best.stopped:
                    break
        if not space.location.isfinite().all():
            raise ThroughlineError(
                f"self-tuning diverged at lr={config.lr:g}; take a lower one: --set lr={config.lr / 3:.2g}"
            )
        log.keep(bands=torch.stack(bands))
        return best, network

    def fit(self, choice: Choice, steps: int, best: Best, before: int, total: int) -> tuple[float, int]:
        """One plain network at fixed hyperparameters; its own best validation loss, and the steps it took."""
        config, task = self.config, self.task
        network = self.network()
        for path, name in task.dropout.items():
            network.get_submodule(path).p = choice[name]  # type: ignore[assignment]
        optimizer, train = self.optimizer(network), task.batches("train", self.draw(ORDER))
        least, best.since = float("inf"), 0
        for step in range(1, steps + 1):
            network.train()
            inputs, targets = next(train)
            values: Values = {n: torch.full((len(inputs),), v, device=config.device) for n, v in choice.items()}
            if task.augment is not None:
                inputs = task.augment(inputs, values)
            output = network(inputs)
            loss = task.loss(output, targets)
            if task.penalty is not None:
                loss = loss + task.penalty(output, values)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % config.every == 0 or step == steps:
                self.log(before + step, of=total)
                least = best.look(before + step, network, optimizer, least)
                if best.stopped:
                    break
        return least, step


def band(space: HyperparameterSpace) -> list[Tensor]:
    """The constrained values at λ, λ − σ and λ + σ."""
    with torch.no_grad():
        places = (space.location, space.location - space.scale, space.location + space.scale)
        return [torch.stack(list(space.constrain(place).values())).cpu() for place in places]


def random_search(trainer: Trainer) -> Metrics:
    """Trials of plain networks, the self-tuner's start first; one that stops early leaves its steps to another."""
    config = trainer.config
    best, budget, used = Best(trainer.task, config, trainer.log), config.trials * config.trial_steps, 0
    found = []
    choices = proposals(trainer)
    choice = next(choices)
    while used < budget:
        least, steps = trainer.fit(choice, min(config.trial_steps, budget - used), best, used, budget)
        found.append([*choice.values(), least])
        used += steps
        choice = choices.send(least)
    trainer.log.keep(trials=torch.tensor(found))
    return best.metrics()


def self_tuning(trainer: Trainer) -> Metrics:
    return trainer.tune(trainer.config.start, trainer.log)[0].metrics()


def other_start(trainer: Trainer) -> Metrics:
    """Self-tuning from other values."""
    return trainer.tune(trainer.config.other_start, trainer.log)[0].metrics()


def final_values(trainer: Trainer) -> Metrics:
    """A plain network at the values that self-tuning ended with, for as many steps as that took."""
    config = trainer.config
    _, network = trainer.tune(config.start, Silent(trainer.log, 2 * config.steps))
    best = Best(trainer.task, config, trainer.log)
    trainer.fit(network.space.values(), config.steps, best, config.steps, 2 * config.steps)
    return best.metrics()


ARMS: dict[str, Callable[[Trainer], Metrics]] = {
    "random_search": random_search,
    "self_tuning": self_tuning,
    "final_values": final_values,
    "other_start": other_start,
}


class Silent:
    """A log of progress alone."""

    def __init__(self, log: Log, total: int) -> None:
        self.log, self.total = log, total

    def __call__(self, step: int, *, of: int | None = None, **values: Any) -> None:
        self.log(step, of=self.total)

    def keep(self, **arrays: Any) -> None:
        pass


def proposals(trainer: Trainer) -> Generator[Choice, float, None]:
    """Values to try, one after another; the validation loss of each is sent back."""
    task, config = trainer.task, trainer.config
    first = {h.name: float(h.initial) for h in task.hyperparameters}
    whole = {h.name for h in task.hyperparameters if h.discrete}
    if config.search == "random":
        draw = trainer.draw(CHOICES)
        choice = first
        while True:
            yield choice
            choice = {
                name: float(torch.randint(int(low), int(high) + 1, (), generator=draw))
                if name in whole
                else low + (high - low) * torch.rand((), generator=draw).item()
                for name, (low, high) in task.searched.items()
            }
    yield from by_optuna(config.search, trainer.seed, first, task.searched, whole)


def by_optuna(
    search: str, seed: int, first: Choice, ranges: Mapping[str, tuple[float, float]], whole: set[str]
) -> Generator[Choice, float, None]:
    """The same from a sampler of optuna: TPE, or a grid of five values each in random order."""
    optuna = require("optuna", extra="search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {
        name: optuna.distributions.IntDistribution(int(low), int(high))
        if name in whole
        else optuna.distributions.FloatDistribution(low, high)
        for name, (low, high) in ranges.items()
    }
    if search == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    else:
        steps = {
            name: sorted({round(v) if name in whole else v for v in np.linspace(low, high, 5).tolist()})
            for name, (low, high) in ranges.items()
        }
        sampler = optuna.samplers.GridSampler(steps, seed=seed)
    study = optuna.create_study(sampler=sampler)
    if search == "tpe":
        study.enqueue_trial(first)
    while True:
        trial = study.ask(spaces)
        loss = yield {name: float(trial.params[name]) for name in ranges}
        study.tell(trial, loss)
