"""Speed bars of relaxed search: DARTS of both orders, ours and the authors'.

Their repository (github.com/quark0/darts) is no package. What its architect and training loop call is written anew
here over our supernet, so that both sides run the same convolutions on the same weights. Their first order takes
gradients of the weights in the pass for the architecture, too, and drops them: two full passes, as a fused step of
relaxed search does. Ours leaves them out, so that a fused step costs 6/5 of it where a forward pass, a backward pass
through the activations and one to the weights cost the same, and a Gauss-Seidel step exactly twice as much.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.darts import DartsSearcher
from throughline.search.relaxed import RelaxedSearcher
from throughline.search.spaces import nas_bench_201
from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters

Batch = tuple[Tensor, Tensor]
RATE, MOMENTUM, DECAY, CLIP, REACH = 0.025, 0.9, 3e-4, 5.0, 1e-2
Optimizers = tuple[torch.optim.Optimizer, torch.optim.Optimizer]


def loss(net: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def supernet() -> nn.Module:
    return nas_bench_201(channels=8, cells=1, generator=torch.Generator().manual_seed(0))


def batches(count: int = 64, side: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Batch, Batch]:
    draw = torch.Generator().manual_seed(0)
    train, valid = (
        (torch.randn(count, 3, side, side, generator=draw).to(dtype), torch.randint(10, (count,), generator=draw))
        for _ in range(2)
    )
    return train, valid


def optimizers(net: nn.Module, arch_lr: float = 3e-4) -> Optimizers:
    weights = torch.optim.SGD(weight_parameters(net), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    return weights, torch.optim.Adam(arch_parameters(net), arch_lr, betas=(0.5, 0.999), weight_decay=1e-3)


def relaxed(net: nn.Module, sweep: Any, arch_lr: float = 3e-4) -> RelaxedSearcher:
    return RelaxedSearcher(net, loss, *optimizers(net, arch_lr), sweep=sweep, grad_clip=CLIP)


def darts(net: nn.Module, unrolled: bool, arch_lr: float = 3e-4) -> DartsSearcher:
    return DartsSearcher(net, loss, *optimizers(net, arch_lr), unrolled=unrolled, grad_clip=CLIP)


def step(sweep: str, peer: str) -> dict[str, Callable[[], Any]]:
    """An iteration of relaxed search, and one of DARTS."""
    ours, theirs, data = relaxed(supernet(), sweep), PEERS[peer](supernet(), 3e-4), batches()

    def agree() -> None:
        """With the architecture at rest both move the weights alike in their first step."""
        small, twin = batches(8, 8, torch.float64), supernet().double()
        one = relaxed(supernet().double(), sweep, 0.0)
        one.step(*small)
        PEERS[peer](twin, 0.0)(*small)
        for a, b in zip(weight_parameters(one.model), weight_parameters(twin), strict=True):
            torch.testing.assert_close(a, b)

    return {"ours": lambda: ours.step(*data), "peer": lambda: theirs(*data), "agree": agree}


def first_order(net: nn.Module, both: Optimizers, train: Batch, valid: Batch) -> None:
    """An iteration of the authors' first order."""
    weight_optimizer, arch_optimizer = both
    arch_optimizer.zero_grad()
    loss(net, valid).backward()  # type: ignore[no-untyped-call]
    arch_optimizer.step()
    descend(net, weight_optimizer, train)


def descend(net: nn.Module, optimizer: torch.optim.Optimizer, train: Batch) -> None:
    optimizer.zero_grad()
    loss(net, train).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(weight_parameters(net), CLIP)
    optimizer.step()


