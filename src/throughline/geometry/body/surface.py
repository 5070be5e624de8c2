"""A body without a licence: its surface, skinning weights, joint regressor and shape directions, all from its bones."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from throughline.geometry.body.model import BodyModel
from throughline.geometry.body.skeleton import ARMS, HEAD, JOINTS, LEGS, PARENTS, TORSO, Bones, bones
from throughline.geometry.isosurface import marching_cubes

__all__ = ["OpenBody", "open_body"]

COARSEST = 0.07  # metres: beyond it hands come off
BLEND = 0.02  # k of the smooth union, metres
ARM, FOOT = 1.4, 0.05  # heights of two planes of the grid, so that what is thin cannot slip through it
MARGIN = 0.1  # metres around the capsules
REACH = 0.012  # of the skinning weights, metres
FAINT = 1e-3  # weights below this share of the largest are none
TIE = 1e-9  # metres: the nearer to the root owns a vertex that is as near to the next bone
NEAREST = 48  # vertices that tell where a joint is


class OpenBody(BodyModel):
    """What `open_body` makes.

    Attributes:
        parts: ``(V,)`` int64, the joint that owns each vertex.
        outward: ``(V, 3)``, unit vectors from the bone to each vertex, at rest.
    """

    parts: Tensor
    outward: Tensor

    def __init__(self, *arrays: Any, parts: Tensor, outward: Tensor) -> None:
        super().__init__(*arrays)
        self.register_buffer("parts", parts, persistent=False)
        self.register_buffer("outward", outward, persistent=False)


def open_body(voxel: float = 0.04) -> OpenBody:
    """A body with SMPL's tree of 24 joints and 10 numbers of shape, made of capsules; free to use and to pass on.

    The surface is a smooth union of tapered capsules along the bones, −k ln Σ exp(−d / k), extracted on a grid: one
    closed piece without handles. Weights fall with the distance to each bone's capsule; joints are affine combinations
    of the 48 nearest vertices. Metres; y is up, the person looks along +z, and left is +x.

    β, per unit: 0 stature, 1 girth, 2 length of legs, 3 width of shoulders, 4 length of arms, 5 belly, 6 hips,
    7 thighs, 8 girth of arms, 9 head.

    Args:
        voxel: side of the grid's cells, in (0, 0.07] metres; 0.04 has about 1,600 vertices.

    Returns:
        A new module in torch's default dtype, which shares nothing with others. Beside those of `BodyModel` it has
        the buffers ``parts`` ``(V,)``, the joint that owns each vertex, and ``outward`` ``(V, 3)``, the unit vector
        from its bone.

    Raises:
        ValueError: ``voxel`` is out of range.

    >>> body = open_body(0.06)
    >>> height = body.template[:, 1].max() - body.template[:, 1].min()
    >>> len(body.parents), bool(1.6 < height < 1.9)
    (24, True)
    """
    if not 0 < voxel <= COARSEST:
        raise ValueError(f"voxel must lie in (0, {COARSEST}] metres, got {voxel}")
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    made = {
        name: array.to(device=device, dtype=dtype if array.is_floating_point() else None, copy=True)
        for name, array in _arrays(float(voxel)).items()
    }
    order = ("template", "faces", "shape_dirs", "joint_regressor", "weights")
    return OpenBody(*(made[name] for name in order), PARENTS, parts=made["parts"], outward=made["outward"])


@lru_cache(8)
def _arrays(voxel: float) -> dict[str, Tensor]:
    """Everything in double precision, on the CPU."""
    skeleton = bones()
    template, faces = _surface(skeleton, voxel)
    distance = torch.stack([skeleton.distance(template, j) for j in range(len(JOINTS))], 1)
    weights = torch.exp(-distance.clamp_min(0) / REACH)
    weights = torch.where(weights < FAINT * weights.amax(1, keepdim=True), 0.0, weights)
    weights = weights / weights.sum(1, keepdim=True)
    equal = distance <= distance.amin(1, keepdim=True) + TIE  # two bones are where they meet
    parts = torch.where(equal, torch.arange(len(JOINTS), device="cpu"), len(JOINTS)).amin(1)
    axes = torch.stack([skeleton.axis(template, j) for j in range(len(JOINTS))], 1)
    axis = axes.gather(1, parts.view(-1, 1, 1).expand(-1, 1, 3)).squeeze(1)
    outward = torch.nn.functional.normalize(template - axis, dim=1)
    return {
        "template": template,
        "faces": faces,
        "weights": weights,
        "parts": parts,
        "outward": outward,
        "joint_regressor": torch.stack([_regressor(template, joint) for joint in skeleton.start]),
        "shape_dirs": _directions(template, outward, weights, skeleton),
    }


def _surface(skeleton: Bones, voxel: float) -> tuple[Tensor, Tensor]:
    corners = torch.cat([skeleton.start, skeleton.end])
    planes = math.ceil((ARM - FOOT) / voxel)
    spacing, anchor = corners.new_tensor([[voxel, (ARM - FOOT) / planes, voxel], [0.0, ARM, 0.0]])
    reach = skeleton.radii.max() + MARGIN
    low = ((corners.amin(0) - reach - anchor) / spacing).floor()
    high = ((corners.amax(0) + reach - anchor) / spacing).ceil()
    sides = [int(n) + 1 for n in (high - low).tolist()]
    lines = [torch.arange(n, dtype=low.dtype, device="cpu") + a for n, a in zip(sides, low.tolist(), strict=True)]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).view(-1, 3) * spacing + anchor
    total = torch.full_like(points[:, 0], -torch.inf)
    for bone in range(len(JOINTS)):
        total = torch.logaddexp(total, -skeleton.distance(points, bone) / BLEND)
    return marching_cubes((-BLEND * total).view(*sides), spacing=spacing, origin=low * spacing + anchor)


def _regressor(template: Tensor, joint: Tensor) -> Tensor:
    """Weights of least norm over the nearest vertices that sum to 1 and reproduce a joint, ``(V,)``."""
    away = template - joint
    rows = away.square().sum(1).argsort(stable=True)[:NEAREST]
    near = away[rows]
    size = near.abs().max()
    system = torch.cat([near.mT / size, near.new_ones(1, len(rows))])
    weights = torch.linalg.pinv(system) @ system.new_tensor([0.0, 0.0, 0.0, 1.0])
    return torch.zeros_like(template[:, 0]).index_put((rows,), weights)


def _directions(template: Tensor, outward: Tensor, weights: Tensor, skeleton: Bones) -> Tensor:
    """What a unit of each β does, ``(V, 3, 10)``; a vertex between two parts of the body has a share of both."""
    x, y, _ = template.unbind(1)
    torso, legs, arms, head = (weights[:, list(part)].sum(1) for part in (TORSO, LEGS, ARMS, HEAD))
    up, side = template.new_tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])

    def bump(center: float, width: float) -> Tensor:
        return torch.exp(-(((y - center) / width) ** 2))

    high = torch.where(y > 1.2, x.sign(), 0.0)
    belly = 0.025 * bump(1.05, 0.09) * torso * (outward[:, 2] > -0.2)
    amounts = {
        1: 0.03 * torso + 0.016 * legs + 0.011 * arms + 0.005 * head,
        5: belly,
        6: 0.02 * bump(0.88, 0.07) * (torso + legs),
        7: 0.015 * bump(0.68, 0.12) * legs,
        8: 0.008 * arms,
    }
    directions = {number: amount.unsqueeze(1) * outward for number, amount in amounts.items()} | {
        0: 0.03 * template,
        2: 0.03 * (y / 0.87).clamp(0, 1).unsqueeze(1) * up,
        3: 0.015 * (high * (x.abs() / 0.18).clamp(0, 1)).unsqueeze(1) * side,
        4: 0.03 * (high * ((x.abs() - 0.18) / 0.6).clamp(0, 1)).unsqueeze(1) * side,
        9: 0.08 * weights[:, 15:16] * (template - skeleton.start[15]),
    }
    return torch.stack([directions[number] for number in range(10)], -1)
