"""Skinning against plain loops and against smplx, its invariants, and what is refused."""

import re
from typing import Any

import pytest
import torch
from scipy.spatial.transform import Rotation
from tests.geometry.body.bodies import PARENTS, arrays, loops, small_body
from torch import Tensor

from throughline.geometry.body import BodyModel

JOINTS = len(PARENTS)


def inputs(batch: int = 3, betas: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, betas, generator=draw, dtype=torch.float64),
        torch.randn(batch, JOINTS, 3, generator=draw, dtype=torch.float64),
    )


def matrices(pose: Tensor) -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec(pose.reshape(-1, 3).numpy()).as_matrix()).view(*pose.shape[:-1], 3, 3)


@pytest.mark.parametrize("posed", [True, False])
def test_agrees_with_loops(posed: bool) -> None:
    body, (betas, pose) = small_body(posed=posed), inputs()
    shift = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    out = body(betas, pose[:, 1:].flatten(1), pose[:, 0], shift)
    for n in range(3):
        vertices, joints = loops(body, betas[n], pose[n])
        torch.testing.assert_close(out.vertices[n], torch.from_numpy(vertices) + shift[n], rtol=0, atol=1e-12)
        torch.testing.assert_close(out.joints[n], torch.from_numpy(joints) + shift[n], rtol=0, atol=1e-12)


def test_agrees_with_smplx() -> None:
    lbs = pytest.importorskip("smplx.lbs")
    body, (betas, pose) = small_body(), inputs()
    parents = torch.tensor(body.parents)
    theirs = (body.template, body.shape_dirs, body.pose_dirs, body.joint_regressor, parents, body.weights)
    vertices, joints = lbs.lbs(betas, matrices(pose), *theirs, pose2rot=False)
    out = body(betas, matrices(pose)[:, 1:], matrices(pose)[:, :1], pose2rot=False)
    torch.testing.assert_close(out.vertices, vertices, rtol=0, atol=1e-12)
    torch.testing.assert_close(out.joints, joints, rtol=0, atol=1e-12)


def test_all_forms_of_a_pose_are_one() -> None:
    body, (betas, pose) = small_body(), inputs()
    expected = body(betas, pose[:, 1:].flatten(1), pose[:, 0])
    for other in (
        body(betas, pose[:, 1:], pose[:, :1]),
        body(betas, matrices(pose)[:, 1:], matrices(pose)[:, :1], pose2rot=False),
    ):
        torch.testing.assert_close(other.vertices, expected.vertices, rtol=0, atol=1e-12)
    for whole in (pose, matrices(pose)):
        torch.testing.assert_close(body.vertices(betas, whole), expected.vertices, rtol=0, atol=1e-12)


