"""Spaces of inverted residual blocks, each of which chooses its kernel and its expansion, or to be left out.

"ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (arXiv 1812.00332), section 4.2.1.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from throughline.search.spaces.building import Decisions, check_counts, check_decisions, check_input, drawn_from
from throughline.search.spaces.operations import CONV, NORM, Zero
from throughline.search.supernet import Choice, MixedOp, discretise

__all__ = ["mobile_space", "mobile_space_1d"]

# width, blocks, stride of the first
STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
STAGES_1D = ((16, 3, 2), (24, 3, 2))
Stage = tuple[int, int, int]
Shape = tuple[int, int]  # of an option: kernel, expansion


def mobile_space(
    num_classes: int = 1000,
    *,
    in_channels: int = 3,
    width: float = 1.0,
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[int] = (3, 6),
    decisions: Decisions | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The ImageNet space of ProxylessNAS (arXiv 1812.00332, section 4.2.1): 21 blocks like those of MobileNetV2.

    Each block chooses an inverted bottleneck with a kernel and an expansion, ``k3e3`` to ``k7e6``; where it keeps its
    size it has a shortcut, and ``zero`` leaves all but that out, so that depth is searched too. The choices are
    ``block.0`` to ``block.20``.

    Args:
        num_classes: outputs.
        in_channels: of the images ``(N, in_channels, height, width)``.
        width: factor of all numbers of channels, which are then rounded to multiples of 8; the last layer does not get
            narrower.
        kernels, expansions: of the options; odd kernels.
        decisions: an option for each choice: builds the fixed network.
        generator: of all initial values; torch's global one by default.

    Returns:
        The supernet, or with ``decisions`` a plain network; images to logits ``(N, num_classes)``.

    Raises:
        TypeError, ValueError: an argument out of range, decisions that there are not; in the call, images of another
            shape.

    >>> net = mobile_space(10, width=0.25)
    >>> net(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    check_counts(num_classes=num_classes, in_channels=in_channels)
    if not 0 < width < float("inf"):
        raise ValueError(f"width must be positive and finite, got {width}")
    stem, thin = _rounded(32 * width), _rounded(16 * width)
    stages = [(_rounded(channels * width), count, stride) for channels, count, stride in STAGES]
    last = _rounded(1280 * max(width, 1.0))

    def ends() -> tuple[nn.Module, nn.Module, nn.Linear]:
        front = nn.Sequential(*_conv(2, in_channels, stem, 3, 2), *_bottleneck(2, stem, thin, 1, 3, 1))
        return front, _conv(2, stages[-1][0], last, 1, 1), nn.Linear(last, num_classes)

    return _space(2, in_channels, thin, stages, _options(kernels, expansions), ends, decisions, generator)


def mobile_space_1d(
    num_classes: int = 10,
    *,
    in_channels: int = 1,
    decisions: Decisions | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A small `mobile_space` for signals: six blocks of 16 and 24 channels, 6² · 7⁴ = 86,436 architectures.

    Args:
        num_classes: outputs.
        in_channels: of the signals ``(N, in_channels, length)``.
        decisions, generator: as of `mobile_space`; the choices are ``block.0`` to ``block.5``.

    Returns:
        The supernet, or with ``decisions`` a plain network; signals to logits ``(N, num_classes)``.

    Raises:
        TypeError, ValueError: as `mobile_space`; in the call, signals of another shape.

    >>> fixed = mobile_space_1d(decisions={f"block.{i}": "k3e3" for i in range(6)})
    >>> fixed(torch.randn(2, 1, 40)).shape, sum(p.numel() for p in fixed.parameters())
    (torch.Size([2, 10]), 16362)
    """
    check_counts(num_classes=num_classes, in_channels=in_channels)

    def ends() -> tuple[nn.Module, nn.Module, nn.Linear]:
        return _conv(1, in_channels, 16, 3, 1), nn.Identity(), nn.Linear(24, num_classes)

    return _space(1, in_channels, 16, STAGES_1D, _options((3, 5, 7), (3, 6)), ends, decisions, generator)


