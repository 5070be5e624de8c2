"""Rows of `throughline.geometry.motion`."""

import math
from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Generator, Tensor

from throughline.core.camera import Camera
from throughline.core.rotation import so3_exp
from throughline.geometry.body import BodyModel, BodyPrediction
from throughline.geometry.motion import (
    Clip,
    SelfSupervision,
    heatmaps,
    keypoint_loss,
    motion_loss,
    sample_flow,
    segmentation_loss,
    supervised_loss,
)

NOT_PARTS = {
    "throughline.geometry.motion.Clip": "holds what the losses are given",
    "throughline.geometry.motion.adapt": "trains a model: geometry/motion/test_adaptation.py",
    "throughline.geometry.motion.fit_body": "takes a body and a clip: geometry/motion/test_fitting.py",
}
MASK = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.float64)


def positive(generator: Generator, *size: int) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64) + 0.1


def ones(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.ones(shape, dtype=torch.float64) for shape in shapes)


def within(generator: Generator, *size: int) -> Tensor:
    """Places in an image of 6 × 7, off the centres of pixels, where bilinear interpolation has a kink."""
    whole = torch.randint(5, size, generator=generator).double()
    return whole + 0.2 + 0.6 * torch.rand(size, generator=generator, dtype=torch.float64)


def moved(uv0: Tensor, uv1: Tensor, flow: Tensor) -> Tensor:
    visible = torch.ones(4, dtype=torch.bool, device="cpu")
    if isinstance(uv0, Tensor):
        visible = (torch.arange(uv0.shape[-2], device=uv0.device) != 2).expand(uv0.shape[:-1])
    return motion_loss(uv0, uv1, flow, visible)


def outlined(uv: Tensor, mask: Tensor, **options: Any) -> Tensor:
    return segmentation_loss(uv, mask, **options)


def drawn(uv: Tensor, mask: Tensor, silhouette: Tensor, distance: Tensor) -> Tensor:
    return segmentation_loss(uv, mask, silhouette=silhouette, distance=distance)


def supervised(pose: Tensor, betas: Tensor, transl: Tensor, *other: Tensor, **options: Any) -> Tensor:
    return supervised_loss(BodyPrediction(pose, betas, transl), BodyPrediction(*other), **options)


def bodies(g: Generator) -> tuple[Tensor, ...]:
    return tuple(normal(g, *size) for _ in range(2) for size in ((3, 3, 3), (4,), (3,)))


