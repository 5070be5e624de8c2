"""Processors and operator networks against the equations written plainly, torch_geometric and dense algebra."""

import copy
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.physics.operators import (
    FunctionSpace,
    GraphProcessor,
    MultigridProcessor,
    OperatorNetwork,
    hierarchy,
    prolongation,
)
from throughline.physics.operators.linear_maps import LinearMap, Solver
from throughline.physics.operators.messages import message_sums
from throughline.physics.operators.processors import _Graph, _transfers

SPACES = hierarchy(skfem.MeshTri.init_lshaped(), 3, dirichlet="all")
FINE = SPACES[-1]
VECTORS = hierarchy(skfem.MeshTri(), 3, skfem.ElementVector(skfem.ElementTriP1()), dirichlet=lambda x: x[0] == 0)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(made: Any) -> Any:
    """Random weights that do not depend on what was drawn before, also where they start at one or zero."""
    draw = torch.Generator().manual_seed(5)
    for p in made.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return made.double()


# ---- linear maps ----


def test_products_are_those_of_the_dense_matrix() -> None:
    dense = normal(7, 5) * (normal(7, 5, seed=1) > 0)
    linear = LinearMap(dense.numpy())
    x, h = normal(2, 3, 5).requires_grad_(), normal(2, 3, 5, 4).requires_grad_()
    torch.testing.assert_close(linear(x), x @ dense.T)
    torch.testing.assert_close(linear(x[0, 0]), dense @ x[0, 0])
    torch.testing.assert_close(linear.features(h), dense @ h)
    torch.testing.assert_close(linear.features(h[0, 0]), dense @ h[0, 0])
    for call, leaf in ((linear, x), (linear.features, h)):
        assert torch.autograd.gradcheck(lambda x, call=call: call(x) ** 2, leaf)
        assert torch.autograd.gradgradcheck(lambda x, call=call: call(x) ** 2, leaf)
    assert linear.transposed.transposed is linear
    for copies in range(2, 20):
        linear.features(normal(copies, 5, 1))
    assert len(linear._kept) <= 8  # a batch of every size is not kept for ever


def test_solutions_are_those_of_the_dense_matrix() -> None:
    dense = normal(6, 6) + 6 * torch.eye(6, dtype=torch.float64)  # not symmetric: the transpose must be one
    solver, b = Solver(dense.numpy()), normal(2, 3, 6).requires_grad_()
    torch.testing.assert_close(solver(b), torch.linalg.solve(dense, b.unsqueeze(-1)).squeeze(-1))
    assert torch.autograd.gradcheck(lambda b: solver(b) ** 2, b)
    assert torch.autograd.gradgradcheck(lambda b: solver(b) ** 2, b)


