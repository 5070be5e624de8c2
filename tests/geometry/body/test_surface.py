"""The open body: one closed piece, weights and joints by brute force, and what its numbers of shape do."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from throughline.geometry.body import BodyModel, open_body
from throughline.geometry.body.skeleton import CHILD, JOINTS, PARENTS, RADII, TIPS

VOXELS = (0.03, 0.04, 0.05, 0.055, 0.06, 0.0625, 0.0655, 0.0667, 0.0685, 0.07)
TORSO, LEGS, ARMS, HEAD = (0, 3, 6, 9, 13, 14), (1, 2, 4, 5, 7, 8, 10, 11), range(16, 24), (12, 15)


@cache
def body_of(voxel: float) -> BodyModel:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return open_body(voxel)
    finally:
        torch.set_default_dtype(before)


def ends(joint: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.array(JOINTS[joint])
    return a, a + np.array(TIPS[joint]) if joint in TIPS else np.array(JOINTS[CHILD[joint]])


def nearest(point: np.ndarray, joint: int) -> tuple[float, np.ndarray]:
    """Distance to a capsule and the axis' point, by a fine search along the axis."""
    a, b = ends(joint)
    t = np.clip(np.dot(point - a, b - a) / np.dot(b - a, b - a), 0, 1)
    foot, radius = a + t * (b - a), RADII[joint][0] * (1 - t) + RADII[joint][1] * t
    return float(np.linalg.norm(point - foot) - radius), foot


def test_bones() -> None:
    """The figures of the skeleton, written down a second time."""
    left = {1: (0.09, 0.87, 0), 4: (0.10, 0.49, 0), 7: (0.10, 0.08, -0.02), 10: (0.10, 0.03, 0.11), 13: (0.07, 1.39, 0)}
    left |= {16: (0.18, 1.40, 0), 18: (0.44, 1.40, 0), 20: (0.69, 1.40, 0), 22: (0.78, 1.40, 0)}
    middle = {0: (0, 0.95, 0), 3: (0, 1.07, 0), 6: (0, 1.20, 0), 9: (0, 1.30, 0), 12: (0, 1.46, 0), 15: (0, 1.54, 0.02)}
    right = {joint + 1: (-x, y, z) for joint, (x, y, z) in left.items()}
    assert dict(enumerate(JOINTS)) == left | middle | right
    assert PARENTS == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    assert {RADII[joint] for joint in (0, 3, 6)} == {(0.13, 0.13)}
    thick = {1: (0.085, 0.055), 4: (0.055, 0.04), 16: (0.052, 0.042), 18: (0.042, 0.032), 15: (0.085, 0.085)}
    thick |= dict.fromkeys((10, 20, 22), (0.035, 0.035))
    assert {joint: RADII[joint] for joint in thick} == thick
    assert all(RADII[joint] == RADII[joint + 1] for joint in left)


