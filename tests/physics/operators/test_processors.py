"""Processors against the equations written plainly, torch_geometric and dense algebra."""

import io
from itertools import pairwise

import numpy as np
import pytest
import skfem
import torch
from tests.physics.operators.samples import FINE, SPACES, VECTORS, normal, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.physics.operators import (
    FunctionSpace,
    GraphProcessor,
    MultigridProcessor,
    hierarchy,
    prolongation,
)
from throughline.physics.operators.processors import _Graph, _transfers


def plainly(net: GraphProcessor, space: FunctionSpace, x: Tensor) -> Tensor:
    """The equations, node by node and edge by edge."""
    places = space.coordinates
    known = torch.cat([places, space.constrained[:, None].double()], 1)
    h = net.ends.first(torch.cat([x, known], 1))
    pairs = sorted({(a, b) for cell in space.basis.element_dofs.T.tolist() for a in cell for b in cell if a != b})
    lengths = [float((places[j] - places[i]).norm()) for i, j in pairs]
    mean_length = sum(lengths) / len(lengths)
    for step in net.steps:
        rows = []
        for i in range(space.dim):
            messages = []
            for j in (b for a, b in pairs if a == i):
                way = places[j] - places[i]
                e = torch.cat([way, way.norm()[None]]) / mean_length
                messages.append(F.gelu(step.source(h[j]) + step.target(h[i]) + step.edge(e)))
            rows.append(torch.stack(messages).mean(0))
        h = h + step.update(torch.cat([h, step.message(torch.stack(rows))], 1))
    made: Tensor = net.ends.last(h)
    return made


def test_message_passing_is_the_equations() -> None:
    space = SPACES[1]
    net = seeded(GraphProcessor(space, 2, 3, hidden=4, steps=2))
    x = normal(space.dim, 2)
    torch.testing.assert_close(net(x), plainly(net, space, x))


def test_message_passing_is_that_of_torch_geometric() -> None:
    nn_pyg = pytest.importorskip("torch_geometric.nn")
    net = seeded(GraphProcessor(FINE, 1, 1, hidden=6, steps=1))
    step, edges = net.steps[0], net.graph.edges

    class Step(nn_pyg.MessagePassing):  # type: ignore[misc,name-defined]
        def forward(self, edge_index: Tensor, s: Tensor, t: Tensor, e: Tensor) -> Tensor:
            mean: Tensor = self.propagate(edge_index, s=s, t=t, e=e)
            return mean

        def message(self, s_j: Tensor, t_i: Tensor, e: Tensor) -> Tensor:
            return F.gelu(s_j + t_i + e)

    h = normal(FINE.dim, 6)
    mean = Step("mean")(FINE.edges, step.source(h), step.target(h), step.edge(edges))
    torch.testing.assert_close(step(h, net.graph), h + step.update(torch.cat([h, step.message(mean)], -1)))


def test_information_travels_an_edge_a_step_and_farther_on_a_hierarchy() -> None:
    far = (FINE.coordinates - FINE.coordinates[0]).norm(dim=1).argmax()
    for made, reached in (
        (GraphProcessor(FINE, hidden=4, steps=2), False),
        (MultigridProcessor(SPACES, hidden=4, coarse_steps=3), True),
    ):
        x = normal(FINE.dim, 1).requires_grad_()
        (slope,) = torch.autograd.grad(seeded(made)(x)[far].sum(), x)
        assert bool(slope[0] != 0) == reached
        assert slope[far] != 0


def test_restriction_averages_and_prolongation_keeps_constants() -> None:
    for spaces in (
        SPACES,
        hierarchy(skfem.MeshTri(), 2, skfem.ElementTriP2()),
        hierarchy(skfem.MeshTet(), 2, skfem.ElementTetP2()),
        hierarchy(skfem.MeshTri(), 2, skfem.ElementTriRT1()),
        VECTORS,
    ):
        up, down = _transfers(spaces[0], spaces[1])
        np.testing.assert_allclose(up.sum(1), 1, atol=1e-12)
        np.testing.assert_allclose(down.sum(1), 1, atol=1e-12)
        assert down.min() >= 0
    p = prolongation(SPACES[0], SPACES[1])
    _, down = _transfers(SPACES[0], SPACES[1])
    np.testing.assert_allclose(down.toarray(), p.T.toarray() / p.T.toarray().sum(1, keepdims=True))


