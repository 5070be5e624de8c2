"""The machinery of `throughline.core.sorting`: comparators, layers of a network, and sweeps through them."""

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = [
    "Distribution",
    "Network",
    "Relaxation",
    "Sort",
    "Sweep",
    "accurate",
    "largest",
    "layers",
    "pairs",
    "probability",
]

Distribution = Literal["cauchy", "reciprocal", "optimal", "logistic", "gaussian", "logistic_phi"]
Network = Literal["odd_even", "bitonic"]
ONCE = "a relaxed sort is differentiable once: the gradient of its gradient is not implemented"


class Relaxation(NamedTuple):
    steepness: float
    distribution: Distribution
    art_lambda: float


class Layer(NamedTuple):
    """Comparators of the wires start to stop, cut into blocks: each block's lower half meets its upper half."""

    start: int
    stop: int
    block: int
    mirrored: bool  # the first wire of a block meets the last


# The wires are the first dimension and the problems the last: a layer's comparators are then strided views of the
# wires, and every elementwise kernel runs along contiguous memory.


class Sort(torch.autograd.Function):
    """Wires (n, 1, problems) through the network: sorted values, and α and b - a (L, comparators, 1, problems)."""

    @staticmethod
    def forward(wires: Tensor, network: Network, relaxation: Relaxation) -> tuple[Tensor, Tensor, Tensor]:
        n = wires.shape[0]
        table = layers(n, network)
        x = _padded(wires, network)
        alpha = x.new_ones(len(table), x.shape[0] // 2, *x.shape[1:])
        difference = torch.zeros_like(alpha)
        for depth, layer in enumerate(table):
            low, high = _read(x, layer)
            a, d = _comparators(alpha, depth, low), _comparators(difference, depth, low)
            d.copy_(high - low)
            a.copy_(probability(d, relaxation))
            _fill_absent(a, layer, n, 1.0)
            _write(x, layer, *_mix(low, high, a))
        return x[:n], alpha, difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.arguments = inputs[1:]
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor, grad_alpha: Tensor, _: Any) -> tuple[Tensor, None, None]:
        return SortGradient.apply(grad_values, grad_alpha, *ctx.saved_tensors, *ctx.arguments), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _folded(Sort, info.batch_size, in_dims, args)


class SortGradient(torch.autograd.Function):
    """The gradient of `Sort` in the wires."""

    @staticmethod
    def forward(
        grad_values: Tensor,
        grad_alpha: Tensor,
        alpha: Tensor,
        difference: Tensor,
        network: Network,
        relaxation: Relaxation,
    ) -> Tensor:
        n = grad_values.shape[0]
        table = layers(n, network)
        slope = _slope(difference, alpha, relaxation)
        grad = _padded(grad_values, network)
        for depth in reversed(range(len(table))):
            low, high = _read(grad, table[depth])
            a, d, s, g = (_comparators(t, depth, low) for t in (alpha, difference, slope, grad_alpha))
            # min = α a + (1 - α) b and max = (1 - α) a + α b, so that α pulls by (b - a)(∂max - ∂min)
            through = ((high - low) * d + g) * s
            _fill_absent(through, table[depth], n, 0.0)
            low, high = _mix(low, high, a)
            _write(grad, table[depth], low - through, high + through)
        return grad[:n]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _folded(SortGradient, info.batch_size, in_dims, args)


class Sweep(torch.autograd.Function):
    """Wires (n, k, problems) through fixed comparators: P u, or Pᵀ u with the layers backwards (each is symmetric).

    The second result is b - a at every comparator, for the gradient in α; without ``learned`` there is none.
    """

    @staticmethod
    def forward(
        wires: Tensor, alpha: Tensor, network: Network, transpose: bool, learned: bool
    ) -> tuple[Tensor, Tensor]:
        n = wires.shape[0]
        table = layers(n, network)
        x = _padded(wires, network)
        difference = x.new_empty(len(table) if learned else 0, x.shape[0] // 2, *x.shape[1:])
        for depth in range(len(table))[:: -1 if transpose else 1]:
            low, high = _read(x, table[depth])
            if learned:
                _comparators(difference, depth, low).copy_(high - low)
            _write(x, table[depth], *_mix(low, high, _comparators(alpha, depth, low)))
        return x[:n], difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, alpha, *ctx.arguments = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(alpha, output[1])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor, Tensor | None, None, None, None]:
        grad, grad_alpha = SweepGradient.apply(grad_output, *ctx.saved_tensors, *ctx.arguments)  # type: ignore[no-untyped-call]
        return grad, grad_alpha if ctx.arguments[-1] else None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _folded(Sweep, info.batch_size, in_dims, args)


class SweepGradient(torch.autograd.Function):
    """The gradient of `Sweep` in the wires and, with ``learned``, in α."""

    @staticmethod
    def forward(
        grad_output: Tensor, alpha: Tensor, difference: Tensor, network: Network, transpose: bool, learned: bool
    ) -> tuple[Tensor, Tensor]:
        table = layers(grad_output.shape[0], network)
        grad = _padded(grad_output, network)
        grad_alpha = alpha.new_zeros(len(difference), *alpha.shape[1:])
        for depth in range(len(table))[:: 1 if transpose else -1]:
            low, high = _read(grad, table[depth])
            if learned:
                pull = (high - low) * _comparators(difference, depth, low)
                _comparators(grad_alpha, depth, low).copy_(pull.sum(-2, keepdim=True))
            _write(grad, table[depth], *_mix(low, high, _comparators(alpha, depth, low)))
        return grad[: grad_output.shape[0]], grad_alpha

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _folded(SweepGradient, info.batch_size, in_dims, args)


