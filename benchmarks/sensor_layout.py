"""Reading a batch through a learned layout against area interpolation, which averages over equal pixels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.sensing.layout import SensorLayout

N, C, H, W, h, w = 8, 3, 128, 256, 32, 64


def rectangular() -> dict[str, Callable[[], Any]]:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(N, C, H, W, generator=draw)
    weight = torch.rand(N, C, h, w, generator=draw)
    watched = image.clone().requires_grad_()
    layout = SensorLayout((h, w), curvature=(0.2, 0.1))

    def ours() -> Tensor | None:
        layout.raw.grad = None
        (layout(image) * weight).sum().backward()
        return layout.raw.grad

    def peer() -> Tensor | None:
        watched.grad = None
        (F.interpolate(watched, (h, w), mode="area") * weight).sum().backward()
        return watched.grad

    def agree() -> None:
        # area interpolation takes pixels for squares, the sensor interpolates between them: 1/8 goes to each neighbour
        tap = torch.tensor([1.0, 6.0, 1.0]) / 8
        planes = F.pad(image.view(-1, 1, H, W), (1, 1, 1, 1), mode="replicate")
        smooth = F.conv2d(planes, (tap[:, None] * tap)[None, None]).view(N, C, H, W)
        torch.testing.assert_close(SensorLayout((h, w))(image), F.interpolate(smooth, (h, w), mode="area"))

    return {"ours": ours, "peer": peer, "agree": agree}


PRODUCTS = N * C * (2 * h * H * W + 3 * h * W * w)  # multiply-adds: rows twice (forward, weights), columns three times

CASES = [
    Case(
        name="8 × 3 × 128 × 256 onto 32 × 64, rectangular, forward and backward to the layout",
        setup=rectangular,
        bar=4.0,
        work="less",
        peer=f'F.interpolate(mode="area"), torch {torch.__version__}',
        flops=2 * PRODUCTS,
        bytes=4 * N * C * (H * W + h * w),
    )
]


def sensing(side: int) -> Callable[[], Any]:
    layout, image = SensorLayout((16, 16), curvature=(0.2, 0.1)), torch.rand(1, 3, side, side)
    return lambda: torch.autograd.grad(layout(image).square().sum(), layout.raw)


GROWTH = [
    Growth("SensorLayout, 16 × 16, forward and backward", "pixels a side", 256, sensing, time=2, memory=2, step=2)
]
