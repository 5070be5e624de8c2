"""How well a rendered label covers where an image shows it; every value is one for each image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.checks import check_floating, check_tensor, integer, readable
from throughline.core.raster import distance_transform
from throughline.geometry.body.labels import check_labels, count_labels

__all__ = ["check_pixels", "class_weights", "clothing_loss", "distance_loss", "soft_iou_loss"]

EPS = 1e-6


def distance_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Σ p DT(M) / ((Σ p)^{3/2} + 1e-6): how far outside of M the rendered label reaches.

    DSR-MC's first form in "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv
    2110.03480). DT is the Euclidean distance to M in pixels. The release renders three equal channels, so its value is
    1/√3 of this one. It punishes what sticks out and nothing else: a label that is not rendered at all has none.

    Args:
        probability: p, floating point, ``(..., H, W)``, not negative.
        mask: M, ``(..., H, W)``, of bool, or 0 and 1; leading dimensions broadcast.

    Returns:
        ``(...,)``, in pixels over the side of an area: without a unit. For an empty M the distance is max(H, W).

    Raises:
        TypeError: ``probability`` is no floating point tensor, or ``mask`` no tensor.
        ValueError: shapes do not fit, or ``mask`` has other values.

    >>> p, m = torch.zeros(8, 8), torch.zeros(8, 8, dtype=torch.bool)
    >>> p[2:4, 2:6], m[2:4, 2:4] = 1.0, True  # columns 4 and 5 are 1 and 2 pixels outside
    >>> distance_loss(p, m)  # 2 (1 + 2) / 8 ** 1.5
    tensor(0.2652)
    """
    p, inside = _images(probability, mask)
    distance = distance_transform(inside).to(p.dtype)
    loss = (p * distance).sum((-2, -1)) / (p.sum((-2, -1)).clamp_min(0) ** 1.5 + EPS)
    return loss.to(probability.dtype)


def soft_iou_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """1 − Σ p M / (Σ (p + M − p M) + 1e-6): one less the intersection over union, for soft p.

    DSR-MC as the training script of arXiv 2110.03480 has it, and the usual loss on silhouettes. Arguments and errors
    are those of `distance_loss`.

    Returns:
        ``(...,)``, in [0, 1] for p in [0, 1]. Where both are empty it is 1, without a gradient.

    >>> p = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    >>> soft_iou_loss(p, p.mT)  # one pixel of three
    tensor(0.6667)
    """
    p, inside = _images(probability, mask)
    m = inside.to(p.dtype)
    both = (p * m).sum((-2, -1))
    either = (p + m - p * m).sum((-2, -1))
    return (1 - both / (either + EPS)).to(probability.dtype)


def class_weights(labels: Tensor, num_classes: int, *, min_pixels: int = 60) -> Tensor:
    """Weights that make rare labels of an image count as much as frequent ones.

    w_c = (the least count among labels of ``min_pixels`` or more) / count_c where count_c > ``min_pixels``, else 0
    (arXiv 2110.03480, DSR-C). Background is frequent and has the smallest. Without such a label all are 0.

    Args:
        labels: ``(..., H, W)``, int64, in [0, num_classes).
        num_classes: C, positive.
        min_pixels: of 224² pixels the paper takes 60; scale it by the area.

    Returns:
        ``(..., C)``, in torch's default dtype, in [0, 1].

    Raises:
        TypeError: ``labels`` are no int64 tensor.
        ValueError: ``labels`` are no images or out of range, or ``num_classes`` or ``min_pixels`` is.

    >>> class_weights(torch.tensor([[0, 0, 0, 0], [1, 1, 2, 1]]), 3, min_pixels=2)
    tensor([0.7500, 1.0000, 0.0000])
    """
    if integer("num_classes", num_classes) < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    check_labels("labels", labels, num_classes)
    if labels.ndim < 2:
        raise ValueError(f"labels must be (..., H, W), got shape {tuple(labels.shape)}")
    check_pixels(min_pixels)
    return weights_of(count_labels(labels.flatten(-2), num_classes), min_pixels, torch.get_default_dtype())


