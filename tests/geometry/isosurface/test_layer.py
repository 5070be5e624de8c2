"""The mesh layer against closed forms and the implicit equation itself; what it evaluates, and where."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.geometry.isosurface.shapes import ball, is_closed, normal, torus, volume
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from throughline.geometry.isosurface import DeepSDF, attach, extract_surface, marching_cubes


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def net(seed: int = 0) -> nn.Sequential:
    """A field of random waves around a ball, smooth, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()


def field_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: ball(x, 0.5) + 0.3 * model(x)[:, 0]


def on_ball(count: int = 20, radius: float = 0.5, seed: int = 0) -> Tensor:
    return radius * nn.functional.normalize(normal(count, 3, seed=seed), dim=1)


# ---- attach ----


def test_a_ball_grows_along_its_normals() -> None:
    radius, v = number(0.5), on_ball()
    moved = attach(lambda x: ball(x, radius), v)
    assert torch.equal(moved, v)
    slope = torch.stack([torch.autograd.grad(m, radius, retain_graph=True)[0] for m in moved.flatten()]).view(-1, 3)
    torch.testing.assert_close(slope, v / 0.5)  # ∂v/∂r = n, outwards


@pytest.mark.parametrize("slope", ["implicit", "unit"])
def test_fields_that_are_no_distance_expose_the_unit_slope(slope: Any) -> None:
    radius, v = number(0.5), on_ball()
    moved = attach(lambda x: 3 * (x.square().sum(1) - radius**2), v, slope=slope)
    weight = normal(20, 3, seed=1)
    (found,) = torch.autograd.grad((weight * moved).sum(), radius)
    wrong = 6 * 0.5 if slope == "unit" else 1.0  # |∇f| = 6 r
    torch.testing.assert_close(found, wrong * (weight * v / 0.5).sum())


def test_both_slopes_agree_on_a_distance() -> None:
    for slope in ("implicit", "unit"):
        radius = number(0.2)
        moved = attach(
            lambda x, r=radius: torus(x, 0.5, r), extract_surface(torus, newton_steps=3)[0].detach(), slope=slope
        )
        found = torch.autograd.grad(moved.square().sum(), radius)[0]
        if slope == "implicit":
            first = found
    torch.testing.assert_close(found, first)


@pytest.mark.parametrize("seed", range(3))
def test_moved_vertices_stay_on_the_moved_surface(seed: int) -> None:
    """f(v + ε ∂v/∂θ; θ + ε) − f(v; θ) is of second order, for a step of all weights at once."""
    model = net(seed)
    names = dict(model.named_parameters())
    step = {name: normal(*p.shape, seed=seed + 7) for name, p in names.items()}

    def at(size: float | Tensor) -> Callable[[Tensor], Tensor]:
        weights = {name: p.detach() + size * step[name] for name, p in names.items()}
        return lambda x: ball(x, 0.5) + 0.3 * torch.func.functional_call(model, weights, (x,))[:, 0]

    v = extract_surface(at(0.0), resolution=14, bounds=(-1.2, 1.2))[0].detach()
    assert len(v) > 50
    size = number(0.0)
    moved = attach(at(size), v)
    speed = torch.stack([torch.autograd.grad(m, size, retain_graph=True)[0] for m in moved.flatten()]).view(-1, 3)
    off = [(at(eps)(v + eps * speed) - at(0.0)(v)).abs().amax().item() for eps in (1e-2, 1e-3)]
    assert off[0] / off[1] == pytest.approx(100, rel=0.3)
    assert off[1] < 1e-3
    x = v.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at(0.0)(x).sum(), x)
    assert torch.linalg.cross(speed, gradient).abs().max() < 1e-9  # along the normal, not along the surface


def test_vertices_get_no_gradient() -> None:
    radius, v = number(0.5), on_ball().requires_grad_()
    moved = attach(lambda x: ball(x, radius), v)
    (by_vertex,) = torch.autograd.grad(moved.sum(), v, allow_unused=True, retain_graph=True)
    assert by_vertex is None
    assert moved.requires_grad
    fixed = attach(lambda x: ball(x, 0.5), v)
    assert torch.equal(fixed, v)
    assert not fixed.requires_grad  # it depends on nothing: a plain mesh
    assert not extract_surface(ball, resolution=8, newton_steps=1)[0].requires_grad
    assert v.grad is None


def test_a_level_that_is_a_tensor_moves_it_out() -> None:
    level, v = number(0.1), on_ball(radius=0.6)
    moved = attach(lambda x: ball(x, 0.5), v, level=level)
    (found,) = torch.autograd.grad((moved * v / 0.6).sum(), level)
    torch.testing.assert_close(found, torch.tensor(20.0, dtype=torch.float64))


def test_the_slope_is_a_constant() -> None:
    """Off the surface ∂v/∂a of f = a (|x| − r) is −n (|x| − r) / a: a gradient through ∇f would add to it."""
    scale, v = number(2.0), on_ball(radius=0.7)
    moved = attach(lambda x: scale * ball(x, 0.5), v)
    (found,) = torch.autograd.grad((moved * v / 0.7).sum(), scale, create_graph=True)
    torch.testing.assert_close(found.detach(), torch.tensor(-20 * 0.2 / 2, dtype=torch.float64))
    (again,) = torch.autograd.grad(found, scale, allow_unused=True)
    assert again is None  # f is linear in a, and d depends on nothing


