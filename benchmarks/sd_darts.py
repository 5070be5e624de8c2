"""Speed bars of searches with teachers: DARTS without them, and the divergence of torch.

No code of the authors is public. For sharpness the peer is the same arithmetic as one writes it by hand, and for the
eigenvalue, where PyHessian (PyPI ``pyhessian``) is the peer, a port of its calls: it builds the graph of all
parameters, and its power iteration stops by a tolerance that is left out here.
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
from throughline.search.self_distillation import (
    SelfDistillationSearcher,
    VotingTeachers,
    distillation_loss,
    dominant_eigenvalue,
    sharpness,
)
from throughline.search.spaces import nas_bench_201
from throughline.search.supernet import arch_parameters, batch_statistics, weight_parameters

TORCH = f"torch {torch.__version__}"
Calls = dict[str, Callable[[], Any]]
Batch = tuple[Tensor, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int, side: int) -> Batch:
    draw = seeded()
    return torch.randn(batch, 3, side, side, generator=draw), torch.randint(10, (batch,), generator=draw)


def loss_of(net: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def criterion(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits, batch[1])


def supernet() -> nn.Module:
    return nas_bench_201(channels=8, cells=1, generator=seeded()).train()


def optimizers(net: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    weights = torch.optim.SGD(weight_parameters(net), 0.025, momentum=0.9, weight_decay=3e-4)
    return weights, torch.optim.Adam(arch_parameters(net), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)


def iteration(teachers: int, batch: int, side: int) -> Calls:
    """A step on the architecture and one on the weights, with the store of teachers full."""
    data = images(batch, side)

    def searcher(strength: float) -> SelfDistillationSearcher:
        net = supernet()
        return SelfDistillationSearcher(
            net, criterion, *optimizers(net), teachers=teachers, interval=10_000, strength=strength
        )

    plain, taught = supernet(), searcher(1.0)
    darts = DartsSearcher(plain, loss_of, *optimizers(plain))
    taught.teachers.interval = 1
    for _ in range(teachers):
        taught.teachers.update()
    taught.teachers.interval = 10_000  # an epoch: what a snapshot costs is part of hardly any step

    def agree() -> None:
        """Without strength the two are one search; with it, the first step is still DARTS', and no other."""
        few, net = images(16, 8), supernet()
        twins = DartsSearcher(net, loss_of, *optimizers(net)), searcher(0.0), searcher(1.0)
        twins[2].teachers.interval = 1
        for step in range(3):
            seen = [twin.step(few, few)["train_loss"] for twin in twins]
            torch.testing.assert_close(seen[1], seen[0], atol=0, rtol=0)
            assert torch.equal(seen[2], seen[0]) == (step < 2)  # the first teacher is the state that it teaches

    return {"ours": lambda: taught.step(data, data), "peer": lambda: darts.step(data, data), "agree": agree}


