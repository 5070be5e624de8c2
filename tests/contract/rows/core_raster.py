"""Rows of `throughline.core.raster`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Generator, Tensor

from throughline.core.camera import Camera
from throughline.core.raster import (
    distance_transform,
    interpolate,
    rasterize,
    soft_rasterize,
    soft_silhouette,
    visible_vertices,
)

FACES = torch.tensor([[0, 1, 2], [1, 2, 3], [0, 3, 1]])
PLACES = torch.tensor([[-0.9, -0.7, 3.0], [1.1, -0.6, 3.5], [-0.6, 1.0, 4.0], [0.9, 0.8, 2.5]], dtype=torch.float64)
K = torch.tensor([[7.0, 0.0, 3.3], [0.0, 7.0, 2.6], [0.0, 0.0, 1.0]], dtype=torch.float64)
SEEN = Camera(K, torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64), (6, 8))
FRAGMENTS = rasterize(PLACES, FACES, SEEN)
BATCH = Camera(K, torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64), (6, 8))

NOT_PARTS = {
    "throughline.core.raster.Fragments": "what rasterize returns, with the rows of which it is checked",
    "throughline.core.raster.SoftImage": "what soft_rasterize returns, with the rows of which it is checked",
}


def vertices(generator: Generator) -> tuple[Tensor, ...]:
    return (PLACES + 0.05 * normal(generator, 4, 3),)


def drawn(vertices: Tensor, *, faces: Any = FACES, camera: Any = SEEN, **options: Any) -> tuple[Tensor, Tensor]:
    found = rasterize(vertices, moved(faces, vertices), moved(camera, vertices), **options)
    return torch.where(found.face >= 0, found.depth, 0), found.barycentric


def painted(attributes: Tensor, *, fragments: Any = FRAGMENTS, faces: Any = FACES, **options: Any) -> Tensor:
    if isinstance(attributes, Tensor) and isinstance(fragments, tuple):
        fragments = type(fragments)(*(x.to(attributes.device) for x in fragments))
    return interpolate(fragments, moved(faces, attributes), attributes, **options)


def seen(vertices: Tensor, *, faces: Any = FACES, camera: Any = SEEN, **options: Any) -> Tensor:
    found = visible_vertices(vertices, moved(faces, vertices), moved(camera, vertices), **options)
    return found.to(vertices.dtype)


def covered(vertices: Tensor, *, faces: Any = FACES, camera: Any = SEEN, **options: Any) -> Tensor:
    return soft_silhouette(vertices, moved(faces, vertices), moved(camera, vertices), **options)


def blended(
    vertices: Tensor, attributes: Tensor, *, faces: Any = FACES, camera: Any = SEEN, **options: Any
) -> tuple[Tensor, ...]:
    found = soft_rasterize(vertices, moved(faces, vertices), moved(camera, vertices), attributes, **options)
    assert found.attributes is not None
    return found.silhouette, found.attributes, torch.where(found.depth.isfinite(), found.depth, 0)


def moved(value: Any, like: Any) -> Any:
    """On the device of the other arguments."""
    return value.to(like.device) if isinstance(like, Tensor) and hasattr(value, "to") else value


VALUES = torch.ones(4, 2, dtype=torch.float64)
MESH = (
    Bad(ValueError, r"vertices must be \(\.\.\., V, 3\), got shape \(4, 2\)", PLACES[:, :2]),
    Bad(ValueError, r"vertices must be \(\.\.\., V, 3\), got shape \(3,\)", PLACES[0]),
    Bad(TypeError, r"vertices must be floating point, got torch.int64", PLACES.long()),
    Bad(ValueError, r"vertices must be finite, got NaN or infinity", PLACES / 0),
    Bad(TypeError, r"faces must be torch.int64, got torch.int32", PLACES, faces=FACES.int()),
    Bad(TypeError, r"faces must be a tensor, got list", PLACES, faces=FACES.tolist()),
    Bad(ValueError, r"faces must be \(F, 3\), got shape \(3, 2\)", PLACES, faces=FACES[:, :2]),
    Bad(ValueError, r"faces must number vertices from 0 to 3, got 1 to 4", PLACES, faces=FACES + 1),
    Bad(ValueError, r"faces must number vertices from 0 to 3, got -1 to 2", PLACES, faces=FACES - 1),
    Bad(TypeError, r"camera must be a Camera, got Tensor", PLACES, camera=K),
    Bad(
        ValueError,
        r"leading dimensions of camera, \(3,\), .* vertices, got shape \(2, 4, 3\)",
        PLACES.expand(2, 4, 3),
        camera=BATCH,
    ),
    Bad(ValueError, r"camera must be finite", PLACES, camera=Camera(K / 0, BATCH.R, BATCH.t, (6, 8))),
)
NEAR = tuple(Bad(ValueError, f"near must be positive and finite, got {n}", PLACES, near=n) for n in (0.0, -1.0))
SOFT = (
    *MESH,
    *NEAR,
    *(
        Bad(ValueError, f"sigma must be positive and finite, got {s}", PLACES, sigma=s)
        for s in (0.0, -1e-4, float("nan"), float("inf"))
    ),
    Bad(ValueError, "max_pairs must be at least 1, got 0", PLACES, max_pairs=0),
    Bad(TypeError, r"max_pairs must be an integer, got 2\.5", PLACES, max_pairs=2.5),
)
EAGER = {"fullgraph": "how many pairs of face and pixel there are depends on values: the compiler leaves this part out"}
OF_MESH: dict[str, Any] = {"batched": (0,), "tolerance": (1e-3, 6e-2), "edges": {"single": lambda: (PLACES,)}}


def with_values(bad: Bad) -> Bad:
    return Bad(bad.error, bad.match, *bad.args, VALUES, **bad.options)


PARTS = [
    Part(rasterize, vertices, call=drawn, bad=(*MESH, *NEAR), skips=EAGER, **OF_MESH),
    Part(
        visible_vertices,
        vertices,
        call=seen,
        bad=(
            *MESH,
            *(
                Bad(ValueError, f"tolerance must be at least 0 and finite, got {t}", PLACES, tolerance=t)
                for t in (-1.0, float("nan"))
            ),
        ),
        constant=(0,),
        skips={**EAGER, "gradcheck": "yes and no have no derivative"},
        **OF_MESH,
    ),
    Part(
        interpolate,
        lambda g: (normal(g, 4, 2),),
        {"background": 0.5},
        call=painted,
        batched=(0,),
        edges={"single": lambda: (VALUES[:, :1],)},
        bad=(
            Bad(TypeError, r"attributes must be floating point, got torch.int64", VALUES.long()),
            Bad(ValueError, r"attributes must be \(\.\.\., V, C\), got shape \(4,\)", VALUES[:, 0]),
            Bad(ValueError, r"faces must number the rows of attributes from 0 to 2, got 0 to 3", VALUES[:3]),
            Bad(ValueError, r"faces must be those of fragments, got 1 and face [12]", VALUES, faces=FACES[:1]),
            Bad(TypeError, r"fragments must be Fragments of rasterize, got Tensor", VALUES, fragments=K),
            Bad(
                ValueError, r"background must be a number or \(2,\), got shape \(3,\)", VALUES, background=torch.ones(3)
            ),
            Bad(
                ValueError,
                r"fragments and attributes must broadcast, got \(2,\) and \(3,\)",
                VALUES.expand(3, 4, 2),
                fragments=type(FRAGMENTS)(*(x.expand(2, *x.shape) for x in FRAGMENTS)),
            ),
        ),
    ),
    Part(soft_silhouette, vertices, {"sigma": 0.02}, call=covered, bad=SOFT, skips=EAGER, **OF_MESH),
    Part(
        soft_rasterize,
        lambda g: (*vertices(g), normal(g, 4, 2)),
        {"sigma": 0.02, "gamma": 0.1, "background": 0.5, "depth_range": (2.0, 6.0)},
        call=blended,
        batched=(0, 1),
        tolerance=(1e-3, 6e-2),
        edges={"single": lambda: (PLACES, VALUES[:, :1])},
        bad=(
            *map(with_values, SOFT),
            *(
                Bad(ValueError, f"gamma must be positive and finite, got {g}", PLACES, VALUES, gamma=g)
                for g in (0.0, -1.0)
            ),
            *(
                Bad(ValueError, r"depth_range must be increasing and finite, got ", PLACES, VALUES, depth_range=r)
                for r in ((1.0, 1.0), (2.0, 1.0), (0.0, float("inf")))
            ),
            Bad(TypeError, r"attributes must be floating point, got torch.int64", PLACES, VALUES.long()),
            Bad(
                ValueError, r"attributes must be \(\.\.\., V, C\) with V = 4 .* got shape \(3, 2\)", PLACES, VALUES[:3]
            ),
            Bad(ValueError, r"attributes must be \(\.\.\., V, C\), got shape \(4,\)", PLACES, VALUES[:, 0]),
            Bad(
                ValueError,
                r"attributes must be .* broadcast to \(\), got shape \(2, 4, 2\)",
                PLACES,
                VALUES.expand(2, 4, 2),
            ),
            Bad(ValueError, r"background must be a number or \(2,\)", PLACES, VALUES, background=torch.ones(3)),
        ),
        skips=EAGER,
    ),
    Part(
        distance_transform,
        lambda g: (torch.rand(5, 7, generator=g) < 0.2,),
        batched=(0,),
        bad=(
            Bad(TypeError, r"mask must be boolean, got torch.float32: mask != 0", torch.ones(3, 3)),
            Bad(ValueError, r"mask must be \(\.\.\., H, W\), got shape \(3,\)", torch.ones(3, dtype=torch.bool)),
        ),
        skips={
            "gradcheck": "a mask has no derivative",
            "dtype": "a mask has no precision: distances are float32",
            "nan": "a mask holds no NaN",
        },
    ),
]