def test_a_v_cycle_is_its_steps_in_their_order() -> None:
    net = seeded(MultigridProcessor(SPACES, 1, 2, hidden=4, smoothing_steps=2, coarse_steps=3))
    pairs = [_transfers(a, b) for a, b in pairwise(SPACES)]
    up, down = ([torch.from_numpy(pair[i].toarray()) for pair in pairs] for i in range(2))
    g, x = net.graphs, normal(FINE.dim, 1)
    top = net.down[1][1](net.down[1][0](net.ends.enter(x), g[2]), g[2])
    middle = net.down[0][1](net.down[0][0](down[1] @ top, g[1]), g[1])
    h = down[0] @ middle
    for step in net.coarsest:
        h = step(h, g[0])
    h = net.up[0][1](net.up[0][0](middle + up[0] @ h, g[1]), g[1])
    h = net.up[1][1](net.up[1][0](top + up[1] @ h, g[2]), g[2])
    torch.testing.assert_close(net(x), net.ends.leave(h))
    assert len({id(p) for p in net.parameters()}) == len(list(net.parameters()))


def test_edges_across_a_periodic_face_are_short() -> None:
    space = FunctionSpace(skfem.MeshTri().refined(3), periodic=[0, 1])
    graph = _Graph(space)
    assert graph.edges[:, -1].max() < 1.5
    assert torch.equal(graph.edges[:, -1], graph.edges[:, :2].norm(dim=1)) or torch.allclose(
        graph.edges[:, -1], graph.edges[:, :2].norm(dim=1)
    )
    # a step commutes with a shift around the torus
    net = seeded(GraphProcessor(space, hidden=4, steps=2))
    net.ends.places[:, :2] = 0
    x = normal(space.dim, 1)
    places = [tuple(p) for p in space.coordinates.tolist()]
    moved = [places.index(((a + 0.25) % 1, b)) for a, b in places]
    torch.testing.assert_close(net(x)[moved], net(x[moved]))


def test_edge_features_do_not_know_the_resolution() -> None:
    for other in (FunctionSpace(FINE.mesh.scaled(3.0)), FunctionSpace(FINE.mesh.refined(1))):
        lengths = [_Graph(space).edges[:, -1] for space in (FINE, other)]
        assert all(length.mean().item() == pytest.approx(1, abs=1e-5) for length in lengths)
        torch.testing.assert_close(*(length.max() for length in lengths), atol=0.03, rtol=0)


def test_components_of_a_vector_are_told_apart() -> None:
    """Both components sit at the same place and see the same neighbours."""
    net = seeded(GraphProcessor(VECTORS[1], hidden=4, steps=1))
    same = torch.ones(VECTORS[1].dim, 1, dtype=torch.float64)
    made = net(same)[:, 0]
    directions = VECTORS[1].directions
    assert directions is not None
    first = made[directions[:, 0] == 1]
    assert not torch.allclose(first, made[directions[:, 1] == 1])


@pytest.mark.parametrize("many", [False, True])
def test_weights_load_on_another_mesh(many: bool) -> None:
    others = hierarchy(skfem.MeshTri(), 3)

    def make(spaces: list[FunctionSpace]) -> nn.Module:
        return MultigridProcessor(spaces, hidden=4) if many else GraphProcessor(spaces[-1], hidden=4, steps=2)

    here, there = make(SPACES), make(others)
    assert set(here.state_dict()) == {name for name, _ in here.named_parameters()}
    file = io.BytesIO()
    torch.save(here.state_dict(), file)
    file.seek(0)
    there.load_state_dict(torch.load(file, weights_only=True))
    assert there(torch.zeros(others[-1].dim, 1)).shape == (others[-1].dim, 1)
    there.to("meta")