def divergence(rows: int, classes: int, temperature: float) -> Calls:
    draw = seeded()
    z = torch.randn(rows, classes, generator=draw, requires_grad=True)
    q = torch.randn(rows, classes, generator=draw).softmax(-1)

    def ours() -> tuple[Tensor, ...]:
        value = distillation_loss(z, q, temperature=temperature)
        return value, *torch.autograd.grad(value, z)

    def peer() -> tuple[Tensor, ...]:
        value = temperature**2 * F.kl_div((z / temperature).log_softmax(-1), q, reduction="batchmean")
        return value, *torch.autograd.grad(value, z)

    def agree() -> None:
        for one, other in zip(ours(), peer(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)

    return {"ours": ours, "peer": peer, "agree": agree}


def vote(batch: int, side: int) -> Calls:
    """Three teachers against three forward passes of the model, whose memory is that of one."""
    net, (x, _) = supernet(), images(batch, side)
    teachers = VotingTeachers(net)
    for _ in range(3):
        teachers.update()

    def peer() -> Tensor:
        with torch.no_grad(), batch_statistics(net):
            return torch.stack([net(x).softmax(-1) for _ in range(3)]).mean(0)

    def ours() -> Tensor:
        return teachers.predict(x)

    return {"ours": ours, "peer": peer, "agree": lambda: torch.testing.assert_close(ours(), peer())}


def rise(batch: int, side: int) -> Calls:
    """Uphill and back, written into the weights by hand."""
    net, data = supernet(), images(batch, side)
    weights = weight_parameters(net)

    def ours(net: nn.Module = net, data: Batch = data) -> Tensor:
        return sharpness(net, loss_of, data)

    def peer(net: nn.Module = net, data: Batch = data) -> Tensor:
        weights = weight_parameters(net)
        with batch_statistics(net):
            value = loss_of(net, data)
            slope = torch.autograd.grad(value, weights)
            with torch.no_grad():
                reach = 0.05 / torch.stack([g.norm() for g in slope]).norm()
                kept = [w.clone() for w in weights]
                torch._foreach_add_(weights, [reach * g for g in slope])
                found = loss_of(net, data) - value.detach()
                torch._foreach_copy_(weights, kept)
        return found

    def agree() -> None:
        twin = copy.deepcopy(net).double()
        few, labels = images(16, 8)
        torch.testing.assert_close(ours(twin, (few.double(), labels)), peer(twin, (few.double(), labels)))
        assert all(torch.equal(a, b) for a, b in zip(weights, weight_parameters(net), strict=True))

    return {"ours": ours, "peer": peer, "agree": agree}


def eigenvalue(batch: int, side: int, iterations: int) -> Calls:
    net, data = supernet().eval(), images(batch, side)

    def ours(net: nn.Module = net, data: Batch = data) -> Tensor:
        return dominant_eigenvalue(net, loss_of, data, iterations=iterations, generator=seeded())

    def peer(net: nn.Module = net, data: Batch = data) -> Tensor:
        """As PyHessian has it: a graph of the whole gradient, then v ← Hv / ‖Hv‖ by autograd."""
        with batch_statistics(net):
            loss = loss_of(net, data)
            by = [*arch_parameters(net), *weight_parameters(net)]
            slope = torch.autograd.grad(loss, by, create_graph=True)[: len(list(arch_parameters(net)))]
            alphas, draw = list(arch_parameters(net)), seeded()
            vector = [torch.randn(a.shape, generator=draw).to(a) for a in alphas]
            for _ in range(iterations):
                norm = torch.stack([(v * v).sum() for v in vector]).sum().sqrt() + 1e-6
                vector = [v / norm for v in vector]
                image = torch.autograd.grad(slope, alphas, grad_outputs=vector, retain_graph=True)
                value = torch.stack([(h * v).sum() for h, v in zip(image, vector, strict=True)]).sum()
                vector = [h.detach() for h in image]
        return value.detach()

    def agree() -> None:
        twin = copy.deepcopy(net).double()
        few, labels = images(16, 8)
        pair = ours(twin, (few.double(), labels)), peer(twin, (few.double(), labels))
        torch.testing.assert_close(*pair, atol=1e-6, rtol=1e-2)  # a norm of 1e-6 more in the peer

    return {"ours": ours, "peer": peer, "agree": agree}


CASES = [
    *(
        Case(
            f"an iteration of SelfDistillationSearcher with {count}, nas_bench_201(8, 1), batch 64, 32 × 32",
            partial(iteration, teachers, 64, 32),
            bar,
            "DartsSearcher",
            work="less",
        )
        for teachers, count, bar in ((3, "three teachers", 1.6), (1, "one teacher", 1.25))
    ),
    Case(
        "distillation_loss, 256 × 1000, forward and backward",
        partial(divergence, 256, 1000, 4.0),
        1.1,
        f"F.kl_div, {TORCH}",
        bytes=4.0 * 6 * 256 * 1000,
    ),
    Case(
        "a vote of three teachers, nas_bench_201(8, 1), batch 64, 32 × 32",
        partial(vote, 64, 32),
        1.1,
        "three forward passes",
        bar_memory=1.1,
    ),
    Case("sharpness, nas_bench_201(8, 1), batch 64, 32 × 32", partial(rise, 64, 32), 1.1, "the same by hand"),
    Case(
        "dominant_eigenvalue by alpha, nas_bench_201(8, 1), batch 16, 16 × 16, five products",
        partial(eigenvalue, 16, 16, 5),
        1.1,
        "the calls of PyHessian",
    ),
]


def comparing(classes: int) -> Callable[[], Any]:
    z, q = torch.randn(256, classes, requires_grad=True), torch.randn(256, classes).softmax(-1)
    return lambda: torch.autograd.grad(distillation_loss(z, q, temperature=4.0), z)


def storing(width: int) -> Callable[[], Any]:
    net = nn.Linear(width, width)

    def call() -> VotingTeachers:
        teachers = VotingTeachers(net)
        for _ in range(3):
            teachers.update()
        return teachers

    return call


GROWTH = [
    Growth("distillation_loss, 256 rows, forward and backward", "classes", 1024, comparing, time=1, memory=1),
    Growth("VotingTeachers, three snapshots of a linear layer", "width", 256, storing, time=2, memory=2, step=2),
]
