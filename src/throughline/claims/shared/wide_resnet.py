"""Wide residual networks for 32 × 32 images (Zagoruyko and Komodakis)."""

from itertools import pairwise

from torch import Tensor, nn

__all__ = ["WideResNet"]


class WideResNet(nn.Module):
    """Depth 6 n + 4: three stages of n blocks, ``factor`` times as wide as those of a plain residual network."""

    def __init__(self, depth: int, factor: int, classes: int) -> None:
        super().__init__()
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        blocks: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False)]
        for stage, (a, b) in enumerate(pairwise(widths)):
            for block in range((depth - 4) // 6):
                blocks.append(_Block(b if block else a, b, 2 if stage and not block else 1))
        self.body = nn.Sequential(*blocks, nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        kept: Tensor = x if self.shortcut is None else self.shortcut(entered)
        added: Tensor = self.body(entered)
        return kept + added