def _folded(function: Any, size: int, dims: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The rule of vmap for all of them: the dimension that is mapped over goes in with the problems, which are last."""
    inputs = [
        (x.unsqueeze(-1).expand(*x.shape, size) if dim is None else x.movedim(dim, -1)).flatten(-2)
        if isinstance(x, Tensor)
        else x
        for x, dim in zip(args, dims, strict=True)
    ]
    results = tree_map(lambda r: r.unflatten(-1, (r.shape[-1] // size, size)), function.apply(*inputs))
    return results, tree_map(lambda r: r.dim() - 1, results)


def layers(n: int, network: Network) -> tuple[Layer, ...]:
    """The layers of a network over n wires, cached; the bitonic one is padded to a power of two."""
    return _build(n, network) if torch.compiler.is_compiling() else _cached(n, network)


def _build(n: int, network: Network) -> tuple[Layer, ...]:
    if network == "odd_even":
        return tuple(Layer(depth % 2, n - (n - depth) % 2, 2, False) for depth in range(n))
    size = _wire_count(n, network)
    table = []
    for doubling in range(1, size.bit_length()):
        table.append(Layer(0, size, 2**doubling, True))
        table.extend(Layer(0, size, 2**power, False) for power in range(doubling - 1, 0, -1))
    return tuple(table)


_cached = lru_cache(maxsize=256)(_build)


def pairs(layer: Layer) -> tuple[tuple[int, int], ...]:
    """The (low, high) wires of a layer's comparators."""
    start, stop, block, mirrored = layer
    blocks, lower = range(start, stop, block), range(block // 2)
    return tuple((b + i, b + (block - 1 - i if mirrored else block // 2 + i)) for b in blocks for i in lower)


def _wire_count(n: int, network: Network) -> int:
    return n if network == "odd_even" else 1 << (n - 1).bit_length()


def _padded(wires: Tensor, network: Network) -> Tensor:
    """A copy that may be written to, with as many wires as the network has; those from n on meet nobody."""
    n = wires.shape[0]
    x = wires.new_zeros(_wire_count(n, network), *wires.shape[1:])
    x[:n] = wires
    return x


def _halves(x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    start, stop, block, _ = layer
    halves = x[start:stop].view((stop - start) // block, 2, block // 2, *x.shape[1:])
    return halves[:, 0], halves[:, 1]


def _read(x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """The wires (a, b) of a layer's comparators, each ``(blocks, block / 2, ...)``."""
    low, high = _halves(x, layer)
    return low, high.flip(1) if layer.mirrored and layer.block > 2 else high


def _write(x: Tensor, layer: Layer, low: Tensor, high: Tensor) -> None:
    low_, high_ = _halves(x, layer)
    low_.copy_(low)
    high_.copy_(high.flip(1) if layer.mirrored and layer.block > 2 else high)


def _comparators(table: Tensor, depth: int, low: Tensor) -> Tensor:
    """A layer's entries of a table (L, comparators, ...), shaped like its wires."""
    blocks, half = low.shape[:2]
    return table[depth, : blocks * half].view(blocks, half, *table.shape[2:])


def _fill_absent(entries: Tensor, layer: Layer, n: int, value: float) -> None:
    # only the block that wire n cuts has comparators between a wire and none
    cut, inside = divmod(n, layer.block)
    if n < layer.stop and inside:
        half = layer.block // 2
        absent = slice(layer.block - inside) if layer.mirrored else slice(max(inside - half, 0), None)
        entries[cut, absent] = value


def _mix(low: Tensor, high: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    return torch.lerp(high, low, alpha), torch.lerp(low, high, alpha)  # exact at α = 0 and 1, never outside [a, b]


def probability(difference: Tensor, relaxation: Relaxation) -> Tensor:
    steepness, distribution, art_lambda = relaxation
    v = difference * steepness
    if distribution == "cauchy":
        return v.atan() / math.pi + 0.5
    if distribution == "reciprocal":
        v = v.clamp(-largest(v.dtype), largest(v.dtype))
        return 0.5 + 0.5 * v / (2 + v.abs())
    if distribution == "optimal":
        tail = 1 / (16 * v.abs().clamp_min(0.25))
        return torch.where(v.abs() <= 0.25, v + 0.5, torch.where(v > 0, 1 - tail, tail))
    if distribution == "logistic":
        return v.sigmoid()
    if distribution == "gaussian":
        normal: Tensor = torch.special.ndtr(v)
        return normal
    return (v / (difference.abs() + 1e-10) ** art_lambda).sigmoid()


def _slope(difference: Tensor, alpha: Tensor, relaxation: Relaxation) -> Tensor:
    """dα/d(b - a)."""
    steepness, distribution, art_lambda = relaxation
    v = difference * steepness
    if distribution == "cauchy":
        return steepness / (math.pi * (1 + v.square()))
    if distribution == "reciprocal":
        return steepness / (2 + v.abs()).square()
    if distribution == "optimal":
        return steepness / (16 * v.square().clamp_min(1 / 16))
    if distribution == "logistic":
        return steepness * alpha * (1 - alpha)
    if distribution == "gaussian":
        return steepness / math.sqrt(2 * math.pi) * (-v.square() / 2).exp()
    size = difference.abs() + 1e-10
    return steepness * alpha * (1 - alpha) * size**-art_lambda * (1 - art_lambda * difference.abs() / size)


def accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def largest(dtype: torch.dtype) -> float:
    # differences of two such numbers must not overflow in the dtype that computes them
    return min(torch.finfo(dtype).max, torch.finfo(accurate(dtype)).max / 4)
