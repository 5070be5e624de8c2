"""Quantising the weights of a whole model while it trains: at even levels, or at points that are learned.

"Model compression via distillation and quantization" (arXiv 1802.05668). Values change in place and come back, and
parameters stay the objects that they are: optimizers, averaged copies, DistributedDataParallel, checkpoints, compiled
models and the aliases that `nn.LSTM` keeps of its weights notice nothing.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn

from throughline.core.checks import integer
from throughline.discrete.quantization.model_quantizer import MOST_BITS, CompressedSize, ModelQuantizer, Select
from throughline.discrete.quantization.rounding import quantile_points, round_to_levels, round_to_points

__all__ = ["CompressedSize", "PointQuantizer", "WeightQuantizer"]


class WeightQuantizer(ModelQuantizer):
    """Quantized distillation: a model computes with weights of a few bits and learns in full precision (algorithm 1).

    Inside ``with quantizer:`` the selected parameters of ``model`` hold their quantised values, and gradients are those
    at these values. After it the full-precision values are back, bit for bit, and the optimizer moves them::

        with quantizer:
            distillation_loss(student(x), teacher(x), y).backward()
        optimizer.step()

    Evaluate inside the block too. At the end, `finalize` writes the quantised values for good.

    Args:
        model: any module; wrappers (data parallel, compiled, averaged) around it and inside of it change no name.
        bits: 1 to 16, 2 to the power of which is the number of levels.
        bucket_size: weights that share a scale; None for one scale per parameter.
        select: which parameters, by name and value; by default those of two and more dimensions (weights of layers,
            embeddings), while biases and normalisation stay in full precision. The paper takes all.
        stochastic: round at random in the block, right on average; `finalize` always takes the nearest level.
        generator: of the stochastic rounding, on the device of the model.

    Raises:
        TypeError: ``model`` is no module, a selected parameter is not floating point, or a count is no integer.
        ValueError: an argument is out of range, or ``select`` chooses nothing or an empty parameter.
        RuntimeError: a block inside a block, or after `finalize`; a selected parameter was changed inside the block, or
            replaced since the quantiser was made, as ``load_state_dict(assign=True)`` does.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0.1], [0.8, 1.0]]))
    >>> quantizer = WeightQuantizer(layer, bits=1)
    >>> with quantizer:
    ...     layer.weight.tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        model: nn.Module,
        bits: int,
        *,
        bucket_size: int | None = 256,
        select: Select | None = None,
        stochastic: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.bits = self._adopt(model, bits, bucket_size, select)
        self.stochastic, self.generator = stochastic, generator

    def _grid(self, place: int) -> int:
        return int(2**self.bits)

    def _quantized(self, place: int, weight: Tensor) -> Tensor:
        return round_to_levels(weight, 2**self.bits, self._bucket_size, self.stochastic, self.generator)


class PointQuantizer(ModelQuantizer, nn.Module):
    """Differentiable quantization: trained weights stay as they are, and where the levels lie is learned (algorithm 2).

    Inside ``with quantizer:`` the selected parameters of ``model`` hold their quantised values. On leaving, the full
    precision is back, the gradients of the selected parameters have become gradients of the points (added to what is
    there), and are cleared. One vector of points for each selected parameter is all that `parameters` yields::

        optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-3)
        with quantizer:
            distillation_loss(student(x), unquantised(x)).backward()
        optimizer.step()

    The gradient of a point sums over all weights in its cell: with plain SGD it wants a rate of about 1e-5.
    Normalisation layers in training mode go on adapting their statistics, which is meant. Under
    DistributedDataParallel the weights must require gradients when the model is wrapped, so that these are averaged.

    Args:
        model, bits, bucket_size, select: as for `WeightQuantizer`.
        init: start from quantiles of the weights, each level in use, or from even levels.
        levels: numbers of levels by the name of a parameter, in place of 2 to the power of ``bits``, see
            `allocate_levels`.

    Attributes:
        points: one vector of levels for each selected parameter, in the order of the model, within [0, 1] of a bucket.

    Raises:
        TypeError, ValueError, RuntimeError: as `WeightQuantizer`, and ValueError for ``levels`` of a parameter that is
            not selected, or outside of 2 … 65,536.

    >>> quantizer = PointQuantizer(nn.Linear(8, 4), bits=2)
    >>> with quantizer:
    ...     quantizer.model(torch.ones(1, 8)).sum().backward()
    >>> quantizer.points[0].grad.shape
    torch.Size([4])
    """

    def __init__(
        self,
        model: nn.Module,
        bits: int,
        *,
        bucket_size: int | None = 256,
        select: Select | None = None,
        init: Literal["quantile", "uniform"] = "quantile",
        levels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        bits = self._adopt(model, bits, bucket_size, select)
        if init not in ("quantile", "uniform"):
            raise ValueError(f'init must be "quantile" or "uniform", got {init!r}')
        chosen = dict.fromkeys(self._weights, 2**bits)
        for name, number in (levels or {}).items():
            if name not in chosen:
                raise ValueError(f"levels must name selected parameters ({', '.join(chosen)}), got {name!r}")
            if not 2 <= integer(f"levels[{name!r}]", number) <= 2**MOST_BITS:
                raise ValueError(f"levels must be from 2 to {2**MOST_BITS}, got {number} for {name}")
            chosen[name] = int(number)
        start = quantile_points if init == "quantile" else _even_points
        self.points = nn.ParameterList(
            nn.Parameter(start(w.detach(), chosen[name], bucket_size=bucket_size)) for name, w in self._weights.items()
        )
        self._trainable: list[bool] = []

    def __enter__(self) -> Self:
        super().__enter__()
        self._trainable = [weight.requires_grad for weight in self._weights.values()]
        for weight in self._weights.values():
            weight.grad = None  # what is left from elsewhere says nothing of the points
            weight.requires_grad_()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            for weight, points, trainable in zip(self._weights.values(), self.points, self._trainable, strict=True):
                if weight.grad is not None and points.requires_grad:
                    with torch.enable_grad():
                        quantized = round_to_points(weight.detach(), points, self._bucket_size)
                    torch.autograd.backward(quantized, weight.grad.to_dense())
                weight.grad = None
                weight.requires_grad_(trainable)

    def _grid(self, place: int) -> Tensor:
        points: Tensor = self.points[place]
        return points

    def _quantized(self, place: int, weight: Tensor) -> Tensor:
        return round_to_points(weight, self._grid(place), self._bucket_size)

    def extra_repr(self) -> str:
        numbers = ", ".join(f"{name}: {len(points)}" for name, points in zip(self._weights, self.points, strict=True))
        return f"levels {numbers}"


def _even_points(weight: Tensor, levels: int, *, bucket_size: int | None) -> Tensor:
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.linspace(0, 1, levels, dtype=wide, device=weight.device)
