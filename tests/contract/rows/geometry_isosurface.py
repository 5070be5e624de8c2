"""Rows of `throughline.geometry.isosurface`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Generator, Tensor, nn

from throughline.geometry.isosurface import (
    DeepSDF,
    attach,
    chamfer_distance,
    extract_surface,
    marching_cubes,
    sample_sdf,
    sample_surface,
    signed_distance,
)

NOT_PARTS = {
    "throughline.geometry.isosurface.SurfaceTracker": (
        "keeps the values of a grid from one field to the next; isosurface/test_tracker.py is about it"
    ),
}
TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
CORNERS = torch.tensor([[0.0, 0, 0], [1.1, 0.1, 0], [0, 1.2, 0.2], [0.1, 0, 1.3]], dtype=torch.float64)
X = torch.ones(2, 3)
ONE_SURFACE = "how many vertices there are depends on the values"
ALONE = {"transforms": ONE_SURFACE, "batch": "a mesh, whose vertices are the rows"}
NO_TRANSFORMS = {**ALONE, "fullgraph": ONE_SURFACE}
MESHES = (
    Bad(ValueError, r"faces must be int64, got torch\.int32", CORNERS, TETRAHEDRON.int()),
    Bad(ValueError, r"faces must be in \[0, 3\), got 3", CORNERS[:3], TETRAHEDRON),
    Bad(ValueError, r"faces must be \(F, 3\) with F at least 1, got shape \(0, 3\)", CORNERS, TETRAHEDRON[:0]),
)


def weights(net: nn.Module) -> None:
    draw = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p) / 2


def quadric(x: Tensor) -> Tensor:
    return x.square().sum(-1) - 0.25


def attached(vertices: Tensor, **options: Any) -> Tensor:
    return attach(quadric, vertices, **options)


def ellipsoid(weights: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    return extract_surface(lambda x: (weights * x.to(weights).square()).sum(-1) - 1, **options)


def tetrahedron(generator: Generator) -> tuple[Tensor, Tensor]:
    return CORNERS + normal(generator, 4, 3) / 20, TETRAHEDRON


def drawn(part: Any) -> Any:
    """A sampler whose every call starts from the generator's state, which stays."""

    def call(vertices: Tensor, faces: Tensor, *, generator: Generator, n: int = 6, **options: Any) -> Any:
        fresh = Generator().set_state(generator.get_state())
        return part(vertices, faces, n, generator=fresh, **options)

    return call


TRIANGLE = (CORNERS[1:], torch.tensor([[0, 1, 2]]))
SAMPLED = {
    "transforms": "random draws, by a generator",
    "fullgraph": "random draws, by a generator",
    "batch": "a mesh, whose vertices are the rows",
}

