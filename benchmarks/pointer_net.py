"""Pointer networks beside one LSTM cell a step and plain autograd, exact tours against the clock, labels beside SciPy's
and OR-tools'.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import scipy
import torch
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.data.planar import label_planar, make_planar, solve_tsp, tour_length
from throughline.discrete.pointer import STOP, PointerNetwork
from throughline.discrete.pointer.scores import additive_scores

FLOAT = 4  # bytes
Calls = dict[str, Callable[[], Any]]


def teacher_forced(batch: int, n: int, hidden: int) -> Calls:
    torch.manual_seed(0)
    net = PointerNetwork(hidden_size=hidden)
    points = torch.rand(batch, n, 2)
    targets = torch.stack([torch.randperm(n) for _ in range(batch)])
    targets[:, -1] = STOP
    encoder, decoder = (nn.LSTMCell(2, hidden) for _ in range(2))
    for cell, lstm in ((encoder, net.encoder), (decoder, net.decoder)):
        for name, parameter in cell.named_parameters():
            setattr(cell, name, getattr(lstm, f"{name}_l0"))
            assert parameter.shape == getattr(cell, name).shape

    def looped() -> Tensor:
        h = c = points.new_zeros(batch, hidden)
        memory = []
        for point in points.unbind(1):
            h, c = encoder(point, (h, c))
            memory.append(h)
        keys = net.pointer.key(torch.stack([*memory, net.end.expand(batch, -1)], 1))
        last, rows = net.start.expand(batch, -1), []
        for chosen in targets.unbind(1):
            h, c = decoder(last, (h, c))
            rows.append(net.pointer.score(torch.tanh(keys + net.pointer.query(h).unsqueeze(1))).squeeze(-1))
            last = points[torch.arange(batch), chosen.clamp_min(0)]
        return torch.stack(rows, 1)

    def step(logits: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        columns = torch.where(targets < 0, n, targets)
        loss = nn.functional.cross_entropy(logits().flatten(0, 1), columns.flatten())
        return torch.autograd.grad(loss, list(net.parameters()))

    ours, peer = partial(step, lambda: net(points, targets)), partial(step, looped)

    def agree() -> None:
        torch.testing.assert_close(net(points, targets), looped(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-6)

    return {"ours": ours, "peer": peer, "agree": agree}


def scores(batch: int, m: int, n: int, hidden: int) -> Calls:
    draw = torch.Generator().manual_seed(0)
    shapes = ((batch, m, hidden), (batch, n, hidden), (hidden,))
    inputs = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    weight = torch.randn(batch, m, n, generator=draw)

    def plain(query: Tensor, key: Tensor, vector: Tensor) -> Tensor:
        return torch.tanh(query.unsqueeze(2) + key.unsqueeze(1)) @ vector

    def step(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad((function(*inputs) * weight).sum(), inputs)

    def agree() -> None:
        torch.testing.assert_close(additive_scores(*inputs), plain(*inputs), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(step(additive_scores), step(plain), rtol=1e-3, atol=1e-3)

    return {"ours": partial(step, additive_scores), "peer": partial(step, plain), "agree": agree}


def exact_tour(n: int) -> Calls:
    points = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))

    def agree() -> None:
        exact, local = (tour_length(points, solve_tsp(points, method=method)) for method in ("exact", "local"))
        assert exact <= local * (1 + 1e-6)
        assert local <= exact * 1.05

    return {"ours": lambda: solve_tsp(points), "agree": agree}


def local_tour(n: int, instances: int = 5) -> Calls:
    draws = [torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(instances)]

    def agree() -> None:
        """Within 5 % of OR-tools' length on every instance."""
        for points in draws:
            assert tour_length(points, solve_tsp(points, method="local")) <= 1.05 * tour_length(points, routed(points))

    return {"ours": lambda: solve_tsp(draws[0], method="local"), "agree": agree}


def routed(points: Tensor) -> Tensor:
    """The tour of OR-tools' routing solver as it comes: cheapest arcs, then its local search."""
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2

    lengths = (torch.cdist(points.double(), points.double()) * 1e6).round().long().tolist()
    manager = pywrapcp.RoutingIndexManager(len(points), 1, 0)
    routing = pywrapcp.RoutingModel(manager)
    arc = routing.RegisterTransitCallback(lambda i, j: lengths[manager.IndexToNode(i)][manager.IndexToNode(j)])
    routing.SetArcCostEvaluatorOfAllVehicles(arc)
    options = pywrapcp.DefaultRoutingSearchParameters()
    options.first_solution_strategy = routing_enums_pb2.FirstSolutionStrategy.PATH_CHEAPEST_ARC
    found = routing.SolveWithParameters(options)
    index, tour = routing.Start(0), []
    while not routing.IsEnd(index):
        tour.append(manager.IndexToNode(index))
        index = found.Value(routing.NextVar(index))
    return torch.tensor(tour)


def hull_labels(batch: int, n: int) -> Calls:
    made = make_planar("hull", batch, n, generator=torch.Generator().manual_seed(0))

    def peer() -> list[list[int]]:
        return [ConvexHull(points).vertices.tolist() for points in made.points.numpy()]

    def agree() -> None:
        for ours, theirs in zip(made.targets.tolist(), peer(), strict=True):
            start = theirs.index(min(theirs))
            assert [i for i in ours if i >= 0] == theirs[start:] + theirs[:start]

    return {"ours": lambda: label_planar("hull", made.points, made.lengths), "peer": peer, "agree": agree}


CASES = [
    Case(
        "teacher-forced step, B 16, m = n = 40, H 64, forward and backward",
        partial(teacher_forced, 16, 40, 64),
        1 / 1.5,
        "one LSTMCell and one pointer a step",
        flops=3 * 2 * 16 * (2 * 40 * 8 * 64 * 66 / 2 + 2 * 40 * 64**2 + 40 * 41 * 64),
        bytes=3.0 * FLOAT * 16 * 40 * 41 * 64,
    ),
    Case(
        "pointer scores, B 32, m = n = 50, H 256, forward and backward",
        partial(scores, 32, 50, 50, 256),
        1.0,
        "plain autograd",
        bytes=3.0 * FLOAT * 32 * 50 * 50 * 256,
    ),
    Case("exact tour, n = 12", partial(exact_tour, 12), bar_seconds=0.2, flops=2.0 * 2**11 * 11**2),
    Case("exact tour, n = 16", partial(exact_tour, 16), bar_seconds=10.0, flops=2.0 * 2**15 * 15**2),
    Case("local tour, n = 50, at most 1.05 of OR-tools' length", partial(local_tour, 50), bar_seconds=1.0),
    Case(
        "hull labels, 128 × 10 points",
        partial(hull_labels, 128, 10),
        1.0,
        f"scipy {scipy.__version__} ConvexHull",
        flops=128 * 10**3 * 3.0,
    ),
]


def pointing(n: int) -> Callable[[], Any]:
    net, points = PointerNetwork(hidden_size=32), torch.rand(4, n, 2)
    targets = torch.arange(n).expand(4, n)
    return lambda: torch.autograd.grad(net(points, targets).square().mean(), list(net.parameters()), allow_unused=True)


GROWTH = [
    Growth(
        "PointerNetwork, forward and backward, 4 instances", "points n = m", 128, pointing, time=2, memory=2, step=2
    ),
    Growth("local tour", "cities", 32, lambda n: local_tour(n, 1)["ours"], time=3, memory=2, step=2),
]
