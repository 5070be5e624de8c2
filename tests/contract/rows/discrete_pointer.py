"""Rows of `throughline.discrete.pointer`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal, seeded
from torch import Tensor, nn

from throughline.discrete.pointer import PAD, STOP, PointerAttention, PointerNetwork

NOT_PARTS = {
    "throughline.discrete.pointer.STOP": "a constant: the end symbol",
    "throughline.discrete.pointer.PAD": "a constant: what fills up behind the end",
    "throughline.discrete.pointer.PointerDecoding": "a named tuple: what PointerNetwork.decode returns",
}
TARGETS = torch.tensor([[2, 0, STOP, PAD], [1, STOP, PAD, PAD], [0, 1, 3, STOP]])
GOES_ON = torch.tensor([[2, 0, STOP, PAD], [1, STOP, PAD, PAD], [0, STOP, 1, STOP]])
TWICE = torch.tensor([[2, 0, 3, STOP], [STOP, STOP, PAD, PAD], [0, 1, 3, STOP]])
AFTER_PAD = torch.tensor([[2, STOP, PAD, 0], [1, STOP, PAD, PAD], [0, 1, 3, STOP]])
BEYOND = torch.tensor([[3], [2], [STOP]])
LENGTHS = torch.tensor([4, 2, 4])
X = torch.ones(3, 4, 2, dtype=torch.float64)
GLOBAL = {"untouched": "a module's parameters start from torch's global generator, as those of nn.Linear do"}


def weights(net: nn.Module) -> None:
    """Parameters that do not depend on the global generator."""
    draw = seeded(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 2)


def slow_scores(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """v·tanh(W1 e + W2 d) pair by pair."""
    module = PointerAttention(4, 3, hidden_dim=5)
    weights(module)
    first, second, v = (m.weight.detach().double() for m in (module.key, module.query, module.score))
    found = torch.full((len(queries), len(keys)), -torch.inf, dtype=torch.float64)
    for i, d in enumerate(queries):
        for j, e in enumerate(keys):
            if mask[j]:
                found[i, j] = v[0] @ torch.tanh(first @ e + second @ d)
    return found


def decoded(net: Any, inputs: Tensor, lengths: Tensor, constraint: str | None) -> Any:
    # few steps: in bfloat16 one near tie turns the rest of a long sequence round
    return net.decode(inputs, lengths=lengths, beam_size=2, constraint=constraint, max_steps=5)


WIDTHS = {"key_dim": 4, "query_dim": 3, "hidden_dim": 5}
PARTS = [
    Part(
        PointerAttention,
        lambda g: (normal(g, 2, 3), normal(g, 6, 4), torch.tensor([True, True, False, True, True, False])),
        WIDTHS,
        variant="masked",
        call=lambda net, queries, keys, mask: net(queries, keys, mask=mask),
        prepare=weights,
        reference=slow_scores,
        mixed=True,
        skips={
            **GLOBAL,
            **dict.fromkeys(("gradcheck", "extremes"), "a masked logit is -inf by definition"),
            "batch": "the mask of this row has no batch dimensions",
        },
        bad=(Bad(ValueError, r"key_dim, .* must be at least 1, got 0, 3 and 5", key_dim=0),),
    ),
    Part(
        PointerAttention,
        lambda g: (normal(g, 2, 3), normal(g, 6, 4)),
        WIDTHS,
        prepare=weights,
        batched=(0, 1),
        mixed=True,
        edges={"single": lambda: (torch.ones(1, 3, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64))},
        reference=lambda q, k: slow_scores(q, k, torch.ones(len(k), dtype=torch.bool)),
        skips=GLOBAL,
        bad=(
            Bad(ValueError, r"query_dim .* must be at least 1, got 4, 0 and 5", query_dim=0),
            Bad(TypeError, r"hidden_dim must be an integer, got 2\.5", hidden_dim=2.5),
            Bad(
                TypeError,
                r"mask must be a tensor, got list",
                do=lambda m: m(X[0, :, [0, 0, 1]], X[0, :, [0] * 4], mask=[1]),
            ),
            Bad(ValueError, r"queries must be \(\.\.\., q, 3\), got \(2, 4\)", torch.ones(2, 4), torch.ones(6, 4)),
            Bad(ValueError, r"keys must be \(\.\.\., k, 4\), got \(4,\)", torch.ones(2, 3), torch.ones(4)),
            Bad(ValueError, r"one leading shape, got", torch.ones(2, 2, 3), torch.ones(3, 6, 4)),
            Bad(TypeError, r"mask must be bool", do=lambda m: m(X[0, :, [0, 0, 1]], X[0, :, [0] * 4], mask=LENGTHS)),
            Bad(
                ValueError,
                r"mask must be \(4,\) or \(4, 4\), got \(3,\)",
                do=lambda m: m(X[0, :, [0, 0, 1]], X[0, :, [0] * 4], mask=LENGTHS > 2),
            ),
        ),
    ),
    Part(
        PointerNetwork,
        lambda g: (normal(g, 3, 4, 2), TARGETS, LENGTHS),
        {"hidden_size": 3},
        variant="log_prob",
        call=lambda net, inputs, targets, lengths: net.log_prob(inputs, targets, lengths=lengths),
        prepare=weights,
        foreign=(2,),
        edges={"single": lambda: (X[:1, :1], torch.tensor([[STOP]]), torch.tensor([1]))},
        tolerance=(1e-4, 1e-1),
        skips={
            **GLOBAL,
            "batch": "one batch dimension, as nn.LSTM has",
            "fullgraph": "targets and lengths are checked by their values",
            "transforms": "torch has no vmap of nn.LSTM",
        },
        bad=(
            Bad(ValueError, r"input_dim and hidden_size must be at least 1, got 0 and 3", input_dim=0),
            Bad(ValueError, r"init_range must be positive and finite, got 0\.0", init_range=0.0),
            Bad(ValueError, r"inputs must be \(B, n, 2\), .* got \(3, 4, 3\)", torch.ones(3, 4, 3), TARGETS, LENGTHS),
            Bad(TypeError, r"targets must be integers, got torch.float32", X, TARGETS.float(), LENGTHS),
            Bad(ValueError, r"targets must be \(3, m\) with m >= 1, got \(2, 4\)", X, TARGETS[:2], LENGTHS),
            Bad(ValueError, r"targets must be positions .* got 2 in row 1 of length 2", X, BEYOND, LENGTHS),
            Bad(ValueError, r"targets must be positions .* got -7 in row 0", X, TARGETS * 0 - 7, LENGTHS),
            Bad(
                ValueError,
                r"PAD \(-100\) alone behind STOP .* got 1 at place 2 of row 2",
                X,
                GOES_ON,
                LENGTHS,
            ),
            Bad(ValueError, r"alone behind STOP .* got -1 at place 1 of row 1", X, TWICE, LENGTHS),
            Bad(ValueError, r"alone behind STOP .* got 0 at place 3 of row 0", X, AFTER_PAD, LENGTHS),
            Bad(TypeError, r"hidden_size must be an integer, got 3\.0", hidden_size=3.0),
            Bad(TypeError, r"input_dim must be an integer, got 1\.5", input_dim=1.5),
            Bad(ValueError, r"lengths must be in 1 … 4, got 2 … 5", X, TARGETS, torch.tensor([5, 2, 4])),
            Bad(ValueError, r"lengths must be in 1 … 4, got 0 … 4", X, TARGETS, torch.tensor([4, 2, 0])),
            Bad(ValueError, r"lengths must be \(3,\), .* got \(2,\)", X, TARGETS, LENGTHS[:2]),
            Bad(TypeError, r"lengths must be integers, got torch.float32", X, TARGETS, LENGTHS.float()),
        ),
    ),
    *(
        Part(
            PointerNetwork,
            lambda g, c=constraint: (normal(g, 3, 4, 2), LENGTHS.clamp_min(3), c),
            {"hidden_size": 3},
            variant=f"decode, {constraint}",
            call=decoded,
            prepare=weights,
            foreign=(1,),
            constant=(0,),
            edges={"single": lambda c=constraint: (X[:1, :3], torch.tensor([3]), c)},
            tolerance=(1e-4, 1e-1),
            skips={
                **GLOBAL,
                "gradcheck": "decoding chooses: it runs without gradients",
                "batch": "one batch dimension, as nn.LSTM has",
                "fullgraph": "stops when all have ended",
                "transforms": "torch has no vmap of nn.LSTM",
                "ddp": "decoding chooses: it runs without gradients",
            },
            bad=(
                Bad(
                    ValueError, r"constraint must be one of tour, polygon, triangles or .* got 'path'", X, None, "path"
                ),
                Bad(ValueError, r'"polygon" needs three elements or more, got 2', X, LENGTHS, "polygon"),
                Bad(
                    ValueError,
                    r"beam_size and max_steps must be .* got 0 and 10",
                    do=lambda m: m.decode(X, beam_size=0),
                ),
                Bad(ValueError, r"got 1 and 0", do=lambda m: m.decode(X, max_steps=0)),
                Bad(TypeError, r"beam_size must be an integer, got 2\.0", do=lambda m: m.decode(X, beam_size=2.0)),
                Bad(TypeError, r"max_steps must be an integer, got 2\.5", do=lambda m: m.decode(X, max_steps=2.5)),
                Bad(
                    ValueError,
                    r"finite, got \[inf, inf\] at position 0 of row 0",
                    X / 0,
                    None,
                    constraint,
                ),
                Bad(ValueError, r"inputs must be \(B, n, 2\)", X[0], None, constraint),
                Bad(TypeError, r"bool mask, got torch.float32", X, None, lambda p, _: torch.ones(3, p.shape[1], 5)),
                Bad(ValueError, r"mask \(3, 2, 5\), got \(3, 2, 4\)", X, None, lambda p, _: torch.ones(3, 2, 4) > 0),
            ),
        )
        for constraint in (None, "tour", "polygon", "triangles")
    ),
]