def official(net: nn.Module, both: Optimizers, train: Batch, valid: Batch) -> None:
    """An iteration of the authors: their architect of second order, then their step on the weights."""
    weight_optimizer, arch_optimizer = both
    weights, alphas = weight_parameters(net), arch_parameters(net)
    flat = torch.cat([w.detach().flatten() for w in weights])
    slopes = torch.autograd.grad(loss(net, train), weights)
    try:
        moment = torch.cat([weight_optimizer.state[w]["momentum_buffer"].flatten() for w in weights]) * MOMENTUM
    except KeyError:
        moment = torch.zeros_like(flat)
    ahead = copy.deepcopy(net)  # a network of its own, one step ahead
    moved = flat - RATE * (moment + torch.cat([s.flatten() for s in slopes]) + DECAY * flat)
    nn.utils.vector_to_parameters(moved, weight_parameters(ahead))
    loss(ahead, valid).backward()  # type: ignore[no-untyped-call]
    vector = [w.grad for w in weight_parameters(ahead)]
    reach = REACH / torch.cat([v.flatten() for v in vector]).norm()  # type: ignore[union-attr]
    sides = []
    for scale in (1, -2):
        with torch.no_grad():
            for w, v in zip(weights, vector, strict=True):
                w.add_(v, alpha=float(scale * reach))  # type: ignore[arg-type]
        sides.append(torch.autograd.grad(loss(net, train), alphas))
    with torch.no_grad():
        for w, v in zip(weights, vector, strict=True):
            w.add_(v, alpha=float(reach))  # type: ignore[arg-type]
    for alpha, direct, above, below in zip(alphas, arch_parameters(ahead), *sides, strict=True):
        alpha.grad = direct.grad - RATE * (above - below) / (2 * reach)
    arch_optimizer.step()
    arch_optimizer.zero_grad()
    descend(net, weight_optimizer, train)


PEERS: dict[str, Callable[[nn.Module, float], Callable[[Batch, Batch], Any]]] = {
    "first": lambda net, arch_lr: darts(net, False, arch_lr).step,
    "second": lambda net, arch_lr: darts(net, True, arch_lr).step,
    "authors": lambda net, arch_lr: partial(first_order, net, optimizers(net, arch_lr)),
}


def architect() -> dict[str, Callable[[], Any]]:
    """An iteration of second-order DARTS, ours and the authors'."""
    data, ours, net = batches(), darts(supernet(), True), supernet()
    both = optimizers(net)

    def agree() -> None:
        small = batches(8, 8, torch.float64)
        one, twin = darts(supernet().double(), True, 0.1), supernet().double()
        theirs = optimizers(twin, 0.1)
        for _ in range(2):  # the second with momentum
            one.step(*small)
            official(twin, theirs, *small)
        for a, b in zip(one.model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)

    return {"ours": lambda: ours.step(*data), "peer": lambda: official(net, both, *data), "agree": agree}


WHERE = "nas_bench_201, 8 channels, batch 64, 32 × 32"
CASES = [
    Case(
        f"RelaxedSearcher, a fused step, {WHERE}",
        partial(step, "fused", "authors"),
        1.15,
        "the authors' DARTS of first order",
        bar_memory=1.1,
        work="other",
    ),
    Case(
        f"RelaxedSearcher, a Gauss-Seidel step, {WHERE}",
        partial(step, "gauss-seidel", "authors"),
        1.8,
        "the authors' DARTS of first order",
        work="other",
    ),
    Case(
        f"RelaxedSearcher, a fused step beside first order of ours, {WHERE}",
        partial(step, "fused", "first"),
        1.3,
        "our first-order DARTS",
        work="less",
    ),
    Case(
        f"RelaxedSearcher, a fused step beside second order, {WHERE}",
        partial(step, "fused", "second"),
        0.5,
        "our second-order DARTS",
        work="other",
    ),
    Case(f"DartsSearcher of second order, {WHERE}", architect, 1.1, "the DARTS authors' architect"),
]


def searching(width: int) -> Callable[[], Any]:
    net = nn.Sequential(MixedOp({"line": nn.Linear(width, width), "skip": nn.Identity()}))
    x = torch.randn(64, width)
    searcher = RelaxedSearcher(
        net,
        lambda network, batch: network(batch).square().mean(),
        torch.optim.SGD(weight_parameters(net), 0.01, momentum=0.9),
        torch.optim.Adam(arch_parameters(net), 0.01),
        sweep="fused",
    )
    return lambda: searcher.step(x, x)


GROWTH = [Growth("RelaxedSearcher, a fused step of 64 rows", "width", 512, searching, time=2, memory=2, step=2)]
