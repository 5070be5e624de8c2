"""SURREAL's layout on a stand-in that is made of the free body, and the paper scale of mocap on it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from tests.claims.stand_ins import Notes

from throughline.claims.mocap import people
from throughline.claims.mocap.claim import AdaptsToTheClip
from throughline.claims.mocap.config import Population
from throughline.claims.shared import surreal
from throughline.core.camera import Camera
from throughline.core.rotation import so3_log
from throughline.data import DataError
from throughline.geometry.body import BodyPrediction, open_body

CLAIM = AdaptsToTheClip()
FRAMES = 3


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    body = open_body(0.07)
    surreal.smpl.cache_clear()
    monkeypatch.setattr(surreal, "load_smpl", lambda path, gender: body)


def sequence(folder: Path, name: str, seed: int = 0, **changes: Any) -> BodyPrediction:
    """A person 5 m before a camera that stands on their x axis and mirrors, as SURREAL has it; returns the truth."""
    av = pytest.importorskip("av")
    folder.mkdir(parents=True, exist_ok=True)
    body, draw = open_body(0.07), torch.Generator().manual_seed(seed)
    config = replace(CLAIM.scales["smoke"], frames=FRAMES)
    true = people.walk(Population(0.3, 0.3, 0.5, 0.0), config, draw)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    pose = torch.cat((turn @ true.pose[:, :1], true.pose[:, 1:]), 1)
    seen = BodyPrediction(
        pose, true.betas, true.transl * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, -0.3, 5.0])
    )
    vertices, joints = people.posed(body, seen)
    K = torch.tensor([[600.0, 0, 159.5], [0, 600, 119.5], [0, 0, 1]])
    camera = Camera(K, torch.eye(3), torch.zeros(3), (240, 320))
    mask, flow = people.rendered(body, vertices, camera)
    uv, _ = camera.project(joints)
    place = np.array([[5.0], [1.0], [0.2]])
    world = joints.numpy() @ np.array(surreal.TO_CAMERA) + place.T
    turns = so3_log(true.pose).flatten(1)  # its own root, before the world and the camera turn it
    info = {
        "joints2D": (torch.tensor([319.0, 0]) + uv * torch.tensor([-1.0, 1]) + 0.5).permute(2, 1, 0).numpy(),
        "joints3D": world.transpose(2, 1, 0),
        "pose": turns.mT.numpy(),
        "shape": true.betas.mT.numpy(),
        "gender": np.full((FRAMES, 1), seed % 2),
        "camLoc": place,
        **changes,
    }
    savemat(folder / f"{name}_info.mat", info)
    savemat(folder / f"{name}_segm.mat", {f"segm_{t + 1}": mask[t].numpy()[:, ::-1] * 7 for t in range(FRAMES)})
    mirrored = (flow.flip(2) * torch.tensor([-1.0, 1])).numpy()
    savemat(folder / f"{name}_gtflow.mat", {f"gtflow_{t + 1}": mirrored[t] for t in range(FRAMES - 1)})
    with av.open(str(folder / f"{name}.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for t in range(FRAMES):
            image = np.full((240, 320, 3), 40, np.uint8)
            image[mask[t].numpy()[:, ::-1]] = (220, 120, 60)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return seen


def test_a_sequence_is_read_as_it_was_made(tmp_path: Path) -> None:
    true = sequence(tmp_path / "train" / "run0", "a", 1)
    (file,) = surreal.found(str(tmp_path), "train")
    found = surreal.read(file, "models", frames=8, side=96, observed=True)
    torch.testing.assert_close(found.truth.pose, true.pose, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.truth.transl, true.transl, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.truth.betas, true.betas)
    torch.testing.assert_close(found.camera.project(found.joints)[0], found.keypoints, atol=0.05, rtol=0)
    assert found.gender == 1
    assert found.camera.image_size == (96, 96)
    assert (found.keypoints > 5).all()
    assert (found.keypoints < 90).all()
    assert found.images.shape == (FRAMES, 3, 96, 96)
    assert found.mask is not None
    assert found.flow is not None
    mask, flow = people.rendered(found.body, found.vertices, found.camera)
    assert (mask != found.mask).float().mean() < 0.03
    inside = mask[:-1] & found.mask[:-1]
    assert (flow - found.flow)[inside].abs().median() < 0.2
    moving = inside & (flow[..., 0].abs() > 2)
    assert moving.any()
    assert (flow[moving][:, 0].sign() == found.flow[moving][:, 0].sign()).float().mean() > 0.9
    bright = found.images[:, 0].float()
    assert bright[found.mask].mean() > 180 > 70 > bright[~found.mask].mean()
    assert surreal.read(file, "models", frames=2, side=32).mask is None


def test_what_is_not_surreal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test/…/\*_info\.mat below it; root is the folder of SURREAL"):
        surreal.found(str(tmp_path), "test")
    place = tmp_path / "test" / "run0"
    draw = np.random.default_rng(0)
    for name, changes, match in (
        ("a", {"joints3D": draw.random((3, 24, FRAMES))}, r"pose and joints3D are \d\.\d\d m apart"),
        ("b", {"joints2D": np.zeros((2, 24, FRAMES))}, r"joints3D are projected \d+ pixels from joints2D"),
    ):
        sequence(place, name, **changes)
        with pytest.raises(DataError, match=match):
            surreal.read(place / f"{name}_info.mat", "models", frames=3, side=32)
    sequence(place, "c")
    (place / "c_segm.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"c_segm\.mat: cannot be read as a MATLAB file"):
        surreal.read(place / "c_info.mat", "models", frames=3, side=32, observed=True)
    savemat(place / "c_info.mat", {"pose": np.zeros((72, 3))})
    with pytest.raises(DataError, match=r"c_info\.mat: no variable joints2D in it"):
        surreal.read(place / "c_info.mat", "models", frames=3, side=32)
    sequence(place, "d")
    (place / "d.mp4").unlink()
    with pytest.raises(DataError, match=r"d\.mp4: cannot be read"):
        surreal.read(place / "d_info.mat", "models", frames=3, side=32)


def test_the_paper_scale_runs_on_a_stand_in(tmp_path: Path) -> None:
    for place, split in enumerate(("train", "train", "test")):
        sequence(tmp_path / "data" / "cmu" / split / "run1", f"s{place}", place)
    config = replace(
        CLAIM.scales["paper"],
        side=32,
        frames=FRAMES,
        clips=2,
        steps=3,
        batch=4,
        adapt_steps=2,
        fit_steps=2,
        device="cpu",
        root=str(tmp_path),
        smpl="models",
    )
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        notes = Notes()
        metrics = CLAIM.run(arm, config, 0, notes)
        assert np.isfinite(list(metrics.values())).all()
        assert {"mpjpe", "v2v", "absolute"} <= set(metrics)
        assert notes.places[-1][0] == notes.places[-1][1]
    with pytest.raises(DataError, match="no test sequence has 9 frames"):
        CLAIM.prepare(replace(config, frames=9))
