"""Rows of `throughline.geometry.body`."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from tests.contract.part import Bad, Part, normal
from tests.geometry.body.bodies import arrays
from torch import Generator, Tensor, nn

from throughline.core.camera import Camera
from throughline.geometry.body import (
    BodyModel,
    BodyRegressor,
    DSRLoss,
    clothing_loss,
    distance_loss,
    joint_error,
    merge_labels,
    procrustes_error,
    soft_iou_loss,
    vertex_error,
)

NOT_PARTS = {
    "throughline.geometry.body.BodyPrediction": "a tuple of three tensors",
    "throughline.geometry.body.DSR_C_GROUPS": "numbers of labels",
    "throughline.geometry.body.DSR_MC_LABELS": "numbers of labels",
    "throughline.geometry.body.PARSING_LABELS": "names",
    "throughline.geometry.body.class_weights": "whole numbers go in: tests/geometry/body/test_losses.py",
    "throughline.geometry.body.load_smpl": "reads a file: tests/geometry/body/test_smpl.py",
    "throughline.geometry.body.open_body": "no tensor goes in: tests/geometry/body/test_surface.py",
    "throughline.geometry.body.semantic_prior": "whole numbers go in: tests/geometry/body/test_labels.py",
}
ONE_BATCH = {"batch": "one batch dimension, as in smplx"}
GROUPS = [(0, 2), (1,)]
FACES = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])


def uniform(generator: Generator, *size: int) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)


def ones(*size: int) -> Tensor:
    return torch.ones(size, dtype=torch.float64)


def posed(generator: Generator, batch: int = 2) -> tuple[Tensor, ...]:
    sizes = ((batch, 4), (batch, 15), (batch, 3), (batch, 3))
    return tuple(normal(generator, *size) for size in sizes)


def seeded() -> Generator:
    return torch.Generator().manual_seed(3)


def weights(net: nn.Module) -> None:
    """Parameters that do not depend on the global generator."""
    draw = seeded()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 2)


def masked(generator: Generator) -> tuple[Tensor, Tensor]:
    return uniform(generator, 6, 5), torch.rand(6, 5, generator=generator) < 0.3


def distances(p: Tensor, mask: Tensor) -> Tensor:
    away = torch.from_numpy(distance_transform_edt(~mask.numpy())) if mask.any() else torch.full_like(p, 6.0)
    # the transform is in single precision
    return (p * away.float().double()).sum() / (p.sum() ** 1.5 + 1e-6)


def union(p: Tensor, mask: Tensor) -> Tensor:
    a, b = p.numpy(), mask.numpy().astype(float)
    return torch.tensor(1 - (a * b).sum() / (a.sum() + b.sum() - (a * b).sum() + 1e-6), dtype=torch.float64)


def labelled(generator: Generator) -> tuple[Tensor, Tensor]:
    return uniform(generator, 6, 5, 4), torch.randint(4, (6, 5), generator=generator)


def entropy(q: Tensor, labels: Tensor, min_pixels: int = 4) -> Tensor:
    counts = [int((labels == c).sum()) for c in range(4)]
    least = min((n for n in counts if n >= min_pixels), default=0)
    weight = np.array([least / n if n > min_pixels else 0.0 for n in counts])[labels.numpy().ravel()]
    rows = q.numpy().reshape(-1, 4)
    cost = np.log(np.exp(rows).sum(1)) - rows[np.arange(len(rows)), labels.numpy().ravel()]
    return torch.tensor((weight * cost).sum() / weight.sum() if weight.sum() else 0.0, dtype=torch.float64)


def bodies(generator: Generator, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Tetrahedra before the camera, and images with faces, arms and clothes."""
    corners = torch.tensor([[-1.0, -1.0, 4.0], [1.0, -0.8, 4.4], [0.1, 1.0, 4.2], [0.0, 0.0, 3.0]], dtype=torch.float64)
    parsing = torch.tensor([0, 5, 13, 14])[torch.randint(4, (batch, 8, 8), generator=generator)]
    return corners + normal(generator, batch, 4, 3) / 10, parsing


