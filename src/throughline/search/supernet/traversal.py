"""What a supernet consists of: its choices, its nodes, and two kinds of parameters."""

from torch import nn

from throughline.core._modules import unwrapped
from throughline.search.supernet.choice import Choice
from throughline.search.supernet.mixture import Node

__all__ = ["arch_parameters", "choices", "nodes", "weight_parameters"]


def choices(model: nn.Module) -> dict[str, Choice]:
    """The choices of a supernet ("DARTS: Differentiable Architecture Search", arXiv 1806.09055): each object once, by
    its first qualified name, in the order of ``model.named_modules()``. Wrappers such as torch.compile leave no mark.

    >>> shared = Choice(["a", "b"])
    >>> list(choices(nn.ModuleDict({"first": shared, "second": shared, "third": Choice(["a"])})))
    ['first', 'third']
    """
    return {name: module for name, module in unwrapped(model).named_modules() if isinstance(module, Choice)}


def nodes(model: nn.Module) -> dict[str, tuple[tuple[Choice, ...], int | None]]:
    """The choices of each node's edges, and how many of them it keeps (arXiv 1806.09055).

    Nodes of the same choices, as in cells that repeat, are one decision: they are listed once, by the first qualified
    name.

    Raises:
        ValueError: nodes of the same choices keep different numbers of edges.

    >>> from throughline.search.supernet import MixedOp
    >>> nodes(nn.Sequential(Node([MixedOp({"a": nn.Identity()})], keep=1)))
    {'0': ((Choice(a),), 1)}
    """
    found: dict[str, tuple[tuple[Choice, ...], int | None]] = {}
    seen: dict[tuple[int, ...], str] = {}
    for name, module in unwrapped(model).named_modules():
        if not isinstance(module, Node):
            continue
        edges = tuple(edge.choice for edge in module.edges)
        first = seen.setdefault(tuple(map(id, edges)), name)
        if first == name:
            found[name] = edges, module.keep
        elif found[first][1] != module.keep:
            raise ValueError(
                f"model must keep as many edges in nodes that share their choices, got {found[first][1]} in {first!r} "
                f"and {module.keep} in {name!r}"
            )
    return found


def arch_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The alphas of all choices, each once (arXiv 1806.09055): for the optimizer of the architecture.

    >>> len(arch_parameters(nn.ModuleList([nn.Linear(1, 1), Choice(["a", "b"])])))
    1
    """
    return [choice.alpha for choice in choices(model).values()]


def weight_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but `arch_parameters` (arXiv 1806.09055): for the optimizer of the weights.

    >>> len(weight_parameters(nn.ModuleList([nn.Linear(1, 1), Choice(["a", "b"])])))
    2
    """
    arch = {id(alpha) for alpha in arch_parameters(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in arch]
