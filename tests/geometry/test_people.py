"""Generated people: how often what is worn, which way joints bend, and that pictures, labels and truth go together."""

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import kstest
from torch import Tensor

from throughline.core.camera import Camera
from throughline.core.raster import rasterize
from throughline.geometry.body import PARSING_LABELS, BodyModel, open_body
from throughline.geometry.people import Outfits, People, a_pose, random_outfits, random_poses, synthetic_people

SIZE = 48
LABEL = {name: number for number, name in enumerate(PARSING_LABELS)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def body() -> BodyModel:
    return open_body(0.06)


def camera(size: int = SIZE) -> Camera:
    K = torch.tensor([[1.5 * size, 0, (size - 1) / 2], [0, 1.5 * size, (size - 1) / 2], [0, 0, 1]])
    return Camera(K, torch.eye(3), torch.zeros(3), (size, size))


@cache
def people(noise: float = 0.0) -> tuple[Outfits, People]:
    draw = seeded()
    outfits = random_outfits(12, body(), generator=draw)
    betas = torch.randn(12, 10, generator=draw) / 2
    made = synthetic_people(body(), betas, outfits, camera(), keypoint_noise=noise, noise=noise, generator=draw)
    return outfits, made


# ---- poses ----


def vectors(pose: Tensor) -> np.ndarray:
    return Rotation.from_matrix(pose.reshape(-1, 3, 3).double().numpy()).as_rotvec().reshape(*pose.shape[:2], 3)


def test_a_pose_lowers_the_arms() -> None:
    out = body()(torch.zeros(1, 10), a_pose()[None, 1:], a_pose()[None, :1], pose2rot=False)
    joints = out.joints[0] - out.joints[0, 0]
    assert (joints[[20, 21], 1] - joints[[16, 17], 1] > 0.35).all()  # wrists below shoulders: y points down
    assert joints[15, 1] < -0.5  # the head on top
    assert joints[20, 0] > 0.3 > -0.3 > joints[21, 0]  # the left hand at the image's right: the person faces us
    assert joints[10, 2] < -0.05  # toes towards the camera


def test_poses_are_drawn_as_they_should_be() -> None:
    w = vectors(random_poses(4_000, generator=seeded()))
    still = [6, 7, 8, 10, 11, 13, 14, 15, 20, 21, 22, 23]
    assert np.abs(w[:, still]).max() < 1e-6
    for joint, share in ((1, 1.0), (2, 1.0), (3, 0.4), (12, 0.4), (9, 0.3)):
        for axis, amount in enumerate((1.0, 0.4, 0.4)):
            assert kstest(w[:, joint, axis] / (0.4 * share * amount), "norm").pvalue > 1e-3, (joint, axis)
    for joint, lowered in ((16, -0.9), (17, 0.9)):
        assert kstest((w[:, joint, 2] - lowered) / 0.16, "norm").pvalue > 1e-3
        assert kstest(w[:, joint, 0] / 0.4, "norm").pvalue > 1e-3
    for joint, axis, sign in ((4, 0, 1), (5, 0, 1), (18, 1, -1), (19, 1, 1)):
        assert kstest(sign * w[:, joint, axis] / 0.8, "halfnorm").pvalue > 1e-3
        assert np.abs(np.delete(w[:, joint], axis, 1)).max() < 1e-6
    root = random_poses(4_000, generator=seeded())[:, 0]
    turned = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ root  # undoes the half turn, which comes last
    yaw = vectors(turned[:, None])[:, 0]
    assert np.abs(yaw[:, [0, 2]]).max() < 1e-5
    assert kstest(yaw[:, 1] / 0.8, "norm").pvalue > 1e-3


def test_knees_bend_back_and_elbows_forward() -> None:
    poses = random_poses(50, generator=seeded(1))
    poses[:, 0] = torch.eye(3)
    poses[:, [1, 2, 3, 9, 12]] = torch.eye(3)
    out = body()(torch.zeros(50, 10), poses[:, 1:], poses[:, :1], pose2rot=False)
    assert (out.joints[:, [7, 8], 2] <= out.joints[:, [4, 5], 2] - 0.02 + 1e-5).all()


def test_the_same_seed_gives_the_same_poses() -> None:
    assert torch.equal(random_poses(3, generator=seeded(5)), random_poses(3, generator=seeded(5)))
    assert not torch.equal(random_poses(3, generator=seeded(5)), random_poses(3, generator=seeded(6)))
    assert random_poses(0).shape == (0, 24, 3, 3)
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        random_poses(-1)
    with pytest.raises(TypeError, match=r"n must be an integer, got 1\.5"):
        random_poses(1.5)  # type: ignore[arg-type]


# ---- outfits ----


def test_outfits_are_worn_as_often_as_they_should_be() -> None:
    labels, thickness = random_outfits(3_000, body(), generator=seeded())
    x, y, z = body().template.unbind(1)
    parts = body().parts
    assert set(labels.unique().tolist()) == {
        LABEL[n]
        for n in (
            "hair",
            "upper clothes",
            "pants",
            "face",
            "left arm",
            "right arm",
            "left leg",
            "right leg",
            "left shoe",
            "right shoe",
        )
    }
    for number, arm in ((16, "left arm"), (17, "right arm")):
        near = (parts == number) & (x.abs() < 0.37)
        assert (labels[:, near] == LABEL[arm]).double().mean() == pytest.approx(0.15, abs=0.03)  # no sleeves
        fore = parts == number + 2
        assert (labels[:, fore] == LABEL["upper clothes"]).double().mean() == pytest.approx(0.25, abs=0.03)
        assert (labels[:, parts == number + 6] == LABEL[arm]).all()  # hands count as arms
    for number, leg, shoe in ((1, "left leg", "left shoe"), (2, "right leg", "right shoe")):
        assert (labels[:, (parts == number) & (y > 0.56)] == LABEL["pants"]).all()
        shank = parts == number + 3
        assert (labels[:, shank] == LABEL["pants"]).double().mean() == pytest.approx(0.5, abs=0.03)
        assert (labels[:, shank][labels[:, shank] != LABEL["pants"]] == LABEL[leg]).all()
        assert (labels[:, (parts == number + 6) | (parts == number + 9)] == LABEL[shoe]).all()
    torso = (parts == 3) | (parts == 6) | (parts == 9)
    assert (labels[:, torso & (y > 0.94)] == LABEL["upper clothes"]).all()
    assert (labels[:, (parts == 0) & (y < 0.92)] == LABEL["pants"]).all()
    head = (parts == 12) | (parts == 15)
    face = head & (((z > 0) & (y < 1.62)) | (y < 1.54))
    assert (labels[:, face] == LABEL["face"]).all()
    assert (labels[:, head & ~face] == LABEL["hair"]).all()
    for label, low, high in (("upper clothes", 0.01, 0.06), ("pants", 0.005, 0.045)):
        worn = torch.where(labels == LABEL[label], thickness, torch.nan)
        assert torch.equal(worn.nan_to_num(9).amin(1), worn.nan_to_num(-9).amax(1)) or label  # one for each person
        each = worn.nan_to_num(-9).amax(1)
        assert kstest((each - low) / (high - low), "uniform").pvalue > 1e-3
    assert (thickness[labels == LABEL["hair"]] == 0.015).all()
    assert (thickness[labels == LABEL["left shoe"]] == 0.01).all()
    skin = torch.isin(
        labels, torch.tensor([LABEL[n] for n in ("face", "left arm", "right arm", "left leg", "right leg")])
    )
    assert (thickness[skin] == 0).all()
    assert (thickness[~skin] > 0).all()


def test_one_thickness_for_each_garment() -> None:
    labels, thickness = random_outfits(20, body(), upper=(0.02, 0.03), lower=(0.0, 0.01), generator=seeded())
    for label, low, high in (("upper clothes", 0.02, 0.03), ("pants", 0.0, 0.01)):
        for n in range(20):
            worn = thickness[n][labels[n] == LABEL[label]]
            assert worn.unique().numel() == 1
            assert low <= worn[0] <= high


# ---- pictures ----


def test_truth_is_what_the_body_gives() -> None:
    _, made = people()
    out = body()(made.betas, made.pose[:, 1:], made.pose[:, :1], made.transl, pose2rot=False)
    torch.testing.assert_close(made.vertices, out.vertices)
    torch.testing.assert_close(made.joints, out.joints)
    root = made.joints[:, 0]
    assert (root[:, 2] >= 2.8).all()
    assert (root[:, 2] <= 3.2).all()
    assert root[:, :2].std() == pytest.approx(0.06, rel=0.4)
    torch.testing.assert_close(made.keypoints, camera().project(made.joints)[0])


def test_labels_are_those_of_the_dressed_mesh() -> None:
    """Clothes by hand: each vertex moved outwards at rest, then turned as its bones turn; a z-buffer of the whole."""
    outfits, made = people()
    model = body()
    transforms = model.vertex_transforms(made.betas, made.pose)
    rest = model.template + outfits.thickness[..., None] * model.outward
    moved = torch.einsum("bvxy,bvy->bvx", transforms[..., :3, :3], rest) + transforms[..., :3, 3] + made.transl[:, None]
    face = rasterize(moved, model.faces, camera()).face
    for n in range(len(face)):
        for i, j in torch.nonzero(face[n] >= 0)[::17].tolist():
            first, second, third = outfits.labels[n][model.faces[face[n, i, j]]].tolist()
            assert made.parsing[n, i, j] == (second if second == third else first)
    assert torch.equal(made.parsing > 0, face >= 0)
    a, b, c = moved[:, model.faces].unbind(2)
    normal = torch.linalg.cross(b - a, c - a)
    light = 0.55 + 0.45 * (normal[..., 2] / normal.norm(dim=-1)).abs()
    for n in range(3):
        for label in made.parsing[n].unique()[1:].tolist():
            seen = made.parsing[n] == label
            colour = made.images[n][:, seen] / light[n][face[n][seen]]
            torch.testing.assert_close(colour, colour[:, :1].expand_as(colour), rtol=1e-3, atol=1e-4)
    naked = rasterize(made.vertices, model.faces, camera()).face >= 0
    assert ((made.parsing > 0) & ~naked).sum() > 20 * ((made.parsing == 0) & naked).sum()  # clothes are outside


def test_colours() -> None:
    _, made = people()
    for n in range(3):
        image, parsing = made.images[n], made.parsing[n]
        ground = image[:, parsing == 0]
        assert (ground == ground[:, :1]).all()  # plain
        for label in parsing.unique()[1:].tolist():
            colour = image[:, parsing == label]
            share = colour / colour.amax(1, keepdim=True).clamp_min(1e-9)
            assert (share - share[:1]).abs().max() < 1e-4  # one colour, shaded
            assert share.min() >= 0.55 - 1e-4
        skin = image[:, torch.isin(parsing, torch.tensor([13, 14, 15, 16, 17]))]
        torch.testing.assert_close(skin[1], 0.8 * skin[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(skin[2], 0.65 * skin[0], rtol=1e-3, atol=1e-4)
        shoes = [image[:, parsing == label].amax(1) for label in (18, 19) if (parsing == label).any()]
        if len(shoes) == 2:
            torch.testing.assert_close(shoes[0] / shoes[0].max(), shoes[1] / shoes[1].max(), rtol=1e-3, atol=1e-3)


def test_noise() -> None:
    clean, noisy = people()[1], people(0.05)[1]
    assert torch.equal(clean.parsing, noisy.parsing)
    middle = (clean.images > 0.2) & (clean.images < 0.8)
    assert (noisy.images - clean.images)[middle].std() == pytest.approx(0.05, rel=0.05)
    assert (noisy.images.min(), noisy.images.max()) == (0, 1)
    off = noisy.keypoints - clean.keypoints
    assert off.std() == pytest.approx(0.05, rel=0.15)


def test_does_not_depend_on_how_many_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from throughline.geometry import people as module

    _, expected = people()
    monkeypatch.setattr(module, "AT_A_TIME", 5 * SIZE * SIZE)
    people.cache_clear()
    _, found = people()
    people.cache_clear()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_nobody() -> None:
    made = synthetic_people(body(), torch.zeros(0, 10), random_outfits(0, body()), camera())
    assert [len(field) for field in made] == [0] * len(made)
    assert made.images.shape == (0, 3, SIZE, SIZE)


def test_of_double_precision() -> None:
    model = open_body(0.07).double()
    made = synthetic_people(model, torch.zeros(1, 10), random_outfits(1, model), camera())
    assert made.images.dtype == made.vertices.dtype == torch.float64


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("betas must be (n, 10), got shape (2, 9)", {"betas": torch.zeros(2, 9)}),
        ("outfits.labels must be (3, ", {"betas": torch.zeros(3, 10)}),
        ("depth must be two increasing positive numbers, got (0, 1)", {"depth": (0, 1)}),
        ("depth must be two increasing positive numbers, got (2, 1)", {"depth": (2, 1)}),
        ("sway must be finite and not negative, got -1", {"sway": -1}),
        ("keypoint_noise must be finite and not negative, got nan", {"keypoint_noise": float("nan")}),
        ("noise must be finite and not negative, got inf", {"noise": float("inf")}),
    ],
)
def test_refuses(match: str, changes: dict[str, Any]) -> None:
    given = {"betas": torch.zeros(2, 10), "outfits": random_outfits(2, body(), generator=seeded()), "camera": camera()}
    with pytest.raises(ValueError, match=re.escape(match)):
        synthetic_people(body(), **(given | changes))


def test_wants_an_open_body() -> None:
    other = BodyModel(**_arrays())
    with pytest.raises(
        ValueError, match="body must be of open_body, whose parts are known, got a BodyModel without parts"
    ):
        random_outfits(1, other)
    with pytest.raises(ValueError, match=r"upper must be two increasing numbers of metres, got \(0\.2, 0\.1\)"):
        random_outfits(1, body(), upper=(0.2, 0.1))
    with pytest.raises(ValueError, match=r"lower must be two increasing numbers of metres, got \(-1, 0\.1\)"):
        random_outfits(1, body(), lower=(-1, 0.1))
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        random_outfits(-1, body())


def _arrays() -> dict[str, Any]:
    return {
        "template": torch.zeros(3, 3),
        "faces": torch.tensor([[0, 1, 2]]),
        "shape_dirs": torch.zeros(3, 3, 10),
        "joint_regressor": torch.zeros(24, 3),
        "weights": torch.full((3, 24), 1 / 24),
        "parents": (-1, *range(23)),
    }