@pytest.mark.parametrize("block", [1, 10_000_000])
def test_messages_are_summed_over_neighbours(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throughline.physics.operators.messages.BLOCK", block)
    graph = _Graph(SPACES[0])
    source, target = SPACES[0].edges
    s, t = (normal(2, 3, SPACES[0].dim, 2, seed=i).requires_grad_() for i in range(2))
    e = normal(len(source), 2, seed=2).requires_grad_()
    maps = (graph.from_source, graph.from_target)
    messages = F.gelu(s[..., source, :] + t[..., target, :] + e)
    wanted = torch.zeros_like(s).index_add(-2, target, messages)
    found = message_sums(s, t, e, maps)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), (s, t, e)),
        torch.autograd.grad(wanted.square().sum(), (s, t, e)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    some = (s[:1, :1].detach().requires_grad_(), t[:1, :1].detach().requires_grad_(), e)
    assert torch.autograd.gradgradcheck(lambda *x: message_sums(*x, maps), some, fast_mode=True)
    mixed = (some[0], some[1].detach(), e)  # not all of them need a derivative
    assert torch.autograd.gradgradcheck(lambda *x: message_sums(*x, maps), mixed, fast_mode=True)


# ---- processors ----


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


# ---- operator networks ----


def boundary(x: Tensor) -> Tensor:
    return 0.1 + (7 * x[:, 0]).sin() * x[:, 1] / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constrained_entries_are_the_boundary_values_to_the_last_bit(dtype: torch.dtype) -> None:
    net = OperatorNetwork(FINE, FINE, seeded(MultigridProcessor(SPACES, hidden=4)), boundary=boundary).to(dtype)
    u = net(10 * normal(4, FINE.dim).to(dtype))
    held = FINE.constrained
    assert u.dtype == dtype
    assert torch.equal(u[:, held], boundary(FINE.coordinates)[held].to(dtype).expand(4, -1))
    assert (u[:, ~held].double().std(0) > 0).all()
    assert torch.equal(net.float().double()(normal(FINE.dim))[held], boundary(FINE.coordinates)[held])


def test_boundary_values_of_vectors() -> None:
    space = VECTORS[-1]

    def swirl(x: Tensor) -> Tensor:
        return torch.stack([x[:, 1].cos(), x[:, 1] ** 2], 1)

    net = OperatorNetwork(space, space, MultigridProcessor(VECTORS, hidden=4), boundary=swirl)
    u = net.double()(normal(2, space.dim))
    for component in range(2):
        at = space.constrained & (space.directions[:, component] == 1)  # type: ignore[index]
        assert torch.equal(u[:, at], swirl(space.coordinates)[at, component].expand(2, -1))
    edge = torch.tensor([[0.0, 0.3], [0.0, 0.9]], dtype=torch.float64)
    assert not space.evaluate(u, edge)[0].isnan().any()


def test_gradients_reach_weights_and_inputs_but_no_boundary() -> None:
    net = OperatorNetwork(FINE, FINE, seeded(GraphProcessor(FINE, hidden=4, steps=2)), boundary=2.0).double()
    x = normal(FINE.dim).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[FINE.constrained].sum(), x, materialize_grads=True)
    assert (slope == 0).all()
    assert torch.autograd.gradcheck(net, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(net, x, fast_mode=True)


def test_inputs_of_another_space_are_evaluated_at_the_nodes() -> None:
    other = FunctionSpace(skfem.MeshTri.init_lshaped().refined(1), skfem.ElementTriP2())
    c = other.project(boundary)
    seen: list[Tensor] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.sum(-1, keepdim=True)

    OperatorNetwork(other, FINE, Look())(c)
    torch.testing.assert_close(seen[-1][:, 0], other.evaluate(c, FINE.coordinates))
    vectors = hierarchy(skfem.MeshTri.init_lshaped(), 2, skfem.ElementVector(skfem.ElementTriP1()))
    OperatorNetwork(vectors[1], FINE, Look())(normal(3, vectors[1].dim))
    assert seen[-1].shape == (3, FINE.dim, 2)
    u = OperatorNetwork(vectors[0], vectors[1], Look())(vectors[0].interpolate(lambda x: x))
    torch.testing.assert_close(u, vectors[1].interpolate(lambda x: x))


def test_any_module_is_a_processor() -> None:
    net = OperatorNetwork(FINE, FINE, nn.Sequential(nn.Linear(1, 8), nn.GELU(), nn.Linear(8, 1)))
    assert net(torch.zeros(2, 3, FINE.dim)).shape == (2, 3, FINE.dim)


def test_learns_an_operator() -> None:
    """The square, on random combinations of three functions."""
    torch.manual_seed(0)
    spaces = SPACES[1:]
    space = spaces[-1]
    net = OperatorNetwork(space, space, MultigridProcessor(spaces, hidden=16, coarse_steps=2))
    f = (
        torch.randn(32, 3)
        @ torch.stack([space.coordinates[:, 0], space.coordinates[:, 1], boundary(space.coordinates)]).float()
    )
    u = torch.where(space.constrained, 0, f**2)
    optimizer, losses = torch.optim.Adam(net.parameters(), 5e-3), []
    for _ in range(60):
        loss = (space.norm(net(f) - u) / space.norm(u)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.45 * losses[0]


# ---- bad input ----


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, r"spaces must be at least two, got 1", lambda: MultigridProcessor(SPACES[:1])),
        (
            ValueError,
            r"spaces must go from coarse to fine, got 65, 21, 8 unknowns",
            lambda: MultigridProcessor(SPACES[::-1]),
        ),
        (
            ValueError,
            r"spaces must be of one element, got FunctionSpace\(MeshTri1, ElementTriP1, dim=8\), .*P2",
            lambda: MultigridProcessor([SPACES[0], FunctionSpace(SPACES[1].mesh, skfem.ElementTriP2())]),
        ),
        (ValueError, r"hidden must be at least 1, got 0", lambda: GraphProcessor(FINE, hidden=0)),
        (ValueError, r"steps must be at least 1, got 0", lambda: GraphProcessor(FINE, steps=0)),
        (ValueError, r"smoothing_steps must be at least 1", lambda: MultigridProcessor(SPACES, smoothing_steps=0)),
        (
            ValueError,
            r"x must be \(\.\.\., 65, 1\), got shape \(65, 2\)",
            lambda: GraphProcessor(FINE, hidden=2)(torch.zeros(65, 2)),
        ),
        (TypeError, r"processor must be an nn.Module, got function", lambda: OperatorNetwork(FINE, FINE, lambda x: x)),
        (TypeError, r"output_space must be a FunctionSpace", lambda: OperatorNetwork(FINE, 3, nn.Identity())),
        (
            ValueError,
            r"boundary must be finite, got 1 values that are not",
            lambda: OperatorNetwork(
                FINE,
                FINE,
                nn.Identity(),
                boundary=lambda x: 1 / ((x - FINE.coordinates[FINE.constrained][3]).norm(dim=1)),
            ),
        ),
        (
            ValueError,
            r"coefficients must be \(\.\.\., 65\), got shape \(64,\)",
            lambda: OperatorNetwork(FINE, FINE, nn.Identity())(torch.zeros(64)),
        ),
        (
            ValueError,
            r"processor must return shape \(2, 65, 1\), got shape \(2, 65, 4\)",
            lambda: OperatorNetwork(FINE, FINE, nn.Linear(1, 4))(torch.zeros(2, 65)),
        ),
    ],
)
def test_names_what_is_wrong(error: type[Exception], match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call()


def test_copies_are_independent() -> None:
    net = OperatorNetwork(FINE, FINE, MultigridProcessor(SPACES, hidden=4), boundary=boundary)
    twin = copy.deepcopy(net)
    x = torch.randn(2, FINE.dim)
    assert torch.equal(net(x), twin(x))
    for p in twin.parameters():
        p.data += 1
    assert not torch.equal(net(x), twin(x))