def pyramid() -> BodyModel:
    """Four vertices and two joints."""
    template = torch.tensor([[0.0, 0.0, 0.3], [0.5, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.8, 0.0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    spread = torch.arange(24, dtype=torch.float64).sin().view(4, 3, 2) / 20
    share = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    return BodyModel(template, faces, spread, torch.full((2, 4), 0.25, dtype=torch.float64), share, (-1, 0))


def watching(losses: Any, pose: Tensor, betas: Tensor, transl: Tensor, keypoints: Tensor, flow: Tensor) -> Tensor:
    """The total of two frames of the pyramid before an image of 8 × 9."""
    device = getattr(pose, "device", "cpu")
    K = torch.tensor([[6.0, 0.0, 4.0], [0.0, 6.0, 3.5], [0.0, 0.0, 1.0]], dtype=torch.float64, device=device)
    still, away = torch.eye(3, device=device).double(), torch.tensor([0.0, 0.0, 2.0], device=device).double()
    mask = torch.zeros(2, 8, 9, dtype=torch.bool, device=device)
    mask[:, 2:5, 3:7] = True
    clip = Clip(Camera(K, still, away, (8, 9)), keypoints, None, everywhere(flow), mask)
    total: Tensor = losses(BodyPrediction(pose, betas, transl), clip)["total"]
    return total


def everywhere(flow: Any) -> Any:
    """The same flow in all pixels: how it is read has no gradient by the place."""
    return flow.view(1, 1, 1, 2).expand(1, 8, 9, 2) if isinstance(flow, Tensor) else flow


def watched(g: Generator) -> tuple[Tensor, ...]:
    turn = so3_exp(0.3 * normal(g, 2, 2, 3))
    return turn, normal(g, 2, 2), 0.1 * normal(g, 2, 3), 3 * positive(g, 2, 2, 2), normal(g, 2)


def lost(g: Generator) -> tuple[Tensor, ...]:
    pose, *others = watched(g)
    return torch.full_like(pose, math.nan), *others


PARTS = [
    Part(
        heatmaps,
        lambda g: (within(g, 3, 2),),
        {"image_size": (6, 7)},
        batched=(0,),
        edges={"single": lambda: ones((1, 2))},
        bad=(
            Bad(TypeError, r"keypoints must be floating point, got torch.int64", torch.ones(3, 2).long()),
            Bad(ValueError, r"keypoints must be points", torch.ones(3, 3)),
            Bad(ValueError, r"image_size must be at least 1 by 1", image_size=(0, 3)),
            Bad(ValueError, r"std must be positive and finite, got nan", std=math.nan),
        ),
    ),
    Part(
        keypoint_loss,
        lambda g: (normal(g, 4, 2), normal(g, 4, 2), positive(g, 4)),
        batched=(0, 1, 2),
        edges={"single": lambda: ones((1, 2), (1, 2), (1,))},
        reference=lambda p, t, w: (w * ((p - t) ** 2).sum(-1)).sum(-1) / w.sum(-1),
        bad=(
            Bad(ValueError, r"predicted and target must have one number", torch.ones(4, 2), torch.ones(3, 2), None),
            Bad(ValueError, r"confidence must not be negative", torch.ones(1, 2), torch.ones(1, 2), -torch.ones(1)),
            Bad(ValueError, r"target must be finite", torch.ones(1, 2), torch.full((1, 2), math.inf), torch.ones(1)),
            Bad(TypeError, r"confidence must be floating", torch.ones(1, 2), torch.ones(1, 2), torch.ones(1).long()),
        ),
    ),
    Part(
        sample_flow,
        lambda g: (normal(g, 6, 7, 2), within(g, 5, 2)),
        batched=(0, 1),
        edges={"single": lambda: ones((1, 1, 2), (1, 2))},
        bad=(
            Bad(ValueError, r"flow must be \(\.\.\., H, W, 2\)", torch.ones(6, 2), torch.ones(5, 2)),
            Bad(ValueError, r"uv must be points", torch.ones(6, 7, 2), torch.ones(5, 3)),
            Bad(ValueError, r"leading dimensions", torch.ones(2, 6, 7, 2), torch.ones(3, 5, 2)),
            Bad(TypeError, r"flow must be floating point", torch.ones(6, 7, 2).long(), torch.ones(5, 2)),
        ),
    ),
    *(
        Part(
            motion_loss,
            sample,
            call=moved,
            variant=variant,
            batched=(0, 1, 2),
            edges={"single": lambda: ones((1, 2), (1, 2), (1, 2))},
            bad=(
                Bad(ValueError, r"uv0 and uv1 must have one shape", *(torch.ones(n, 2) for n in (4, 3, 4))),
                Bad(ValueError, r"flow must be an image", *(torch.ones(n, 2) for n in (4, 4, 3))),
                Bad(
                    TypeError,
                    r"uv1 must be floating point",
                    torch.ones(4, 2),
                    torch.ones(4, 2).long(),
                    torch.ones(4, 2),
                ),
            ),
            skips=skips,
        )
        for variant, sample, skips in (
            ("sampled", lambda g: (normal(g, 4, 2), normal(g, 4, 2), normal(g, 4, 2)), {}),
            (
                "image",
                lambda g: (within(g, 4, 2), within(g, 4, 2), normal(g, 6, 7, 2)),
                {"gradcheck": "the place at which the flow is read is left out of the gradient"},
            ),
        )
    ),
    Part(
        segmentation_loss,
        lambda g: (within(g, 5, 2), MASK),
        call=outlined,
        variant="splat",
        batched=(0, 1),
        constant=(1,),
        stretched=(0,),
        edges={"single": lambda: ones((1, 2), (1, 1))},
        bad=(
            Bad(ValueError, r"alpha must lie in \[0, 1\], got 2", alpha=2),
            Bad(ValueError, r"mask must be \(\.\.\., H, W\)", torch.ones(5, 2), torch.ones(5)),
            Bad(ValueError, r"uv must hold at least one vertex", torch.ones(0, 2), torch.ones(5, 5)),
            Bad(ValueError, r"distance must have the pixels of mask", distance=torch.ones(3, 3)),
            Bad(TypeError, r"uv must be floating point", torch.ones(5, 2).long(), torch.ones(5, 5)),
        ),
    ),
    Part(
        segmentation_loss,
        lambda g: (within(g, 5, 2), MASK, positive(g, 4, 5) / 2, positive(g, 4, 5)),
        call=drawn,
        variant="silhouette",
        batched=(0, 1, 2, 3),
        constant=(1,),
        stretched=(0, 2, 3),
        edges={"single": lambda: ones((1, 2), (1, 1), (1, 1), (1, 1))},
        bad=(
            Bad(
                ValueError, r"silhouette must have the pixels", torch.ones(5, 2), *(torch.ones(n, 4) for n in (4, 3, 4))
            ),
            Bad(
                TypeError, r"distance must be floating", torch.ones(5, 2), *torch.ones(2, 4, 4), torch.ones(4, 4).long()
            ),
        ),
    ),
    Part(
        supervised_loss,
        bodies,
        call=supervised,
        batched=(0, 1, 2, 3, 4, 5),
        arguments=(
            "predicted.pose",
            "predicted.betas",
            "predicted.transl",
            "target.pose",
            "target.betas",
            "target.transl",
        ),
        edges={"single": lambda: bodies(torch.Generator().manual_seed(0))},
        bad=(
            Bad(ValueError, r"shape_weight must be not negative", shape_weight=-1),
            Bad(ValueError, r"translation_weight must be not negative", translation_weight=math.inf),
            Bad(
                ValueError,
                r"predicted.betas and target.betas must have one shape",
                *(torch.ones(size) for size in ((3, 3, 3), 4, 3, (3, 3, 3), 5, 3)),
            ),
            Bad(
                ValueError,
                r"predicted.pose must be",
                *(torch.ones(size) for size in ((3, 3), 4, 3, (3, 3), 4, 3)),
            ),
        ),
    ),
    Part(
        SelfSupervision,
        watched,
        {"body": pyramid()},
        variant="pyramid",
        call=watching,
        arguments=("prediction.pose", "prediction.betas", "prediction.transl", "clip.keypoints", "clip.flow"),
        stretched=(3, 4),
        backend="eager",
        empty=lambda: tuple(torch.zeros(size) for size in ((0, 2, 3, 3), (0, 2), (0, 3), (0, 2, 2), (2,))),
        edges={"single": lambda: watched(torch.Generator().manual_seed(0))},
        bad=(
            Bad(ValueError, r"keypoint must be not negative", keypoint=-1),
            Bad(ValueError, r"motion must be not negative", motion=math.nan),
            Bad(ValueError, r"segmentation must be not negative", segmentation=-0.1),
            Bad(TypeError, r"body must be an nn.Module", body=3),
            Bad(ValueError, r"vertices must be finite", *lost(torch.Generator().manual_seed(0))),
        ),
        skips={
            "batch": "keypoints, flow and mask have the frames of the clip and no other dimension",
            "fullgraph": "the z-buffer is left out by the compiler",
        },
    ),
]
