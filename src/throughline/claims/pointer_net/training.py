"""The networks of the pointer network claim's arms, and how they are trained and tested."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.pointer_net.config import Config, task_of
from throughline.claims.pointer_net.data import Split
from throughline.claims.shared.sequence_models import AttentionSequence, PlainSequence
from throughline.data.planar import PlanarBatch, hull_scores, tour_length, triangulation_scores
from throughline.discrete.pointer import PAD, PointerNetwork
from throughline.lab import Log

__all__ = ["decoded", "keep_pictures", "network", "nll", "score", "summary", "train"]

CLIP = 2.0  # of the gradient's norm, the paper's
ROWS = 512  # instances that are decoded together
PICTURES = 3  # instances


def network(arm: str, config: Config, size: int) -> nn.Module:
    """The network of an arm; those with a fixed vocabulary are made for the ``size`` that they are trained on."""
    if arm.startswith("pointer"):
        return PointerNetwork(hidden_size=config.hidden, init_range=config.init_range).to(config.device)
    kind = {"attention": AttentionSequence, "lstm": PlainSequence}[arm]
    return kind(size, config.hidden, init_range=config.init_range).to(config.device)


def nll(model: nn.Module, batch: PlanarBatch) -> Tensor:
    """Mean negative log-likelihood of the targets' symbols, the end among them."""
    more = {"lengths": batch.lengths} if isinstance(model, PointerNetwork) else {}
    logits = model(batch.points, batch.targets, **more)
    last = logits.shape[-1] - 1
    columns = torch.where(batch.targets == -1, last, batch.targets)
    return F.cross_entropy(logits.flatten(0, 1), columns.flatten(), ignore_index=PAD)


def decoded(model: nn.Module, batch: PlanarBatch, **options: object) -> Tensor:
    """Decoded sequences of a batch of any size, ``(B, m)``."""
    parts = []
    for points, lengths in zip(torch.split(batch.points, ROWS), torch.split(batch.lengths, ROWS), strict=True):
        if isinstance(model, PointerNetwork):
            parts.append(model.decode(points, lengths=lengths, **options).sequences)  # type: ignore[arg-type]
        else:
            parts.append(model.decode(points))  # type: ignore[operator]
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1]), value=PAD) for part in parts])


def train(
    model: nn.Module, batches: Iterable[PlanarBatch], *, steps: int, lr: float, momentumless: bool, log: Log
) -> None:
    """Adam with a rate that falls to 0 in a line, or the paper's plain SGD."""
    weights = list(model.parameters())
    if momentumless:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, lr=lr)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    else:
        optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)  # type: ignore[assignment]
    for step, batch in enumerate(batches):
        loss = nll(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        schedule.step()
        log(step, of=steps, **({"loss": loss} if step % max(1, steps // 100) == 0 else {}))


def score(arm: str, net: nn.Module, test: PlanarBatch, config: Config) -> dict[str, float]:
    """What an arm achieves on test instances; hulls greedily and without constraint, as the baselines have none."""
    task = task_of(arm)
    if task == "tsp":
        tours = decoded(net, test, beam_size=config.beam, constraint="tour")
        ours, best = (tour_length(test.points, tour).double().sum() for tour in (tours, test.targets))
        return {"ratio": float(ours / best), "length": float(best)}
    if task == "delaunay":
        return triangulation_scores(decoded(net, test, beam_size=config.beam), test.targets)
    return hull_scores(test.points, decoded(net, test), test.targets)


def summary(arm: str, scores: list[dict[str, float]], split: Split) -> dict[str, float]:
    """The metrics of an arm: at its largest size, or over all sizes of training for tours."""
    if arm == "pointer_tour":
        known = [s for s, test in zip(scores, split.tests, strict=True) if test.points.shape[1] <= split.seen[1]]
        total = sum(s["length"] for s in known)
        return {
            "tour_ratio": sum(s["ratio"] * s["length"] for s in known) / total,
            "far_tour_ratio": scores[-1]["ratio"],
        }
    prefix = {"pointer_lengths": "long", "pointer_triangles": "triangle"}.get(arm, "hull")
    return {f"{prefix}_{name}": value for name, value in scores[-1].items()}


@torch.no_grad()
def keep_pictures(net: nn.Module, test: PlanarBatch, log: Log) -> None:
    """The first test instances with what was decoded, and the pointer's probabilities along the first target."""
    some = PlanarBatch(*(part[:PICTURES] for part in test))
    log.keep(points=some.points, truth=some.targets, found=decoded(net, some))
    if isinstance(net, PointerNetwork):
        steps = int((some.targets[0] >= 0).sum()) + 1
        log.keep(distribution=net(some.points[:1], some.targets[:1, :steps])[0].softmax(-1))
