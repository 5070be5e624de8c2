"""Encoder, decoder and the operator network between two function spaces."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating
from throughline.physics.operators.function_space import FunctionSpace, finite
from throughline.physics.operators.linear_maps import Constant, LinearMap, grouped, shown
from throughline.physics.operators.transfers import transfer

__all__ = ["Decoder", "Encoder", "OperatorNetwork"]


class Encoder(nn.Module):
    """The L² projection onto a space, M c = b with b_i = ∫ f φ_i: the E of arXiv 2410.01065.

    One sparse decomposition, made once, on the CPU and in float64; a batch is one solution with many right-hand sides,
    and backward is another.

    Args:
        space: onto which.
        source: the space of the functions, perhaps on another mesh, of the same number of components; without it,
            functions come as values at ``space.quadrature_points``.

    Raises:
        TypeError: a space that is none.
        ValueError: at the call, a wrong shape or values that are not finite.

    >>> import skfem
    >>> from throughline.physics.operators import hierarchy
    >>> coarse, fine = hierarchy(skfem.MeshTri(), 2)
    >>> c = coarse.interpolate(lambda x: x[:, 0])
    >>> torch.allclose(Encoder(fine, coarse)(c), fine.coordinates[:, 0])
    True
    """

    def __init__(self, space: FunctionSpace, source: FunctionSpace | None = None) -> None:
        super().__init__()
        _check_space(space, "space")
        self.space, self.source = space, source
        self._load, self._solver = space._load, space._solver
        if source is not None:
            _check_space(source, "source")
            if source.components != space.components:
                raise ValueError(f"source must have the components of space, got {source} for {space}")
            self._load = LinearMap(space.load @ source.values_at(space.quadrature_points, nearest=True))

    def forward(self, values: Tensor) -> Tensor:
        """``(..., source.dim)``, or ``(..., Q)`` and ``(..., Q, components)`` without a source, to ``(..., dim)``."""
        check_floating("values", values)
        if self.source is None:
            return self.space.project(values)
        self.source.check(values, "values")
        return self._solver(self._load(finite(values, "values")))


class Decoder(nn.Module):
    """From coefficients to values: the D of arXiv 2410.01065, a sparse matrix Ψ with Ψ_pj = ψ_j(x_p), made once.

    Args:
        space: of the coefficients.
        points: ``(p, d)``, inside of the mesh; or another space, perhaps on another mesh, whose nodes are meant: of the
            same number of components the result is its coefficients (`prolongation`). Nodes outside are served by the
            nearest cell.

    Raises:
        TypeError: neither.
        ValueError: points outside of the mesh; at the call, a wrong shape.

    >>> import skfem
    >>> space = FunctionSpace(skfem.MeshTri().refined(2))
    >>> Decoder(space, torch.tensor([[0.3, 0.4]]))(space.interpolate(lambda x: x.sum(1)))
    tensor([0.7000], dtype=torch.float64)
    """

    def __init__(self, space: FunctionSpace, points: Tensor | FunctionSpace) -> None:
        super().__init__()
        _check_space(space, "space")
        self.space = space
        if isinstance(points, FunctionSpace):
            matrix, channels = transfer(space, points)
            self._components = channels if channels > 1 else None
        elif isinstance(points, Tensor):
            matrix, self._components = space.values_at(points), space.components
        else:
            raise TypeError(f"points must be a tensor or a FunctionSpace, got {type(points).__name__}")
        self._map = LinearMap(matrix)

    def forward(self, coefficients: Tensor) -> Tensor:
        """``(..., dim)`` to ``(..., p)``, ``(..., p, components)`` or ``(..., points.dim)``."""
        self.space.check(coefficients)
        values = self._map(coefficients)
        return values if self._components is None else grouped(values, self._components)


class OperatorNetwork(nn.Module):
    """A processor between two spaces whose constrained unknowns are the boundary values, to the last bit.

    S = D ∘ P ∘ E of arXiv 2410.01065 between coefficients: c = free · P(·) + lift. There is no penalty and nothing
    to be learned at the boundary. If the input space is another one, its function is evaluated at the output space's
    nodes.

    Args:
        input_space: of the coefficients that come in.
        output_space: of those that go out; its ``constrained`` says where values are prescribed.
        processor: any module from ``(..., output_space.dim, channels)`` to ``(..., output_space.dim, 1)``; one channel,
            or the components of a vector-valued function that goes into a scalar space.
        boundary: the prescribed values: of every constrained coefficient, or a function of points ``(n, d)``, float64,
            as in `FunctionSpace.interpolate`. They are kept in float64 and rounded to the dtype of the result, which
            is that of the coefficients.

    Raises:
        TypeError: a space or processor that is none.
        ValueError: boundary values that are not finite; at the call, a wrong shape in or out of the processor.

    >>> import skfem
    >>> from throughline.physics.operators import MultigridProcessor, hierarchy
    >>> spaces = hierarchy(skfem.MeshTri.init_lshaped(), 3, dirichlet="all")
    >>> net = OperatorNetwork(spaces[-1], spaces[-1], MultigridProcessor(spaces, hidden=16), boundary=0.1)
    >>> u = net(spaces[-1].project(lambda x: x[:, 0].sin()).float())
    >>> u.shape, u[spaces[-1].constrained].unique()
    (torch.Size([65]), tensor([0.1000], grad_fn=...))
    """

    free: Tensor

    def __init__(
        self,
        input_space: FunctionSpace,
        output_space: FunctionSpace,
        processor: nn.Module,
        *,
        boundary: float | Callable[[Tensor], Tensor] = 0.0,
    ) -> None:
        super().__init__()
        _check_space(input_space, "input_space")
        _check_space(output_space, "output_space")
        if not isinstance(processor, nn.Module):
            raise TypeError(f"processor must be an nn.Module, got {type(processor).__name__}")
        self.input_space, self.output_space, self.processor = input_space, output_space, processor
        self._transfer, self._channels = None, 1
        if input_space is not output_space:
            matrix, self._channels = transfer(input_space, output_space)
            self._transfer = LinearMap(matrix)
        values = (
            output_space.interpolate(boundary).detach().double()
            if callable(boundary)
            else torch.full((output_space.dim,), float(boundary), dtype=torch.float64, device="cpu")
        )
        held = output_space.constrained
        finite(values[held], "boundary")
        self._lift = Constant(torch.where(held, values, 0))
        self.register_buffer("free", ~held, persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        """``(..., input_space.dim)`` to ``(..., output_space.dim)``."""
        self.input_space.check(coefficients)
        x = coefficients if self._transfer is None else self._transfer(coefficients)
        made = self.processor(grouped(x, self._channels))
        wanted = (*coefficients.shape[:-1], self.output_space.dim, 1)
        if made.shape != wanted:
            raise ValueError(f"processor must return shape {wanted}, got {shown(made)}")
        made = made.squeeze(-1).to(coefficients.dtype)  # which a processor under autocast may not keep
        return torch.where(self.free, made, self._lift.like(made))


def _check_space(space: FunctionSpace, name: str) -> None:
    if not isinstance(space, FunctionSpace):
        raise TypeError(f"{name} must be a FunctionSpace, got {type(space).__name__}")
