"""Rows of `throughline.search.supernet`."""

import torch
from tests.contract.part import COMPILER, Bad, Part, normal, seeded
from torch import Tensor, nn

from throughline.search.supernet import Choice, MixedOp, Node

NOT_PARTS = {
    "throughline.search.supernet.choices": "a walk through modules that computes nothing",
    "throughline.search.supernet.nodes": "a walk through modules that computes nothing",
    "throughline.search.supernet.arch_parameters": "a walk through modules that computes nothing",
    "throughline.search.supernet.weight_parameters": "a walk through modules that computes nothing",
    "throughline.search.supernet.batch_statistics": "a context manager that computes nothing; test_statistics.py",
    "throughline.search.supernet.discretise": "makes another module of a module; test_discrete.py compares them",
}

NAMES = ("skip", "linear", "tanh")


def ops(seed: int = 0) -> dict[str, nn.Module]:
    """Candidates that do not depend on the global generator."""
    linear = nn.Linear(4, 4, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(normal(seeded(seed), *parameter.shape) / 2)
    return {"skip": nn.Identity(), "linear": linear, "tanh": nn.Tanh()}


def choice() -> Choice:
    made = Choice(NAMES, generator=seeded(9))
    with torch.no_grad():
        made.alpha.copy_(torch.tensor([0.3, -0.2, 0.5]))
    return made


def fresh(op: MixedOp, decide: str = "") -> None:
    """Candidates and a choice of its own: those among a row's options belong to all instances."""
    op.ops, op.choice = nn.ModuleDict(ops()), choice()
    if decide:
        op.choice.select(decide)


def edges() -> list[MixedOp]:
    return [MixedOp(ops(seed), choice()) for seed in range(2)]


def own_edges(node: Node) -> None:
    node.edges = nn.ModuleList(edges())  # type: ignore[assignment]
    node.edges[1].choice.select("tanh")


def by_hand(x: Tensor) -> Tensor:
    weight, bias = (p.double() for p in ops()["linear"].parameters())
    skip, linear, tanh = (choice().alpha.double().exp() / choice().alpha.double().exp().sum()).tolist()
    return (skip * x + linear * (x @ weight.T + bias) + tanh * x.tanh()).detach()


def zero(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


TRANSPARENT = {"foreign": "hands whatever it is called with to candidates, which may take lists"}

PARTS = [
    Part(
        Choice,
        lambda g: (),
        {"names": NAMES},
        variant="weights",
        call=lambda made: made.weights(),
        bad=(
            Bad(ValueError, r"names must be at least one", names=[]),
            Bad(ValueError, r"names must differ from each other", names=["a", "a"]),
            Bad(TypeError, r"names must be a sequence of strings, got 'abc'", names="abc"),
            Bad(ValueError, r"one of the options skip, linear, tanh, got 'conv'", do=lambda made: made.select("conv")),
        ),
        skips={
            "batch": "takes no input",
            **dict.fromkeys(("transforms", "nan", "empty", "foreign"), "takes no input"),
        },
    ),
    *(
        Part(
            MixedOp,
            lambda g: (normal(g, 4),),
            {"ops": ops(), "choice": choice()},
            variant=decide or "open",
            prepare=lambda op, decide=decide: fresh(op, decide),
            batched=(0,),
            mixed=True,
            reference=torch.tanh if decide else by_hand,
            tolerance=(1e-4, 1e-1),
            backend="aot_eager" if decide else COMPILER,
            arguments=("x",),
            edges={"single": lambda: (zero(1, 4),)},
            bad=(
                Bad(ValueError, r"ops must be at least one candidate, got none", ops={}),
                Bad(ValueError, r"ops must have the names of the choice", choice=Choice(["a", "b"])),
                Bad(TypeError, r"ops must be modules, got builtin_function_or_method", ops={"f": torch.tanh}),
            ),
            skips=TRANSPARENT | ({"ddp": "what was not chosen gets no gradient"} if decide else {}),
        )
        for decide in ("", "tanh")
    ),
    Part(
        Node,
        lambda g: (normal(g, 4), normal(g, 4)),
        {"edges": edges(), "keep": 1},
        variant="one edge decided",
        prepare=own_edges,
        call=lambda node, x, y: node([x, y]),
        batched=(0, 1),
        mixed=True,
        reference=lambda x, y: by_hand(x) + y.tanh(),
        tolerance=(1e-4, 1e-1),
        edges={"single": lambda: (zero(1, 4), zero(1, 4))},
        bad=(
            Bad(ValueError, r"edges must be at least one, got none", edges=[], keep=None),
            Bad(TypeError, r"edges must be MixedOps, got Tanh", edges=[nn.Tanh()]),
            Bad(ValueError, r"keep must be between 1 and the number of edges, 2, got 3", keep=3),
            Bad(ValueError, r"states must be one for each of the 2 edges, got 1", do=lambda node: node([zero(4)])),
        ),
        skips=TRANSPARENT | {"ddp": "what was not chosen gets no gradient"},
    ),
]
