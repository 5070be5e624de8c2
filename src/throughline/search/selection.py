"""Reading an architecture out of a trained supernet: by the largest alphas, or by what the network loses.

"Rethinking Architecture Selection in Differentiable NAS" (arXiv 2108.04392, ICLR 2021): alpha's magnitude says little
of what an operation contributes, so each option is removed in turn, and the one that is missed most is kept
(Algorithm 1). The rule by magnitude is that of "DARTS: Differentiable Architecture Search" (arXiv 1806.09055).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.search.supernet import Choice, batch_statistics, choices, nodes

__all__ = ["Selection", "magnitude_selection", "perturbation_selection"]

Edges = Mapping[str, Choice]  # by the names of the choices


class Selection(NamedTuple):
    """What `perturbation_selection` has decided, and why (arXiv 2108.04392).

    The scores are those of the model with an option removed, ``scores[choice][option]``, and without an edge,
    ``scores[node][choice]``; what has the lowest is kept.

    >>> Selection({"edge": "conv"}, {"edge": {"skip": 0.8, "conv": 0.1}}).decisions
    {'edge': 'conv'}
    """

    decisions: dict[str, str | None]  # an option for every choice that has been decided, None where the edge is cut
    scores: dict[str, dict[str, float]]  # the score without an option, or without an edge


@torch.no_grad()
def magnitude_selection(model: nn.Module, *, exclude: Collection[str] = ("none",)) -> dict[str, str | None]:
    """The option of the largest weight for every choice, and for every node the edges of the largest weights
    (arXiv 1806.09055, section 2.4).

    Args:
        model: the supernet, which stays as it is. What it has decided already is kept.
        exclude: options that cannot be chosen and do not count in the comparison of edges. DARTS leaves out ``none``;
            on NAS-Bench-201 it takes part: ``exclude=()``.

    Returns:
        An option for each choice by its name, None where a node does not keep the edge. Of equals, the first.

    Raises:
        TypeError: ``exclude`` is a single string.
        ValueError: a model without choices, or a choice all of whose options are excluded.

    >>> from throughline.search.supernet import MixedOp
    >>> op = MixedOp({"none": nn.Identity(), "conv": nn.Linear(1, 1)})
    >>> magnitude_selection(nn.Sequential(op))
    {'0.choice': 'conv'}
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a collection of names, got {exclude!r}")
    found = _found(model)
    decisions: dict[str, str | None] = {}
    strength: dict[str, float] = {}
    for name, choice in found.items():
        allowed = [k for k in choice.alive if k not in exclude or k == choice.decision]
        if not allowed and not choice.dropped:
            raise ValueError(f"exclude must leave an option of {name} ({', '.join(choice.names)}), got {exclude!r}")
        weights = dict(zip(choice.names, choice.weights().tolist(), strict=True))
        decisions[name] = max(allowed, key=weights.__getitem__) if allowed else None
        strength[name] = weights[decisions[name]] if allowed else 0.0  # type: ignore[index]
    names = {id(choice): name for name, choice in found.items()}
    for edges, keep in nodes(model).values():
        left = [names[id(choice)] for choice in edges if decisions[names[id(choice)]] is not None]
        for name in sorted(left, key=strength.__getitem__, reverse=True)[keep:] if keep is not None else ():
            decisions[name] = None
    return decisions


def perturbation_selection(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    tune: Callable[[nn.Module], None] | None = None,
    *,
    order: Sequence[str | Sequence[str]] | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[str, dict[str, float]], None] | None = None,
) -> Selection:
    """Decide a trained supernet choice by choice: keep the option whose removal costs most (arXiv 2108.04392,
    Algorithm 1), then for each node the edges whose removal costs most.

    An option is removed by setting its weight to 0, with the others as they were; a whole edge, all of its weights.
    ``evaluate`` runs in evaluation mode without gradients, with BatchNorm normalising by the batch, so batches should
    be large; running statistics and modes are as before afterwards. All options of a choice are judged with the same
    random numbers, of torch's global generators and of those that modules hold. The model is decided in place and never
    copied: it costs one evaluation for each option, at less than the price of the whole mixture as more is decided.
    What has been decided before stays so: a selection that was interrupted goes on where it was.

    Args:
        model: the supernet.
        evaluate: its score on validation data, higher is better: accuracy, or minus the loss.
        tune: trains it for a few epochs between two decisions, not after the last; by default it is not.
        order: names of choices and of nodes (`choices`, `nodes`) in the order in which they are decided, those of an
            inner sequence without tuning between them; what is left out stays open. By default all open choices in
            random order, then all nodes that have more edges than they keep, in random order.
        generator: of this order; torch's global one by default.
        on_step: called with the name and the scores after each decision.

    Returns:
        Decisions and scores. Of equal scores, the first option or edge is kept.

    Raises:
        TypeError: ``order`` is a single string.
        ValueError: a model without choices; in ``order``, an unknown name, one twice, or a choice that is decided
            already; ``evaluate`` returns NaN or something that is no number.

    >>> from throughline.search.supernet import MixedOp
    >>> net = nn.Sequential(MixedOp({"skip": nn.Identity(), "relu": nn.ReLU()}))
    >>> x = torch.tensor([-3.0, 1.0])
    >>> picked = perturbation_selection(net, lambda net: float(net(x).min()))  # the relu never hurts
    >>> picked.decisions
    {'0.choice': 'relu'}
    """
    found = _found(model)
    names = {id(choice): name for name, choice in found.items()}
    joints = {
        name: ({names[id(c)]: c for c in edges}, len(edges) if keep is None else keep)
        for name, (edges, keep) in nodes(model).items()
    }
    rounds = _random_order(found, joints, generator) if order is None else _order(order, found, joints)
    scores: dict[str, dict[str, float]] = {}
    for group in rounds:
        waiting = bool(scores) and tune is not None
        for name in group:
            if not _open(name, found, joints):
                continue
            if waiting:
                tune(model)  # type: ignore[misc]
                waiting = False
            removals = _removals(name, found, joints)
            scores[name] = _scores(model, evaluate, removals)
            ranked = sorted(removals, key=scores[name].__getitem__)  # stable: of equals the first
            if name in found:
                found[name].select(ranked[0])
            else:
                edges, keep = joints[name]
                for dispensable in ranked[keep:]:
                    edges[dispensable].drop()
            if on_step is not None:
                on_step(name, dict(scores[name]))
    decisions = {name: c.decision for name, c in found.items() if c.dropped or c.decision is not None}
    return Selection(decisions, scores)


