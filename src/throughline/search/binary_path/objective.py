"""What hardware costs in a loss or a reward, and the estimator of rewards ("ProxylessNAS: Direct Neural Architecture
Search on Target Task and Hardware", arXiv 1812.00332, sections 3.3 and 3.3.1).
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, readable
from throughline.search.supernet import choices

__all__ = ["Form", "check_form", "hardware_loss", "hardware_reward", "reinforce_loss"]

Form = Literal["linear", "log"]


def hardware_loss(
    task_loss: Tensor,
    expected: Tensor,
    *,
    reference: float,
    form: Form = "linear",
    strength: float = 0.1,
    scale: float = 0.2,
    exponent: float = 0.3,
) -> Tensor:
    """The loss of the task L and the expected latency E in one number, with the reference latency T.

    ``linear`` (eq. 7 up to a constant): L + strength · (E - T) / T, so λ₂ is strength / T.
    ``log`` (the default of the authors' code): scale · L · (log E / log T)^exponent.

    Args:
        task_loss: L, floating point, most often a scalar.
        expected: E, of the same shape, such as `LatencyTable.expected` gives it.
        reference: T, in the unit of E.
        form: as above; ``log`` wants E and T above 1.
        strength: of the linear form, not negative.
        scale, exponent: of the other, positive.

    Raises:
        TypeError: ``task_loss`` or ``expected`` is no floating point tensor.
        ValueError: ``reference`` is not positive, an unknown form, E or T not above 1 where its logarithm is taken, or
            another number out of range.

    >>> hardware_loss(torch.tensor(2.0), torch.tensor(30.0), reference=20.0)
    tensor(2.0500)
    """
    check_floating("task_loss", task_loss)
    check_floating("expected", expected)
    check_form(form, reference)
    if form == "linear":
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength must be finite and not negative, got {strength}")
        return task_loss + strength * (expected / reference - 1)
    for name, value in (("scale", scale), ("exponent", exponent)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if readable(expected) and not (expected > 1).all():
        raise ValueError(f"expected must be above 1 for its logarithm, got {expected.min()}; take a smaller unit")
    return scale * task_loss * (expected.log() / math.log(reference)) ** exponent


def hardware_reward(
    accuracy: float | Tensor, latency: float | Tensor, *, reference: float, exponent: float = -0.07
) -> float | Tensor:
    """ACC · (LAT / T)^exponent: the reward of a network that is both right and fast (section 3.3.1, after MnasNet).

    Args:
        accuracy: of the network, a number or a tensor.
        latency: of the network, positive.
        reference: T, in the unit of ``latency``.
        exponent: not positive; the authors' code has -0.1.

    Raises:
        TypeError: ``accuracy`` or ``latency`` is neither a number nor a floating point tensor.
        ValueError: a number out of range.

    >>> hardware_reward(0.9, 40.0, reference=40.0), round(hardware_reward(0.9, 80.0, reference=40.0), 3)
    (0.9, 0.857)
    """
    _check_number("accuracy", accuracy)
    _check_number("latency", latency)
    if not 0 < reference < math.inf:
        raise ValueError(f"reference must be positive and finite, got {reference}")
    if not -math.inf < exponent <= 0:
        raise ValueError(f"exponent must be finite and not positive, got {exponent}")
    if isinstance(latency, Tensor):
        if readable(latency) and not (latency > 0).all():
            raise ValueError(f"latency must be positive, got {latency.min()}")
    elif not latency > 0:
        raise ValueError(f"latency must be positive, got {latency}")
    return accuracy * (latency / reference) ** exponent


def reinforce_loss(
    model: nn.Module,
    drawn: Sequence[Mapping[str, tuple[str, ...]]],
    rewards: Sequence[float] | Tensor,
    baseline: float,
) -> Tensor:
    """-(1/M) Σ_m (R_m - baseline) log p(g^m): its gradient by alpha is the estimator of REINFORCE (section 3.3.1).

    Args:
        model: the supernet that the paths were drawn from.
        drawn: M >= 1 paths, as `binary_paths` yields them without pairs; log p is the sum over their choices.
        rewards: R, one for each; the higher the better.
        baseline: what is taken off the rewards.

    Returns:
        A scalar to be minimised.

    Raises:
        ValueError: no paths, another number of rewards, a choice or option that there is not, or pairs.

    >>> from throughline.search.supernet import Choice
    >>> choice = Choice(["a", "b"], scale=0.0)
    >>> net = nn.ModuleList([choice])
    >>> reinforce_loss(net, [{"0": ("a",)}, {"0": ("b",)}], [1.0, 0.0], 0.5).backward()
    >>> choice.alpha.grad
    tensor([-0.2500,  0.2500])
    """
    if not drawn or len(rewards) != len(drawn):
        raise ValueError(f"rewards must be one for each of at least one drawn, got {len(rewards)} for {len(drawn)}")
    found = choices(model)
    terms: list[Tensor] = []
    for name in dict.fromkeys(name for paths in drawn for name in paths):
        if name not in found:
            raise ValueError(f"drawn must name choices of the model ({', '.join(found)}), got {name!r}")
        choice = found[name]
        rows = [m for m, paths in enumerate(drawn) if name in paths]
        for m in rows:
            path = drawn[m][name]
            if len(path) != 1 or path[0] not in choice.names:
                raise ValueError(f"drawn must be single options, ({', '.join(choice.names)}) for {name}, got {path}")
        alpha = choice.alpha
        gains = torch.as_tensor(rewards, dtype=alpha.dtype, device=alpha.device)[rows] - baseline
        places = torch.tensor([choice.names.index(drawn[m][name][0]) for m in rows], device=alpha.device)
        terms.append((gains * alpha.log_softmax(0)[places]).sum())
    if not terms:
        raise ValueError("drawn must name at least one choice, got none")
    return -torch.stack(terms).sum() / len(drawn)


def check_form(form: str, reference: float) -> None:
    """Raise a ValueError unless the form is known and can be taken at this reference."""
    if form not in ("linear", "log"):
        raise ValueError(f"form must be 'linear' or 'log', got {form!r}")
    if not 0 < reference < math.inf:
        raise ValueError(f"reference must be positive and finite, got {reference}")
    if form == "log" and reference <= 1:
        raise ValueError(f"reference must be above 1 for its logarithm, got {reference}; take a smaller unit")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real):
        check_floating(name, value)
