"""Small policies, and tasks for them."""

from typing import Any

import torch
from torch import Generator, Tensor

from throughline.search.meta_bo import NeuralAcquisitionProcess
from throughline.search.meta_bo.runs import Episodes, TaskPool


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def policy(seed: int = 0, **changes: Any) -> NeuralAcquisitionProcess:
    sizes = {"d_model": 16, "num_layers": 1, "nhead": 2, "dim_feedforward": 16, "num_bars": 12, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralAcquisitionProcess(2, **sizes).double().eval()


def quadratics(
    count: int = 6, size: int = 20, seed: int = 0, within: tuple[float, float] = (0.0, 1.0)
) -> list[tuple[Tensor, Tensor]]:
    draw = seeded(seed)
    x = torch.rand(count, size, 2, generator=draw)
    centres = within[0] + (within[1] - within[0]) * torch.rand(count, 1, 2, generator=draw)
    return [*zip(x, 1 - (x - centres).square().sum(-1), strict=True)]


def drawn(count: int = 5, sizes: tuple[int, ...] = (8, 12), seed: int = 1) -> Episodes:
    tasks = [task for size in sizes for task in quadratics(2, size, seed=size)]
    like = torch.zeros(1, dtype=torch.float64)
    return TaskPool(tasks, in_features=2, horizon=4, num_candidates=10, like=like).draw(count, seeded(seed))
