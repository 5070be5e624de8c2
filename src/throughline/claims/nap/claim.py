"""A search policy learned from earlier searches against a Gaussian process ("End-to-End Meta-Bayesian Optimisation with
Transformer Neural Processes", NAP, arXiv 2305.15930): support vector machines on 25 data sets by default, the user's
own tables, HPO-B and XGBoost at paper scale.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from throughline.claims.nap.data import Config, Problem, Task, check, load, related
from throughline.lab import Beats, Claim, Log, Matches, Quote, Results
from throughline.lab.plots import paired_dots
from throughline.search.meta_bo import AcquisitionTrainer, GPOptimizer, NAPOptimizer, NeuralAcquisitionProcess

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORTED = 15  # the trial after which the regret is reported
EVERY = 20  # pretraining steps between two points of the curve
GRID = 32  # points on a side of the pictured surface
PICTURED = (0, 3, 8)  # trials before the pictured surfaces


class SearchesFromExperience(Claim):
    """On data sets it has never seen, a policy that was meta-learned end to end has lower regret over the first 15
    trials than a Gaussian process with expected improvement.
    """

    paper = "nap"
    arms = ("gp_ei", "nap")
    context = ("random", "nap_no_rl")
    checks = (
        Beats("mean_regret", "nap", over="gp_ei", lower=True),
        Matches("regret_15", "nap", "gp_ei", margin=0.02),
    )
    scales = {
        "smoke": Config(
            "quadratics",
            horizon=6,
            test_sets=2,
            repetitions=1,
            d_model=16,
            dim_feedforward=16,
            num_bars=20,
            candidates=16,
            related=0,
            pretrain=6,
            iterations=3,
            episodes=4,
        ),
        "laptop": Config("svc"),
        "paper": Config(
            "hpob",
            horizon=25,
            initial=5,
            d_model=512,
            num_layers=6,
            dim_feedforward=1024,
            num_bars=1000,
            candidates=300,
            related=200,
            max_points=300,
            pretrain=2_000,
            pretrain_lr=1e-4,
            iterations=2_000,
            episodes=60,
            epochs=1,
            minibatch=32,
            lr=3e-5,
            warmup=20,
            top_k=5,
            gamma=0.98,
            gae_lambda=0.98,
            value_coef=1.0,
            regret_floor=1e-20,
            device="cuda",
        ),
    }
    accepts = ("tables",)
    quotes = (
        Quote(
            "normalised regret on HPO-B after 5, 10, 25, 50 and 100 trials, NAP",
            "0.451, 0.345, 0.209, 0.131, 0.033",
            "logs published with the authors' code: six spaces, 115 pairs of task and seed; the means are ours",
        ),
        Quote("the same, GP with expected improvement", "0.523, 0.399, 0.252, 0.157, 0.095", "the same logs"),
        Quote("the same, random search", "0.730, 0.608, 0.468, 0.338, 0.231", "the same logs"),
    )
    notes = (
        "The policy is trained for about a minute or two, some 2,300 gradient steps, where the paper takes 90,000. "
        "Tried on the held-out seeds 100 to 103, one to four of them each, with the mean regret of nap (and after "
        "15 trials) on the first, where gp_ei has 0.163 (0.042): settings near the paper's (value loss of weight 1, "
        "floor 1e-20, lr 3e-4, 60 iterations) 0.061 (0.041); floor 1e-3 and lr 3e-4 0.070 (0.055); floor 1e-2 0.093 "
        "(0.068); gamma and lambda 0.8 with four epochs and top_k 10 among 64 candidates, 60 iterations 0.053 "
        "(0.039) and 90 iterations 0.087 (0.078); top_k 64 of 64 0.069 (0.048); lr 2e-3 among 128 candidates 0.109 "
        "(0.088); gamma 0.95, lambda 0.8, floor 1e-3, lr 1e-3, top_k 10 among 128 candidates 0.057 (0.037), the one "
        "that was kept, for falling steadily on the training tables too; from other random draws, in the claim "
        "itself, it has 0.086 (0.059) there. So short a training varies from run to run by as much as these "
        "settings differ. With 256 candidates and top_k 5 it did not settle: the five favourites of a fresh policy "
        "are neighbours. Processes fitted to 48 instead of 256 points of each table gave no better surrogate (0.061 "
        "to 0.074 against 0.054 to 0.060 of nap_no_rl's rule after pretraining). In most of these trials the "
        "expected improvement of the policy's own bars, mostly 0.043 to 0.061 on that seed, was as good as its "
        "acquisition values or better: at this scale the experience is in the surrogate, and the reward adds "
        "little; the arm nap_no_rl shows it. gp_ei starts from one random trial and nap from what it has learned, "
        "which is part of the mean over 15 trials and none of regret_15. Two subsamples of a data set are searched "
        "apart. GP hyperparameters are BoTorch's defaults. FSBO is not among the arms at paper scale. HPO-B's "
        "inputs are scaled to [0, 1] over each space, and XGBoost's accs are read as error rates."
    )

    def prepare(self, config: Config) -> None:
        check(config)

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        regrets = [regret for problem in load(config, seed) for regret in searched(arm, problem, config, seed, log)]
        mean = np.mean(regrets, 0)
        for trial, regret in enumerate(mean, start=1):
            log(trial, regret=regret)
        return {"mean_regret": float(mean.mean()), "regret_15": float(mean[:REPORTED][-1])}

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.nap import figures as draw

        drawn = {
            "Regret after each trial, as a share of the worst (mean, and range over seeds)": draw.regrets(results),
            "What the policy thinks of (C, gamma) on a data set of the first seed, and the settings it tried": (
                draw.surfaces(results)
            ),
            "Training: likelihood of the surrogate, and the discounted return of the runs": draw.training(results),
            "Mean regret over the trials, one line per seed": paired_dots(results, "mean_regret"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}


class Optimizer(Protocol):
    def ask(self) -> Tensor: ...
    def tell(self, x: Tensor, y: float) -> None: ...


class RandomOptimizer(NamedTuple):
    """Candidates in a random order."""

    left: list[Tensor]

    def ask(self) -> Tensor:
        return self.left[-1]

    def tell(self, x: Tensor, y: float) -> None:
        self.left[:] = [candidate for candidate in self.left if not torch.equal(candidate, x)]


class SurrogateOptimizer(NAPOptimizer):
    """The expected improvement of the network's bars in the place of its acquisition values."""

    def _scores(self, x: Tensor, y: Tensor, candidates: Tensor, state: Tensor) -> Tensor:
        bars = self.policy.predict(x, y, candidates)
        return self.policy.bars.expected_improvement(bars, state[:, 0])[0]


