"""Group ordering constraints ("Learning by Sorting: Self-supervised Learning with Group Ordering Constraints", arXiv
2301.02009): every positive of an anchor should be closer to it than every negative.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_floating
from throughline.core.sorting import Distribution, Network, check_relaxation, relaxed_sort

__all__ = ["GroupOrderingLoss", "group_ordering_loss"]

SMALLEST = 1e-12  # a logarithm's gradient is that at this mass, below it too


def group_ordering_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    steepness: float = 1.0,
    distribution: Distribution = "cauchy",
    network: Network = "odd_even",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Binary cross-entropy of landing on the right side when positives and negatives are sorted together (eq. 2).

    Each group is sorted hard before, so that the order within a group does not matter. With one positive and one
    negative it is -log f(positive - negative), f the comparator of `throughline.core.sorting.order_probability`.

    Args:
        positive: similarities (larger = closer), floating point, ``(..., N)``, N >= 1.
        negative: similarities that should be smaller, ``(..., M)``, M >= 1; -∞ for an entry that is masked out.
        steepness: positive and finite, in 1 / similarity.
        distribution: the comparator's relaxation.
        network: "odd_even", or "bitonic" for hundreds of negatives.
        reduction: "mean" over everything, or "none".

    Returns:
        Scalar, or ``(...)`` with "none"; in the dtype of the input, but computed in float32 at least (and returned so
        under autocast).

    Raises:
        TypeError: ``positive`` or ``negative`` is not floating point.
        ValueError: leading shapes differ, a group is empty, or another argument is out of range.

    >>> group_ordering_loss(torch.tensor([0.9, 0.8]), torch.tensor([0.1, -0.3, 0.5]))
    tensor(0.3743)
    """
    check_relaxation(steepness, distribution, network)
    if reduction not in ("mean", "none"):
        raise ValueError(f'reduction must be "mean" or "none", got {reduction!r}')
    for name, group in (("positive", positive), ("negative", negative)):
        check_floating(name, group)
        if group.ndim == 0 or group.numel() == 0:
            raise ValueError(f"{name} must have shape (..., n) with no empty dimension, got {tuple(group.shape)}")
    if positive.shape[:-1] != negative.shape[:-1]:
        raise ValueError(
            "positive and negative must have the same leading shape, "
            f"got {tuple(positive.shape)} and {tuple(negative.shape)}"
        )
    dtype = torch.promote_types(positive.dtype, negative.dtype)
    wide = torch.promote_types(dtype, torch.float32)  # half-precision similarities tie massively
    low, high = negative.to(wide).sort(-1).values, positive.to(wide).sort(-1).values
    order = relaxed_sort(torch.cat([low, high], -1), steepness=steepness, distribution=distribution, network=network)
    m, n = low.shape[-1], order.values.shape[-1]
    lowest = (torch.arange(n, device=low.device) < m).to(wide)
    mass = order.adjoint(lowest.expand(order.values.shape))  # eq. 1: the probability to land among the m lowest
    right = torch.where(lowest.bool(), mass, 1 - mass).clamp(0, 1)
    loss = -_bounded_log(right).mean(-1)
    return _like_input(loss.mean() if reduction == "mean" else loss, dtype)


