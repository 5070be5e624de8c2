"""Clips of people as detectors see them, in a folder of .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throughline.data import DataError, Source, read_clips

DRAW = np.random.default_rng(0)
KEYPOINTS = DRAW.random((4, 5, 2)) * 20


def stored(folder: Path, name: str = "walk.npz", **arrays: Any) -> Path:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    np.savez(folder / name, **{"keypoints": KEYPOINTS, "size": [24, 32], **arrays})
    return folder


def test_reads_all_that_is_there(tmp_path: Path) -> None:
    flow, mask = DRAW.random((3, 24, 32, 2)), DRAW.random((4, 24, 32))
    truth, confidence = DRAW.random((4, 5, 3)), DRAW.random((4, 5))
    K = [[50.0, 0.5, 15.0], [0.0, 51.0, 11.0], [0.0, 0.0, 1.0]]
    place = stored(tmp_path, flow=flow, mask=mask, joints3d=truth, confidence=confidence, K=K)
    (clip,) = read_clips(place)
    assert clip.name == "walk"
    assert clip.size == (24, 32)
    assert clip.intrinsics.tolist() == K
    assert clip.flow is not None
    assert clip.joints3d is not None
    assert clip.mask is not None
    pairs = ((clip.keypoints, KEYPOINTS), (clip.flow, flow), (clip.joints3d, truth), (clip.confidence, confidence))
    for found, given in pairs:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, given.astype(np.float32))
    assert clip.mask.dtype == np.bool_
    np.testing.assert_array_equal(clip.mask, mask > 0.5)


def test_what_is_not_given_is_assumed(tmp_path: Path) -> None:
    (clip,) = read_clips(stored(tmp_path))
    assert clip.intrinsics.tolist() == [[40.0, 0.0, 15.5], [0.0, 40.0, 11.5], [0.0, 0.0, 1.0]]  # 24, 32, 40
    assert (clip.confidence == 1).all()
    assert clip.flow is None
    assert clip.mask is None
    assert clip.joints3d is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"mask": np.zeros((4, 24, 32), bool)},
        {"flow": np.zeros((3, 24, 32, 2))},
        {"K": [[9.0, 0, 15.5], [0, 9.0, 11.5], [0, 0, 1]]},
        {"size": (24, 32), "K": [[9.0, 0, 3.0], [0, 9.0, 3.0], [0, 0, 1]]},
    ],
)
def test_the_size_is_told_by_what_there_is(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keypoints=KEYPOINTS, **arrays)
    assert read_clips(tmp_path)[0].size == (24, 32)


def test_keypoints_that_are_not_finite_were_not_found(tmp_path: Path) -> None:
    spoilt = KEYPOINTS.copy()
    spoilt[1, 2, 0], spoilt[3, 4, 1] = np.nan, np.inf
    confidence = np.full((4, 5), 0.7)
    confidence[0, 0] = np.nan
    (clip,) = read_clips(stored(tmp_path, keypoints=spoilt, confidence=confidence))
    assert np.argwhere(clip.confidence == 0).tolist() == [[0, 0], [1, 2], [3, 4]]
    assert clip.keypoints[1, 2].tolist() == clip.keypoints[3, 4].tolist() == [0, 0]
    assert np.isfinite(clip.keypoints).all()


def test_clips_are_in_the_order_of_their_names_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in ("b.npz", "a/clip.npz", ".hidden.npz", ".cache/c.npz"):
        stored(tmp_path, name)
    assert [clip.name for clip in read_clips(tmp_path)] == ["a/clip", "b"]


def test_a_source_reads_and_describes_them(tmp_path: Path) -> None:
    stored(tmp_path, joints3d=np.zeros((4, 5, 3)))
    stored(tmp_path, "b.npz")
    source = Source.of(tmp_path)
    assert [clip.name for clip in source.clips()] == ["b", "walk"]
    assert source.described("clips") == f"{tmp_path.name}: 2 clips of 8 frames, 1 with joints in space"


@pytest.mark.parametrize(
    ("match", "arrays"),
    [
        (r"walk\.npz: keypoints must be \(frames, joints, 2\), got shape \(4, 5\)", {"keypoints": np.zeros((4, 5))}),
        (r"keypoints must be \(frames, joints, 2\)", {"keypoints": np.zeros((4, 0, 2))}),
        (r"keypoints must be numbers, got <U1", {"keypoints": np.full((4, 5, 2), "a")}),
        (
            r"confidence must be \(4, 5\), to go with the other arrays, got shape \(4, 6\)",
            {"confidence": np.ones((4, 6))},
        ),
        (r"confidence must not be negative, got -1", {"confidence": -np.ones((4, 5))}),
        (r"flow must be \(3, 24, 32, 2\)", {"flow": np.ones((4, 24, 32, 2))}),
        (r"flow holds values that are not finite", {"flow": np.full((3, 24, 32, 2), np.nan)}),
        (r"mask must be \(4, 24, 32\)", {"mask": np.ones((4, 32, 24))}),
        (r"joints3d must be \(4, 5, 3\)", {"joints3d": np.ones((4, 5, 2))}),
        (r"images must have a pixel or more, got a size of 0 x 9", {"size": [0, 9]}),
        (r"size must be \(2,\)", {"size": [1, 2, 3]}),
        (r"K must be \(3, 3\)", {"K": np.eye(4)}),
        (r"K must be finite with positive focal lengths", {"K": -np.eye(3)}),
        (r"the last row of K must be 0, 0, 1, got \[0\.0, 0\.0, 2\.0\]", {"K": 2 * np.eye(3)}),
    ],
)
def test_what_contradicts_itself_is_refused(match: str, arrays: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match):
        read_clips(stored(tmp_path, **arrays))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.npz in this folder; give one with a file for each clip"):
        read_clips(tmp_path)
    np.savez(tmp_path / "a.npz", joints=KEYPOINTS)
    with pytest.raises(DataError, match=r"a\.npz: no array 'keypoints', got joints"):
        read_clips(tmp_path)
    np.savez(tmp_path / "a.npz", keypoints=KEYPOINTS)
    with pytest.raises(DataError, match=r"neither K, size, mask nor flow in it; one of them must tell how large"):
        read_clips(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.npz: not a readable \.npz of plain arrays"):
        read_clips(tmp_path)
