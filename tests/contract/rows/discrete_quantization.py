"""Rows of `throughline.discrete.quantization`."""

from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Generator, Tensor, nn
from torch.func import functional_call

from throughline.discrete.quantization import (
    PointQuantizer,
    WeightQuantizer,
    allocate_levels,
    distillation_loss,
    huffman_lengths,
    nonuniform_quantize,
    quantile_points,
    uniform_quantize,
)

NOT_PARTS = {
    "throughline.discrete.quantization.CompressedSize": "a NamedTuple of four numbers: what size() returns",
    **{
        f"throughline.discrete.quantization.{name}_quantized": "files have tests of their own, test_storage.py"
        for name in ("save", "load")
    },
}

WHOLE = "one weight tensor is one argument: buckets run over all of it"
W, POINTS = torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0.0, 0.4, 1.0])
WEIGHT_BAD = (
    Bad(ValueError, r"bucket_size must be at least 1, or None, got 0", bucket_size=0),
    Bad(TypeError, r"bucket_size must be an integer, or None, got 2\.5", bucket_size=2.5),
    Bad(TypeError, r"weight must be floating point, got torch.int64", torch.arange(4), POINTS),
    Bad(ValueError, r"weight must not be empty, got shape \(0, 2\)", torch.zeros(0, 2), POINTS),
    Bad(ValueError, r"weight must be finite", torch.tensor([0.0, torch.nan]), POINTS),
    Bad(ValueError, r"weight must be finite", torch.tensor([0.0, -torch.inf]), POINTS),
    Bad(ValueError, r"weight must be finite and so must be its range", torch.tensor([-3e38, 3e38]), POINTS),
)
LEVELS_BAD = (
    Bad(ValueError, r"levels must be at least 2, got 1", levels=1),
    Bad(TypeError, r"levels must be an integer, got 4\.0", levels=4.0),
)


def alone(bads: tuple[Bad, ...]) -> tuple[Bad, ...]:
    """The same without the points."""
    return tuple(Bad(b.error, b.match, *b.args[:1], **b.options) for b in bads)


EDGES = {
    "single": lambda: (torch.ones(1, dtype=torch.float64),),
    "constant bucket": lambda: (torch.tensor([0.1, 0.1, 0.1, 5.0], dtype=torch.float64),),
    "huge": lambda: (torch.tensor([-1e30, 1e30, 0.0, 3.0], dtype=torch.float64),),
    "below the least range": lambda: (torch.tensor([1e-30, 3e-30, 2e-30], dtype=torch.float64),),
}
STRAIGHT = "the gradient of rounding is set to that of the identity"


def layer(dtype: torch.dtype = torch.float64) -> nn.Module:
    """From 3 to 8 features, with weights that draw no random numbers."""
    made = nn.utils.skip_init(nn.Linear, 3, 8, dtype=dtype, device="cpu")
    with torch.no_grad():
        made.weight.copy_(torch.arange(24, device="cpu").double().mul(0.7).sin().view(8, 3))
        made.bias.zero_()
    return made


def inside(quantizer: Any, x: Tensor) -> Tensor:
    """The model at its quantised weights; copies of them, so that the gradient can be taken after the block."""
    with quantizer:
        copies = {name: p.clone() for name, p in quantizer.model.named_parameters()}
        result: Tensor = functional_call(quantizer.model, copies, (x.double(),))
        return result.to(x.dtype)


ONE_SAMPLE = {"single": lambda: (torch.ones(3, dtype=torch.float64),)}
QUANTIZER_BAD = (
    Bad(ValueError, r"bits must be from 1 to 16, got 0", bits=0),
    Bad(ValueError, r"bits must be from 1 to 16, got 17", bits=17),
    Bad(TypeError, r"bits must be an integer, got 1\.5", bits=1.5),
    Bad(TypeError, r"bits must be an integer, got 2\.0", bits=2.0),
    Bad(TypeError, r"bucket_size must be an integer, or None, got 256\.0", bucket_size=256.0),
    Bad(ValueError, r"bucket_size must be at least 1, or None, got 0", bucket_size=0),
    Bad(ValueError, r"select must choose at least one parameter, got none of: weight", select=lambda name, p: False),
)