def _space(
    dims: int,
    in_channels: int,
    inputs: int,
    stages: Sequence[Stage],
    options: dict[str, Shape],
    ends: Callable[[], tuple[nn.Module, nn.Module, nn.Linear]],
    decisions: Decisions | None,
    generator: torch.Generator | None,
) -> nn.Module:
    """The network between ``ends``: what comes before the blocks, what comes after them, and the classifier."""
    steps = []  # inputs, outputs and stride of every block
    for width, count, stride in stages:
        steps += [(inputs, width, stride), *[(width, width, 1)] * (count - 1)]
        inputs = width
    names = {f"block.{i}": (*options, "zero") if _keeps_size(step) else tuple(options) for i, step in enumerate(steps)}
    check_decisions(decisions, names)
    if decisions is not None and None in decisions.values():
        raise ValueError("decisions must be options: a block is left out by 'zero', got None")
    with drawn_from(generator):
        made = {
            name: _choice(options, None if decisions is None else decisions[name]) for name, options in names.items()
        }
        front, back, classifier = ends()
        blocks = []
        for choice, step in zip(made.values(), steps, strict=True):
            ops = {n: Zero(1) if n == "zero" else _bottleneck(dims, *step, *options[n]) for n in choice.names}
            mixed = MixedOp(ops, choice)
            blocks.append(Residual(mixed) if _keeps_size(step) else mixed)
    choices = nn.ModuleDict({name.removeprefix("block."): choice for name, choice in made.items()})
    net = MobileNetwork(choices, front, blocks, back, classifier, (in_channels, dims, 1))
    return net if decisions is None else discretise(net)


class MobileNetwork(nn.Module):
    """Convolutions in front, blocks, convolutions behind, mean over all places, linear."""

    def __init__(
        self,
        block: nn.ModuleDict,
        front: nn.Module,
        blocks: Sequence[nn.Module],
        back: nn.Module,
        classifier: nn.Linear,
        wanted: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.block = block  # in front: choices go by these names
        self.front, self.blocks, self.back, self.classifier = front, nn.Sequential(*blocks), back, classifier
        self._wanted = wanted

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, *self._wanted)
        logits: Tensor = self.classifier(self.back(self.blocks(self.front(x))).flatten(2).mean(2))
        return logits


class Residual(nn.Module):
    """x + op(x); with `Zero` decided, x itself."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return x if isinstance(self.op, Zero) else x + self.op(x)


def _choice(options: Sequence[str], decision: str | None) -> Choice:
    """Open, or with the decided option alone."""
    made = Choice(options if decision is None else [decision])
    if decision is not None:
        made.select(decision)
    return made


def _keeps_size(step: tuple[int, int, int]) -> bool:
    inputs, outputs, stride = step
    return inputs == outputs and stride == 1


def _options(kernels: Sequence[int], expansions: Sequence[int]) -> dict[str, Shape]:
    for name, values in (("kernels", kernels), ("expansions", expansions)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be at least one, each of them once, got {tuple(values)}")
        check_counts(**dict.fromkeys((name,), min(values)))
    if any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"kernels must be odd, got {tuple(kernels)}")
    return {f"k{kernel}e{expansion}": (kernel, expansion) for kernel in kernels for expansion in expansions}


def _rounded(channels: float) -> int:
    """The multiple of 8 that is nearest, at least 8; the next one where that would lose more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _norm(dims: int, channels: int) -> nn.Module:
    return NORM[dims](channels, eps=1e-3, momentum=0.1)


def _conv(dims: int, inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = CONV[dims](inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, _norm(dims, outputs), nn.ReLU6())


def _bottleneck(dims: int, inputs: int, outputs: int, stride: int, kernel: int, expansion: int) -> nn.Sequential:
    """Channels up, each channel by itself, channels down, as in MobileNetV2 (arXiv 1801.04381)."""
    wide = inputs * expansion
    up = _conv(dims, inputs, wide, 1, 1) if expansion > 1 else ()
    depthwise = CONV[dims](wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
    down = CONV[dims](wide, outputs, 1, bias=False)
    return nn.Sequential(*up, depthwise, _norm(dims, wide), nn.ReLU6(), down, _norm(dims, outputs))