def searched(arm: str, problem: Problem, config: Config, seed: int, log: Log) -> list[np.ndarray]:
    """Regret after every trial, of every search: once on each test task, or so often as chance wants it."""
    policy = trained(arm, problem, config, seed, log) if arm.startswith("nap") else None
    found = []
    for number, task in enumerate(problem.test):
        for repetition in range(1 if policy is not None and not config.initial else config.repetitions):
            draw = torch.Generator().manual_seed(10_000 * seed + 100 * number + repetition)
            optimizer, start = optimizer_of(arm, policy, task, config, draw), initial(task, config, draw)
            tried = search(optimizer, task, config.horizon, start)
            found.append(regret(task, tried))
            if policy is not None and number == 0 and repetition == 0:
                log.keep(tried=task.x[tried], outcomes=task.y[tried], x=task.x, y=task.y)
                if config.dataset == "svc" and config.data is None:
                    log.keep(surfaces=surfaces(arm, policy, task, tried, config))
        log(number, of=len(problem.test))
    return found


def optimizer_of(
    arm: str, policy: NeuralAcquisitionProcess | None, task: Task, config: Config, draw: Generator
) -> Optimizer:
    if arm == "gp_ei":
        return GPOptimizer(task.x, num_initial=max(1, config.initial), generator=draw)
    if policy is None:
        return RandomOptimizer([*task.x[torch.randperm(len(task.x), generator=draw)]])
    make = NAPOptimizer if arm == "nap" else SurrogateOptimizer
    return make(policy, task.x, horizon=config.horizon, y_bounds=(0.0, 1.0))


