"""A body that is shaped by a few numbers and posed by the rotations of its joints."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, check_tensor
from throughline.core.rotation import so3_exp

__all__ = ["BodyModel", "BodyOutput"]

SUM_TOLERANCE = 1e-3  # of the skinning weights of a vertex


class BodyOutput(NamedTuple):
    """Where a body is."""

    vertices: Tensor  # (B, V, 3)
    joints: Tensor  # (B, J, 3)


class BodyModel(nn.Module):
    """Linear blend skinning of a shaped template, as SMPL does it (ACM Transactions on Graphics 34(6), 2015).

    v = T̄ + S β + P (R(θ) − I); joints J = 𝒥 (T̄ + S β); along the tree G_j = G_parent [R_j | J_j − J_parent];
    x = Σ_j w_j G_j [I | −J_j] v. Called as a body of the package ``smplx`` is. Inputs take the dtype of the buffers,
    and a batch of one goes with any other.

    Args:
        template: T̄, ``(V, 3)``, floating point, metres.
        faces: ``(F, 3)``, int64, corners of triangles.
        shape_dirs: S, ``(V, 3, S)``.
        joint_regressor: 𝒥, ``(J, V)``.
        weights: w, ``(V, J)``, each row of sum 1.
        parents: one for each joint, -1 for the first, which is the root; every parent stands before its children.
        pose_dirs: P, ``(9 (J − 1), 3 V)``, rows by joint and entry of its rotation, columns by vertex and axis; None
            for none.

    Attributes:
        template: as given, and so the other tensors: all are buffers.
        parents: a tuple.

    Raises:
        TypeError: a tensor is none, or of another kind.
        ValueError: a shape does not fit the others, ``faces`` or ``parents`` are out of range, or ``weights`` do not
            sum to 1.

    >>> from throughline.geometry.body import open_body
    >>> body = open_body(0.07)
    >>> out = body(torch.zeros(2, 10), torch.zeros(2, 69), torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 3.0]]))
    >>> out.joints.shape, out.joints[0, 0, 2]  # metres
    (torch.Size([2, 24, 3]), tensor(3.))
    """

    template: Tensor
    faces: Tensor
    shape_dirs: Tensor
    joint_regressor: Tensor
    weights: Tensor
    pose_dirs: Tensor | None

    def __init__(
        self,
        template: Tensor,
        faces: Tensor,
        shape_dirs: Tensor,
        joint_regressor: Tensor,
        weights: Tensor,
        parents: Sequence[int],
        *,
        pose_dirs: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.parents = tuple(int(p) for p in parents)
        _check_arrays(template, faces, shape_dirs, joint_regressor, weights, self.parents, pose_dirs)
        self.register_buffer("template", template)
        self.register_buffer("faces", faces)
        self.register_buffer("shape_dirs", shape_dirs.to(template))
        self.register_buffer("joint_regressor", joint_regressor.to(template))
        self.register_buffer("weights", weights.to(template))
        self.register_buffer("pose_dirs", None if pose_dirs is None else pose_dirs.to(template))
        self._levels = _levels(self.parents)

    def forward(
        self,
        betas: Tensor,
        body_pose: Tensor,
        global_orient: Tensor,
        transl: Tensor | None = None,
        *,
        pose2rot: bool = True,
    ) -> BodyOutput:
        """The posed body.

        Args:
            betas: β, ``(B, S)``.
            body_pose: rotations of all joints but the root: vectors along their axes with the angle as length,
                ``(B, 3 (J − 1))`` or ``(B, J − 1, 3)``.
            global_orient: that of the root, about its own joint, ``(B, 3)`` or ``(B, 1, 3)``.
            transl: added last, ``(B, 3)``.
            pose2rot: False for matrices, ``(B, J − 1, 3, 3)`` and ``(B, 1, 3, 3)``.

        Returns:
            ``vertices`` ``(B, V, 3)`` and ``joints`` ``(B, J, 3)``.

        Raises:
            TypeError: an argument is no floating point tensor.
            ValueError: a shape is another one, or batches differ.
        """
        rotations = self._rotations(body_pose, global_orient, pose2rot)
        given = {"betas": self._shape("betas", betas), "body_pose": rotations}
        if transl is not None:
            check_floating("transl", transl)
            if transl.ndim != 2 or transl.shape[-1] != 3:
                raise ValueError(f"transl must be (B, 3), got shape {tuple(transl.shape)}")
            given["transl"] = transl.to(self.template.dtype)
        _check_batches(given)
        with torch.autocast(self.template.device.type, enabled=False):
            shaped, joints, rotation, position = self._posed(given["betas"], rotations)
            vertices = self._skinned(shaped, joints, rotation, position)
        if transl is not None:
            shift = given["transl"].unsqueeze(1)
            vertices, position = vertices + shift, position + shift
        return BodyOutput(vertices, position)

    def vertices(self, shape: Tensor, pose: Tensor) -> Tensor:
        """Vertices ``(B, V, 3)`` of β ``(B, S)`` and all rotations, ``(B, J, 3)`` or ``(B, J, 3, 3)``, root first.

        Raises:
            TypeError: an argument is no floating point tensor.
            ValueError: a shape is another one, or batches differ.
        """
        given = {"shape": self._shape("shape", shape), "pose": self._whole(pose)}
        _check_batches(given)
        with torch.autocast(self.template.device.type, enabled=False):
            return self._skinned(*self._posed(*given.values()))

    def vertex_transforms(self, shape: Tensor, pose: Tensor) -> Tensor:
        """Affine maps ``(B, V, 4, 4)``, each of which takes a vertex of the *template* to where `vertices` has it.

        The offsets of shape and pose are in them, so a garment that goes with the template's vertices goes with every
        body. Arguments and errors are those of `vertices`.
        """
        given = {"shape": self._shape("shape", shape), "pose": self._whole(pose)}
        _check_batches(given)
        with torch.autocast(self.template.device.type, enabled=False):
            shaped, joints, rotation, position = self._posed(*given.values())
            turn, shift = self._blended(joints, rotation, position)
            shift = shift + (turn @ (shaped - self.template).unsqueeze(-1)).squeeze(-1)
            top = torch.cat([turn, shift.unsqueeze(-1)], -1)
            bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:2], 1, 4)
            return torch.cat([top, bottom], -2)

    def extra_repr(self) -> str:
        """Its sizes."""
        sizes = (len(self.template), len(self.faces), len(self.parents), self.shape_dirs.shape[-1])
        return "vertices={}, faces={}, joints={}, betas={}".format(*sizes)

    def _posed(self, betas: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The shaped template with its pose's offsets, joints at rest, and the joints' rotations and positions."""
        count = len(self.template)
        shaped = self.template + (betas @ self.shape_dirs.flatten(0, 1).mT).view(len(betas), count, 3)
        joints = self.joint_regressor @ shaped
        if self.pose_dirs is not None:
            bent = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            shaped = shaped + (bent.flatten(1) @ self.pose_dirs).view(len(bent), count, 3)
        return shaped, joints, *self._chained(rotations, joints)

    def _chained(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """G_j of all joints, rotations ``(B, J, 3, 3)`` and positions ``(B, J, 3)``, a level of the tree at a time."""
        batch = _together(rotations, joints)
        rotations, joints = rotations.expand(batch, -1, -1, -1), joints.expand(batch, -1, -1)
        turned, placed = [rotations[:, :1]], [joints[:, :1]]
        order = [0]
        for members, above, places in self._levels:
            turn = turned[-1][:, places]
            bone = (joints[:, members] - joints[:, above]).unsqueeze(-1)
            placed.append((turn @ bone).squeeze(-1) + placed[-1][:, places])
            turned.append(turn @ rotations[:, members])
            order += members
        back = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(turned, 1)[:, back], torch.cat(placed, 1)[:, back]

    def _blended(self, joints: Tensor, rotation: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j w_j G_j [I | −J_j] of every vertex, as ``(B, V, 3, 3)`` and ``(B, V, 3)``."""
        shift = position - (rotation @ joints.unsqueeze(-1)).squeeze(-1)
        both = torch.cat([rotation.flatten(2), shift], -1)
        blended = self.weights @ both
        return blended[..., :9].reshape(*blended.shape[:2], 3, 3), blended[..., 9:]

    def _skinned(self, shaped: Tensor, joints: Tensor, rotation: Tensor, position: Tensor) -> Tensor:
        turn, shift = self._blended(joints, rotation, position)
        return (turn @ shaped.unsqueeze(-1)).squeeze(-1) + shift

    def _shape(self, name: str, betas: Tensor) -> Tensor:
        check_floating(name, betas)
        wanted = self.shape_dirs.shape[-1]
        if betas.ndim != 2 or betas.shape[-1] != wanted:
            raise ValueError(f"{name} must be (B, {wanted}), got shape {tuple(betas.shape)}")
        return betas.to(self.template.dtype)

    def _rotations(self, body_pose: Tensor, global_orient: Tensor, pose2rot: bool) -> Tensor:
        """All rotations as matrices, ``(B, J, 3, 3)``."""
        count = len(self.parents) - 1
        parts = []
        for name, pose, joints in (("global_orient", global_orient, 1), ("body_pose", body_pose, count)):
            check_floating(name, pose)
            fits = [(joints, 3), (3 * joints,)] if pose2rot else [(joints, 3, 3)]
            if pose.shape[1:] not in fits:
                wanted = " or ".join(f"(B, {', '.join(map(str, fit))})" for fit in reversed(fits))
                raise ValueError(f"{name} must be {wanted} with pose2rot={pose2rot}, got shape {tuple(pose.shape)}")
            parts.append(pose.to(self.template.dtype).reshape(len(pose), joints, *((3,) if pose2rot else (3, 3))))
        _check_batches({"global_orient": parts[0], "body_pose": parts[1]})
        batch = _together(*parts)
        whole = torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], 1)
        return so3_exp(whole) if pose2rot else whole

    def _whole(self, pose: Tensor) -> Tensor:
        check_floating("pose", pose)
        count = len(self.parents)
        if pose.shape[1:] not in ((count, 3), (count, 3, 3)):
            raise ValueError(f"pose must be (B, {count}, 3) or (B, {count}, 3, 3), got shape {tuple(pose.shape)}")
        pose = pose.to(self.template.dtype)
        return so3_exp(pose) if pose.ndim == 3 else pose


def _levels(parents: tuple[int, ...]) -> list[tuple[list[int], list[int], list[int]]]:
    """Level by level below the root: joints, their parents, and the places of these in the level above."""
    levels, above = [], [0]
    while members := [j for j, p in enumerate(parents) if p in above]:
        of = [parents[j] for j in members]
        levels.append((members, of, [above.index(p) for p in of]))
        above = members
    return levels


def _together(*given: Tensor) -> int:
    """The batch that tensors of the same batch, or of one, have together."""
    return next((len(value) for value in given if len(value) != 1), 1)


def _check_batches(given: dict[str, Tensor]) -> None:
    sizes = {name: len(value) for name, value in given.items()}
    if len({size for size in sizes.values() if size != 1}) > 1:
        told = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(f"{' and '.join(sizes)} must be of one batch, got {told}")


def _check_arrays(
    template: Tensor,
    faces: Tensor,
    shape_dirs: Tensor,
    joint_regressor: Tensor,
    weights: Tensor,
    parents: tuple[int, ...],
    pose_dirs: Tensor | None,
) -> None:
    check_floating("template", template)
    if template.ndim != 2 or template.shape[1] != 3:
        raise ValueError(f"template must be (V, 3), got shape {tuple(template.shape)}")
    count, joints = len(template), len(parents)
    if not parents or parents[0] != -1 or any(not 0 <= p < j for j, p in enumerate(parents[1:], 1)):
        raise ValueError(f"parents must start with -1, then name joints before their own, got {parents}")
    check_tensor("faces", faces)
    if faces.dtype != torch.int64:
        raise TypeError(f"faces must be int64, got {faces.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces must be (F, 3), got shape {tuple(faces.shape)}")
    if faces.numel() and not (faces.device.type == "meta" or 0 <= int(faces.min()) <= int(faces.max()) < count):
        raise ValueError(f"faces must name the {count} vertices, got {int(faces.min())} to {int(faces.max())}")
    wanted: dict[str, tuple[Tensor | None, str, tuple[int, ...]]] = {
        "joint_regressor": (joint_regressor, f"({joints}, {count})", (joints, count)),
        "weights": (weights, f"({count}, {joints})", (count, joints)),
        "pose_dirs": (pose_dirs, f"({9 * (joints - 1)}, {3 * count})", (9 * (joints - 1), 3 * count)),
    }
    for name, (value, text, shape) in wanted.items():
        if value is not None or name != "pose_dirs":
            check_floating(name, value)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name} must be {text} of {count} vertices and {joints} joints, got shape {tuple(value.shape)}"
                )
    check_floating("shape_dirs", shape_dirs)
    if shape_dirs.ndim != 3 or shape_dirs.shape[:2] != (count, 3):
        raise ValueError(f"shape_dirs must be ({count}, 3, S), got shape {tuple(shape_dirs.shape)}")
    if weights.device.type != "meta" and count:
        off = float((weights.sum(1) - 1).abs().max())
        if not off <= SUM_TOLERANCE:
            raise ValueError(f"weights must sum to 1 over the joints of each vertex, got a sum that is off by {off:g}")