def test_the_least_slope_bounds_the_step() -> None:
    shift = number(0.0)
    flat = torch.zeros(1, 3, dtype=torch.float64) + torch.tensor([1e-6, 0.0, 0.0])
    moved = attach(lambda x: x.square().sum(1) + shift, flat, min_slope=0.1)
    (found,) = torch.autograd.grad(moved[0, 0], shift)
    assert found.item() == pytest.approx(-2e-6 / 0.1**2)
    at_once = attach(lambda x: x.square().sum(1) + shift, torch.zeros(1, 3, dtype=torch.float64))
    assert torch.autograd.grad(at_once.sum(), shift)[0].item() == 0
    unit = attach(lambda x: x.square().sum(1) + shift, flat, min_slope=0.1, slope="unit")
    assert torch.autograd.grad(unit[0, 0], shift)[0].item() == pytest.approx(-2e-6 / 0.1)


def test_torch_func_and_checkpoint_give_the_same() -> None:
    model, v = net(), on_ball()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    aim = normal(20, 3, seed=3)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        field = lambda x: ball(x, 0.5) + torch.func.functional_call(model, weights, (x,))[:, 0]  # noqa: E731
        return (attach(field, v) - aim).square().sum()

    functional = torch.func.grad(loss)(weights)
    loss(dict(model.named_parameters())).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(functional[name], p.grad)
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    def field(x: Tensor) -> Tensor:
        hidden: Tensor = checkpoint(model, x, use_reentrant=False)
        return ball(x, 0.5) + hidden[:, 0]

    (attach(field, v) - aim).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name])


def test_outside_of_gradient_mode_nothing_is_evaluated() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError

    v = on_ball()
    with torch.no_grad():
        copy = attach(never, v)
    assert torch.equal(copy, v)
    assert copy.data_ptr() != v.data_ptr()
    with torch.inference_mode():
        vertices, _ = extract_surface(ball, resolution=8, newton_steps=1)
    assert len(vertices)


# ---- extract_surface ----


def test_the_volume_of_a_ball_follows_its_radius() -> None:
    radius = number(0.5)
    v, faces = extract_surface(lambda x: ball(x, radius), resolution=48, newton_steps=2)
    assert is_closed(faces)
    (slope,) = torch.autograd.grad(volume(v, faces), radius)
    assert slope.item() == pytest.approx(4 * math.pi * 0.25, rel=5e-3)


def test_the_volume_of_a_torus_follows_both_radii() -> None:
    large, small = number(0.5), number(0.2)
    v, faces = extract_surface(lambda x: torus(x, large, small), resolution=64)
    by_large, by_small = torch.autograd.grad(volume(v, faces), (large, small))
    assert by_large.item() == pytest.approx(2 * math.pi**2 * 0.04, rel=2e-2)
    assert by_small.item() == pytest.approx(4 * math.pi**2 * 0.5 * 0.2, rel=2e-2)


def test_newton_steps_bring_vertices_onto_the_surface() -> None:
    field = field_of(net())
    off = [
        field(extract_surface(field, resolution=10, bounds=(-2.0, 2.0), newton_steps=k)[0]).abs().max().item()
        for k in range(4)
    ]
    assert off[0] > 1e-3
    assert off[1] < 0.3 * off[0]
    assert off[3] < 1e-8
    level = extract_surface(field, resolution=10, bounds=(-2.0, 2.0), level=0.2, newton_steps=4)[0]
    torch.testing.assert_close(field(level), torch.full((len(level),), 0.2, dtype=torch.float64))


def test_a_newton_step_is_no_longer_than_a_cell() -> None:
    steep = lambda x: torch.sign(x[:, 0] - 0.011) + 1e-3 * (x[:, 0] - 0.011)  # noqa: E731 - all but flat, with a jump
    plain = extract_surface(steep, resolution=9)[0]
    moved = extract_surface(steep, resolution=9, newton_steps=1)[0]
    far = torch.linalg.vector_norm(moved - plain, dim=1)
    assert far.max() <= 0.25 + 1e-6
    assert far.min() > 0.01


def test_is_marching_cubes_on_the_grid() -> None:
    sizes = []

    def field(x: Tensor) -> Tensor:
        sizes.append((len(x), torch.is_grad_enabled()))
        return torus(x, 0.5, 0.25)

    v, faces = extract_surface(field, resolution=11, bounds=(-0.8, 1.0), chunk=100)
    axis = torch.linspace(-0.8, 1.0, 11, dtype=v.dtype)
    values = torus(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1), 0.5, 0.25)
    expected, same = marching_cubes(values, spacing=0.18, origin=-0.8)
    torch.testing.assert_close(v, expected)
    assert torch.equal(faces, same)
    of_grid = [n for n, grad in sizes if not grad]
    assert sum(of_grid) >= 1331
    assert max(of_grid) <= 100
    assert [n for n, grad in sizes if grad] == [len(v)]  # one evaluation with a graph, at the vertices


