"""A small body of random numbers, and skinning in plain loops."""

from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from throughline.geometry.body import BodyModel

PARENTS = (-1, 0, 0, 1, 3, 2)


def arrays(*, vertices: int = 17, betas: int = 4, posed: bool = True, seed: int = 0) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    joints = len(PARENTS)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return {
        "template": normal(vertices, 3),
        "faces": torch.randint(vertices, (9, 3), generator=draw),
        "shape_dirs": normal(vertices, 3, betas) / 5,
        "joint_regressor": normal(joints, vertices).softmax(1),
        "weights": normal(vertices, joints).softmax(1),
        "parents": PARENTS,
        "pose_dirs": normal(9 * (joints - 1), 3 * vertices) / 20 if posed else None,
    }


def small_body(**options: Any) -> BodyModel:
    return BodyModel(**arrays(**options))


def loops(body: BodyModel, betas: Tensor, pose: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of one person, of rotation vectors ``(J, 3)``: 4 × 4 matrices, a vertex at a time."""
    template, directions = body.template.numpy(), body.shape_dirs.numpy()
    shaped = template + np.einsum("vcs,s->vc", directions, betas.numpy())
    joints = body.joint_regressor.numpy() @ shaped
    turns = Rotation.from_rotvec(pose.numpy()).as_matrix()
    if body.pose_dirs is not None:
        feature = (turns[1:] - np.eye(3)).reshape(-1)
        shaped = shaped + (feature @ body.pose_dirs.numpy()).reshape(-1, 3)
    places: list[np.ndarray] = []
    for j, parent in enumerate(body.parents):
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        places.append(places[parent] @ local if parent >= 0 else local)
    found = []
    for v, x in enumerate(shaped):
        total = np.zeros(4)
        for j, place in enumerate(places):
            back = np.eye(4)
            back[:3, 3] = -joints[j]
            total += body.weights[v, j].item() * (place @ back @ np.array([*x, 1.0]))
        found.append(total[:3])
    return np.array(found), np.array([place[:3, 3] for place in places])