def clothing_loss(probability: Tensor, labels: Tensor, *, min_pixels: int = 60) -> Tensor:
    """The cross entropy of rendered labels with those of the image, weighted by `class_weights`: DSR-C.

    Rendered values are taken as logits, as "Learning to Regress Bodies from Images using Differentiable Semantic
    Rendering" (arXiv 2110.03480) does; so a pixel's error is bounded. With 8 channels, body on background costs log(e +
    7) − log 8 = 0.20 more than none, and clothes that the body does not reach log 8 + 1 − log(e + 7) = 0.81 more than
    those that it does.

    Args:
        probability: floating point, ``(..., H, W, C)``, channels of a rendering.
        labels: ``(..., H, W)``, int64, in [0, C).
        min_pixels: of `class_weights`.

    Returns:
        ``(...,)``, the weighted mean over pixels; 0 for an image in which no label has pixels enough.

    Raises:
        TypeError: ``probability`` is no floating point, ``labels`` are no int64 tensor.
        ValueError: shapes do not fit, ``labels`` or ``min_pixels`` are out of range.

    >>> rendered = torch.eye(2).expand(4, 2, 2)  # half of each row is label 1
    >>> clothing_loss(rendered, torch.tensor([[0, 1]] * 4), min_pixels=2)
    tensor(0.3133)
    """
    check_floating("probability", probability)
    if probability.ndim < 3 or probability.shape[-1] == 0:
        raise ValueError(f"probability must be (..., H, W, C), got shape {tuple(probability.shape)}")
    channels = probability.shape[-1]
    check_labels("labels", labels, channels)
    if labels.shape != probability.shape[:-1]:
        raise ValueError(f"labels must be {tuple(probability.shape[:-1])} as probability, got {tuple(labels.shape)}")
    check_pixels(min_pixels)
    wide = torch.promote_types(probability.dtype, torch.float32)
    flat = labels.flatten(-2)
    weights = weights_of(count_labels(flat, channels), min_pixels, wide).gather(-1, flat)
    logits = probability.to(wide).flatten(-3, -2)
    surprise = -F.log_softmax(logits, -1).gather(-1, flat.unsqueeze(-1)).squeeze(-1)
    total = weights.sum(-1)
    loss = (weights * surprise).sum(-1) / torch.where(total > 0, total, 1.0)
    return loss.to(probability.dtype)


def weights_of(counts: Tensor, min_pixels: int, dtype: torch.dtype) -> Tensor:
    """`class_weights` of counts ``(..., C)``."""
    most = torch.iinfo(counts.dtype).max
    least = counts.masked_fill(counts < max(1, min_pixels), most).amin(-1, keepdim=True)
    return torch.where(counts > min_pixels, least.to(dtype) / counts.clamp_min(1).to(dtype), 0.0)


def check_pixels(min_pixels: int) -> None:
    if integer("min_pixels", min_pixels) < 0:
        raise ValueError(f"min_pixels must not be negative, got {min_pixels}")


def _images(probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both, in single precision at least and of bool."""
    check_floating("probability", probability)
    check_tensor("mask", mask)
    if probability.ndim < 2 or 0 in probability.shape[-2:]:
        raise ValueError(f"probability must be (..., H, W), got shape {tuple(probability.shape)}")
    if mask.ndim < 2 or mask.shape[-2:] != probability.shape[-2:]:
        wanted = "×".join(map(str, probability.shape[-2:]))
        raise ValueError(f"mask must be (..., H, W) of {wanted} pixels as probability, got {tuple(mask.shape)}")
    inside = mask if mask.dtype == torch.bool else mask != 0
    if mask.dtype != torch.bool and readable(mask) and not bool((inside == mask).all()):
        raise ValueError("mask must hold 0 and 1, got other values")
    return probability.to(torch.promote_types(probability.dtype, torch.float32)), inside