Joints = Mapping[str, tuple[Edges, int]]


def _found(model: nn.Module) -> dict[str, Choice]:
    found = choices(model)
    if not found:
        raise ValueError(f"model must have choices to decide, got a {type(model).__name__} without any")
    return found


def _open(name: str, found: Edges, joints: Joints) -> bool:
    """Whether there is something to decide: for a node, whether it has more edges than it keeps."""
    if name in found:
        return found[name].decision is None and not found[name].dropped
    edges, keep = joints[name]
    return sum(not choice.dropped for choice in edges.values()) > keep


def _removals(name: str, found: Edges, joints: Joints) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """What may be removed, and what removes it: the options of a choice, or the edges of a node."""
    if name in found:
        choice = found[name]
        return {option: lambda option=option: choice.without(option) for option in choice.names}  # type: ignore[misc]
    return {edge: choice.without for edge, choice in joints[name][0].items() if not choice.dropped}


def _scores(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    removals: Mapping[str, Callable[[], AbstractContextManager[None]]],
) -> dict[str, float]:
    """The score without each of them, always with the same random numbers."""
    generators = list(_generators(model))
    states = [generator.get_state() for generator in generators]
    scores = {}
    with torch.no_grad(), batch_statistics(model):
        for name, removed in removals.items():
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            model.eval()
            with removed():
                scores[name] = _number(evaluate(model))
    return scores


def _generators(model: nn.Module) -> Iterable[torch.Generator]:
    """Where the model's random numbers may come from: torch's global generators, and those that modules hold."""
    found = {id(torch.default_generator): torch.default_generator}
    for tensor in model.parameters():
        if tensor.is_cuda:
            generator = torch.cuda.default_generators[tensor.device.index]
            found[id(generator)] = generator
    for module in model.modules():
        found |= {id(value): value for value in vars(module).values() if isinstance(value, torch.Generator)}
    return found.values()


def _number(score: object) -> float:
    is_number = isinstance(score, Real) or (isinstance(score, Tensor) and score.numel() == 1)
    if not is_number or math.isnan(float(score)):  # type: ignore[arg-type]
        raise ValueError(f"evaluate must return a number that is not NaN, got {score!r}")
    return float(score)  # type: ignore[arg-type]


def _random_order(found: Edges, joints: Joints, generator: torch.Generator | None) -> list[list[str]]:
    rounds: list[list[str]] = []
    for names in ([name for name in found if _open(name, found, joints)], list(joints)):
        device = "cpu" if generator is None else generator.device
        rounds += [[names[i]] for i in torch.randperm(len(names), generator=generator, device=device).tolist()]
    return rounds


def _order(order: Sequence[str | Sequence[str]], found: Edges, joints: Joints) -> list[list[str]]:
    if isinstance(order, str):
        raise TypeError(f"order must be a sequence of names, got {order!r}")
    rounds = [[group] if isinstance(group, str) else list(group) for group in order]
    seen: set[str] = set()
    for name in (name for group in rounds for name in group):
        if name not in found and name not in joints:
            raise ValueError(f"order must name choices and nodes ({', '.join([*found, *joints])}), got {name!r}")
        if name in seen:
            raise ValueError(f"order must name everything once, got {name!r} twice")
        if name in found and not _open(name, found, joints):
            raise ValueError(f"order must name choices that are open, got {name!r}, which is decided")
        seen.add(name)
    return rounds
