"""The plane as the bottleneck's paper draws it: eight blobs, two classes a task, and what is decided where."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.convnets import mlp
from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck

__all__ = ["ARMS", "CLASSES", "REACH", "UNDECIDED", "blobs", "regions"]

ARMS = ("linear_probe", "mlp", "bottleneck")
CLASSES, TASKS, SAMPLES = 8, 4, 60
PAIRS = 400  # the paper's
REACH, SIDE = 1.6, 64  # the drawn square is [-REACH, REACH]², in SIDE × SIDE cells
UNDECIDED = 255  # where no class has more than another
STEPS, LR, LR_VALUES = 200, 0.1, 0.3


def blobs(seed: int) -> tuple[Tensor, Tensor]:
    """Points ``(n, 2)`` around eight places of a circle, and their classes in random order around it."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES).repeat_interleave(SAMPLES)
    angle = torch.randperm(CLASSES, generator=draw)[y] * (2 * torch.pi / CLASSES)
    centre = torch.stack([angle.cos(), angle.sin()], 1)
    return centre + 0.13 * torch.randn(len(y), 2, generator=draw), y


def regions(arm: str, seed: int) -> Tensor:
    """The class of every cell after each task, or `UNDECIDED`: ``(tasks, SIDE, SIDE)`` uint8, first rows lowest."""
    x, y = blobs(seed)
    head, lr = _head(arm, seed)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    line = torch.linspace(-REACH, REACH, SIDE)
    cells = torch.cartesian_prod(line, line).flip(1)
    found = []
    for task in range(TASKS):
        now = y // (CLASSES // TASKS) == task
        for _ in range(STEPS):
            loss = F.cross_entropy(head(x[now]), y[now])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            logits = head(cells)
            low, high = logits.aminmax(dim=-1)
            decided = torch.where(low < high, logits.argmax(-1), UNDECIDED)
            found.append(decided.view(SIDE, SIDE).byte())
    return torch.stack(found)


def _head(arm: str, seed: int) -> tuple[nn.Module, float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arm == "linear_probe":
            return nn.Linear(2, CLASSES), LR
        if arm == "mlp":
            return mlp(2, 128, CLASSES), LR
        draw = torch.Generator().manual_seed(seed)
        bottleneck = KeyValueBottleneck(2, CLASSES, num_codebooks=1, num_pairs=PAIRS, dim_key=2, projection="none")
        plane = (2 * torch.rand(4_000, 2, generator=draw) - 1) * REACH  # unlabelled, and not the blobs
        bottleneck.fit_keys(torch.split(plane, 1_000), epochs=5, generator=draw)
        return nn.Sequential(bottleneck, CodebookVote()), LR_VALUES