def test_topology_may_change_on_the_way() -> None:
    """Two balls whose distance is learned until they are one: the mesh's pieces follow."""
    apart = number(0.5)

    def pair(x: Tensor) -> Tensor:
        ends = (x - apart * x.new_tensor([s, 0.0, 0.0]) for s in (1.0, -1.0))
        return torch.minimum(*(torch.linalg.vector_norm(end, dim=1) for end in ends)) - 0.3

    optimizer = torch.optim.Adam([apart], 0.05)
    counts = []
    for _ in range(12):
        v, faces = extract_surface(pair, resolution=24)
        counts.append(len(v) - len(faces) // 2)  # 2 for each ball
        optimizer.zero_grad()
        v[:, 0].square().mean().backward()
        optimizer.step()
    assert counts[0] == 4
    assert counts[-1] == 2


def test_no_surface_has_no_gradient_and_no_error() -> None:
    radius = number(0.5)
    v, faces = extract_surface(lambda x: ball(x, radius) + 5, resolution=6, newton_steps=2)
    assert v.shape == faces.shape == (0, 3)
    v.sum().backward()
    assert radius.grad is not None
    assert radius.grad.item() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_follows_the_dtype_of_a_module(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    decoder = DeepSDF(0, (8,)).to(dtype)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == dtype
            return ball(x, 0.6) + 0.01 * self.decoder(x, x[:, :0])

    v, faces = extract_surface(Field(), resolution=10, newton_steps=1)
    assert v.dtype == dtype
    assert len(faces) > 50
    v.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in decoder.parameters())
    closed = extract_surface(lambda x: ball(x, 0.6) + 0.01 * decoder(x, x[:, :0]), resolution=10)[0]
    assert closed.dtype == dtype  # no module says it: the precision that it takes


def test_the_output_says_the_dtype() -> None:
    v, _ = extract_surface(lambda x: ball(x.double(), 0.5), resolution=10)
    assert v.dtype == torch.float64


# ---- bad input ----


def test_names_the_bad_argument() -> None:
    for options, message in (
        ({"resolution": 1}, r"resolution must be at least 2, got 1"),
        ({"bounds": (1.0, 1.0)}, r"bounds must increase and be finite, got \(1\.0, 1\.0\)"),
        ({"bounds": (-math.inf, 1.0)}, r"bounds must increase and be finite"),
        ({"slope": "exact"}, r'slope must be "implicit" or "unit", got \'exact\''),
        ({"newton_steps": -1}, r"newton_steps must be at least 0, got -1"),
        ({"chunk": 0}, r"chunk must be at least 1, got 0"),
        ({"level": math.inf}, r"level must be finite, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            extract_surface(ball, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"resolution must be an integer, got 8\.0"):
        extract_surface(ball, resolution=8.0)  # type: ignore[arg-type]
    v = on_ball()
    for options, message in (
        ({"min_slope": 0.0}, r"min_slope must be positive and finite, got 0\.0"),
        ({"slope": None}, r'slope must be "implicit" or "unit", got None'),
    ):
        with pytest.raises(ValueError, match=message):
            attach(ball, v, **options)  # type: ignore[arg-type]
    for bad, error, message in (
        (v[:, :2], ValueError, r"vertices must be \(N, 3\), got shape \(20, 2\)"),
        (v * torch.nan, ValueError, r"vertices must be finite, got 60 of 60"),
        (v.long(), TypeError, r"vertices must be floating point, got torch\.int64"),
    ):
        with pytest.raises(error, match=message):
            attach(ball, bad)


def test_says_what_a_field_must_give() -> None:
    v = on_ball()
    for field, message in (
        (lambda x: ball(x)[:, None], r"field must map \(N, 3\) to \(N,\), got \(\d+, 1\) for \(\d+, 3\)"),
        (lambda x: x, r"field must map \(N, 3\) to \(N,\), got \(\d+, 3\)"),
        (lambda x: ball(x).tolist(), r"field must map \(N, 3\) to \(N,\), got list"),
        (lambda x: ball(x) > 0, r"field must map \(N, 3\) to \(N,\), floating point, got torch\.bool"),
    ):
        with pytest.raises(ValueError, match=message):
            extract_surface(field)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            attach(field, v)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"field must give finite values on the grid: .* got 1 of 8 values"):
        extract_surface(lambda x: torch.where(x.sum(1) > 0.5, torch.nan, ball(x)), resolution=2, bounds=(-0.5, 0.5))
    with pytest.raises(ValueError, match=r"field must be differentiable in its points, got values without a graph"):
        attach(lambda x: ball(x).detach(), v)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # of the field's own
        extract_surface(nn.Linear(4, 1))


def test_randomness_is_the_callers() -> None:
    state = torch.get_rng_state()
    extract_surface(ball, resolution=8)
    assert torch.equal(torch.get_rng_state(), state)
