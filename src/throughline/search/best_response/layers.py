"""Layers whose weights say how they would change with the hyperparameters.

"Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions"
(arXiv 1903.03088): Ŵ(λ) = W + (Vλ) ⊙ W_h and b̂(λ) = b + (Cλ) ⊙ b_h, gated by rows (section 3.2).
"""

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_floating

__all__ = ["BestResponseConv2d", "BestResponseLinear", "check_hyper"]

GATE_SCALE = 0.01  # standard deviation of V and C at the start: λ itself may be far from 0


class BestResponseLinear(nn.Linear):
    """A linear layer that responds to hyperparameters λ: y = Wx + b + (Vλ) ⊙ (W_h x) + (Cλ) ⊙ b_h (eqs. 7 and 8).

    Row i of W_h is scaled by (Vλ)ᵢ. With a λ for each sample this costs a second matrix product, and no weight is
    formed; with one λ for all samples Ŵ(λ) is formed once, at the cost of a plain layer. Growth is
    that of ``nn.Linear``.

    Args:
        in_features, out_features, bias, device, dtype: as of ``nn.Linear``.
        num_hyperparameters: n, at least 1.

    Attributes:
        weight, bias: W ``(out, in)`` and b ``(out,)``.
        response_weight, response_bias: W_h and b_h, of the same shapes.
        weight_gate, bias_gate: V and C, ``(out, n)``; normal with standard deviation 0.01 at the start.

    Raises:
        ValueError: ``num_hyperparameters`` is below 1; in `forward`, shapes that do not fit.
        TypeError: in `forward`, an input or λ that is not floating point.

    >>> layer = BestResponseLinear(8, 3, num_hyperparameters=2)
    >>> layer(torch.randn(5, 8), torch.randn(5, 2)).shape
    torch.Size([5, 3])
    """

    bias: nn.Parameter | None  # type: ignore[assignment]
    num_hyperparameters: int
    response_weight: nn.Parameter
    response_bias: nn.Parameter | None
    weight_gate: nn.Parameter
    bias_gate: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_hyperparameters: int,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        _add_response(self, num_hyperparameters)

    @classmethod
    def from_linear(cls, module: nn.Linear, num_hyperparameters: int) -> Self:
        """A layer with copies of a linear layer's W and b; with V = C = 0 it would give what that gives."""
        weight = module.weight
        made = cls(
            module.in_features,
            module.out_features,
            num_hyperparameters,
            bias=module.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        _copy(made, module)
        return made

    def forward(self, input: Tensor, hyper: Tensor) -> Tensor:  # type: ignore[override]
        """Map ``input`` ``(..., in)`` at λ to ``(..., out)``.

        Args:
            input: any leading dimensions; the first is the batch where λ differs by sample.
            hyper: λ, unconstrained, ``(n,)`` or ``(B, n)``. In a sequence ``(B, T, in)`` all steps get their sample's.
        """
        hyper = _check(self, input, hyper, least=2)
        gate, shift = _gates(hyper, self.weight_gate), _shift(self, hyper)
        if hyper.ndim == 1:
            weight = torch.addcmul(self.weight, gate[:, None], self.response_weight)
            return F.linear(input, weight, shift)
        middle = (len(hyper), *(1,) * (input.ndim - 2), self.out_features)
        if shift is not None and input.ndim == 2:  # the product is added to it: no pass of its own
            made, shift = torch.addmm(shift, input, self.weight.mT), None
        else:
            made = F.linear(input, self.weight)
        # made is in no gradient, so it can be written to; addcmul has a slower one
        made.add_(gate.view(middle) * F.linear(input, self.response_weight))
        return made if shift is None else made.add_(shift.view(middle))

    def squared_norm(self, hyper: Tensor) -> Tensor:
        """‖Ŵ(λ)‖² of the weights: λ ``(B, n)`` to ``(B,)``, or ``(n,)`` to a scalar; Ŵ(λ) is not formed."""
        return _squared_norm(self, hyper)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_hyperparameters={self.num_hyperparameters}"


class BestResponseConv2d(nn.Conv2d):
    """A convolution that responds to hyperparameters λ: `BestResponseLinear`, with gates by output channel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            of ``nn.Conv2d``.
        num_hyperparameters: n, at least 1.

    Attributes:
        weight, bias: W ``(out, in / groups, height, width)`` and b ``(out,)``.
        response_weight, response_bias: W_h and b_h, of the same shapes.
        weight_gate, bias_gate: V and C, ``(out, n)``; normal with standard deviation 0.01 at the start.

    Raises:
        ValueError: ``num_hyperparameters`` is below 1; in `forward`, shapes that do not fit.
        TypeError: in `forward`, an input or λ that is not floating point.

    >>> layer = BestResponseConv2d(3, 4, 3, num_hyperparameters=2, padding=1)
    >>> layer(torch.randn(5, 3, 8, 8), torch.randn(5, 2)).shape
    torch.Size([5, 4, 8, 8])
    """

    bias: nn.Parameter | None
    num_hyperparameters: int
    response_weight: nn.Parameter
    response_bias: nn.Parameter | None
    weight_gate: nn.Parameter
    bias_gate: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        num_hyperparameters: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        _add_response(self, num_hyperparameters)

    @classmethod
    def from_conv2d(cls, module: nn.Conv2d, num_hyperparameters: int) -> Self:
        """A layer with copies of a convolution's W and b; with V = C = 0 it would give what that gives."""
        made = cls(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            num_hyperparameters,
            stride=module.stride,  # type: ignore[arg-type]
            padding=module.padding,  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
            device=module.weight.device,
            dtype=module.weight.dtype,
        )
        _copy(made, module)
        return made

    def forward(self, input: Tensor, hyper: Tensor) -> Tensor:  # type: ignore[override]
        """Map ``input`` ``(B, in, height, width)`` at λ, ``(n,)`` or ``(B, n)``; without B where λ is ``(n,)``."""
        hyper = _check(self, input, hyper, least=4)
        gate, shift = _gates(hyper, self.weight_gate), _shift(self, hyper)
        if hyper.ndim == 1:
            weight = torch.addcmul(self.weight, gate[:, None, None, None], self.response_weight)
            formed: Tensor = self._conv_forward(input, weight, shift)
            return formed
        made: Tensor = self._conv_forward(input, self.weight, None)  # in no gradient: it can be written to
        made.addcmul_(gate[..., None, None], self._conv_forward(input, self.response_weight, None))
        return made if shift is None else made.add_(shift[..., None, None])

    def squared_norm(self, hyper: Tensor) -> Tensor:
        """‖Ŵ(λ)‖² of the weights: λ ``(B, n)`` to ``(B,)``, or ``(n,)`` to a scalar; Ŵ(λ) is not formed."""
        return _squared_norm(self, hyper)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_hyperparameters={self.num_hyperparameters}"  # type: ignore[no-untyped-call]


Layer = BestResponseLinear | BestResponseConv2d


def _add_response(layer: Layer, n: int) -> None:
    """W_h, b_h, V and C beside the W and b that torch has drawn from U(±1/√fan_in)."""
    if n < 1:
        raise ValueError(f"num_hyperparameters must be at least 1, got {n}")
    layer.num_hyperparameters = n
    weight, bias = layer.weight, layer.bias
    bound = 1 / math.sqrt(max(1, weight[0].numel()))
    layer.response_weight = nn.Parameter(torch.empty_like(weight).uniform_(-bound, bound))
    layer.weight_gate = nn.Parameter(weight.new_empty(len(weight), n).normal_(0, GATE_SCALE))
    for name in ("response_bias", "bias_gate"):
        layer.register_parameter(name, None)
    if bias is not None:
        layer.response_bias = nn.Parameter(torch.empty_like(bias).uniform_(-bound, bound))
        layer.bias_gate = nn.Parameter(weight.new_empty(len(weight), n).normal_(0, GATE_SCALE))


@torch.no_grad()
def _copy(layer: Layer, module: nn.Linear | nn.Conv2d) -> None:
    layer.weight.copy_(module.weight)
    if layer.bias is not None and module.bias is not None:
        layer.bias.copy_(module.bias)


def _check(layer: Layer, input: Tensor, hyper: Tensor, *, least: int) -> Tensor:
    """λ in the dtype of the weights, if it and the input are what the layer wants."""
    check_floating("input", input)
    check_hyper(hyper, layer.num_hyperparameters)
    if hyper.ndim == 2 and (input.ndim < least or len(hyper) != len(input)):
        raise ValueError(
            f"hyper must be ({layer.num_hyperparameters},), or (B, {layer.num_hyperparameters}) with the batch of the "
            f"input, got {tuple(hyper.shape)} for an input of shape {tuple(input.shape)}"
        )
    return hyper.to(layer.weight.dtype)


def check_hyper(hyper: Tensor, n: int) -> None:
    check_floating("hyper", hyper)
    if hyper.ndim not in (1, 2) or hyper.shape[-1] != n:
        raise ValueError(f"hyper must be ({n},) or (B, {n}), got shape {tuple(hyper.shape)}")


def _shift(layer: Layer, hyper: Tensor) -> Tensor | None:
    """b̂(λ) = b + (Cλ) ⊙ b_h, in one small product."""
    if layer.bias is None or layer.bias_gate is None or layer.response_bias is None:
        return None
    return _gates(hyper, layer.bias_gate * layer.response_bias[:, None], layer.bias)


def _gates(hyper: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` of ``(out, n)`` laid out by columns: its gradient is then ΛᵀG, of n rows, not the slow GᵀΛ."""
    return F.linear(hyper, matrix.mT.contiguous().mT, bias)


def _squared_norm(layer: Layer, hyper: Tensor) -> Tensor:
    """Σᵢ ‖Wᵢ‖² + 2 gᵢ ⟨Wᵢ, W_hᵢ⟩ + gᵢ² ‖W_hᵢ‖² with g = Vλ."""
    check_hyper(hyper, layer.num_hyperparameters)
    gate = F.linear(hyper.to(layer.weight.dtype), layer.weight_gate)
    weight, response = layer.weight.flatten(1), layer.response_weight.flatten(1)
    cross, square = (weight * response).sum(1), response.square().sum(1)
    norm: Tensor = weight.square().sum() + gate @ (2 * cross) + gate.square() @ square
    return norm
