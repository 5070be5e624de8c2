"""Clothed people whose bodies are known: poses, outfits, pictures and their parsing, made of `open_body`.

After "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480), whose prior
comes from clothed scans. Clothes are geometry here: vertices of the body move outwards at rest, are posed with it, and
a z-buffer draws them, so the truth shares nothing with a differentiable renderer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from throughline.core.camera import Camera
from throughline.core.checks import check_floating, integer
from throughline.core.raster import rasterize
from throughline.core.rotation import so3_exp
from throughline.geometry.body import PARSING_LABELS, BodyModel

__all__ = ["Outfits", "People", "a_pose", "random_outfits", "random_poses", "synthetic_people"]

HAIR, UPPER, PANTS, FACE, LEFT_ARM, LEFT_LEG, LEFT_SHOE = (
    PARSING_LABELS.index(name)
    for name in ("hair", "upper clothes", "pants", "face", "left arm", "left leg", "left shoe")
)
SKIN = ("face", "left arm", "right arm", "left leg", "right leg")
TORSO, HEAD = (0, 3, 6, 9, 13, 14), (12, 15)  # joints that own the parts
WAIST, HEM = 0.93, 0.55  # metres above the floor, at rest
ELBOW, CHIN, BROW = 0.38, 1.54, 1.62
SLEEVES = (0.15, 0.6, 0.25)  # how often none, short and long ones
LONG = 0.5  # how often trousers reach the feet
HAIR_THICKNESS, SHOE_THICKNESS = 0.015, 0.01
LOWERED = 0.9  # radians, of the arms
SWING = 0.4  # radians, of hips and shoulders about x
BEND = 0.8  # likewise, of knees and elbows, one way only
YAW = 0.8
TONE, LIGHTNESS = (1.0, 0.8, 0.65), (0.3, 0.9)
AMBIENT = 0.55
AT_A_TIME = 2**18  # pixels that are drawn together


class Outfits(NamedTuple):
    """What each of n people wears at each vertex."""

    labels: Tensor  # (n, V) int64, numbers in PARSING_LABELS
    thickness: Tensor  # (n, V), metres away from the body


class People(NamedTuple):
    """n people, what a camera and a parser see of them, and the truth; metres in the camera's world, and pixels."""

    images: Tensor  # (n, 3, H, W), in [0, 1]
    parsing: Tensor  # (n, H, W) int64
    keypoints: Tensor  # (n, J, 2), noisy
    pose: Tensor  # (n, J, 3, 3), root first
    betas: Tensor  # (n, S)
    transl: Tensor  # (n, 3), as BodyModel takes it
    vertices: Tensor  # (n, V, 3), of the naked body
    joints: Tensor  # (n, J, 3)


def a_pose() -> Tensor:
    """Standing upright with lowered arms, facing a camera whose y is down: rotations ``(24, 3, 3)``, root first.

    >>> a_pose()[0].diagonal()  # turned by π about x
    tensor([ 1., -1., -1.])
    """
    angles = torch.zeros(24, 3, device="cpu")
    angles[16, 2], angles[17, 2] = -LOWERED, LOWERED
    pose = so3_exp(angles)
    pose[0] = _flip()
    return pose


