"""SMPL's file, a stand-in with its sizes: what smplx makes of it is what comes out, and what is wrong is said."""

import builtins
import pickle
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix

from throughline.geometry.body import load_smpl
from throughline.geometry.body.skeleton import PARENTS

VERTICES = 6_890


@cache
def content() -> bytes:
    """Random numbers of the right sizes, pickled as the licensed file is."""
    draw = np.random.default_rng(0)
    near = draw.integers(VERTICES, size=(24, 5))
    regressor = csc_matrix((np.full(120, 0.2), (np.repeat(np.arange(24), 5), near.ravel())), (24, VERTICES))
    weights = np.zeros((VERTICES, 24))
    weights[np.arange(VERTICES), draw.integers(24, size=VERTICES)] += 0.75
    weights[np.arange(VERTICES), draw.integers(24, size=VERTICES)] += 0.25
    tree = np.array([PARENTS, range(24)], np.int64)
    tree[0, 0] = 2**32 - 1  # of the root, as in the file
    return pickle.dumps(
        {
            "v_template": draw.normal(size=(VERTICES, 3)),
            "shapedirs": 0.02 * draw.normal(size=(VERTICES, 3, 10)).astype(np.float32),
            "posedirs": 0.01 * draw.normal(size=(VERTICES, 3, 207)).astype(np.float32),
            "J_regressor": regressor,
            "kintree_table": tree,
            "weights": weights,
            "f": draw.integers(VERTICES, size=(13_776, 3)).astype(np.uint32),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("smplx")
    (tmp_path / "smpl").mkdir()
    (tmp_path / "smpl" / "SMPL_NEUTRAL.pkl").write_bytes(content())
    return tmp_path


def test_poses_as_smplx_does(folder: Path) -> None:
    smplx = pytest.importorskip("smplx")
    theirs = smplx.SMPL(str(folder / "smpl" / "SMPL_NEUTRAL.pkl"))
    draw = torch.Generator().manual_seed(0)
    betas, pose = torch.randn(2, 10, generator=draw), torch.randn(2, 72, generator=draw)
    shift = torch.randn(2, 3, generator=draw)
    expected = theirs(betas=betas, body_pose=pose[:, 3:], global_orient=pose[:, :3], transl=shift)
    for place in (folder, folder / "smpl", folder / "smpl" / "SMPL_NEUTRAL.pkl"):
        out = load_smpl(place)(betas, pose[:, 3:], pose[:, :3], shift)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.joints, expected.joints[:, :24], rtol=0, atol=1e-5)


def test_has_its_sizes(folder: Path) -> None:
    body = load_smpl(folder)
    assert body.parents == PARENTS
    assert (len(body.template), len(body.faces), body.shape_dirs.shape[-1]) == (VERTICES, 13_776, 10)
    assert body.faces.dtype == torch.int64
    assert body.template.dtype == torch.float32
    assert not any(buffer.requires_grad for buffer in body.buffers())


def test_says_where_to_get_the_file(tmp_path: Path) -> None:
    pytest.importorskip("smplx")
    with pytest.raises(
        FileNotFoundError, match=r"no SMPL_FEMALE\.pkl there; get it from https://smpl\.is\.tue\.mpg\.de, whose licence"
    ):
        load_smpl(tmp_path, gender="female")


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("smplx")
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps({"v_template": np.zeros((4, 3))}))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl is no file of SMPL"):
        load_smpl(tmp_path)
    with pytest.raises(ValueError, match="gender must be one of neutral, male, female, got 'none'"):
        load_smpl(tmp_path, gender="none")


def test_names_the_package_that_the_file_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The licensed files hold arrays of chumpy, which few have."""
    smplx = pytest.importorskip("smplx")
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(content())

    def missing(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'chumpy'", name="chumpy")

    monkeypatch.setattr(smplx, "SMPL", missing)
    with pytest.raises(ImportError, match=r"SMPL_NEUTRAL\.pkl needs the package chumpy to be read"):
        load_smpl(tmp_path)


def test_says_how_to_install_smplx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "smplx":
            raise ModuleNotFoundError("No module named 'smplx'", name="smplx")
        return ordinary(name, *args, **options)

    monkeypatch.delitem(sys.modules, "smplx", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'smplx is not installed; pip install "throughline\[body\]"'):
        load_smpl(tmp_path)