@pytest.mark.parametrize("voxel", VOXELS)
def test_is_one_closed_piece_without_handles(voxel: float) -> None:
    body = body_of(voxel)
    faces, count = body.faces.numpy(), len(body.template)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = {tuple(edge) for edge in directed.tolist()}
    assert len(both) == len(directed)  # each direction once
    assert {(b, a) for a, b in both} == both  # and its opposite
    assert count - len(directed) // 2 + len(faces) == 2  # Euler's number of a ball
    graph = coo_matrix((np.ones(len(directed)), directed.T), (count, count))
    assert connected_components(graph)[0] == 1
    a, b, c = body.template[body.faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert 0.04 < volume < 0.12  # cubic metres; its sign says that faces look outwards


def test_sizes() -> None:
    body = body_of(0.04)
    assert 1_500 < len(body.template) < 1_700
    assert len(body_of(0.07).template) < len(body_of(0.06).template) < 800
    low, high = body.template.aminmax(dim=0)
    assert -0.02 < low[1] < 0.02
    assert 1.65 < high[1] < 1.8
    assert high[0] == pytest.approx(-float(low[0]), abs=1e-9)  # as wide to the left as to the right
    assert body.parents == PARENTS
    assert body.shape_dirs.shape[-1] == 10
    assert body.pose_dirs is None


@pytest.mark.parametrize("voxel", VOXELS)
def test_joints_are_where_they_should_be(voxel: float) -> None:
    body = body_of(voxel)
    regressor = body.joint_regressor
    torch.testing.assert_close(regressor.sum(1), torch.ones(24).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(regressor @ body.template, torch.tensor(JOINTS).double(), rtol=0, atol=1e-6)
    assert ((regressor != 0).sum(1) <= 48).all()


def test_joints_come_from_the_least_norm() -> None:
    body = body_of(0.06)
    for joint, row in enumerate(body.joint_regressor.numpy()):
        place, points = np.array(JOINTS[joint]), body.template.numpy()
        near = np.argsort(((points - place) ** 2).sum(1), kind="stable")[:48]
        assert set(row.nonzero()[0]) <= set(near)
        least = np.linalg.lstsq(np.vstack([points[near].T, np.ones(48)]), [*place, 1.0], rcond=None)[0]
        np.testing.assert_allclose(row[near], least, atol=1e-6)


def test_weights_and_parts_by_brute_force() -> None:
    body = body_of(0.06)
    for v in range(0, len(body.template), 7):
        found = [nearest(body.template[v].numpy(), j) for j in range(24)]
        raw = np.array([math.exp(-max(d, 0.0) / 0.012) for d, _ in found])
        raw[raw < 1e-3 * raw.max()] = 0
        np.testing.assert_allclose(body.weights[v].numpy(), raw / raw.sum(), atol=1e-6)
        owner = int(np.argmax([d < min(f[0] for f in found) + 1e-8 for d, _ in found]))  # the first of equals
        assert int(body.parts[v]) == owner
        away = body.template[v].numpy() - found[owner][1]
        np.testing.assert_allclose(body.outward[v].numpy(), away / np.linalg.norm(away), atol=1e-5)


@pytest.mark.parametrize("voxel", [0.04, 0.06, 0.07])
def test_every_joint_moves_something(voxel: float) -> None:
    assert (body_of(voxel).weights.amax(0) > 0.3).all()


def test_the_surface_lies_around_the_capsules() -> None:
    """On the smooth union of the field: −k ln Σ exp(−d / k) is nearly 0, and never inside of a capsule."""
    body = body_of(0.03)
    distance = np.array([[nearest(x, j)[0] for j in range(24)] for x in body.template.numpy()[::5]])
    field = -0.02 * np.log(np.exp(-distance / 0.02).sum(1))
    assert np.abs(field).max() < 0.006  # what straight edges of 3 cm cut off
    assert np.abs(field).mean() < 1e-3


def pure(body: BodyModel, joints: tuple[int, ...] | range) -> Tensor:
    """The vertices that go with nothing but these joints."""
    return body.weights[:, list(joints)].sum(1) > 1 - 1e-9


def test_numbers_of_shape() -> None:
    body = body_of(0.04)
    x, n, d = body.template, body.outward, body.shape_dirs
    torch.testing.assert_close(d[..., 0], 0.03 * x)
    torso, legs, arms, head = (pure(body, part) for part in (TORSO, LEGS, ARMS, HEAD))
    assert min(int(part.sum()) for part in (torso, legs, arms, head)) > 30

    def bump(y: float, w: float) -> Tensor:
        return torch.exp(-(((x[:, 1] - y) / w) ** 2)).unsqueeze(1)

    for part, girth in ((torso, 0.03), (legs, 0.016), (arms, 0.011), (head, 0.005)):
        torch.testing.assert_close(d[part, :, 1], girth * n[part], rtol=0, atol=1e-7)
    up = torch.tensor([0.0, 1.0, 0.0]).double()
    side = torch.tensor([1.0, 0.0, 0.0]).double()
    torch.testing.assert_close(d[..., 2], 0.03 * (x[:, 1:2] / 0.87).clamp(0, 1) * up)
    high = (x[:, 1:2] > 1.2) * x[:, :1].sign()
    torch.testing.assert_close(d[..., 3], 0.015 * high * (x[:, :1].abs() / 0.18).clamp(0, 1) * side)
    torch.testing.assert_close(d[..., 4], 0.03 * high * ((x[:, :1].abs() - 0.18) / 0.6).clamp(0, 1) * side)
    front = n[:, 2:] > -0.2
    torch.testing.assert_close(d[torso, :, 5], (0.025 * bump(1.05, 0.09) * n * front)[torso], rtol=0, atol=1e-7)
    torch.testing.assert_close(d[torso | legs, :, 6], (0.02 * bump(0.88, 0.07) * n)[torso | legs], rtol=0, atol=1e-7)
    torch.testing.assert_close(d[legs, :, 7], (0.015 * bump(0.68, 0.12) * n)[legs], rtol=0, atol=1e-7)
    torch.testing.assert_close(d[arms, :, 8], 0.008 * n[arms], rtol=0, atol=1e-7)
    only = pure(body, (15,))
    torch.testing.assert_close(d[only, :, 9], 0.08 * (x[only] - torch.tensor(JOINTS[15]).double()), rtol=0, atol=1e-7)
    for number, nobody in (
        (5, legs | arms | head),
        (6, arms | head),
        (7, torso | arms | head),
        (8, torso | legs),
        (9, torso),
    ):
        assert d[nobody][..., number].abs().max() < 1e-7, number


def test_shape_moves_the_joints_along() -> None:
    body = body_of(0.06)
    betas = torch.zeros(1, 10).double()
    betas[0, 0] = 2.0
    still = torch.zeros(1, 24, 3).double()
    out = body(betas, still[:, 1:], still[:, :1])
    torch.testing.assert_close(out.joints[0], 1.06 * torch.tensor(JOINTS).double(), rtol=0, atol=1e-6)


def test_bending_an_elbow_moves_the_forearm_alone() -> None:
    body = body_of(0.06)
    pose = torch.zeros(1, 24, 3).double()
    pose[0, 18, 1] = -1.0
    moved = torch.linalg.vector_norm(body.vertices(torch.zeros(1, 10).double(), pose)[0] - body.template, dim=1)
    assert moved[body.template[:, 0] > 0.55].min() > 0.05
    assert moved[body.template[:, 0] < 0.3].max() < 1e-9
    hand = body(torch.zeros(1, 10).double(), pose[:, 1:], pose[:, :1]).joints[0, 22]
    expected = torch.tensor([0.44 + 0.34 * math.cos(1.0), 1.4, 0.34 * math.sin(1.0)]).double()  # forwards
    torch.testing.assert_close(hand, expected, rtol=0, atol=1e-6)


def test_every_module_is_fresh() -> None:
    one, two = open_body(0.07), open_body(0.07)
    for name, buffer in one.named_buffers():
        buffer.zero_()
        assert dict(two.named_buffers())[name].abs().sum() > 0, name
    assert torch.equal(open_body(0.07).template, two.template)
    assert "parts" not in two.state_dict()


def test_takes_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert open_body(0.07).template.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    body = open_body(0.07)
    assert body.template.dtype == body.outward.dtype == torch.float32
    assert body.parts.dtype == body.faces.dtype == torch.int64


@pytest.mark.parametrize("voxel", [0.0, -0.05, 0.0701, math.nan])
def test_refuses_a_voxel(voxel: float) -> None:
    with pytest.raises(ValueError, match=r"voxel must lie in \(0, 0\.07\] metres, got"):
        open_body(voxel)