def random_poses(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Poses around `a_pose`: hips, shoulders and spine swing, knees and elbows bend one way, the body turns.

    Args:
        n: how many, at least 0.
        generator: the source of randomness, on the CPU.

    Returns:
        Rotations ``(n, 24, 3, 3)``, root first, in single precision on the CPU.

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``n`` is negative.

    >>> random_poses(5).shape
    torch.Size([5, 24, 3, 3])
    """
    if integer("n", n) < 0:
        raise ValueError(f"n must not be negative, got {n}")
    amount = torch.zeros(24, 3, device="cpu")
    axes = torch.tensor([1.0, 0.4, 0.4], device="cpu")
    for joints, share in (((1, 2, 16, 17), 1.0), ((3, 12), 0.4), ((9,), 0.3)):
        amount[list(joints)] = SWING * share * axes
    angles = amount * torch.randn(n, 24, 3, generator=generator, device="cpu")
    bend = BEND * torch.randn(n, 4, generator=generator, device="cpu").abs()
    angles[:, [4, 5], 0] = bend[:, :2]
    angles[:, 18, 1], angles[:, 19, 1] = -bend[:, 2], bend[:, 3]
    angles[:, 16, 2] -= LOWERED
    angles[:, 17, 2] += LOWERED
    angles[:, 0, 1] = YAW * torch.randn(n, generator=generator, device="cpu")
    pose = so3_exp(angles)
    pose[:, 0] = _flip() @ pose[:, 0]
    return pose


def random_outfits(
    n: int,
    body: BodyModel,
    *,
    upper: tuple[float, float] = (0.01, 0.06),
    lower: tuple[float, float] = (0.005, 0.045),
    generator: torch.Generator | None = None,
) -> Outfits:
    """Upper clothes with no, short or long sleeves, short or long trousers, hair and shoes.

    Args:
        n: how many, at least 0.
        body: of `throughline.geometry.body.open_body`.
        upper: range of the thickness of upper clothes, in metres.
        lower: likewise of trousers.
        generator: the source of randomness, on the CPU.

    Returns:
        Labels ``(n, V)`` and thickness ``(n, V)``; what is not dressed has none.

    Raises:
        TypeError: ``n`` is no integer.
        ValueError: ``n`` is negative, ``body`` is another, or a range is none.

    >>> from throughline.geometry.body import open_body, semantic_prior
    >>> body = open_body(0.07)
    >>> prior = semantic_prior(random_outfits(300, body).labels, 20)
    >>> prior.shape[1], prior[:, 0].max()  # a body has no background
    (20, tensor(0.))
    """
    if integer("n", n) < 0:
        raise ValueError(f"n must not be negative, got {n}")
    for name, (low, high) in (("upper", upper), ("lower", lower)):
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"{name} must be two increasing numbers of metres, got {(low, high)}")
    parts, _ = _own(body)
    x, y, z = body.template.unbind(1)

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return (low + (high - low) * torch.rand(n, 1, generator=generator, device="cpu")).to(body.template)

    sleeves, long = uniform(), uniform() < LONG
    thick = {UPPER: uniform(*upper), PANTS: uniform(*lower)}

    def owned(*joints: int) -> Tensor:
        return torch.isin(parts, torch.tensor(joints, device=parts.device))

    short = owned(16, 17) & (x.abs() < ELBOW) & (sleeves > SLEEVES[0])
    upper_clothes = (owned(*TORSO) & (y > WAIST)) | short | (owned(16, 17, 18, 19) & (sleeves > 1 - SLEEVES[2]))
    trousers = (owned(0) & (y <= WAIST)) | (owned(1, 2) & (y > HEM)) | (owned(1, 2, 4, 5) & long)
    labels = _naked(parts, z, y).expand(n, -1)
    labels = torch.where(upper_clothes, UPPER, torch.where(trousers, PANTS, labels))
    thickness = torch.zeros_like(labels, dtype=body.template.dtype)
    thickness = torch.where(labels == HAIR, HAIR_THICKNESS, thickness)
    thickness = torch.where((labels == LEFT_SHOE) | (labels == LEFT_SHOE + 1), SHOE_THICKNESS, thickness)
    for label, amount in thick.items():
        thickness = torch.where(labels == label, amount, thickness)
    return Outfits(labels, thickness)


def synthetic_people(
    body: BodyModel,
    betas: Tensor,
    outfits: Outfits,
    camera: Camera,
    *,
    depth: tuple[float, float] = (2.8, 3.2),
    sway: float = 0.06,
    keypoint_noise: float = 0.4,
    noise: float = 0.04,
    generator: torch.Generator | None = None,
) -> People:
    """People in random poses before a plain ground, with one colour for each garment and light from the camera.

    Args:
        body: of `throughline.geometry.body.open_body`.
        betas: shapes, ``(n, S)``.
        outfits: of n people.
        camera: one for all, with y down; people stand in its world around the z axis.
        depth: range of the root's z, in metres.
        sway: standard deviation of its x and y.
        keypoint_noise: standard deviation of the keypoints' error, in pixels.
        noise: of the images; white is 1.
        generator: the source of randomness, on the CPU.

    Returns:
        Images, parsing, keypoints and truth of n people, in the dtype and on the device of ``body``.

    Raises:
        TypeError: ``betas`` are no floating point tensor.
        ValueError: ``body`` is another, ``betas``, ``outfits`` and body do not fit, or a number is out of range.

    >>> from throughline.geometry.body import open_body
    >>> body, draw = open_body(0.07), torch.Generator().manual_seed(0)
    >>> K = torch.tensor([[48.0, 0.0, 15.5], [0.0, 48.0, 15.5], [0.0, 0.0, 1.0]])
    >>> camera, outfits = Camera(K, torch.eye(3), torch.zeros(3), (32, 32)), random_outfits(2, body, generator=draw)
    >>> made = synthetic_people(body, torch.zeros(2, 10), outfits, camera, generator=draw)
    >>> made.images.shape, made.keypoints.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 24, 2]))
    """
    _, outward = _own(body)
    _check(body, betas, outfits, depth, sway, keypoint_noise, noise)
    like, n = body.template, len(betas)

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator, device="cpu").to(like)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator, device="cpu").to(like)

    betas, pose = betas.to(like), random_poses(n, generator=generator).to(like)
    root = torch.cat([sway * normal(2), depth[0] + (depth[1] - depth[0]) * uniform(1)], 1)
    place = body(betas, pose[:, 1:], pose[:, :1], pose2rot=False)
    transl = root - place.joints[:, 0]
    vertices, joints = place.vertices + transl[:, None], place.joints + transl[:, None]
    keypoints, _ = camera.project(joints)
    keypoints = keypoints + keypoint_noise * normal(joints.shape[1], 2)

    colours = uniform(len(PARSING_LABELS), 3)
    lightness = LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * uniform(1)
    skin = [PARSING_LABELS.index(name) for name in SKIN]
    colours[:, skin] = (lightness * like.new_tensor(TONE)).unsqueeze(1)
    colours[:, LEFT_SHOE + 1] = colours[:, LEFT_SHOE]
    moved = outfits.thickness.to(like).unsqueeze(-1) * outward
    images, parsing = [], []
    step = max(1, AT_A_TIME // (camera.image_size[0] * camera.image_size[1]))
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        transforms = body.vertex_transforms(betas[rows], pose[rows])
        dressed = body.template + moved[rows]
        dressed = (transforms[..., :3, :3] @ dressed.unsqueeze(-1)).squeeze(-1) + transforms[..., :3, 3]
        seen = _drawn(body.faces, dressed + transl[rows, None], outfits.labels[rows], colours[rows], camera)
        images.append(seen[0])
        parsing.append(seen[1])
    height, width = camera.image_size
    whole = torch.cat(images) if images else like.new_zeros(0, 3, height, width)
    whole = (whole + noise * normal(3, height, width)).clamp(0, 1)
    labels = torch.cat(parsing) if parsing else outfits.labels.new_zeros(0, height, width)
    return People(whole, labels, keypoints, pose, betas, transl, vertices, joints)


def _drawn(faces: Tensor, vertices: Tensor, labels: Tensor, colours: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Images ``(n, 3, H, W)`` without noise and their labels ``(n, H, W)``."""
    first, second, third = labels[:, faces].unbind(-1)
    of_face = torch.where(second == third, second, first)
    corner, *ends = camera.to_camera(vertices)[:, faces].unbind(-2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(ends[0] - corner, ends[1] - corner), dim=-1)
    light = AMBIENT + (1 - AMBIENT) * normal[..., 2].abs()
    face = rasterize(vertices, faces, camera).face.flatten(1)
    nothing = face < 0
    index = face.clamp_min(0)
    parsing = of_face.gather(1, index).masked_fill(nothing, 0)
    shade = light.gather(1, index).masked_fill(nothing, 1.0)
    image = colours.gather(1, parsing.unsqueeze(-1).expand(-1, -1, 3)) * shade.unsqueeze(-1)
    size = camera.image_size
    return image.mT.reshape(len(image), 3, *size), parsing.view(len(parsing), *size)


