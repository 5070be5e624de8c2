"""Networks that are convex in their input ("What's in a Prior? Learned Proximal Networks", arXiv 2310.14344, sec. 3.1).

z₁ = g(H₀x + b₀), z_{k+1} = g(W_k z_k + H_k x + b_k), ψ(x) = wᵀz_K + (μ/2)‖x‖², with every W_k and w ≥ 0 and g a
softplus, which is convex, non-decreasing and smooth.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import floordiv
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from throughline.core.checks import check_floating
from throughline.physics.proximal.convolution import channels_last, convolved_back

__all__ = ["InputConvexCNN", "InputConvexMLP", "keep_convex"]

LOG_START, LOG_SPREAD = -10.0, 0.1  # of the logarithm of a convolutional network's non-negative weights


class InputConvexMLP(nn.Module):
    """A multilayer perceptron that is convex in its input: ``(..., in_features)`` to ``(...)``.

    "What's in a Prior? Learned Proximal Networks for Inverse Problems" (arXiv 2310.14344). ``convex.0`` and all of
    ``skip`` are free; ``convex.1`` and what follows must stay non-negative, which `keep_convex` sees to.

    Args:
        in_features: d, at least 1.
        hidden: width, at least 1.
        depth: hidden layers with non-negative weights, at least 1.
        beta: sharpness of the softplus log(1 + exp(βt))/β, positive.
        strong_convexity: μ ≥ 0 of the term (μ/2)‖x‖²; with μ > 0 the gradient of ψ can be inverted everywhere.

    Raises:
        ValueError: an argument is out of range; in `forward`, another last dimension than d.
        TypeError: in `forward`, an input that is not floating point.

    >>> InputConvexMLP(2)(torch.randn(7, 2)).shape
    torch.Size([7])
    """

    def __init__(
        self, in_features: int, hidden: int = 50, *, depth: int = 4, beta: float = 10.0, strong_convexity: float = 0.0
    ) -> None:
        super().__init__()
        _check_sizes(in_features=in_features, hidden=hidden, depth=depth)
        _check_shape(beta, strong_convexity)
        self.in_features, self.beta, self.strong_convexity = in_features, beta, strong_convexity
        self.convex = nn.ModuleList([nn.Linear(in_features, hidden)])
        self.convex.extend(nn.Linear(hidden, hidden, bias=False) for _ in range(depth))
        self.convex.append(nn.Linear(hidden, 1, bias=False))
        self.skip = nn.ModuleList(nn.Linear(in_features, hidden) for _ in range(depth))
        self.skip.append(nn.Linear(in_features, 1))
        self.project_()

    def forward(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x must be (..., {self.in_features}), got shape {tuple(x.shape)}")
        first, *inner, last = self.convex
        *skips, shortcut = self.skip
        z = F.softplus(first(x), self.beta)
        for layer, skip in zip(inner, skips, strict=True):
            z = F.softplus(layer(z) + skip(x), self.beta)
        # products with vectors: the gradient of a linear layer to one feature lies in memory the wrong way round
        bias: Any = shortcut.bias
        # ∇ψ does not depend on the bias; DistributedDataParallel, for one, still waits for its gradient: zero
        slope = _weight(shortcut)[0] + 0 * bias
        value: Tensor = z @ _weight(last)[0] + x @ slope + bias[0]
        return value + self.strong_convexity / 2 * x.square().sum(-1) if self.strong_convexity else value

    def project_(self) -> Self:
        """Set what is negative among the weights that must not be to zero, in place."""
        _clamp(self.convex)
        return self

    def extra_repr(self) -> str:
        return f"beta={self.beta}, strong_convexity={self.strong_convexity}"


class InputConvexCNN(nn.Module):
    """A convolutional network that is convex in an image of one size: ``(B, C, S, S)`` to ``(B,)``.

    "What's in a Prior? Learned Proximal Networks" (arXiv 2310.14344): strides (2, 1, 2), hidden 64,
    β 10 and μ 0.02 are the authors' for 28 pixels, (2, 1, 2, 1, 2), 256, 100 and 2e-6 for 128. Every stage is a 3 × 3
    convolution with non-negative kernels of what is before it, plus a free one of the image, resized. The authors write
    α‖x‖² where this has (μ/2)‖x‖²: μ = 2α. ``convex.0`` and all of ``skip`` are free; the rest of ``convex`` must stay
    non-negative, and starts at exp(N(−10, 0.1²)).

    The network takes no other size. A larger image can be cut into overlapping patches whose results are averaged; the
    average is no proximal operator any more. Time and memory are O(S²).

    Args:
        in_channels: C, at least 1.
        image_size: S, a multiple of the product of the strides.
        hidden: channels of the stages, at least 1.
        strides: of the stages, at least one, each at least 1; a number is that of a single stage.
        head: features behind the stages, at least 1.
        beta: sharpness of the softplus, positive.
        strong_convexity: μ ≥ 0.

    Raises:
        ValueError: an argument is out of range; in `forward`, another shape than ``(B, C, S, S)``.
        TypeError: in `forward`, an input that is not floating point.

    >>> InputConvexCNN(1, 28)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        *,
        hidden: int = 64,
        strides: int | Sequence[int] = (2, 1, 2),
        head: int = 64,
        beta: float = 10.0,
        strong_convexity: float = 0.02,
    ) -> None:
        super().__init__()
        _check_sizes(in_channels=in_channels, image_size=image_size, hidden=hidden, head=head)
        _check_shape(beta, strong_convexity)
        strides = (strides,) if isinstance(strides, int) else tuple(strides)
        if not strides or min(strides) < 1:
            raise ValueError(f"strides must be at least one, each at least 1, got {strides}")
        if image_size % math.prod(strides):
            raise ValueError(
                f"image_size must be a multiple of the product of strides, {math.prod(strides)}, got {image_size}"
            )
        self.in_channels, self.image_size, self.beta = in_channels, image_size, beta
        self.strong_convexity = strong_convexity
        self.sides = tuple(accumulate(strides, floordiv, initial=image_size))  # S₀ … S_last
        last = self.sides[-1] ** 2

        def convolution(channels: int, stride: int, bias: bool) -> nn.Module:
            return nn.Conv2d(channels, hidden, 3, stride, padding=1, bias=bias)

        self.convex = nn.ModuleList([convolution(in_channels, 1, True)])
        self.convex.extend(convolution(hidden, stride, False) for stride in strides)
        self.convex.extend([nn.Linear(hidden * last, head, bias=False), nn.Linear(head, 1, bias=False)])
        self.skip = nn.ModuleList(convolution(in_channels, stride, True) for stride in strides)
        self.skip.append(nn.Linear(in_channels * last, head))
        with torch.no_grad():
            for layer in list(self.convex)[1:]:
                nn.init.normal_(_weight(layer), LOG_START, LOG_SPREAD).exp_()

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        first, *stages, head, last = self.convex
        *skips, shortcut = self.skip
        z = F.softplus(first(x), self.beta)
        for layer, skip, side in zip(stages, skips, self.sides, strict=False):
            z = F.softplus(layer(z) + skip(_resized(x, side)), self.beta)
        z = F.softplus(head(z.flatten(1)) + shortcut(_resized(x, self.sides[-1]).flatten(1)), self.beta)
        value = z @ _weight(last)[0]
        return value + self.strong_convexity / 2 * x.square().sum((1, 2, 3)) if self.strong_convexity else value

    def gradient(self, x: Tensor) -> Tensor:
        """∇ψ(x) in the shape of x, by the chain rule written out: quicker to differentiate than autograd's.

        Errors are those of `forward`.
        """
        self._check(x)
        first, *stages, head, last = self.convex
        *skips, shortcut = self.skip
        image = channels_last(x)
        images = [_resized(image, side) for side in self.sides]
        before = [first(image)]  # the activations
        for layer, skip, small in zip(stages, skips, images, strict=False):
            before.append(layer(F.softplus(before[-1], self.beta)) + skip(small))
        z = F.softplus(before[-1], self.beta)
        top = head(z.flatten(1)) + shortcut(images[-1].flatten(1))
        g = _weight(last) * self._slope(top)
        found = [(g @ _weight(shortcut)).view_as(images[-1])]  # of the images, the smallest first
        g = channels_last((g @ _weight(head)).view_as(z)) * self._slope(before.pop())
        for layer, skip, small in zip(stages[::-1], skips[::-1], images[-2::-1], strict=True):
            found.append(convolved_back(g, skip, small))
            g = convolved_back(g, layer, before[-1]) * self._slope(before.pop())
        found.append(convolved_back(g, first, image) + self.strong_convexity * image)
        total = found[-1]
        for part in found[:-1]:
            total = total + _resized_back(part, total.shape)
        return total

    def _slope(self, t: Tensor) -> Tensor:
        """Of the softplus at t."""
        return (self.beta * t).sigmoid()

    def _check(self, x: Tensor) -> None:
        check_floating("x", x)
        wanted = (self.in_channels, self.image_size, self.image_size)
        if x.ndim != 4 or x.shape[1:] != wanted:
            raise ValueError(f"x must be (B, {', '.join(map(str, wanted))}), got shape {tuple(x.shape)}")

    def project_(self) -> Self:
        """Set what is negative among the weights that must not be to zero, in place."""
        _clamp(self.convex)
        return self

    def extra_repr(self) -> str:
        return f"image_size={self.image_size}, beta={self.beta}, strong_convexity={self.strong_convexity}"


