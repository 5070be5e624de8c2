"""Rows of `throughline.core.camera`."""

from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Generator, Tensor

from throughline.core.camera import Camera, look_at, weak_perspective
from throughline.core.rotation import so3_exp

SIZE = (8, 9)
K = torch.tensor([[10.0, 0.5, 4.0], [0.0, 12.0, 3.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
EYE = torch.tensor([0.5, 1.0, -3.0], dtype=torch.float64)


def arguments(generator: Generator) -> tuple[Tensor, ...]:
    """Points around (0, 0, 5), so that none is beside the camera."""
    t = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    return normal(generator, 4, 3), K, so3_exp(normal(generator, 3)), t


def projected(points: Tensor, K: Tensor, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return Camera(K, R, t, SIZE).project(points)


def returned(points: Tensor, K: Tensor, R: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """There and back through a crop at half the size."""
    camera = Camera(K, R, t, SIZE).crop(1, 2, 6, 6).resize((3, 3))
    uv, depth = camera.project(points)
    return uv, camera.unproject(uv, depth), camera.center


def looking(eye: Any, **options: Any) -> tuple[Tensor, Tensor]:
    camera = look_at(eye, **{"target": (0.1, 0.2, 0.3), "focal_length": 10.0, "image_size": SIZE, **options})
    return camera.R, camera.t


def weak(camera: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    made = weak_perspective(camera, **{"image_size": SIZE, **options})
    return made.t, made.project(made.t.new_ones(1, 3))[0]


ONE = (torch.ones(1, 3, dtype=torch.float64), K, torch.eye(3, dtype=torch.float64), 5 * torch.eye(3)[2].double())
PARTS = [
    *(
        Part(
            Camera,
            arguments,
            variant=call.__name__,
            call=call,
            batched=(0, 1, 2, 3),
            stretched=(0,),
            backend=COMPILER if call is projected else "aot_eager",
            edges={"single": lambda: ONE},
            bad=(
                Bad(ValueError, r"points must be \(\.\.\., N, 3\), got shape \(3,\)", ONE[0][0], *ONE[1:]),
                Bad(TypeError, r"points must be floating point, got torch.int64", ONE[0].long(), *ONE[1:]),
                Bad(ValueError, r"K must be \(\.\.\., 3, 3\)", ONE[0], K[:2], *ONE[2:]),
                Bad(ValueError, r"R must be \(\.\.\., 3, 3\)", *ONE[:2], K[:2], ONE[3]),
                Bad(ValueError, r"t must be \(\.\.\., 3\)", *ONE[:3], EYE[:2]),
            ),
        )
        for call in (projected, returned)
    ),
    Part(
        look_at,
        lambda g: (normal(g, 3) - 4,),
        call=looking,
        batched=(0,),
        foreign=(0,),
        edges={"single": lambda: (EYE,)},
        bad=(
            Bad(ValueError, r"eye must be \(\.\.\., 3\), got shape \(2,\)", EYE[:2]),
            Bad(TypeError, r"eye must be floating point, got torch.int64", EYE.long()),
            Bad(TypeError, r"eye must be a tensor, got str", "origin"),
            Bad(ValueError, r"eye and target must be two points, got one", torch.tensor([0.1, 0.2, 0.3])),
            Bad(ValueError, r"up must not be zero or along the view", EYE, target=(0.5, 7.0, -3.0)),
            Bad(ValueError, r"up must not be zero or along the view", EYE, up=(0.0, 0.0, 0.0)),
            Bad(ValueError, r"focal_length must be positive and finite, got 0", EYE, focal_length=0),
            Bad(ValueError, r"focal_length must be positive, got -1", EYE, focal_length=torch.tensor(-1.0)),
            Bad(ValueError, r"image_size must be at least 1, got \(0, 3\)", EYE, image_size=(0, 3)),
        ),
    ),
    Part(
        weak_perspective,
        lambda g: (torch.tensor([0.9, 0.0, 0.0]) + 0.1 * normal(g, 3),),
        call=weak,
        batched=(0,),
        edges={"single": lambda: (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64),)},
        bad=(
            Bad(ValueError, r"camera must be \(\.\.\., 3\), got shape \(2,\)", EYE[:2]),
            Bad(TypeError, r"camera must be floating point, got torch.int64", EYE.long()),
            Bad(ValueError, r"focal_length must be positive and finite, got -5", EYE, focal_length=-5.0),
            Bad(ValueError, r"image_size must be at least 1, got \(3, -1\)", EYE, image_size=(3, -1)),
        ),
    ),
]