def rendered(loss: DSRLoss, vertices: Tensor, parsing: Tensor) -> dict[str, Tensor]:
    dtype = vertices.dtype if isinstance(vertices, Tensor) and vertices.is_floating_point() else torch.float32
    device = vertices.device if isinstance(vertices, Tensor) else torch.device("cpu")
    K = torch.tensor([[8.0, 0.0, 3.5], [0.0, 8.0, 3.5], [0.0, 0.0, 1.0]], dtype=dtype, device=device)
    eye, zero = torch.eye(3, dtype=dtype, device=device), torch.zeros(3, dtype=dtype, device=device)
    if isinstance(vertices, Tensor) and vertices.ndim == 3:  # the range of depths, a constant to gradients, is one here
        ends = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 6.0]], dtype=dtype, device=device)
        vertices = torch.cat([vertices, ends.expand(len(vertices), 2, 3)], 1)
    return loss(vertices, Camera(K, eye, zero, (8, 8)), parsing)


def prior() -> Tensor:
    rows = torch.zeros(6, 20, dtype=torch.float64)
    rows[torch.arange(6), torch.tensor([5, 13, 14, 5, 5, 5])] = 0.75
    rows[:, 9] = 0.25
    return rows


def rooted(pred: Tensor, true: Tensor, pred_root: Tensor, true_root: Tensor) -> Tensor:
    return vertex_error(pred, true, pred_root=pred_root, true_root=true_root)


IMAGES = (
    Bad(TypeError, r"probability must be floating point, got torch.int64", torch.zeros(2, 2).long(), torch.zeros(2, 2)),
    Bad(ValueError, r"mask must be \(\.\.\., H, W\) of 2×2 pixels", torch.zeros(2, 2), torch.zeros(2, 3)),
    Bad(ValueError, r"mask must hold 0 and 1", torch.zeros(2, 2), torch.full((2, 2), 0.5)),
)
POINTS = (
    Bad(TypeError, r"pred must be floating point", torch.zeros(2, 3).long(), torch.zeros(2, 3)),
    Bad(ValueError, r"as many points, got 2 and 4", torch.zeros(2, 3), torch.zeros(4, 3)),
)

