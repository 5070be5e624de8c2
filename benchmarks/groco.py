"""Speed bars of GroCo: the relaxed sort and the group loss against diffsort, the module against its own products."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.core.sorting import Network, relaxed_sort, sorting_network
from throughline.discrete.ordering import GroupOrderingLoss, group_ordering_loss

DIFFSORT = "diffsort 0.2.0"


def _matrix(problems: int, n: int, network: Network) -> dict[str, Callable[[], Any]]:
    from diffsort import DiffSortNet

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(problems, n, generator=draw).requires_grad_()
    weight = torch.randn(problems, n, n, generator=draw)
    peer = DiffSortNet(network, n, steepness=10.0, distribution="cauchy")

    def step(matrix: Callable[[], Tensor]) -> Tensor:
        return torch.autograd.grad((matrix() * weight).sum(), x)[0]

    def ours() -> Tensor:
        return relaxed_sort(x, network=network).matrix()

    def theirs() -> Tensor:
        return peer(x)[1].mT  # rows are elements there

    def agree() -> None:
        torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(step(ours), step(theirs), atol=1e-3, rtol=1e-3)

    return {"ours": partial(step, ours), "peer": partial(step, theirs), "agree": agree}


def _group(anchors: int, negatives: int) -> dict[str, Callable[[], Any]]:
    from diffsort import DiffSortNet

    draw = torch.Generator().manual_seed(0)
    positive = (torch.rand(anchors, 1, generator=draw) * 2 - 1).requires_grad_()
    negative = (torch.rand(anchors, negatives, generator=draw) * 2 - 1).requires_grad_()
    n = negatives + 1
    peer = DiffSortNet("odd_even", n, steepness=1.0, distribution="cauchy")
    target = (torch.arange(n) >= negatives).float().expand(anchors, n)

    def ours() -> Tensor:
        return group_ordering_loss(positive, negative)

    def theirs() -> Tensor:
        p = peer(torch.cat([negative.sort(-1).values, positive.sort(-1).values], -1))[1]
        low = F.binary_cross_entropy(p[..., :negatives].sum(-1).clamp(0, 1), 1 - target)
        return (low + F.binary_cross_entropy(p[..., negatives:].sum(-1).clamp(0, 1), target)) / 2

    def step(loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(), (positive, negative))

    def agree() -> None:
        torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(step(ours), step(theirs), atol=1e-6, rtol=1e-3)

    return {"ours": partial(step, ours), "peer": partial(step, theirs), "agree": agree}


def _module(views: int, batch: int, width: int, negatives: int = 10) -> dict[str, Callable[[], Any]]:
    z = torch.randn(views, batch, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    criterion = GroupOrderingLoss(negatives)

    def products() -> Tensor:
        return (z @ z.detach().mT).topk(negatives).values.sum()

    def ours() -> Tensor:
        return criterion(z)

    def step(loss: Callable[[], Tensor]) -> Tensor:
        return torch.autograd.grad(loss(), z)[0]

    def agree() -> None:
        unit = F.normalize(z.detach(), dim=-1, eps=1e-8)
        hardest = torch.stack([(u @ u.T).fill_diagonal_(-torch.inf).topk(negatives).values for u in unit])
        positive = (unit[0] * unit[1]).sum(-1).expand(2, batch).unsqueeze(-1)
        torch.testing.assert_close(ours(), group_ordering_loss(positive, hardest), atol=1e-5, rtol=1e-5)

    return {"ours": partial(step, ours), "peer": partial(step, products), "agree": agree}


def _mixing(problems: int, n: int, columns: int, network: Network) -> dict[str, float]:
    """Least work of forward and backward, by count: a comparator mixes two wires forward and two backward."""
    comparators = sum(map(len, sorting_network(n, network)))
    moved = problems * n * columns
    return {"flops": 12.0 * comparators * columns * problems, "bytes": 4.0 * 3 * moved}


CASES = [
    Case(
        "matrix, (64, 32), odd-even",
        partial(_matrix, 64, 32, "odd_even"),
        0.6,
        DIFFSORT,
        **_mixing(64, 32, 32, "odd_even"),
    ),
    Case(
        "matrix, (64, 32), bitonic",
        partial(_matrix, 64, 32, "bitonic"),
        1.0,
        DIFFSORT,
        **_mixing(64, 32, 32, "bitonic"),
    ),
    Case("group loss, 1024 × (1 + 10)", partial(_group, 1024, 10), 0.2, DIFFSORT, **_mixing(1024, 11, 2, "odd_even")),
    Case("group loss, 256 × (1 + 39)", partial(_group, 256, 39), 0.1, DIFFSORT, **_mixing(256, 40, 2, "odd_even")),
    Case(
        "GroupOrderingLoss, (2, 1024, 2048)",
        partial(_module, 2, 1024, 2048),
        1.25,
        "its two similarity products and top-k",
        work="less",
        bar_memory=2.0,
        flops=2 * 2.0 * 1024**2 * 2048,  # two products forward; backward a sum of the few rows that were compared with
        bytes=4.0 * 2 * 1024 * 2048 * 2,
    ),
]


def sorting(n: int) -> Callable[[], Any]:
    x = torch.randn(4, n, requires_grad=True)
    return lambda: torch.autograd.grad(relaxed_sort(x).values.square().sum(), x)


def whole(n: int) -> Callable[[], Any]:
    x = torch.randn(4, n, requires_grad=True)
    return lambda: torch.autograd.grad(relaxed_sort(x).matrix().square().sum(), x)


def contrasting(batch: int) -> Callable[[], Any]:
    z, criterion = torch.randn(2, batch, 64, requires_grad=True), GroupOrderingLoss(10)
    return lambda: torch.autograd.grad(criterion(z), z)


GROWTH = [
    Growth("relaxed_sort, forward and backward, 4 problems", "values n", 128, sorting, time=2, memory=2, step=2),
    Growth("matrix of relaxed_sort, forward and backward, 4 problems", "values n", 32, whole, time=3, memory=3, step=2),
    Growth("GroupOrderingLoss, two views", "images", 256, contrasting, time=2, memory=2, step=2),
]
