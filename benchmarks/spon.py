"""Speed and memory bars of operators on meshes: torch_geometric's message passing, scikit-fem's evaluation, and what it
takes to set up a hundred thousand unknowns.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import skfem
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from benchmarks.machine import peak_bytes
from throughline.physics.operators import (
    Decoder,
    Encoder,
    FunctionSpace,
    GraphProcessor,
    MultigridProcessor,
    OperatorNetwork,
    hierarchy,
    prolongation,
)

MOST = 2e9  # bytes to set up a hundred thousand unknowns


def message_passing(level: int, batch: int, hidden: int, steps: int) -> dict[str, Callable[[], Any]]:
    """A whole processor, forward and backward; the peer has its messages made and averaged by torch_geometric, on the
    disjoint union of the batch's graphs, with the same products at the nodes before and after.
    """
    from torch_geometric.nn import MessagePassing

    torch.manual_seed(0)
    space = FunctionSpace(skfem.MeshTri.init_lshaped().refined(level))
    net = GraphProcessor(space, hidden=hidden, steps=steps)
    x = torch.randn(batch, space.dim, 1)
    out = torch.randn(batch, space.dim, 1)
    shift = space.dim * torch.arange(batch)[:, None]
    edges = (space.edges[:, None] + shift).flatten(1)
    features = net.graph.edges.repeat(batch, 1)

    class Mean(MessagePassing):  # type: ignore[misc]
        def forward(self, edge_index: Tensor, s: Tensor, t: Tensor, e: Tensor) -> Tensor:
            mean: Tensor = self.propagate(edge_index, s=s, t=t, e=e)
            return mean

        def message(self, s_j: Tensor, t_i: Tensor, e: Tensor) -> Tensor:
            return F.gelu(s_j + t_i + e)

    mean = Mean("mean")

    def theirs() -> Tensor:
        h = net.ends.enter(x).flatten(0, 1)
        for step in net.steps:
            found = mean(edges, step.source(h), step.target(h), step.edge(features))
            h = h + step.update(torch.cat([h, step.message(found)], -1))
        return net.ends.leave(h).view_as(out)

    weights = list(net.parameters())

    def step(call: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), weights, out)

    def ours() -> tuple[Tensor, ...]:
        return step(lambda: net(x))

    def agree() -> None:
        torch.testing.assert_close(net(x), theirs(), atol=1e-4, rtol=1e-4)
        for one, other in zip(ours(), step(theirs), strict=True):
            torch.testing.assert_close(one, other, atol=2e-4 * float(other.abs().max()), rtol=1e-3)

    return {"ours": ours, "peer": lambda: step(theirs), "agree": agree}


def evaluation(level: int, samples: int, points: int) -> dict[str, Callable[[], Any]]:
    """Values at points that stay: the map is made once, where a line of scikit-fem makes it each time."""
    space = FunctionSpace(skfem.MeshTri.init_lshaped().refined(level))
    draw = np.random.default_rng(0)
    corners = space.mesh.p[:, space.mesh.t[:, draw.integers(space.mesh.nelements, size=points)]]
    places = (corners * draw.dirichlet(np.ones(3), points).T).sum(1)
    c = torch.randn(samples, space.dim, dtype=torch.float64)
    decode = Decoder(space, torch.from_numpy(places.T.copy()))

    def peer() -> np.ndarray:
        return np.stack([space.basis.probes(places) @ row for row in c.numpy()])

    def agree() -> None:
        few = slice(2)
        wanted = np.stack([space.basis.probes(places) @ row for row in c[few].numpy()])
        np.testing.assert_allclose(decode(c[few]).numpy(), wanted, atol=1e-9)

    return {"ours": lambda: decode(c), "peer": peer, "agree": agree}


def set_up(cells: int) -> dict[str, Callable[[], Any]]:
    """All that a network on a large mesh needs before its first step: spaces, graphs, transfers, decomposition."""
    side = np.linspace(0, 1, cells + 1)
    mesh = skfem.MeshTri.init_tensor(side, side)

    def ours() -> OperatorNetwork:
        spaces = hierarchy(mesh, 4, dirichlet="all")
        net = OperatorNetwork(spaces[-1], spaces[-1], MultigridProcessor(spaces, hidden=4))
        c = Encoder(spaces[-1], spaces[-2])(torch.ones(spaces[-2].dim))
        torch.testing.assert_close(c, torch.ones_like(c), atol=1e-4, rtol=0)
        return net

    def agree() -> None:
        taken = peak_bytes(ours)
        assert taken is None or taken < MOST, f"{taken / 1e9:.2f} GB"

    return {"ours": ours, "agree": agree}


def projection(level: int, samples: int) -> dict[str, Callable[[], Any]]:
    """A batch of right-hand sides through one decomposition, where scikit-fem's user solves for each."""
    coarse, fine = hierarchy(skfem.MeshTri.init_lshaped().refined(level), 2)
    c = torch.randn(samples, fine.dim, dtype=torch.float64)
    encode = Encoder(coarse, fine)
    at_points = fine.values_at(coarse.quadrature_points, nearest=True)
    shape = np.asarray(coarse.basis.dx).shape

    def peer() -> np.ndarray:
        return np.stack([coarse.basis.project((at_points @ row).reshape(shape)) for row in c.numpy()])

    def agree() -> None:
        np.testing.assert_allclose(encode(c).numpy(), peer(), atol=1e-8)
        same = torch.from_numpy((prolongation(coarse, fine) @ encode(c).numpy().T).T.copy())
        torch.testing.assert_close(encode(same), encode(c))

    return {"ours": lambda: encode(c), "peer": peer, "agree": agree}


GEOMETRIC = f"torch_geometric {version('torch_geometric')}"
FEM = f"scikit-fem {version('scikit-fem')}"
CASES = [
    Case(
        "GraphProcessor, 833 unknowns, batch 8, 32 wide, 8 steps",
        partial(message_passing, 4, 8, 32, 8),
        1.0,
        GEOMETRIC,
        bar_memory=1.0,
    ),
    Case(
        "GraphProcessor, 3,201 unknowns, batch 4, 64 wide, 4 steps",
        partial(message_passing, 5, 4, 64, 4),
        1.0,
        GEOMETRIC,
        bar_memory=1.0,
    ),
    Case("Decoder, 64 samples at 10,000 points", partial(evaluation, 2, 64, 10_000), 0.2, f"Basis.probes, {FEM}"),
    Case("Encoder, 64 samples from 3,201 unknowns to 833", partial(projection, 4, 64), 0.2, f"Basis.project, {FEM}"),
    Case("Spaces, processor and projection of 103,041 unknowns set up", partial(set_up, 40), bar_seconds=30.0),
]


def passing(cells: int) -> Callable[[], Any]:
    side = np.linspace(0, 1, cells + 1)
    net = GraphProcessor(FunctionSpace(skfem.MeshTri.init_tensor(side, side)), hidden=8, steps=2)
    x, weights = torch.randn(1, (cells + 1) ** 2, 1), list(net.parameters())
    return lambda: torch.autograd.grad(net(x).square().sum(), weights)


def preparing(cells: int) -> Callable[[], Any]:
    side = np.linspace(0, 1, cells + 1)
    mesh = skfem.MeshTri.init_tensor(side, side)
    return lambda: (space := FunctionSpace(mesh), space.edges, space.mass, space.project(lambda x: x[..., 0]))


GROWTH = [
    Growth("GraphProcessor, forward and backward", "cells a side", 32, passing, time=2, memory=2, step=2),
    Growth("FunctionSpace with a projection", "cells a side", 32, preparing, time=3, memory=2, step=2),
]
