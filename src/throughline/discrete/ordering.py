"""Group ordering constraints ("Learning by Sorting: Self-supervised Learning with Group Ordering Constraints", arXiv
2301.02009): every positive of an anchor should be closer to it than every negative.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core._derivatives import transformed
from throughline.core.checks import check_floating
from throughline.core.sorting import Distribution, Network, check_relaxation, relaxed_sort

__all__ = ["GroupOrderingLoss", "group_ordering_loss"]

SHORTEST = 1e-8  # length of an embedding that is brought to unit length
FEW = 16  # a sum of rows pays when they are fewer than this share of all
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
    Time and memory are O(B²) for a batch of B.

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
            wide = z.to(torch.promote_types(z.dtype, torch.float32))
            anchors: Tensor = _Unit.apply(wide)  # type: ignore[no-untyped-call]
            keys, first = self._keys(anchors.detach() if self.stop_gradient else anchors.view_as(anchors))
            between, negative, _ = _Similarities.apply(anchors, keys, first, positive_views, self.negatives)  # type: ignore[no-untyped-call]
            # a positive view is not its own positive, so that it has one positive fewer than a small crop
            others = torch.arange(positive_views - 1, device=z.device)
            others = others + (others >= torch.arange(positive_views, device=z.device)[:, None])
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

    def _keys(self, keys: Tensor) -> tuple[Tensor, int]:
        """What anchors are compared with, ``(V, B or more, D)``, and the place of the first anchor in it."""
        first = 0
        if self.gather_distributed:
            sizes = _sizes(keys)
            first = sum(sizes[: torch.distributed.get_rank()])
            keys = _Gather.apply(keys, sizes)  # type: ignore[no-untyped-call]
        if self.negatives >= keys.shape[1]:
            raise ValueError(
                f"negatives must be smaller than the batch, the anchor itself being none: {self.negatives} negatives "
                f"need a batch of at least {self.negatives + 1}, got {keys.shape[1]}"
            )
        return keys, first

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


class _Unit(torch.autograd.Function):
    """`F.normalize` along the last dimension; its gradient needs no memory beside its result."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1, eps=SHORTEST)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        inverse = 1 / length.clamp_min(SHORTEST)
        along = torch.where(length >= SHORTEST, (grad.unsqueeze(-2) @ z.unsqueeze(-1)).squeeze(-1), 0)
        return torch.addcmul(grad, z, -along * inverse * inverse).mul_(inverse)


class _Similarities(torch.autograd.Function):
    """Of anchors ``(V, B, D)`` to keys ``(V, B or more, D)``: to P positives, to the K hardest of the own view, and the
    places of these.

    An anchor's gradient is a weighted sum of the P + K keys that it was compared with, which are few beside all.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        anchors: Tensor, keys: Tensor, first: int, positive_views: int, negatives: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        positive = torch.einsum("vbd,pbd->vbp", anchors, _positives(anchors, keys, first, positive_views))
        similarity = anchors @ keys.mT
        similarity.diagonal(first, 1, 2).fill_(-torch.inf)
        return positive, *similarity.topk(negatives, sorted=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        anchors, keys, *ctx.arguments, _ = inputs
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(anchors, keys, output[2])

    @staticmethod
    def backward(ctx: Any, of_positive: Tensor, of_negative: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        anchors, keys, hardest = ctx.saved_tensors
        first, positive_views = ctx.arguments
        views, batch, count = len(anchors), anchors.shape[1], keys.shape[1]
        by_keys = ctx.needs_input_grad[1]
        if not (by_keys or transformed()) and FEW * (hardest.shape[-1] + positive_views) <= count:
            row = torch.arange(views * count, device=keys.device).view(views, count)
            positives = row[:positive_views, first : first + batch].T.expand(views, -1, -1)
            compared = torch.cat([positives, row[:, :1, None] + hardest], -1).flatten(0, 1)
            weights = torch.cat([of_positive, of_negative], -1).flatten(0, 1)
            summed = F.embedding_bag(compared, keys.flatten(0, 1), per_sample_weights=weights, mode="sum")
            return summed.view_as(anchors), None, None, None, None
        table = of_negative.new_zeros(views, batch, count).scatter_(-1, hardest, of_negative)
        positives = _positives(anchors, keys, first, positive_views)
        by_anchors = (table @ keys).add_(torch.einsum("vbp,pbd->vbd", of_positive, positives))
        if not by_keys:
            return by_anchors, None, None, None, None
        found = table.mT @ anchors
        _positives(anchors, found, first, positive_views).add_(torch.einsum("vbp,vbd->pbd", of_positive, anchors))
        return by_anchors, found, None, None, None


def _positives(anchors: Tensor, keys: Tensor, first: int, views: int) -> Tensor:
    """Of all anchors, ``(P, B, D)``."""
    return keys[:views, first : first + anchors.shape[1]]


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