PARTS = [
    Part(
        marching_cubes,
        lambda g: (normal(g, 3, 4, 3),),
        {"level": 0.1, "spacing": 0.5},
        edges={"single": lambda: (torch.tensor([-1.0, 1.0], dtype=torch.float64).expand(2, 2, 2),)},
        bad=(
            Bad(TypeError, r"values must be floating point, got torch\.int64", torch.zeros(2, 2, 2).long()),
            Bad(ValueError, r"values must be \(X, Y, Z\), at least 2 along each, got shape \(2, 3\)", X),
            Bad(ValueError, r"values must be finite, got 8 of 8", torch.full((2, 2, 2), torch.nan)),
            Bad(ValueError, r"level must be finite, got inf", level=float("inf")),
            Bad(ValueError, r"origin must be a number or \(3,\), got shape \(2,\)", origin=torch.ones(2)),
        ),
        skips=ALONE,
    ),
    *(
        Part(
            attach,
            lambda g: (normal(g, 5, 3),),
            {"slope": slope},
            call=attached,
            constant=(0,),
            edges={"single": lambda: (torch.zeros(1, 3, dtype=torch.float64),)},
            bad=(
                Bad(ValueError, r'slope must be "implicit" or "unit", got \'other\'', slope="other"),
                Bad(ValueError, r"min_slope must be positive and finite, got 0", min_slope=0),
                Bad(ValueError, r"vertices must be \(N, 3\), got shape \(3,\)", X[0]),
                Bad(
                    ValueError,
                    r"field must map \(N, 3\) to \(N,\), got \(2, 3\)",
                    do=lambda _: attach(lambda x: 2 * x, X),
                ),
            ),
            skips={
                "gradcheck": "no gradient to the vertices; isosurface/test_layer.py has that by the field",
                "batch": "vertices (V, 3), which a field takes as they are",
            },
        )
        for slope in ("implicit", "unit")
    ),
    Part(
        extract_surface,
        lambda g: (torch.tensor([4.0, 6.0, 8.0], dtype=torch.float64) + normal(g, 3) / 3,),
        {"resolution": 10, "newton_steps": 1},
        call=ellipsoid,
        backend="eager",  # marching_cubes and attach are compiled above
        tolerance=(1e-4, 5e-2),
        bad=(
            Bad(ValueError, r"resolution must be at least 2, got 1", resolution=1),
            Bad(ValueError, r"bounds must increase and be finite, got \(1, -1\)", bounds=(1, -1)),
            Bad(ValueError, r"newton_steps must be at least 0, got -1", newton_steps=-1),
            Bad(ValueError, r"field must give finite values on the grid", torch.full((3,), torch.nan)),
        ),
        skips={
            **NO_TRANSFORMS,
            "gradcheck": "in its gradient vertices move along their normals, from call to call along edges of the grid",
            **dict.fromkeys(("empty", "foreign"), "weights are an argument of the field, which is the caller's own"),
        },
    ),
    Part(
        DeepSDF,
        lambda g: (normal(g, 3), normal(g, 2)),
        {"latent_dim": 2, "hidden": (13, 8), "skip": (1,), "fourier_degree": 1, "weight_norm": True},
        variant="with a skip and waves",
        prepare=weights,
        mixed=True,
        batched=(0, 1),
        stretched=(1,),
        tolerance=(1e-3, 2e-1),
        edges={"single": lambda: (torch.zeros(3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))},
        bad=(
            Bad(ValueError, r"skip must be layers from 1 to 2, got \(3,\)", skip=(3,)),
            Bad(ValueError, r"hidden must be at least 1, got 0", hidden=(13, 0)),
            Bad(ValueError, r"dropout must be in \[0, 1\), got 1", dropout=1),
            Bad(ValueError, r"points must be \(\.\.\., 3\), got shape \(2,\)", X[0, :2], X[0, :2]),
            Bad(ValueError, r"latent must be \(\.\.\., 2\), got shape \(3,\)", X[0], X[0]),
        ),
        skips={"untouched": "weights start as torch.nn draws them, from the global generator"},
    ),
    Part(
        DeepSDF,
        lambda g: (normal(g, 3), normal(g, 0)),
        {"latent_dim": 0, "hidden": (6,), "weight_norm": False},
        variant="plain",
        prepare=weights,
        mixed=True,
        batched=(0, 1),
        stretched=(0,),
        tolerance=(1e-3, 2e-1),
        edges={"single": lambda: (torch.zeros(3, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))},
        bad=(Bad(ValueError, r"latent_dim must be at least 0, got -1", latent_dim=-1),),
        skips={"untouched": "weights start as torch.nn draws them, from the global generator"},
    ),
    Part(
        signed_distance,
        lambda g: (normal(g, 6, 3), *tetrahedron(g)),
        tolerance=(1e-4, 5e-2),
        edges={"single": lambda: (torch.ones(1, 3, dtype=torch.float64), *TRIANGLE)},
        bad=(
            Bad(TypeError, r"points must be floating point, got torch\.int64", X.long(), CORNERS, TETRAHEDRON),
            Bad(ValueError, r"points must be \(N, 3\), got shape \(3,\)", X[0], CORNERS, TETRAHEDRON),
            *(Bad(bad.error, bad.match, X.double(), *bad.args) for bad in MESHES),
        ),
        skips=NO_TRANSFORMS,
    ),
    Part(
        sample_surface,
        tetrahedron,
        call=drawn(sample_surface),
        edges={"single": lambda: TRIANGLE},
        bad=(*MESHES, Bad(ValueError, r"n must be at least 1, got 0", n=0)),
        skips=SAMPLED,
    ),
    Part(
        sample_sdf,
        tetrahedron,
        call=drawn(sample_sdf),
        constant=(0,),
        backend="eager",  # signed_distance and sample_surface are compiled above
        tolerance=(1e-4, 5e-2),
        edges={"single": lambda: TRIANGLE},
        bad=(
            *MESHES,
            Bad(ValueError, r"n must be at least 1, got -1", n=-1),
            Bad(ValueError, r"std must be at least 0 and finite, got -1", std=-1),
            Bad(ValueError, r"near must be in \[0, 1\], got 2", near=2),
        ),
        skips={**SAMPLED, "gradcheck": "samples to learn from, without gradient"},
    ),
    Part(
        chamfer_distance,
        lambda g: (normal(g, 5, 3), normal(g, 4, 3)),
        edges={"single": lambda: (torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))},
        reference=lambda a, b: sum((p[:, None] - q).square().sum(-1).amin(1).mean() for p, q in ((a, b), (b, a))),
        bad=(
            Bad(ValueError, r"a must be \(N, 3\) with at least one point, got shape \(0, 3\)", X[:0], X),
            Bad(ValueError, r"b must be \(N, 3\) with at least one point, got shape \(3,\)", X, X[0]),
            Bad(TypeError, r"b must be floating point, got torch\.int64", X, X.long()),
        ),
        skips={"batch": "two sets of points, one number"},
    ),
]
