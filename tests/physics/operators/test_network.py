"""Operator networks: boundary values to the last bit, gradients, and what is refused."""

import copy
from typing import Any

import pytest
import skfem
import torch
from tests.physics.operators.samples import FINE, SPACES, VECTORS, normal, seeded
from torch import Tensor, nn

from throughline.physics.operators import (
    FunctionSpace,
    GraphProcessor,
    MultigridProcessor,
    OperatorNetwork,
    hierarchy,
)

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


@pytest.mark.parametrize("processor", [GraphProcessor(FINE, hidden=8, steps=2), MultigridProcessor(SPACES, hidden=8)])
def test_learns_inside_of_autocast(processor: nn.Module) -> None:
    net = OperatorNetwork(FINE, FINE, processor, boundary=boundary)
    x = torch.randn(2, FINE.dim)
    expected = net(x)
    for short in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", short):
            found = net(x)
            loss = found.square().sum()
        loss.backward()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
        held = FINE.constrained
        assert torch.equal(found[:, held], boundary(FINE.coordinates)[held].float().expand(2, -1))
        assert all(p.grad.isfinite().all() for p in processor.parameters())


def test_a_batch_of_none() -> None:
    net = OperatorNetwork(FINE, FINE, MultigridProcessor(SPACES, hidden=4))
    assert net(torch.zeros(0, FINE.dim)).shape == (0, FINE.dim)
    vectors = OperatorNetwork(VECTORS[-1], FINE, nn.Sequential(nn.Linear(2, 1)))
    assert vectors(torch.zeros(3, 0, VECTORS[-1].dim)).shape == (3, 0, FINE.dim)


def test_one_space_is_no_hierarchy() -> None:
    with pytest.raises(TypeError, match="spaces must be a sequence of FunctionSpace, got one"):
        MultigridProcessor(FINE)  # type: ignore[arg-type]
