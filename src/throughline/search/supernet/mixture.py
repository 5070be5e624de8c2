"""Edges that mix candidates, and nodes that add up edges ("DARTS: Differentiable Architecture Search",
arXiv 1806.09055, eqs. 1 and 2).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from throughline.search.supernet.choice import Choice
from throughline.search.supernet.statistics import batch_statistics

__all__ = ["MixedOp", "Mixture", "Node", "weighted_sum"]


class MixedOp(nn.Module):
    """sum_k p_k o_k(x) over candidate operations, until their choice is decided (arXiv 1806.09055, eq. 2).

    A decided one runs its candidate and nothing else, without multiplying; options that are removed do not run; with
    nothing left the output is zeros. Whatever arguments a call has go to every candidate.

    Args:
        ops: a candidate for each option, by name.
        choice: the decision; a new one by default. Names must be those of ``ops``, in any order.

    Attributes:
        ops: the candidates, in the order of the choice.
        choice: the decision.
        mixture: what is done while more than one candidate may have weight: ``mixture(self, args, kwargs)`` gives the
            output. The weighted sum by default; methods that run one candidate at a time put their own here.

    Raises:
        TypeError: a candidate that is no module; in `forward`, an output that is no tensor.
        ValueError: no candidates, names that are not those of the choice or cannot be names of modules; in `forward`,
            outputs of different shapes.

    >>> op = MixedOp({"skip": nn.Identity(), "negative": nn.Linear(1, 1)}, Choice(["skip", "negative"], scale=0.0))
    >>> op.choice.select("skip")
    >>> op(torch.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, ops: Mapping[str, nn.Module], choice: Choice | None = None) -> None:
        super().__init__()
        if not ops:
            raise ValueError("ops must be at least one candidate, got none")
        for name, op in ops.items():
            if not isinstance(op, nn.Module):
                raise TypeError(f"ops must be modules, got {type(op).__name__} for {name!r}")
        choice = Choice(tuple(ops)) if choice is None else choice
        if set(ops) != set(choice.names):
            raise ValueError(f"ops must have the names of the choice, got {tuple(ops)} and {choice.names}")
        try:
            self.ops = nn.ModuleDict({name: ops[name] for name in choice.names})
        except KeyError as error:
            raise ValueError(f"ops must have names that modules can have: {error.args[0]}") from error
        self.choice = choice
        self.mixture = cast("Mixture", weighted_sum)
        self._label = "a MixedOp"

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The mixture of the candidates' outputs, which have one shape."""
        choice = self.choice
        alive = choice.alive
        if not alive:
            return zeros_of(self.ops[self.smallest], args, kwargs)
        if choice.decision is not None:
            return self.run(alive[0], args, kwargs)
        return self.mixture(self, args, kwargs)

    def run(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The output of one candidate, for a `mixture`."""
        output = self.ops[name](*args, **kwargs)
        if not isinstance(output, Tensor):
            raise TypeError(f"{self._label}: candidate {name!r} must give a tensor, got {type(output).__name__}")
        return output

    def check_shapes(self, shapes: Mapping[str, torch.Size]) -> None:
        """Raise the ValueError of candidates whose outputs have these different shapes, for a `mixture`."""
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{self._label}: candidates must give outputs of one shape, got {found}")

    @property
    def smallest(self) -> str:
        """The option with the fewest parameters: the cheapest to ask for the shape of the output."""
        return min(self.ops, key=lambda name: sum(p.numel() for p in self.ops[name].parameters()))


Mixture = Callable[[MixedOp, tuple[Any, ...], dict[str, Any]], Tensor]


class Node(nn.Module):
    """The sum of its edges, each applied to a state of its own (arXiv 1806.09055, eq. 1).

    Args:
        edges: one for each state.
        keep: how many of them an architecture keeps; None keeps all. The node itself adds up what has not been dropped:
            it is the selection that keeps to this.

    Attributes:
        edges: the edges.
        keep: as given.

    Raises:
        TypeError: an edge that is no `MixedOp`.
        ValueError: no edges, or ``keep`` less than 1 or more than the edges; in `forward`, another number of states
            than of edges, or edges that give different shapes.

    >>> node = Node([MixedOp({"skip": nn.Identity()}), MixedOp({"up": nn.Upsample(scale_factor=2)})], keep=1)
    >>> node([torch.zeros(1, 1, 4), torch.ones(1, 1, 2)]).tolist()
    [[[1.0, 1.0, 1.0, 1.0]]]
    """

    def __init__(self, edges: Iterable[MixedOp], *, keep: int | None = None) -> None:
        super().__init__()
        found = list(edges)
        if not found:
            raise ValueError("edges must be at least one, got none")
        for edge in found:
            if not isinstance(edge, MixedOp):
                raise TypeError(f"edges must be MixedOps, got {type(edge).__name__}")
        if keep is not None and not 1 <= keep <= len(found):
            raise ValueError(f"keep must be between 1 and the number of edges, {len(found)}, got {keep}")
        self.edges = cast(Sequence[MixedOp], nn.ModuleList(found))
        self.keep = keep
        for i, edge in enumerate(found):
            edge._label = f"edge {i} of a Node"

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The sum of edge_j(states_j)."""
        if len(states) != len(self.edges):
            raise ValueError(f"states must be one for each of the {len(self.edges)} edges, got {len(states)}")
        used = [j for j, edge in enumerate(self.edges) if edge.choice.alive] or [0]
        return total([self.edges[j] for j in used], [states[j] for j in used])

    def extra_repr(self) -> str:
        return "" if self.keep is None else f"keep={self.keep}"


def weighted_sum(op: MixedOp, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """sum_k p_k o_k(x) over the options that are alive; what is removed is not made up for by the others."""
    choice = op.choice
    alive = choice.alive
    weights = choice.probabilities()  # where an option is alive its weight in force is this
    in_place = accumulates()
    total: Tensor | None = None
    for k, name in enumerate(choice.names):
        if name not in alive:
            continue
        output, weight = op.run(name, args, kwargs), weights[k]
        if total is None:
            total = output * weight
        elif output.shape != total.shape:
            op.check_shapes({alive[0]: total.shape, name: output.shape})
        else:
            weight = weight.to(output.dtype)
            owned = in_place and total.dtype == output.dtype
            total = total.addcmul_(output, weight) if owned else torch.addcmul(total, output, weight)
    assert total is not None  # MixedOp.forward asks when something is alive
    return total


def total(edges: Sequence[nn.Module], states: Sequence[Tensor]) -> Tensor:
    """The sum of edge_j(states_j), of at least one."""
    result: Tensor = edges[0](states[0])
    in_place = accumulates()
    for j, (edge, state) in enumerate(zip(edges[1:], states[1:], strict=True)):
        output: Tensor = edge(state)
        if output.shape != result.shape:
            raise ValueError(f"edges must give outputs of one shape, got {tuple(result.shape)}, {tuple(output.shape)}")
        # the first may be a state itself, which an identity hands on: it is never written to
        owned = in_place and j > 0 and result.dtype == output.dtype
        result = result.add_(output) if owned else result + output
    return result


def zeros_of(op: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Zeros like the output of a module, which is run without leaving a trace in its statistics."""
    with torch.no_grad(), batch_statistics(op):
        return torch.zeros_like(op(*args, **kwargs))


def accumulates() -> bool:
    """Whether sums may be formed in place: neither recorded, nor compiled, nor inside of torch.func."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not torch._C._are_functorch_transforms_active()