def _naked(parts: Tensor, z: Tensor, y: Tensor) -> Tensor:
    """The label of each vertex without a garment, hair and shoes on, ``(V,)``."""
    left_arm, left_leg, left_shoe = (LEFT_ARM, LEFT_LEG, LEFT_SHOE)
    of_joint = [0] * 24
    for joints, label in (
        ((16, 18, 20, 22), left_arm),
        ((17, 19, 21, 23), left_arm + 1),
        ((1, 4), left_leg),
        ((2, 5), left_leg + 1),
        ((7, 10), left_shoe),
        ((8, 11), left_shoe + 1),
        (TORSO, UPPER),  # never without
        (HEAD, HAIR),
    ):
        for joint in joints:
            of_joint[joint] = label
    labels = torch.tensor(of_joint, device=parts.device)[parts]
    face = (labels == HAIR) & (((z > 0) & (y < BROW)) | (y < CHIN))
    return torch.where(face, FACE, labels)


def _flip() -> Tensor:
    return torch.diag(torch.tensor([1.0, -1.0, -1.0], device="cpu"))


def _own(body: BodyModel) -> tuple[Tensor, Tensor]:
    """Parts and directions of an open body."""
    parts, outward = getattr(body, "parts", None), getattr(body, "outward", None)
    if not isinstance(parts, Tensor) or not isinstance(outward, Tensor):
        raise ValueError(f"body must be of open_body, whose parts are known, got a {type(body).__name__} without parts")
    return parts, outward


def _check(
    body: BodyModel,
    betas: Tensor,
    outfits: Outfits,
    depth: tuple[float, float],
    sway: float,
    keypoint_noise: float,
    noise: float,
) -> None:
    check_floating("betas", betas)
    size = body.shape_dirs.shape[-1]
    if betas.ndim != 2 or betas.shape[1] != size:
        raise ValueError(f"betas must be (n, {size}), got shape {tuple(betas.shape)}")
    wanted = (len(betas), len(body.template))
    for name, array in outfits._asdict().items():
        if array.shape != wanted:
            raise ValueError(f"outfits.{name} must be {wanted}, of betas and body, got {tuple(array.shape)}")
    if not 0 < depth[0] <= depth[1] < float("inf"):
        raise ValueError(f"depth must be two increasing positive numbers, got {depth}")
    for name, amount in (("sway", sway), ("keypoint_noise", keypoint_noise), ("noise", noise)):
        if not 0 <= amount < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {amount}")
