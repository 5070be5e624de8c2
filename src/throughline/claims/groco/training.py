"""The arms of GroCo's claim: what each minimises, and the training that they share."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.groco.config import NEGATIVES, Config
from throughline.claims.groco.data import Split
from throughline.claims.groco.evaluation import ordering
from throughline.claims.shared.contrastive import nt_xent
from throughline.claims.shared.evaluation import outputs
from throughline.claims.shared.probes import knn_accuracy
from throughline.discrete.ordering import GroupOrderingLoss
from throughline.lab import Log

__all__ = ["infonce_hardest", "objective", "train"]

EVALUATIONS = 5  # k-NN accuracies along a run


def infonce_hardest(z: Tensor, temperature: float, negatives: int) -> Tensor:
    """NT-Xent with GroCo's choice: the hardest negatives of the anchor's own view, and only the anchor moves."""
    views = F.normalize(z, dim=-1)
    positive = (views * views.detach().flip(0)).sum(-1, keepdim=True)
    within = views @ views.detach().mT
    own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    logits = torch.cat([positive, within.masked_fill(own, -torch.inf).topk(negatives).values], -1) / temperature
    return F.cross_entropy(logits.flatten(0, 1), torch.zeros(logits[..., 0].numel(), dtype=torch.long, device=z.device))


def objective(arm: str, config: Config) -> tuple[Callable[[Tensor], Tensor], float]:
    """The loss in which the arms differ, of views ``(2, B, D)``, and the peak learning rate that suits it."""
    if arm == "groco":
        return GroupOrderingLoss(NEGATIVES), config.groco_lr
    if arm == "infonce":
        return partial(nt_xent, temperature=config.infonce_temperature), config.infonce_lr
    return partial(infonce_hardest, temperature=config.top10_temperature, negatives=NEGATIVES), config.top10_lr


def train(
    encoder: nn.Module, projector: nn.Module, arm: str, config: Config, split: Split, seed: int, log: Log
) -> None:
    """Train on two random views of the bank's images; the order of images and the views are the same in all arms."""
    draw = torch.Generator().manual_seed(seed)
    loss_of, lr = objective(arm, config)
    weights = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=1e-4)
    batch = min(config.batch, len(split.bank))
    per_epoch = len(split.bank) // batch
    steps = config.epochs * per_epoch
    cycle = max(steps, 20)  # it divides by zero when the warm-up is one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, cycle, pct_start=0.1, cycle_momentum=False)
    watch = set(np.linspace(0, steps - 1, EVALUATIONS + 1).round().astype(int).tolist())
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(split.bank), generator=draw)
        rows = order[step % per_epoch * batch :][:batch]
        views = split.scaled(split.views(split.bank[rows].repeat(2, 1, 1, 1), draw))
        loss = loss_of(projector(encoder(views)).unflatten(0, (2, batch)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        seen = {}
        if step in watch:
            bank, queries = (outputs(encoder, split.scaled(x)) for x in (split.bank, split.queries))
            seen["k-NN accuracy"] = knn_accuracy(bank, split.bank_labels, queries, split.query_labels, k=config.k)
        if step == min(per_epoch, steps) - 1 or step == steps - 1:
            log.keep(**{"late" if step == steps - 1 else "early": ordering(encoder, projector, split, seed)})
        log(step, of=steps, **seen, **({"loss": loss} if step % max(1, steps // 100) == 0 else {}))
