"""Hyper-cleaning: which rows to trust, where some of the labels are flipped."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.claims.bo_rep.config import Config
from throughline.claims.bo_rep.problems import Problem, Tree, parameters, sampled

__all__ = ["PROBE", "cleaning", "flip"]

CLEANING_PENALTY = 1e-3  # c |y|²
PROBE = 8_192  # predictions behind a point of the curves


def cleaning(
    config: Config, seed: int, flipped: float, model: nn.Module, parts: list[Tensor], labels: list[Tensor], classes: int
) -> Problem:
    """Hyper-cleaning: G = mean σ(x_i) ℓ_i(y) + c|y|² over flipped labels, F the loss on clean ones.

    ``parts`` and ``labels`` are those of training, validation and test.
    """
    draw = torch.Generator().manual_seed(seed)
    noisy = flip(labels[0], flipped, classes, draw).to(config.device)
    parts, labels = ([part.to(config.device) for part in side] for side in (parts, labels))
    model = model.to(config.device)

    def lower_loss(x: Tree, y: Tree, rows: Tensor) -> Tensor:
        losses = F.cross_entropy(functional_call(model, y, (parts[0][rows],)), noisy[rows], reduction="none")
        penalty = CLEANING_PENALTY * sum(p.square().sum() for p in y.values())
        return (x["weights"][rows].sigmoid() * losses).mean() + penalty

    def loss(x: Tree, y: Tree, rows: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, y, (parts[1][rows],)), labels[1][rows])

    def batches(count: int, seed: int) -> Iterator[Tensor]:
        size = min(config.rows, count)
        return sampled(lambda g: torch.randperm(count, generator=g)[:size].to(config.device), seed)

    @torch.no_grad()
    def test(x: Tree, y: Tree, most: int | None = None) -> dict[str, float]:
        pairs = zip(*(torch.split(side[2][:most], 4096) for side in (parts, labels)), strict=True)
        found = [(functional_call(model, y, (rows,)), truth) for rows, truth in pairs]
        scores, truth = (torch.cat(side) for side in zip(*found, strict=True))
        hits = (scores.argmax(-1) == truth).float().mean()
        return {"loss": F.cross_entropy(scores, truth).item(), "accuracy": hits.item()}

    x = {"weights": torch.zeros(len(noisy), device=config.device)}
    y = parameters(model)
    upper, lower = batches(len(labels[1]), 2 * seed), batches(len(noisy), 2 * seed + 1)
    return Problem(x, y, loss, lower_loss, upper, lower, test, lambda x, y: test(x, y, PROBE)["loss"])


def flip(labels: Tensor, share: float, classes: int, draw: torch.Generator) -> Tensor:
    """Each label by chance ``share``, independently of all others, becomes another one, each as likely."""
    chosen = torch.rand(len(labels), generator=draw) < share
    moved = (labels + torch.randint(1, classes, labels.shape, generator=draw)) % classes
    return torch.where(chosen, moved, labels)
