"""Rows of `throughline.sensing.layout`."""

import torch
from tests.contract.part import Bad, Part
from torch import Generator, Tensor

from throughline.sensing.layout import SensorLayout, box_average, unwarp_points, warp_points

SHAPES = ("rectangular", "curvilinear")
BEND = torch.tensor([0.4, -0.3], dtype=torch.float64)
X, Y = (torch.tensor(e, dtype=torch.float64) for e in ([-0.99, -0.3, 0.2, 0.9], [-0.8, 0.1, 0.99]))


def points(generator: Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(2, generator=generator, dtype=torch.float64) * 1.2 - 0.6, BEND


def image(generator: Generator) -> tuple[Tensor]:
    return (torch.rand(2, 6, 7, generator=generator, dtype=torch.float64),)


POINTS = (
    Bad(ValueError, r'shape must be "rectangular" or "curvilinear", got \'round\'', shape="round"),
    Bad(ValueError, r"curvature must lie in \(-1, 1\), got \[1\.0", BEND, torch.tensor([1.0, 0.0])),
    Bad(ValueError, r"curvature must have shape \(2,\), got \(3,\)", BEND, torch.zeros(3)),
    Bad(ValueError, r"points must have shape \(\.\.\., 2\), got \(3,\)", torch.zeros(3), BEND),
    Bad(TypeError, r"points must be floating point, got torch.int64", torch.zeros(2, dtype=torch.int64), BEND),
)
# the centre, an axis, the rim of the disk, and a corner outside of it
PLACES = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, -1.0]], dtype=torch.float64)
EDGES = {
    "single": lambda: (PLACES[0], torch.zeros(2, dtype=torch.float64)),
    "special places": lambda: (PLACES, BEND),
    "strong curvature": lambda: (PLACES, torch.tensor([0.999, -0.999], dtype=torch.float64)),
}

PARTS = [
    *(
        Part(f, points, {"shape": shape}, batched=(0,), stretched=(0,), edges=EDGES, bad=POINTS)
        for f in (warp_points, unwarp_points)
        for shape in SHAPES
    ),
    Part(
        box_average,
        lambda g: (image(g)[0][0], X, Y),
        batched=(0,),
        stretched=(0,),
        edges={
            "single": lambda: (image(torch.Generator())[0][0, :1, :1], X[[0, -1]], Y[[0, -1]]),
            "edges on pixel centres": lambda: (torch.ones(4, 4, dtype=torch.float64), X.new_tensor([-0.75, 0.25]), Y),
            "a sliver": lambda: (torch.ones(4, 4, dtype=torch.float64), X.new_tensor([0.1, 0.1 + 1e-6]), Y),
        },
        bad=(
            Bad(
                TypeError, r"image must be floating point, got torch.uint8", torch.zeros(6, 7, dtype=torch.uint8), X, Y
            ),
            Bad(ValueError, r"image must have at least 2 dimensions, got shape \(6,\)", torch.zeros(6), X, Y),
            Bad(
                ValueError, r"x_edges must increase, got \[0\.5, 0\.5\]", torch.zeros(6, 7), X.new_tensor([0.5, 0.5]), Y
            ),
            Bad(ValueError, r"y_edges must lie in \[-1, 1\], got", torch.zeros(6, 7), X, Y.new_tensor([0.0, 1.5])),
        ),
    ),
    *(
        Part(
            SensorLayout,
            image,
            {"size": (2, 3), "shape": shape, "curvature": (0.4, -0.3), "samples": 3},
            variant=shape,
            batched=(0,),
            edges={"single": lambda: (torch.ones(1, 2, 3, dtype=torch.float64),)},
            bad=(
                Bad(ValueError, r"shape must be .* got \'round\'", shape="round"),
                Bad(ValueError, r"size must be at least 1 .* got \(0, 3\)", size=(0, 3)),
                Bad(ValueError, r"samples must be at least 1, got 0", samples=0),
                Bad(ValueError, r"max_curvature must lie in \(0, 1\), got 1\.0", max_curvature=1.0),
                Bad(ValueError, r"curvature must be .* got \(0\.0, -0\.6\)", curvature=(0.0, -0.6)),
                Bad(ValueError, r"image must have at least 3 dimensions, got shape \(6, 7\)", torch.zeros(6, 7)),
                Bad(
                    ValueError, r"image must be at least as fine as the sensor .* got \(1, 6, 2\)", torch.zeros(1, 6, 2)
                ),
                Bad(TypeError, r"image must be floating point, got torch.int64", torch.zeros(1, 6, 7).long()),
            ),
        )
        for shape in SHAPES
    ),
    *(
        Part(
            SensorLayout,
            lambda g: (torch.rand(2, 3, 4, generator=g, dtype=torch.float64),),
            {"size": (3, 4), "shape": shape, "curvature": (0.4, -0.3)},
            variant=f"{shape}, rectify",
            call=lambda layout, features: layout.rectify(features, (5, 6)),
            batched=(0,),
            bad=(Bad(ValueError, r"features must have at least 3 dimensions, got shape \(2, 2\)", torch.zeros(2, 2)),),
        )
        for shape in SHAPES
    ),
    Part(
        SensorLayout,
        lambda g: (),
        {"size": (3, 4), "curvature": (0.4, -0.3)},
        variant="vertices",
        call=lambda layout: layout.vertices(),
        skips={
            **dict.fromkeys(("batch", "errors", "transforms", "nan", "empty", "foreign"), "takes no argument"),
        },
    ),
]
