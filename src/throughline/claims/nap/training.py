"""How a search policy learns from earlier searches, and what it thinks of the settings of another."""

import torch
from torch import Tensor

from throughline.claims.nap.config import Config
from throughline.claims.nap.data import related
from throughline.claims.nap.problems import Problem, Task
from throughline.lab import Log
from throughline.search.meta_bo import AcquisitionTrainer, NeuralAcquisitionProcess

__all__ = ["GRID", "surfaces", "trained"]

EVERY = 20  # pretraining steps between two points of the curve
GRID = 32  # points on a side of the pictured surface
PICTURED = (0, 3, 8)  # trials before the pictured surfaces


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