PARTS = [
    Part(
        BodyModel,
        posed,
        arrays(),
        variant="small",
        backend="eager",
        tolerance=(1e-4, 2e-1),
        edges={"single": lambda: posed(seeded(), 1)},
        bad=(
            Bad(ValueError, r"betas must be \(B, 4\), got shape \(2, 5\)", torch.zeros(2, 5), *posed(seeded())[1:]),
            Bad(ValueError, r"parents must start with -1", parents=(0, 0, 0, 1, 3, 2)),
            Bad(ValueError, r"weights must sum to 1", weights=torch.zeros(17, 6)),
            Bad(ValueError, r"pose must be \(B, 6, 3\)", do=lambda m: m.vertices(ones(2, 4), ones(2, 5, 3))),
        ),
        skips=ONE_BATCH,
    ),
    Part(
        BodyRegressor,
        lambda g: (normal(g, 3, 5),),
        {"encoder": nn.Identity(), "features": 5, "joints": 2, "num_betas": 2, "hidden": 3, "dropout": 0.0},
        variant="small",
        prepare=weights,
        mixed=True,
        tolerance=(1e-4, 2e-1),
        edges={"single": lambda: (ones(1, 5),)},
        bad=(
            Bad(ValueError, r"encoder must give \(B, 5\), got \(3, 6\)", torch.zeros(3, 6).double()),
            Bad(ValueError, r"iterations must be at least 1, got 0", iterations=0),
            Bad(ValueError, r"dropout must lie in \[0, 1\), got 1", dropout=1),
        ),
        skips={
            **ONE_BATCH,
            "untouched": "a module's parameters start from torch's global generator, as those of nn.Linear do",
            "foreign": "inputs are whatever the encoder takes",
        },
    ),
    Part(
        merge_labels,
        lambda g: (uniform(g, 3),),
        {"groups": GROUPS},
        batched=(0,),
        edges={"single": lambda: (ones(3),)},
        bad=(
            Bad(ValueError, r"groups must partition the labels", groups=[(0,), (0,)]),
            Bad(ValueError, r"prior_or_labels must be \(\.\.\., 3\)", torch.zeros(4)),
            Bad(ValueError, r"prior_or_labels must lie in \[0, 3\), got 3 to 3", torch.tensor([3])),
            Bad(TypeError, r"prior_or_labels must be int64 labels or floating point", torch.zeros(3).int()),
        ),
    ),
    Part(distance_loss, masked, batched=(0, 1), reference=distances, bad=IMAGES),
    Part(soft_iou_loss, masked, batched=(0, 1), reference=union, bad=IMAGES),
    Part(
        clothing_loss,
        labelled,
        {"min_pixels": 4},
        batched=(0, 1),
        reference=entropy,
        edges={"single": lambda: (ones(1, 1, 4), torch.zeros(1, 1, dtype=torch.int64))},
        bad=(
            Bad(ValueError, r"labels must be \(2, 2\) as probability", torch.zeros(2, 2, 3), torch.zeros(2, 3).long()),
            Bad(ValueError, r"labels must lie in \[0, 3\), got 3", torch.zeros(2, 2, 3), torch.full((2, 2), 3)),
            Bad(ValueError, r"min_pixels must not be negative, got -1", min_pixels=-1),
        ),
    ),
    Part(
        DSRLoss,
        bodies,
        {"prior": prior(), "faces": FACES, "min_pixels": 2, "sigma": 1e-2, "gamma": 0.1},
        variant="tetrahedra",
        call=rendered,
        stretched=(),
        backend="eager",  # its losses are compiled in their own rows
        tolerance=(1e-3, 2e-1),
        edges={"single": lambda: bodies(seeded(), 1)},
        bad=(
            Bad(ValueError, r"minimal must be \"distance\" or \"iou\"", minimal="l2"),
            Bad(ValueError, r"prior must hold probabilities", prior=torch.zeros(4, 20)),
            Bad(ValueError, r"sigma must be positive and finite, got 0", sigma=0),
            Bad(ValueError, r"vertices must be \(B, 6, 3\)", ones(2, 5, 3), torch.zeros(2, 8, 8).long()),
            Bad(ValueError, r"parsing must be \(2, 8, 8\)", ones(2, 4, 3), torch.zeros(2, 8, 9).long()),
            Bad(ValueError, r"parsing must lie in \[0, 20\)", ones(2, 4, 3), torch.full((2, 8, 8), 20)),
        ),
        skips={**ONE_BATCH, "fullgraph": "the renderer runs outside of the graph"},
    ),
    *(
        Part(
            joint_error,
            lambda g: (normal(g, 4, 3), normal(g, 4, 3)),
            {"root": root},
            batched=(0, 1),
            edges={"single": lambda: (ones(1, 3), ones(1, 3))},
            bad=(*POINTS, Bad(ValueError, r"root must be one of 4 joints, got 4", root=4)),
        )
        for root in (0, None)
    ),
    Part(
        vertex_error,
        lambda g: (normal(g, 4, 3), normal(g, 4, 3), normal(g, 3), normal(g, 3)),
        call=rooted,
        batched=(0, 1, 2, 3),
        edges={"single": lambda: (ones(1, 3), ones(1, 3), ones(3), ones(3))},
        bad=(
            *(Bad(bad.error, bad.match, *bad.args, ones(3), ones(3)) for bad in POINTS),
            Bad(ValueError, r"true_root must be \(\.\.\., 3\)", ones(2, 3), ones(2, 3), ones(3), ones(2)),
        ),
    ),
    Part(
        procrustes_error,
        lambda g: (normal(g, 5, 3), normal(g, 5, 3)),
        batched=(0, 1),
        edges={
            "single": lambda: (ones(1, 3), ones(1, 3)),
            "a line": lambda: (ones(5, 3) * torch.arange(5.0).unsqueeze(1), normal(seeded(), 5, 3)),
        },
        bad=POINTS,
        skips={"gradcheck": "a measure without gradient"},
    ),
]
