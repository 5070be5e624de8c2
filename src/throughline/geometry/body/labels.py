"""What human parsing calls the parts of a dressed person, how labels are merged, and where on a body each is seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

from throughline.core.checks import check_tensor, integer, readable

__all__ = [
    "DSR_C_GROUPS",
    "DSR_MC_LABELS",
    "PARSING_LABELS",
    "check_labels",
    "count_labels",
    "merge_labels",
    "semantic_prior",
]

PARSING_LABELS: tuple[str, ...] = (
    "background",
    "hat",
    "hair",
    "glove",
    "sunglasses",
    "upper clothes",
    "dress",
    "coat",
    "socks",
    "pants",
    "jumpsuit",
    "scarf",
    "skirt",
    "face",
    "left arm",
    "right arm",
    "left leg",
    "right leg",
    "left shoe",
    "right shoe",
)  # of Graphonomy's universal model, which are LIP's
DSR_C_GROUPS: tuple[tuple[int, ...], ...] = (
    (0,),
    (1, 2, 4, 11, 13),  # head
    (3, 5, 6, 7, 10),  # upper clothes
    (8, 9, 12),  # lower clothes
    (14,),
    (15,),
    (16, 18),  # left leg and shoe
    (17, 19),
)
DSR_MC_LABELS: tuple[int, ...] = (18, 19, 14, 15, 13)  # shoes, arms and face: tight on the body


def semantic_prior(labels: Tensor, num_classes: int, *, smoothing: float = 0.0) -> Tensor:
    """P(label | vertex): how often each label was seen at each vertex of a body.

    "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480, section 3.2)
    counts labels of clothed scans, carried to the nearest vertex of the body that is fitted to them.

    Args:
        labels: ``(N, V)``, int64, of N clothed people on the V vertices of one body, each in [0, num_classes).
        num_classes: C, positive.
        smoothing: added to every count; above 0 no label is impossible.

    Returns:
        ``(V, C)``, single precision, rows of sum 1.

    Raises:
        TypeError: ``labels`` are no int64 tensor.
        ValueError: ``labels`` are not ``(N, V)``, of nobody without ``smoothing``, or out of range; ``num_classes`` or
            ``smoothing`` is out of range.

    >>> semantic_prior(torch.tensor([[0, 1], [0, 0]]), 2)
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    if integer("num_classes", num_classes) < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if not 0 <= smoothing < float("inf"):
        raise ValueError(f"smoothing must be finite and not negative, got {smoothing}")
    check_labels("labels", labels, num_classes)
    if labels.ndim != 2 or (len(labels) == 0 and smoothing == 0):
        raise ValueError(f"labels must be (N, V) of at least one person, got shape {tuple(labels.shape)}")
    counts = count_labels(labels.mT, num_classes).float() + smoothing
    return counts / counts.sum(-1, keepdim=True)


def merge_labels(prior_or_labels: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Labels as numbers of the groups that they are in, or distributions over labels as ones over groups.

    "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480) merges the 20
    labels of a parsing into 8 for the term of the clothes: `DSR_C_GROUPS`.

    Args:
        prior_or_labels: int64 of any shape, or floating point, ``(..., C)``.
        groups: G tuples of labels, which partition 0, …, C − 1.

    Returns:
        int64 of the same shape, or the sums ``(..., G)`` in the dtype given.

    Raises:
        TypeError: another dtype, or no tensor.
        ValueError: ``groups`` are no partition; labels, or the last dimension, do not fit them.

    >>> merge_labels(torch.tensor([0, 13, 19]), DSR_C_GROUPS)
    tensor([0, 1, 7])
    >>> merge_labels(torch.tensor([0.25, 0.25, 0.5]), [(0, 2), (1,)])
    tensor([0.7500, 0.2500])
    """
    number = {label: place for place, group in enumerate(groups) for label in group}
    count = sum(len(group) for group in groups)
    if not count or sorted(number) != list(range(count)):
        raise ValueError(f"groups must partition the labels 0 to C - 1, got {tuple(map(tuple, groups))}")
    check_tensor("prior_or_labels", prior_or_labels)
    table = torch.tensor([number[label] for label in range(count)], device=prior_or_labels.device)
    if prior_or_labels.dtype == torch.int64:
        check_labels("prior_or_labels", prior_or_labels, count)
        return table[prior_or_labels]
    if not prior_or_labels.is_floating_point():
        raise TypeError(f"prior_or_labels must be int64 labels or floating point, got {prior_or_labels.dtype}")
    if prior_or_labels.ndim < 1 or prior_or_labels.shape[-1] != count:
        raise ValueError(
            f"prior_or_labels must be (..., {count}), as many as groups have, got {tuple(prior_or_labels.shape)}"
        )
    parts = [prior_or_labels[..., list(group)].sum(-1) for group in groups]
    return torch.stack(parts, -1)


def check_labels(name: str, labels: object, num_classes: int) -> None:
    """Refuse what is no int64 tensor, or has a label that there is not."""
    check_tensor(name, labels)
    assert isinstance(labels, Tensor)
    if labels.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {labels.dtype}")
    if readable(labels) and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name} must lie in [0, {num_classes}), got {low} to {high}")


def count_labels(labels: Tensor, num_classes: int) -> Tensor:
    """How often each label is in the last dimension: ``(..., n)`` to ``(..., C)``, int64."""
    counts = labels.new_zeros(*labels.shape[:-1], num_classes)
    return counts.scatter_add(-1, labels, torch.ones_like(labels))
