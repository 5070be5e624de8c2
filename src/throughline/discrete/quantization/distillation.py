"""Learning from a teacher, and how many levels each tensor gets."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.checks import check_floating, check_tensor, integer

__all__ = ["allocate_levels", "distillation_loss"]

IGNORED = -100  # as in `torch.nn.functional.cross_entropy`


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 5.0,
    weight: float = 0.7,
) -> Tensor:
    """λ T² KL(softmax(t / T) ‖ softmax(z / T)) + (1 - λ) CE(z, y): learn from a teacher's logits and from labels.

    The divergence sums over classes, as Hinton has it (the authors' code averages over them, which makes it smaller by
    their number), and averages over samples. No gradient flows into the teacher.

    Args:
        student_logits, teacher_logits: z and t, floating point, ``(..., classes)``, not empty. A logit of -∞ takes its
            class out, and where the teacher has taken it out it counts nothing (0 log 0 = 0).
        target: ``(...)`` int64, class numbers, or -100 for a sample that counts in neither term; where none counts, the
            loss is 0. Without, the divergence stands alone, without λ.
        temperature: T, positive and finite.
        weight: λ in [0, 1].

    Returns:
        Scalar, in the dtype of ``student_logits``, but computed in float32 at least (and returned so under autocast).

    Raises:
        TypeError: logits are no floating point tensors, or ``target`` is not int64.
        ValueError: shapes differ or are empty, or another argument is out of range.

    >>> distillation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[4.0, 0.0]]), torch.tensor([0]))
    tensor(0.3514)
    """
    _check_logits(student_logits, teacher_logits, target)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}")
    wide = torch.promote_types(student_logits.dtype, torch.float32)
    classes = student_logits.shape[-1]
    z, t = (logits.to(wide).reshape(-1, classes) for logits in (student_logits, teacher_logits.detach()))
    with torch.autocast(z.device.type, enabled=False):
        if target is None:
            loss = temperature**2 * (_divergence(z / temperature, t / temperature) / len(z))
        else:
            y = target.reshape(-1)
            left_out = y == IGNORED
            samples = (len(y) - left_out.sum()).clamp_min(1).to(wide)
            z, t = (logits.masked_fill(left_out.unsqueeze(-1), 0) for logits in (z, t))  # whatever they hold
            soft = temperature**2 * (_divergence(z / temperature, t / temperature) / samples)
            hard = F.cross_entropy(z, y, ignore_index=IGNORED, reduction="sum") / samples
            loss = weight * soft + (1 - weight) * hard
    return loss if torch.is_autocast_enabled(loss.device.type) else loss.to(student_logits.dtype)


def allocate_levels(scores: Sequence[float], levels: int) -> list[int]:
    """Share out numbers of levels by sensitivity: half of them evenly, the others in proportion to ``scores``.

    The authors' rule: ⌊s / 2⌋ for each tensor (2 at least), and its rounded share of what is left of s a tensor. What
    rounding gives too much is taken from the largest, what is missing goes to the smallest, one at a time.

    Args:
        scores: one for each tensor, finite and not negative, not all 0; the paper takes the norm of the gradient, the
            mean over a few batches at full precision.
        levels: s, wanted on average, at least 2.

    Returns:
        Levels of each tensor; they add up to ``levels * len(scores)``.

    Raises:
        TypeError: ``levels`` is no integer.
        ValueError: no scores, a score that is negative or not finite, all of them 0, or ``levels`` below 2.

    >>> allocate_levels([1.0, 5.0, 2.0], 16)
    [11, 23, 14]
    """
    if integer("levels", levels) < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if not all(0 <= score < math.inf for score in scores) or not any(scores):
        raise ValueError(f"scores must be finite, not negative and not all 0, got {list(scores)}")
    base = max(2, levels // 2)
    total, largest = levels * len(scores), max(scores)
    shares = [score / largest for score in scores]  # their sum cannot overflow
    shared = [base + round(share / sum(shares) * (total - base * len(scores))) for share in shares]
    while (surplus := sum(shared) - total) != 0:
        place = shared.index(max(shared) if surplus > 0 else min(shared))
        shared[place] -= 1 if surplus > 0 else -1
    return shared


def _divergence(z: Tensor, t: Tensor) -> Tensor:
    """KL(softmax(t) ‖ softmax(z)), summed over the rows."""
    log_q, log_p = z.log_softmax(-1), t.log_softmax(-1)
    log_q = log_q.masked_fill(log_p.exp() == 0, 0)  # these classes count nothing, be they -∞ for the student too
    return F.kl_div(log_q, log_p.clamp_min(torch.finfo(log_p.dtype).min), reduction="sum", log_target=True)


def _check_logits(student: Tensor, teacher: Tensor, target: Tensor | None) -> None:
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        check_floating(name, logits)
    if student.shape != teacher.shape:
        raise ValueError(
            "student_logits and teacher_logits must have one shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.ndim < 1 or student.numel() == 0:
        raise ValueError(f"student_logits must be (..., classes) and not empty, got shape {tuple(student.shape)}")
    if target is None:
        return
    check_tensor("target", target)
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64 class numbers, got {target.dtype}")
    if target.shape != student.shape[:-1]:
        raise ValueError(f"target must have shape {tuple(student.shape[:-1])}, got {tuple(target.shape)}")