def logits(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    return normal(generator, 5, 4), normal(generator, 5, 4), torch.randint(4, (5,), generator=generator)


Z = torch.zeros(2, 3)
LOSS_BAD = (
    Bad(ValueError, r"temperature must be positive and finite, got 0\.0", temperature=0.0),
    Bad(ValueError, r"weight must be in \[0, 1\], got 1\.5", weight=1.5),
    Bad(ValueError, r"must have one shape, got \(2, 3\) and \(2, 4\)", Z, torch.zeros(2, 4)),
    Bad(ValueError, r"student_logits must be \(\.\.\., classes\) and not empty, got shape \(0, 3\)", Z[:0], Z[:0]),
    Bad(TypeError, r"student_logits must be floating point, got torch.int64", Z.long(), Z),
    Bad(TypeError, r"teacher_logits must be floating point, got torch.int64", Z, Z.long()),
    Bad(TypeError, r"target must be int64 class numbers, got torch.float32", Z, Z, torch.zeros(2)),
    Bad(ValueError, r"target must have shape \(2,\), got \(3,\)", Z, Z, torch.zeros(3).long()),
)

PARTS = [
    *(
        Part(
            uniform_quantize,
            lambda g: (normal(g, 7, 3),),
            {"levels": 4, "bucket_size": size},
            edges=EDGES,
            backend=COMPILER if size == 8 else "aot_eager",
            bad=(*alone(WEIGHT_BAD), *LEVELS_BAD),
            skips={"gradcheck": STRAIGHT, "batch": WHOLE, "seed": "draws only with stochastic=True"},
        )
        for size in (8, None)
    ),
    Part(
        uniform_quantize,
        lambda g: (normal(g, 7, 3),),
        {"levels": 4, "bucket_size": 8, "stochastic": True},
        variant="stochastic",
        edges=EDGES,
        bad=(*alone(WEIGHT_BAD), *LEVELS_BAD),
        skips={
            "gradcheck": STRAIGHT,
            "batch": WHOLE,
            "dtype": "every dtype draws numbers of its own",
            "transforms": "vmap wants its caller to say what becomes of chance",
            "fullgraph": "torch.compile knows no generators",
        },
    ),
    *(
        Part(
            nonuniform_quantize,
            lambda g, levels=levels: (normal(g, 7, 3), torch.rand(levels, generator=g, dtype=torch.float64)),
            {"bucket_size": 8},
            variant=f"{levels} points",
            constant=(0,),
            stretched=(0,),
            edges={label: lambda make=make: (*make(), POINTS.double()) for label, make in EDGES.items()},
            bad=(
                *WEIGHT_BAD,
                Bad(ValueError, r"points must be one-dimensional and at least two, got shape \(1,\)", W, POINTS[:1]),
                Bad(ValueError, r"points must be one-dimensional .* got shape \(1, 3\)", W, POINTS[None]),
                Bad(ValueError, r"points must be finite, got \[0\.0, nan\]", W, torch.tensor([0.0, torch.nan])),
                Bad(TypeError, r"points must be floating point, got torch.int64", W, torch.arange(3)),
            ),
            skips={"batch": WHOLE},
        )
        for levels in (4, 11)
    ),
    Part(
        quantile_points,
        lambda g: (normal(g, 7, 3),),
        {"levels": 4, "bucket_size": 8},
        edges=EDGES,
        shortest=torch.float32,
        bad=(*alone(WEIGHT_BAD), *LEVELS_BAD),
        skips={"gradcheck": "a start for the points, without gradient", "batch": WHOLE},
    ),
    Part(
        WeightQuantizer,
        lambda g: (normal(g, 3),),
        {"bits": 2, "bucket_size": 7},
        call=lambda x, **options: inside(WeightQuantizer(layer(), **options), x),
        batched=(0,),
        edges=ONE_SAMPLE,
        bad=QUANTIZER_BAD,
        skips={
            "seed": "draws only with stochastic=True",
            "fullgraph": "parameters are written inside the call",
            "transforms": "parameters are written inside the call",
            "foreign": "x is the model's own argument",
        },
    ),
    Part(
        PointQuantizer,
        lambda g: (normal(g, 3),),
        {"model": layer(), "bits": 2, "bucket_size": 7},
        variant="bits=2",
        call=inside,
        batched=(0,),
        edges=ONE_SAMPLE,
        bad=(
            *QUANTIZER_BAD,
            Bad(ValueError, r'init must be "quantile" or "uniform", got \'random\'', init="random"),
            Bad(ValueError, r"levels must name selected parameters \(weight\), got 'bias'", levels={"bias": 4}),
            Bad(ValueError, r"levels must be from 2 to 65536, got 1 for weight", levels={"weight": 1}),
            Bad(TypeError, r"levels\['weight'\] must be an integer, got 2\.5", levels={"weight": 2.5}),
            Bad(TypeError, r"model must be an nn.Module, got Tensor", model=W),
        ),
        skips={
            "gradcheck": "the gradient of the points comes about on leaving the block, not in the graph",
            "ddp": "the model is what one wraps, and the points learn on leaving the block: see test_quantizers",
            **dict.fromkeys(("fullgraph", "transforms"), "parameters are written inside the call"),
            "foreign": "x is the model's own argument",
        },
    ),
    Part(
        distillation_loss,
        logits,
        constant=(1,),
        edges={
            "single": lambda: (*(torch.ones(1, 1, dtype=torch.float64) for _ in range(2)), torch.tensor([0])),
            "sure and wrong": lambda: (
                torch.tensor([[500.0, -500.0]], dtype=torch.float64),
                torch.tensor([[-500.0, 500.0]], dtype=torch.float64),
                torch.tensor([1]),
            ),
        },
        backend=COMPILER,
        bad=LOSS_BAD,
        skips={"batch": "one number over all samples"},
    ),
    Part(
        distillation_loss,
        lambda g: logits(g)[:2],
        {"temperature": 2.0},
        variant="without labels",
        constant=(1,),
        bad=LOSS_BAD,
        skips={"batch": "one number over all samples"},
    ),
    Part(
        huffman_lengths,
        lambda g: (torch.randint(1, 100, (9,), generator=g),),
        bad=(
            Bad(ValueError, r"counts must be one-dimensional and not empty, got shape \(0,\)", torch.zeros(0)),
            Bad(ValueError, r"counts must be one-dimensional .* got shape \(2, 2\)", torch.zeros(2, 2)),
            Bad(ValueError, r"counts must be finite and not negative, got \[1, -1\]", torch.tensor([1, -1])),
            Bad(ValueError, r"counts must be finite and not negative, got \[nan\]", torch.tensor([torch.nan])),
        ),
        skips={
            **dict.fromkeys(("gradcheck", "dtype", "autocast"), "counts in, lengths out"),
            "nan": "counts are integers here; NaN is among what is refused",
            "transforms": "a heap of Python numbers",
            "batch": "one alphabet at a time",
            "fullgraph": "a heap of Python numbers",
        },
    ),
    Part(
        allocate_levels,
        lambda g: ([0.5, 2.0, 0.0], 8),
        bad=(
            Bad(ValueError, r"levels must be at least 2, got 1", [1.0], 1),
            Bad(TypeError, r"levels must be an integer, got 2\.5", [1.0], 2.5),
            Bad(ValueError, r"scores must be finite, not negative and not all 0, got \[-1\.0, 2\.0\]", [-1.0, 2.0], 8),
            Bad(ValueError, r"not all 0, got \[0\.0, 0\.0\]", [0.0, 0.0], 8),
            Bad(ValueError, r"not all 0, got \[\]", [], 8),
            Bad(ValueError, r"scores must be finite, .* got \[nan\]", [float("nan")], 8),
        ),
        skips={
            **dict.fromkeys(
                ("gradcheck", "dtype", "batch", "autocast", "transforms", "nan", "empty", "foreign"),
                "plain numbers in and out",
            )
        },
    ),
]