class GroupOrderingLoss(nn.Module):
    """GroCo: the self-supervised loss that puts an image's other views above its hardest negatives.

    Every view of every sample is an anchor. Its positives are the same sample's other positive views; its negatives are
    the most similar other samples in the anchor's own view. No temperature; the gradient is about a hundred times
    smaller than NT-Xent's, so with SGD the learning rate has to be that much larger (with Adam it does not matter).

    Args:
        negatives: K, hardest negatives per anchor, at least 1 and smaller than the (gathered) batch.
        steepness: positive and finite.
        positive_views: how many of the first views may serve as positives (multi-crop: the large crops); all if None.
        stop_gradient: gradients flow through the anchor only.
        distribution: the comparator's relaxation, see `throughline.core.sorting.order_probability`.
        network: "odd_even" or "bitonic".
        gather_distributed: negatives come from the batches of all processes, of any size but none. Every process
            takes the mean over its own anchors.

    Raises:
        ValueError: an argument is out of range.

    >>> anchors = torch.eye(16).requires_grad_()
    >>> loss = GroupOrderingLoss()([anchors, anchors + 0.1])
    >>> loss.backward()
    >>> loss
    tensor(0.1840, grad_fn=<MeanBackward0>)
    """

    def __init__(
        self,
        negatives: int = 10,
        *,
        steepness: float = 1.0,
        positive_views: int | None = None,
        stop_gradient: bool = True,
        distribution: Distribution = "cauchy",
        network: Network = "odd_even",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        check_relaxation(steepness, distribution, network)
        if negatives < 1:
            raise ValueError(f"negatives must be at least 1, got {negatives}")
        if positive_views is not None and positive_views < 2:
            raise ValueError(
                f"positive_views must be at least 2 (with one, its anchors have no positive), got {positive_views}"
            )
        self.negatives = negatives
        self.steepness = steepness
        self.positive_views = positive_views
        self.stop_gradient = stop_gradient
        self.distribution: Distribution = distribution
        self.network: Network = network
        self.gather_distributed = gather_distributed

    def forward(self, views: Tensor | Sequence[Tensor]) -> Tensor:
        """Loss of V >= 2 views of a batch: ``(V, B, D)``, or V tensors ``(B, D)``, to a scalar.

        Raises:
            TypeError: ``views`` are not floating point.
            ValueError: fewer than two views, views of different shape or not (B, D), a batch too small for
                ``negatives``, fewer views than ``positive_views``, or no process group to gather from.
        """
        z = _stacked(views)
        positive_views = len(z) if self.positive_views is None else self.positive_views
        if positive_views > len(z):
            raise ValueError(f"positive_views must be at most the number of views ({len(z)}), got {positive_views}")
        if self.gather_distributed and not _distributed():
            raise ValueError("gather_distributed=True needs an initialised torch.distributed process group")
        with torch.autocast(z.device.type, enabled=False):
            anchors = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=-1, eps=1e-8)
            keys = anchors.detach() if self.stop_gradient else anchors
            negative = self._hardest(anchors, keys)
            between = torch.einsum("vbd,pbd->vbp", anchors, keys[:positive_views])
            # a positive view is not its own positive, so that it has one positive fewer than a small crop
            first = torch.arange(positive_views - 1, device=z.device)
            others = first + (first >= torch.arange(positive_views, device=z.device)[:, None])
            large = between[:positive_views].gather(-1, others[:, None].expand(-1, z.shape[1], -1))
            groups = [(large, negative[:positive_views])]
            if positive_views < len(z):
                groups.append((between[positive_views:], negative[positive_views:]))
            losses = [
                group_ordering_loss(
                    *group,
                    steepness=self.steepness,
                    distribution=self.distribution,
                    network=self.network,
                    reduction="none",
                )
                for group in groups
            ]
            loss = torch.cat(losses).mean()
        return _like_input(loss, z.dtype)

    def _hardest(self, anchors: Tensor, keys: Tensor) -> Tensor:
        """The K largest similarities of every anchor to other samples of its view, ``(V, B, K)``."""
        batch, first = anchors.shape[1], 0
        if self.gather_distributed:
            sizes = _sizes(keys)
            first = sum(sizes[: torch.distributed.get_rank()])
            keys = _Gather.apply(keys, sizes)  # type: ignore[no-untyped-call]
        if self.negatives >= keys.shape[1]:
            raise ValueError(
                f"negatives must be smaller than the batch, the anchor itself being none: {self.negatives} negatives "
                f"need a batch of at least {self.negatives + 1}, got {keys.shape[1]}"
            )
        similarity = anchors @ keys.mT
        anchor = torch.eye(batch, keys.shape[1], dtype=torch.bool, device=keys.device).roll(first, 1)
        return similarity.masked_fill(anchor, -torch.inf).topk(self.negatives, sorted=False).values

    def extra_repr(self) -> str:
        return (
            f"{self.negatives}, steepness={self.steepness}, positive_views={self.positive_views}, "
            f"stop_gradient={self.stop_gradient}, distribution={self.distribution!r}, network={self.network!r}"
        )


def _bounded_log(p: Tensor) -> Tensor:
    """log p, not below -100, with a gradient that stays finite at 0, as `F.binary_cross_entropy` has it.

    That function raises on NaN (an overflow under mixed precision, which the gradient scaler would skip).
    """
    value = p.detach().log().clamp_min(-100)
    return value + (p - p.detach()) / p.detach().clamp_min(SMALLEST)


def _like_input(loss: Tensor, dtype: torch.dtype) -> Tensor:
    return loss if torch.is_autocast_enabled(loss.device.type) else loss.to(dtype)


def _stacked(views: Tensor | Sequence[Tensor]) -> Tensor:
    for view in views:
        check_floating("views", view)
    shapes = [tuple(view.shape) for view in views]
    if len(shapes) < 2:
        raise ValueError(f"views must be at least two, got {len(shapes)}")
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"views must all have one shape (B, D), got {', '.join(map(str, dict.fromkeys(shapes)))}")
    return views if isinstance(views, Tensor) else torch.stack(tuple(views))


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _sizes(keys: Tensor) -> list[int]:
    """The batch of each process."""
    own = torch.tensor([keys.shape[1]], device=keys.device)
    sizes = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(sizes, own)
    found = [int(size) for size in sizes]
    if 0 in found:  # told to every process, so that none waits for one that has stopped
        raise ValueError(f"views must hold a sample in every process, got batches of {', '.join(map(str, found))}")
    return found


class _Gather(torch.autograd.Function):
    """The keys of all processes, ``(V, B, D)`` to ``(V, Σ B, D)``; gradients of all processes add up."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(keys, (0, 0, 0, max(sizes) - keys.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:, :size] for part, size in zip(parts, sizes, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        total = grad_output.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return torch.split(total, ctx.sizes, 1)[torch.distributed.get_rank()], None