def initial(task: Task, config: Config, draw: Generator) -> list[int]:
    """The settings that every arm starts from."""
    if task.start:
        return [*task.start[: config.initial]]
    return torch.randperm(len(task.x), generator=draw)[: config.initial].tolist()


def search(optimizer: Optimizer, task: Task, horizon: int, start: list[int]) -> list[int]:
    """The settings that were tried, in their order; nothing else of the task is shown to the optimizer."""
    tried: list[int] = []
    for trial in range(horizon):
        x = task.x[start[trial]] if trial < len(start) else optimizer.ask()
        place = int((task.x == x).all(-1).nonzero())
        optimizer.tell(x, float(task.y[place]))
        tried.append(place)
    return tried


def regret(task: Task, tried: list[int]) -> np.ndarray:
    """(y* − best so far) / (y* − y_min) after every trial."""
    best = task.y[tried].double().cummax(0).values
    highest, lowest = float(task.y.max()), float(task.y.min())
    return np.asarray((highest - best) / (highest - lowest))


def trained(arm: str, problem: Problem, config: Config, seed: int, log: Log) -> NeuralAcquisitionProcess:
    """The policy of an arm; without reinforcement learning it takes the same gradient steps on the likelihood."""
    draw = torch.Generator().manual_seed(seed)
    policy = NeuralAcquisitionProcess(
        problem.train[0].x.shape[1],
        d_model=config.d_model,
        num_layers=config.num_layers,
        nhead=config.nhead,
        dim_feedforward=config.dim_feedforward,
        num_bars=config.num_bars,
    ).to(config.device)
    tasks = related(problem.train, config)
    end_to_end = float(arm == "nap")

    def trainer(lr: float) -> AcquisitionTrainer:
        return AcquisitionTrainer(
            policy,
            tasks,
            horizon=config.horizon,
            num_candidates=config.candidates,
            episodes=config.episodes,
            lr=lr,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            value_coef=config.value_coef * end_to_end,
            rl_coef=end_to_end,
            top_k=config.top_k,
            minibatch_size=config.minibatch,
            epochs=config.epochs,
            warmup=config.warmup,
            total=config.iterations,
            regret_floor=config.regret_floor,
            generator=draw,
        )

    per_iteration = config.epochs * -(-config.episodes * config.horizon // config.minibatch)
    total = config.pretrain + config.iterations * per_iteration
    surrogate = trainer(config.pretrain_lr)
    for done in range(0, config.pretrain, EVERY):
        steps = min(EVERY, config.pretrain - done)
        log(done + steps, of=total, likelihood_loss=surrogate.pretrain(steps))
    whole = trainer(config.lr)
    for iteration in range(1, config.iterations + 1):
        report = whole.step()
        log(config.pretrain + iteration * per_iteration, of=total, likelihood_loss=report["likelihood_loss"])
        if end_to_end:
            log(iteration, run_return=report["return"])
    return policy


@torch.no_grad()
def surfaces(arm: str, policy: NeuralAcquisitionProcess, task: Task, tried: list[int], config: Config) -> Tensor:
    """What an arm goes by, over the first two coordinates, the third at its middle, before some of the trials."""
    axis = torch.linspace(0, 1, GRID)
    grid = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.full((GRID, GRID), 0.5)], -1).flatten(0, 1)
    found = []
    for t in (t for t in PICTURED if t < config.horizon):
        x, y = task.x[tried[:t]], task.y[tried[:t]]
        state = torch.tensor([float(y.max()) if t else 0.0, t / config.horizon])
        batch = (part[None].to(config.device) for part in (x, y, grid, state))
        out = policy(*batch)
        best = state[None, 0].to(config.device)
        scores = out.acquisition if arm == "nap" else policy.bars.expected_improvement(out.bars, best)
        found.append(scores[0].view(GRID, GRID).cpu())
    return torch.stack(found)
