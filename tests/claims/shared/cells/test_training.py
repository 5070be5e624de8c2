"""Several networks trained side by side have the numbers that each has alone."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.side_by_side import SideBySide
from throughline.claims.shared.cells.training import accuracies
from throughline.search.spaces import cells_1d, nas_bench_201

EDGES = [f"edge.{name}" for name in ("1_0", "2_0", "2_1", "3_0", "3_1", "3_2")]
SIGNALS = dict(zip(EDGES, ["skip_connect", "nor_conv_3", "avg_pool_3", "nor_conv_3", None, "avg_pool_3"], strict=True))
IMAGES = dict(
    zip(EDGES, ["none", "nor_conv_1x1", "avg_pool_3x3", "nor_conv_3x3", "skip_connect", "nor_conv_3x3"], strict=True)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (partial(cells_1d, 4, 3, in_channels=2, decisions=SIGNALS), (2, 12)),
        (partial(nas_bench_201, 4, 1, 3, decisions=IMAGES), (3, 8, 8)),
    ],
    ids=["signals", "images"],
)
def test_side_by_side_is_each_alone(build: Any, shape: tuple[int, ...]) -> None:
    alone = [build(generator=seeded(s)).double() for s in range(3)]
    together = SideBySide([build(generator=seeded(s)).double() for s in range(3)]).double()
    x = torch.randn(8, 3, *shape, dtype=torch.float64, generator=seeded())
    y = torch.randint(3, (8, 3), generator=seeded())
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    optimizers = [torch.optim.SGD(net.parameters(), **options) for net in (*alone, together)]
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for s, net in enumerate(alone):
            F.cross_entropy(net(x[:, s]), y[:, s]).backward()
        (3 * F.cross_entropy(together(x).flatten(0, 1), y.flatten())).backward()
        for optimizer in optimizers:
            optimizer.step()
    for mode in (True, False):
        outputs = [net.train(mode)(x[:, s]) for s, net in enumerate(alone)]
        torch.testing.assert_close(together.train(mode)(x), torch.stack(outputs, 1))


def plainly(build: Any, train: Any, test: Any, config: CellConfig, seed: int) -> float:
    """One network, one loop, in double precision as the others here."""
    draw = seeded(seed)
    net = build(generator=draw)
    steps = len(train[0]) // config.final_batch * config.final_epochs
    optimizer = torch.optim.SGD(
        net.parameters(), config.final_lr, momentum=0.9, nesterov=True, weight_decay=config.final_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: (1 + torch.tensor(torch.pi * t / steps).cos()) / 2
    )
    for _ in range(config.final_epochs):
        order = torch.randperm(len(train[0]), generator=draw)
        for rows in order[: len(order) // config.final_batch * config.final_batch].split(config.final_batch):
            optimizer.zero_grad()
            F.cross_entropy(net(train[0][rows]), train[1][rows]).backward()
            optimizer.step()
            schedule.step()
    return float((net.eval()(test[0]).argmax(1) == test[1]).double().mean())


def test_accuracies_are_those_of_a_plain_loop() -> None:
    draw = seeded()

    def part(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, 1, 12, generator=draw, dtype=torch.float64)
        return x, (x.sum((1, 2)) > 0).long()

    train, test = part(70), part(200)

    def build(generator: torch.Generator) -> nn.Module:
        return cells_1d(4, 2, decisions=SIGNALS, generator=generator).double()

    config = CellConfig(final_epochs=2, final_batch=16, final_lr=0.1, final_decay=0.03)
    found = accuracies(build, train, test, config, [5, 7])
    assert found == [plainly(build, train, test, config, seed) for seed in (5, 7)]
    assert len(set(found)) == 2
    assert min(found) > 0.6
