"""The plain network that is left when every choice of a supernet has been made."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from throughline.core._modules import unwrapped
from throughline.search.supernet.choice import Choice
from throughline.search.supernet.mixture import MixedOp, Node, total, zeros_of
from throughline.search.supernet.traversal import choices

__all__ = ["discretise"]


def discretise(model: nn.Module, decisions: Mapping[str, str | None] | None = None) -> nn.Module:
    """A deep copy of the supernet with every choice made: plain modules, weights as they are, without the candidates
    that were not chosen (arXiv 1806.09055, section 2.4).

    Args:
        model: the supernet; it stays as it is.
        decisions: an option for each choice by its name in `choices`, or None where the edge is cut. By default what
            the choices have decided; undecided ones take their largest alpha.

    Returns:
        The copy, without any `MixedOp`, `Node` or `Choice`, and without wrappers such as torch.compile.

    Raises:
        ValueError: decisions that miss a choice, or name a choice or option that there is not.

    >>> net = nn.Sequential(MixedOp({"skip": nn.Identity(), "tanh": nn.Tanh()}))
    >>> discretise(net, {"0.choice": "tanh"})
    Sequential(
      (0): Tanh()
    )
    """
    model = unwrapped(model)
    found = choices(model)
    if decisions is not None:
        _check(decisions, found)
    chosen = {id(c): _decided(c) if decisions is None else decisions[name] for name, c in found.items()}
    memo: dict[int, Any] = {}  # what stands for the supernet's modules in the copy; inner ones first
    for module in reversed(list(model.modules())):
        if isinstance(module, Choice):
            memo[id(module)] = Gone()
        elif isinstance(module, MixedOp):
            memo[id(module)] = _plain_op(module, chosen[id(module.choice)], memo)
        elif isinstance(module, Node):
            used = [j for j, edge in enumerate(module.edges) if chosen[id(edge.choice)] is not None] or [0]
            memo[id(module)] = EdgeSum({j: memo[id(module.edges[j])] for j in used}, len(module.edges))
    return _without_gone(copy.deepcopy(model, memo))


class Gone(nn.Module):
    """Stands for a choice while the copy is made."""


class EdgeSum(nn.Module):
    """The sum of the edges that were kept, each applied to the state of its number."""

    def __init__(self, edges: Mapping[int, nn.Module], states: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({str(j): edge for j, edge in edges.items()})
        self.used, self.states = tuple(edges), states

    def forward(self, states: list[Tensor]) -> Tensor:
        if len(states) != self.states:
            raise ValueError(f"states must be {self.states}, got {len(states)}")
        return total(list(self.edges.values()), [states[j] for j in self.used])


class Zeros(nn.Module):
    """Zeros of the shape that a candidate gives: an edge that was cut, where no node can leave it out."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return zeros_of(self.op, args, kwargs)


def _without_gone(module: nn.Module) -> nn.Module:
    """The module without the places of choices, and without lists and dicts that held nothing else."""
    for name, child in list(module._modules.items()):
        held = child is not None and len(child._modules)
        if child is not None:
            _without_gone(child)
        emptied = held and not child._modules and isinstance(child, nn.ModuleDict | nn.ModuleList)  # type: ignore[union-attr]
        if isinstance(child, Gone) or emptied:
            del module._modules[name]
    return module


def _decided(choice: Choice) -> str | None:
    if choice.dropped or choice.decision is not None:
        return choice.decision
    return choice.names[int(choice.alpha.argmax())]


def _plain_op(op: MixedOp, name: str | None, memo: dict[int, Any]) -> nn.Module:
    kept = op.ops[op.smallest if name is None else name]
    copied = copy.deepcopy(kept, memo)
    return Zeros(copied) if name is None else copied


def _check(decisions: Mapping[str, str | None], found: Mapping[str, Choice]) -> None:
    missing, unknown = [n for n in found if n not in decisions], [n for n in decisions if n not in found]
    if missing or unknown:
        raise ValueError(
            f"decisions must be one for each choice of the model ({', '.join(found) or 'it has none'}), got "
            f"{f'none for {missing}' if missing else f'the unknown {unknown}'}"
        )
    for name, option in decisions.items():
        if option is not None and option not in found[name].names:
            raise ValueError(f"decisions must be options, {', '.join(found[name].names)} for {name}, got {option!r}")