@pytest.mark.parametrize("posed", [True, False])
def test_transforms_take_the_template_to_the_result(posed: bool) -> None:
    body, (betas, pose) = small_body(posed=posed), inputs()
    transforms = body.vertex_transforms(betas, pose)
    ends = torch.cat([body.template, torch.ones_like(body.template[:, :1])], 1)
    moved = (transforms @ ends.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(moved[..., :3], body.vertices(betas, pose), rtol=0, atol=1e-12)
    assert torch.equal(moved[..., 3], torch.ones(3, len(ends), dtype=torch.float64))
    # their linear parts are the blended rotations: an offset at rest turns with the body
    apart = (transforms[..., :3, :3] - _blended(body, betas, pose)).abs().max()
    assert apart < 1e-12


def _blended(body: BodyModel, betas: Tensor, pose: Tensor) -> Tensor:
    turns = matrices(pose)
    whole = [turns[:, 0]]
    for j in range(1, JOINTS):
        whole.append(whole[PARENTS[j]] @ turns[:, j])
    return torch.einsum("vj,bjxy->bvxy", body.weights, torch.stack(whole, 1))


def test_at_rest_it_is_the_shaped_template() -> None:
    body, (betas, pose) = small_body(), inputs()
    out = body(betas, torch.zeros_like(pose[:, 1:]), torch.zeros_like(pose[:, :1]))
    expected = body.template + torch.einsum("vcs,bs->bvc", body.shape_dirs, betas)
    torch.testing.assert_close(out.vertices, expected)
    torch.testing.assert_close(out.joints, body.joint_regressor @ expected)


def test_the_root_turns_about_its_own_joint() -> None:
    body, (betas, pose) = small_body(posed=False), inputs(1)
    still = body(betas, pose[:, 1:], torch.zeros_like(pose[:, :1]))
    turned = body(betas, pose[:, 1:], pose[:, :1])
    around, turn = still.joints[:, :1], matrices(pose[0, 0])
    torch.testing.assert_close(turned.joints[:, 0], still.joints[:, 0])
    torch.testing.assert_close(turned.vertices, (still.vertices - around) @ turn.mT + around)


def test_a_batch_of_one_goes_with_any_other() -> None:
    body, (betas, pose) = small_body(), inputs()
    shift = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    out = body(betas[:1], pose[:, 1:], pose[:1, :1], shift)
    again = body(betas[:1].expand(3, -1), pose[:, 1:], pose[:1, :1].expand(3, -1, -1), shift.expand(3, -1))
    assert out.vertices.shape == (3, 17, 3)
    torch.testing.assert_close(out.vertices, again.vertices)
    torch.testing.assert_close(out.joints, again.joints)
    assert body.vertices(betas, pose[:1]).shape == (3, 17, 3)
    many = body(betas, pose[:1, 1:], pose[:1, :1])
    assert many.vertices.shape == (3, 17, 3)
    assert many.joints.shape == (3, JOINTS, 3)


def test_a_single_joint_and_no_batch() -> None:
    parts = arrays(posed=False)
    one = {name: parts[name] for name in ("template", "faces", "shape_dirs")}
    body = BodyModel(
        **one, joint_regressor=parts["joint_regressor"][:1], weights=torch.ones(17, 1).double(), parents=(-1,)
    )
    out = body(torch.zeros(2, 4).double(), torch.zeros(2, 0).double(), torch.ones(2, 3).double())
    assert out.joints.shape == (2, 1, 3)
    empty = small_body()(torch.zeros(0, 4).double(), torch.zeros(0, 15).double(), torch.zeros(0, 3).double())
    assert empty.vertices.shape == (0, 17, 3)


def test_inputs_take_the_dtype_of_the_buffers() -> None:
    body, (betas, pose) = small_body().float(), inputs()
    out = body(betas, pose[:, 1:], pose[:, :1].float(), torch.zeros(3, 3, dtype=torch.float64))
    assert out.vertices.dtype == out.joints.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        halved = body(betas.bfloat16().float(), pose[:, 1:], pose[:, :1])
    assert halved.vertices.dtype == torch.float32


def test_keeps_the_tensors_as_buffers() -> None:
    given = arrays()
    body = BodyModel(**given)
    for name in ("template", "faces", "shape_dirs", "joint_regressor", "weights", "pose_dirs"):
        assert torch.equal(dict(body.named_buffers())[name], given[name])
    assert body.parents == PARENTS
    assert set(body.state_dict()) == set(given) - {"parents"}
    assert "pose_dirs" not in small_body(posed=False).state_dict()


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "template must be floating point, got torch.int64", {"template": torch.zeros(17, 3).long()}),
        (ValueError, r"template must be \(V, 3\), got shape \(17, 2\)", {"template": torch.zeros(17, 2)}),
        (TypeError, "faces must be int64, got torch.int32", {"faces": torch.zeros(2, 3).int()}),
        (ValueError, r"faces must be \(F, 3\), got shape \(2, 4\)", {"faces": torch.zeros(2, 4).long()}),
        (ValueError, "faces must name the 17 vertices, got 0 to 17", {"faces": torch.tensor([[0, 1, 17]])}),
        (ValueError, "faces must name the 17 vertices, got -1 to 2", {"faces": torch.tensor([[0, -1, 2]])}),
        (ValueError, r"shape_dirs must be \(17, 3, S\), got shape \(17, 4\)", {"shape_dirs": torch.zeros(17, 4)}),
        (ValueError, r"shape_dirs must be \(17, 3, S\)", {"shape_dirs": torch.zeros(16, 3, 4)}),
        (
            ValueError,
            r"joint_regressor must be \(6, 17\) of 17 vertices and 6 joints, got shape \(17, 6\)",
            {"joint_regressor": torch.zeros(17, 6)},
        ),
        (ValueError, r"weights must be \(17, 6\) of .* got shape \(17, 5\)", {"weights": torch.zeros(17, 5)}),
        (ValueError, r"weights must sum to 1 .* off by 1", {"weights": torch.zeros(17, 6)}),
        (ValueError, r"pose_dirs must be \(45, 51\) of .* got shape \(51, 45\)", {"pose_dirs": torch.zeros(51, 45)}),
        (TypeError, "pose_dirs must be a tensor, got str", {"pose_dirs": "none"}),
        (ValueError, "parents must start with -1, then name joints before their own", {"parents": (0, 0, 0, 1, 3, 2)}),
        (ValueError, r"parents must .* got \(-1, 0, 0, 3, 3, 2\)", {"parents": (-1, 0, 0, 3, 3, 2)}),
        (ValueError, r"parents must .* got \(-1, -1", {"parents": (-1, -1, 0, 1, 3, 2)}),
        (ValueError, r"parents must .* got \(\)", {"parents": ()}),
    ],
)
def test_refuses_arrays_that_do_not_fit(error: type[Exception], match: str, changes: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        BodyModel(**(arrays() | changes))


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("betas must be (B, 4), got shape (3, 5)", {"betas": torch.zeros(3, 5)}),
        ("betas must be (B, 4), got shape (4,)", {"betas": torch.zeros(4)}),
        (
            "body_pose must be (B, 15) or (B, 5, 3) with pose2rot=True, got shape (3, 18)",
            {"body_pose": torch.zeros(3, 18)},
        ),
        ("global_orient must be (B, 3) or (B, 1, 3) with pose2rot=True", {"global_orient": torch.zeros(3, 3, 3)}),
        ("body_pose must be (B, 5, 3, 3) with pose2rot=False, got shape (3, 15)", {"pose2rot": False}),
        ("transl must be (B, 3), got shape (3,)", {"transl": torch.zeros(3)}),
        (
            "global_orient and body_pose must be of one batch, got global_orient of 2",
            {"global_orient": torch.zeros(2, 3)},
        ),
        ("betas and body_pose must be of one batch, got betas of 2, body_pose of 3", {"betas": torch.zeros(2, 4)}),
        ("must be of one batch, got betas of 3, body_pose of 3, transl of 2", {"transl": torch.zeros(2, 3)}),
    ],
)
def test_refuses_inputs_that_do_not_fit(match: str, changes: dict[str, Any]) -> None:
    given = {"betas": torch.zeros(3, 4), "body_pose": torch.zeros(3, 15), "global_orient": torch.zeros(3, 3)}
    if not changes.get("pose2rot", True):
        given["global_orient"] = torch.zeros(3, 1, 3, 3)
    with pytest.raises(ValueError, match=re.escape(match)):
        small_body()(**(given | changes))


def test_refuses_whole_poses_that_do_not_fit() -> None:
    body = small_body()
    with pytest.raises(ValueError, match=r"pose must be \(B, 6, 3\) or \(B, 6, 3, 3\), got shape \(2, 5, 3\)"):
        body.vertices(torch.zeros(2, 4), torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"shape must be \(B, 4\), got shape \(2, 3\)"):
        body.vertex_transforms(torch.zeros(2, 3), torch.zeros(2, 6, 3))
    with pytest.raises(ValueError, match="shape and pose must be of one batch, got shape of 3, pose of 2"):
        body.vertices(torch.zeros(3, 4), torch.zeros(2, 6, 3))