def keep_convex(module: nn.Module, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Call ``module.project_()`` after every step of the optimizer (arXiv 2310.14344); the handle ends it.

    Args:
        module: an input-convex network, a `LearnedProximalNetwork`, anything else with ``project_()``, or a module that
            holds such, as DistributedDataParallel does.
        optimizer: one that moves its parameters.

    Raises:
        TypeError: no ``project_`` is in the module.

    >>> psi = InputConvexMLP(2)
    >>> optimizer = torch.optim.SGD(psi.parameters(), 1.0)
    >>> handle = keep_convex(psi, optimizer)
    >>> psi(torch.randn(5, 2)).sum().backward()
    >>> optimizer.step()
    >>> bool((psi.convex[1].weight >= 0).all())
    True
    """
    holders = _projected(module)
    if not holders:
        raise TypeError(f"module must have a method project_, got {type(module).__name__}")

    def project(*_: Any) -> None:
        for holder in holders:
            holder.project_()

    return optimizer.register_step_post_hook(project)


def _projected(module: nn.Module) -> list[Any]:
    """The module, or those in it that have a method ``project_``."""
    if callable(getattr(module, "project_", None)):
        return [module]
    return [holder for child in module.children() for holder in _projected(child)]


def _resized(x: Tensor, side: int) -> Tensor:
    """A smaller image; linear in x, hence a legal part of H."""
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def _resized_back(g: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of `_resized`, to the shape of what it was given."""
    if g.shape == shape:
        return g
    enlarged: Tensor = torch.ops.aten.upsample_bilinear2d_backward(g, g.shape[2:], shape, False)
    return enlarged


@torch.no_grad()
def _clamp(layers: Iterable[nn.Module]) -> None:
    for layer in list(layers)[1:]:  # the first sees x alone, and is free
        _weight(layer).clamp_(min=0)


def _weight(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    return weight  # type: ignore[no-any-return]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def _check_shape(beta: float, strong_convexity: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    if not 0 <= strong_convexity < math.inf:
        raise ValueError(f"strong_convexity must be at least 0 and finite, got {strong_convexity}")
