"""Training of the lpn claim: three losses for one network, one optimiser and the same samples."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.lpn.config import Config
from throughline.claims.lpn.tasks import Phase, Task
from throughline.lab import Log
from throughline.physics.proximal import LearnedProximalNetwork, keep_convex, proximal_matching_loss

__all__ = ["losses", "train"]

LR = 1e-3  # of l1 and l2; a tenth of it from half-time on
LOOKS = 20  # points of a curve


def train(arm: str, task: Task, config: Config, seed: int, log: Log) -> LearnedProximalNetwork:
    """A network trained with the loss of the arm, on samples and noise that are the same in all arms."""
    f = LearnedProximalNetwork(task.network()).to(config.device)
    optimizer = torch.optim.Adam(f.parameters(), LR, fused=True)
    handle = keep_convex(f, optimizer)
    draw = torch.Generator().manual_seed(seed)
    total = sum(phase.steps for phase in task.phases)
    for step, (lr, gamma) in enumerate(losses(arm, task.phases)):
        optimizer.param_groups[0]["lr"] = lr
        clean = task.draw(draw, task.batch)
        noisy = clean + task.sigma * torch.randn(clean.shape, generator=draw)
        clean, noisy = clean.to(config.device), noisy.to(config.device)
        loss = _loss(arm, f(noisy), clean, gamma)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % max(1, total // LOOKS) == 0:
            log(step + 1, of=total, **task.watch(f))
    handle.remove()
    return f.eval()


def losses(arm: str, phases: tuple[Phase, ...]) -> Iterator[tuple[float, float | None]]:
    """Rate and γ of every step; l1 and l2 take as many steps as proximal matching."""
    total = sum(phase.steps for phase in phases)
    if arm == "proximal_matching":
        for phase in phases:
            yield from ((phase.lr, phase.gamma) for _ in range(phase.steps))
    else:
        yield from ((LR if step < total // 2 else LR / 10, None) for step in range(total))


def _loss(arm: str, output: Tensor, target: Tensor, gamma: float | None) -> Tensor:
    if arm == "l2":
        return F.mse_loss(output, target)
    return F.l1_loss(output, target) if gamma is None else proximal_matching_loss(output, target, gamma=gamma)
