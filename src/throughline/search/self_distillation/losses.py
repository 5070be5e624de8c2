"""What several teachers say together, and how far a student is from it."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating, readable

__all__ = ["check_logits", "check_temperature", "distillation_loss", "vote"]

SUM_TOLERANCE = 1e-3


def vote(probabilities: Tensor) -> Tensor:
    """The mean of the teachers' probabilities, (1/K) Σ_k p_k.

    "Improving Differentiable Architecture Search via Self-Distillation" (arXiv 2302.05629) calls it voting.

    Args:
        probabilities: floating point, ``(K, ..., C)``, of K ≥ 1 teachers.

    Returns:
        ``(..., C)``.

    Raises:
        TypeError: ``probabilities`` are no floating point tensor.
        ValueError: they have fewer than two dimensions, or no teacher.

    >>> vote(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.7500, 0.2500])
    """
    check_floating("probabilities", probabilities)
    if probabilities.ndim < 2 or len(probabilities) == 0:
        raise ValueError(
            "probabilities must be (teachers, ..., classes) of at least one teacher, "
            f"got shape {tuple(probabilities.shape)}"
        )
    return probabilities.mean(0)


def distillation_loss(logits: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """τ² KL(q ‖ softmax(z / τ)), the mean over samples: how far the logits z are from a teacher's probabilities q.

    The term that "Improving Differentiable Architecture Search via Self-Distillation" (arXiv 2302.05629) adds to the
    loss of the weights. Its gradient in z is τ (softmax(z / τ) − q) over the number of samples: the factor τ² keeps its
    size comparable across temperatures. No gradient flows into q.

    Args:
        logits: z, floating point, ``(..., C)``, not empty. A logit of -∞ takes its class out; where q is 0 too, it
            counts nothing.
        teacher: q, floating point, of the same shape: probabilities at the same temperature, such as
            `VotingTeachers.predict` gives them. Whether they are is only checked outside of ``torch.compile``.
        temperature: τ, positive and finite.

    Returns:
        Scalar, in the dtype of ``logits``, but computed in float32 at least (and returned so under autocast).

    Raises:
        TypeError: ``logits`` or ``teacher`` are no floating point tensor.
        ValueError: their shapes differ or are empty, ``teacher`` holds no probabilities, or τ is out of range.

    >>> distillation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    tensor(0.4338)
    """
    check_floating("logits", logits)
    check_floating("teacher", teacher)
    if logits.shape != teacher.shape:
        raise ValueError(
            f"logits and teacher must have one shape, got {tuple(logits.shape)} and {tuple(teacher.shape)}"
        )
    if logits.ndim < 1 or logits.numel() == 0:
        raise ValueError(f"logits must be (..., classes) and not empty, got shape {tuple(logits.shape)}")
    check_temperature(temperature)
    q = teacher.detach()
    if readable(logits) and readable(q):
        _check_probabilities(q)
    wide = torch.promote_types(logits.dtype, torch.float32)
    samples = logits.numel() // logits.shape[-1]
    with torch.autocast(logits.device.type, enabled=False):
        q, log_p = q.to(wide), (logits.to(wide) / temperature).log_softmax(-1)
        surprise = torch.where(q != 0, q.log() - log_p, 0.0)  # 0 log 0 = 0
        loss: Tensor = temperature**2 * (torch.linalg.vecdot(q, surprise).sum() / samples)
    return loss if torch.is_autocast_enabled(loss.device.type) else loss.to(logits.dtype)


def check_logits(output: object) -> Tensor:
    """What a model gave, if it can be logits.

    Raises:
        TypeError: it gave no floating point tensor.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"forward must return the logits, a floating point tensor (..., classes), got {got}")
    return output


def check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def _check_probabilities(teacher: Tensor) -> None:
    allowed = SUM_TOLERANCE + torch.finfo(teacher.dtype).eps  # as far as half precision rounds
    lowest, excess = teacher.amin(), (teacher.sum(-1) - 1).abs().amax()
    if not (lowest >= 0 and excess <= allowed):
        raise ValueError(
            "teacher must hold probabilities, each row not negative and of sum 1; of logits take "
            f"softmax(logits / temperature): got a least entry of {lowest.item():g} and a sum that is off by "
            f"{excess.item():g}"
        )
