"""The mesh layer: a surface out of a field, and the field's gradient behind each of its vertices."""

import torch
from torch import Tensor

from throughline.core.checks import readable
from throughline.geometry.isosurface.checks import check_points, check_positive, count
from throughline.geometry.isosurface.cubes import marching_cubes
from throughline.geometry.isosurface.grid import Field, Grid, Slope, check_extraction, check_slope, evaluated

__all__ = ["attach", "extract_surface"]

MIN_SLOPE = 1e-2


def attach(
    field: Field,
    vertices: Tensor,
    *,
    level: float | Tensor = 0.0,
    slope: Slope = "implicit",
    min_slope: float = MIN_SLOPE,
) -> Tensor:
    """Vertices with the gradient of the surface that they lie on: the layer of DeepMesh (arXiv 2106.11795, theorem 1).

    The value is that of ``vertices``, bit for bit. Backwards a vertex moves along the normal of its surface alone,
    ∂v/∂θ = −(∇f / |∇f|²) ∂f/∂θ, for whatever θ the field depends on: as a graph, v = v₀ − d (f(v₀) − stop[f(v₀)]) with
    constants v₀ and d. The field is evaluated once, at the vertices, and differentiated once by its points; backward
    passes add that by θ.

    Args:
        field: maps points ``(N, 3)`` to values ``(N,)``, negative inside: a module, or any function of torch. Logits of
            an occupancy will do; probabilities are too flat away from their surface.
        vertices: ``(V, 3)``, on the surface or near it; no gradient goes to them.
        level: of the surface; a tensor gets a gradient too.
        slope: "implicit" takes ∇f / |∇f|² for d, which is exact for any field; "unit", as the authors' code does,
            ∇f / |∇f|, which is right for signed distances.
        min_slope: the least |∇f| that is divided by; where it vanishes the topology changes, and no derivative is.

    Returns:
        ``(V, 3)``, in the dtype and on the device of ``vertices``; outside of gradient mode a copy of them.

    Raises:
        TypeError: ``vertices`` is no floating point tensor.
        ValueError: another shape, values that are not finite, an unknown ``slope``, ``min_slope`` out of range, or a
            field that gives something else than one differentiable number for each point.

    >>> radius = torch.tensor(0.5, requires_grad=True)
    >>> v = attach(lambda x: x.norm(dim=-1) - radius, torch.tensor([[0.0, 0.0, 0.5]]))
    >>> torch.autograd.grad(v[0, 2], radius)  # the pole rises as the ball grows
    (tensor(1.),)
    """
    check_points("vertices", vertices)
    check_slope(slope)
    check_positive("min_slope", min_slope)
    start = vertices.detach()
    if not torch.is_grad_enabled():
        return start.clone()
    f, gradient = _value_and_gradient(field, start)
    rise = f.to(start.dtype) - level
    return start - _direction(gradient, slope, min_slope) * (rise - rise.detach())[:, None]


def extract_surface(
    field: Field,
    *,
    resolution: int = 64,
    bounds: tuple[float, float] = (-1.0, 1.0),
    level: float = 0.0,
    newton_steps: int = 0,
    slope: Slope = "implicit",
    chunk: int = 2**17,
) -> tuple[Tensor, Tensor]:
    """The surface of a field as a mesh, with gradients to all that the field depends on ("DeepMesh", arXiv 2106.11795).

    The field is sampled without gradients on a grid, `marching_cubes` finds the surface, and `attach` puts the field's
    gradient behind its vertices; so topology may change from one call to the next. Time grows with resolution³ by the
    evaluations of the field, memory with one number for each grid point and ``chunk`` evaluations; the gradient costs
    a few evaluations at the vertices. `SurfaceTracker` extracts again and again at less.

    Args:
        field: maps points ``(N, 3)`` to values ``(N,)``, negative inside. The grid has the dtype and device of a
            module's parameters; for other functions, the first precision that they accept.
        resolution: grid points along a side, at least 2.
        bounds: of the cube along each axis; the surface is open where it leaves it.
        level: of the surface.
        newton_steps: steps that bring vertices from their grid edges onto the surface, at most a cell each; without any
            they are off it by the square of the spacing.
        slope: as in `attach`.
        chunk: points of the grid that are evaluated at a time.

    Returns:
        Vertices ``(V, 3)`` in the dtype and on the device of the field's output, and faces ``(F, 3)`` int64; both are
        empty, with a gradient of zero, where there is no surface.

    Raises:
        ValueError: a field that gives something else than one finite number for each point, a ``resolution`` under 2,
            ``bounds`` that do not increase, or another argument out of range.

    >>> radius = torch.tensor(0.5, requires_grad=True)
    >>> v, faces = extract_surface(lambda x: x.norm(dim=-1) - radius, resolution=32)
    >>> a, b, c = v[faces].unbind(1)
    >>> volume = (a * torch.linalg.cross(b, c)).sum() / 6
    >>> (torch.autograd.grad(volume, radius)[0] / torch.pi).round(decimals=1)  # 4πr² at a half
    tensor(1.)
    """
    check_extraction(resolution, bounds, level, slope, chunk)
    count("newton_steps", newton_steps, 0)
    grid = Grid.of(field, resolution, bounds)
    values = grid.sample(field, chunk).view(3 * (resolution,))
    vertices, faces = marching_cubes(values, level, spacing=grid.spacing, origin=bounds[0])
    for _ in range(newton_steps):
        vertices = torch.cat([_newton(field, part, level, grid.spacing) for part in torch.split(vertices, chunk)])
    return attach(field, vertices, level=level, slope=slope), faces


def _value_and_gradient(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    """f at ``points`` with the graph of all that the field depends on, and ∇f by the points as a constant."""
    if not readable(points):  # autograd cannot be called within torch.func, whose own derivative nests
        f, pull, *_ = torch.func.vjp(lambda x: evaluated(field, x), points)
        with torch.no_grad():
            return f, pull(torch.ones_like(f))[0].detach()
    with torch.inference_mode(False), torch.enable_grad():
        x = points.clone().requires_grad_()
        f = evaluated(field, x)
        if not f.requires_grad:
            raise ValueError("field must be differentiable in its points, got values without a graph")
        (gradient,) = torch.autograd.grad(f.sum(), x, retain_graph=True, allow_unused=True, materialize_grads=True)
    return f if _ends_elsewhere(f, x) else f.detach(), gradient


def _ends_elsewhere(f: Tensor, x: Tensor) -> bool:
    """Whether the graph of ``f`` has other leaves than ``x``."""
    ahead, seen = [f.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if getattr(node, "variable", x) is not x:
                return True
            ahead += [following for following, _ in node.next_functions]
    return False


def _direction(gradient: Tensor, slope: str, min_slope: float) -> Tensor:
    length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp(min=min_slope)
    step: Tensor = gradient / (length if slope == "unit" else length.square())
    return step


def _newton(field: Field, points: Tensor, level: float, most: float) -> Tensor:
    f, gradient = _value_and_gradient(field, points)
    step = (f.detach() - level)[:, None] * _direction(gradient, "implicit", MIN_SLOPE)
    shorter = (most / torch.linalg.vector_norm(step, dim=1, keepdim=True)).clamp(max=1)
    moved: Tensor = points - step * shorter
    return moved
