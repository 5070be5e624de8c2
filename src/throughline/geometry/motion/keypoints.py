"""Keypoints as pictures, and how far projected joints are from them."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating, integer, readable
from throughline.geometry.motion.checks import check_points, common_lead, widened

__all__ = ["check_seen", "heatmaps", "keypoint_loss"]


def heatmaps(keypoints: Tensor, image_size: tuple[int, int], *, std: float = 1.75) -> Tensor:
    """A Gaussian about each keypoint that sums to 1 over the image: how a network is shown where the joints are.

    Input of the network of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337). The Gaussian is a product
    of two profiles, so that K (H + W) exponentials are taken and not K H W. A keypoint outside of the image lies on its
    border.

    Args:
        keypoints: floating point, ``(..., K, 2)``, x to the right and y down in pixels, whose centres are integers.
        image_size: height H and width W, at least 1 each.
        std: standard deviation in pixels, positive and finite.

    Returns:
        ``(..., K, H, W)``, in the dtype of ``keypoints``, not negative, of sum 1 each.

    Raises:
        TypeError: ``keypoints`` are no floating point tensor, or ``image_size`` holds no integers.
        ValueError: a shape or number is out of range.

    >>> heatmaps(torch.tensor([[1.0, 0.0]]), (1, 3), std=0.5)
    tensor([[[0.1065, 0.7870, 0.1065]]])
    """
    check_points("keypoints", keypoints)
    if len(image_size) != 2:
        raise ValueError(f"image_size must be height and width, got {tuple(image_size)}")
    height, width = (integer("image_size", side, "a height and a width in pixels") for side in image_size)
    if height < 1 or width < 1:
        raise ValueError(f"image_size must be at least 1 by 1, got {tuple(image_size)}")
    if not 0 < std < math.inf:
        raise ValueError(f"std must be positive and finite, got {std}")
    x, y = widened(keypoints).unbind(-1)
    return (_profile(y, height, std).unsqueeze(-1) * _profile(x, width, std).unsqueeze(-2)).to(keypoints.dtype)


def keypoint_loss(predicted: Tensor, target: Tensor, confidence: Tensor | None = None) -> Tensor:
    """Σ_j w_j |π(J_j) − x_j|² / Σ_j w_j: the mean squared distance of projected joints from detected ones, in pixels².

    The first label-free loss of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337).

    Args:
        predicted: floating point, ``(..., K, 2)``, pixels.
        target: likewise, ``(..., K, 2)``; leading dimensions broadcast.
        confidence: w, ``(..., K)``, not negative; 1 by default. Where it is 0, ``target`` may be anything, NaN too, and
            where it is 0 for all keypoints, the loss is 0.

    Returns:
        ``(...,)``, in the dtype of ``predicted``.

    Raises:
        TypeError: an argument is no floating point tensor.
        ValueError: shapes do not match, a confidence is negative, or a keypoint of positive confidence is not finite.

    >>> seen = torch.tensor([[3.0, 4.0], [torch.nan, torch.nan]])
    >>> keypoint_loss(torch.zeros(2, 2), seen, torch.tensor([0.9, 0.0]))
    tensor(25.)
    """
    check_points("predicted", predicted)
    check_points("target", target)
    if predicted.shape[-2] != target.shape[-2]:
        raise ValueError(
            "predicted and target must have one number of keypoints, "
            f"got shapes {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    leads = {"predicted": predicted.shape[:-2], "target": target.shape[:-2]}
    if confidence is not None:
        check_floating("confidence", confidence)
        if confidence.ndim < 1 or confidence.shape[-1] != target.shape[-2]:
            raise ValueError(
                f"confidence must be (..., {target.shape[-2]}), a number for each keypoint of target "
                f"{tuple(target.shape)}, got shape {tuple(confidence.shape)}"
            )
        leads["confidence"] = confidence.shape[:-1]
    lead = common_lead(**leads)
    check_seen("target", target, "confidence", confidence)
    wide = widened(predicted)
    gap = wide - target.to(wide.dtype)
    if confidence is None:
        weight = gap.new_ones(gap.shape[:-1])
    else:
        weight = confidence.to(wide.dtype)
        gap = torch.where(weight.unsqueeze(-1) > 0, gap, 0.0)
    total = weight.sum(-1)
    loss = (weight * gap.square().sum(-1)).sum(-1) / torch.where(total > 0, total, 1.0)
    return loss.expand(lead).to(predicted.dtype)


def _profile(center: Tensor, size: int, std: float) -> Tensor:
    """A Gaussian over the pixels of one axis, ``(..., size)``, of sum 1."""
    reach = 800 * std * std  # from there on all but one pixel have a weight of 0 in float64 too
    pixels = torch.arange(size, dtype=center.dtype, device=center.device)
    away = pixels - center.clamp(-reach, size - 1 + reach).unsqueeze(-1)
    return (away.square() / (-2 * std * std)).softmax(-1)


def check_seen(name: str, keypoints: Tensor, weight: str, confidence: Tensor | None) -> None:
    """Raise a ValueError unless keypoints of positive confidence are finite, and no confidence is negative."""
    if not readable(keypoints):
        return
    finite = keypoints.isfinite().all(-1)
    if confidence is not None:
        if not (confidence >= 0).all():
            raise ValueError(f"{weight} must not be negative, got {confidence.min().item():g}")
        finite = finite | (confidence == 0)
    if not finite.all():
        raise ValueError(
            f"{name} must be finite where {weight} is positive, got {int((~finite).sum())} keypoints that are not"
        )
