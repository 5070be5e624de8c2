"""MNIST-1D as its package draws it, without a trace in the global generators, and arrays of the user's own."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from throughline.data import DataError, Source, mnist1d, read_signals
from throughline.data.signals import _made


def test_mnist1d_is_that_of_the_package_and_leaves_generators_alone() -> None:
    package = pytest.importorskip("mnist1d.data")
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    _made.cache_clear()
    train, test = mnist1d()
    assert random.getstate() == states[1]
    for now, before in zip(np.random.get_state(), states[0], strict=True):  # noqa: NPY002
        np.testing.assert_array_equal(now, before)
    made = package.make_dataset(package.get_dataset_args())
    np.random.set_state(states[0])  # noqa: NPY002
    random.setstate(states[1])
    for part, x, y in ((train, made["x"], made["y"]), (test, made["x_test"], made["y_test"])):
        assert part.signals.dtype == torch.float32
        np.testing.assert_array_equal(part.signals[:, 0].numpy(), x.astype(np.float32))
        np.testing.assert_array_equal(part.labels.numpy(), y)
    assert (len(train.signals), len(test.signals)) == (4000, 1000)
    for tensor, place in ((train.signals, 0), (train.labels, 1)):
        tensor.zero_()  # what one caller does to its tensors is not seen by the next
        assert mnist1d()[0][place].abs().sum() > 0


def test_says_how_to_get_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _made.cache_clear()
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(ImportError, match=r'mnist1d is not installed; pip install "throughline\[signals\]"'):
        mnist1d()


def stored(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([7, 3, 3, 7]), ("3", "7")),
        (np.array(["b", "a", "a", "b"]), ("a", "b")),
        (np.array([b"b", b"a", b"a", b"b"]), ("a", "b")),
        (np.array([True, False, False, True]), ("False", "True")),
    ],
)
def test_reads_arrays(labels: Any, classes: tuple[str, ...], tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(4, 2, 3)
    found = read_signals(stored(tmp_path, x=x, y=labels))
    assert found.signals.dtype == torch.float32
    np.testing.assert_array_equal(found.signals.numpy(), x)
    assert found.labels.tolist() == [1, 0, 0, 1]
    assert found.classes == classes


def test_signals_of_one_channel_may_lack_its_dimension(tmp_path: Path) -> None:
    x = np.arange(12).reshape(4, 3)
    found = read_signals(stored(tmp_path, x=x, y=np.array([0, 1, 0, 1])))
    np.testing.assert_array_equal(found.signals.numpy(), x[:, None])


def test_a_source_of_signals(tmp_path: Path) -> None:
    source = Source.of(stored(tmp_path, x=np.ones((4, 2, 3)), y=np.array([0, 1, 2, 1])))
    assert source.kind == "signals"
    assert source.kinds == ("signals",)
    assert source.described("signals") == "mine.npz: 4 signals of 2 × 3 in 3 classes"
    assert source.signals().labels.tolist() == [0, 1, 2, 1]
    for options in ({"target": "y"}, {"positive": "1"}):
        with pytest.raises(DataError, match=r"mine\.npz: a target or positive class is for tables"):
            Source.of(source.path, **options)
    with pytest.raises(DataError, match=r"an image size \(3\) is for image folders, and this is a file"):
        Source.of(source.path, size=3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 3))}, r"no array 'y', got x; x and y are wanted"),
        ({"data": np.ones(3)}, r"no array 'x', got data"),
        ({"x": np.ones(4), "y": np.arange(4)}, r"x must be numbers .* got float64 \(4,\)"),
        ({"x": np.ones((4, 1, 2, 2)), "y": np.arange(4)}, r"x must be numbers .* got float64 \(4, 1, 2, 2\)"),
        ({"x": np.full((4, 3), "a"), "y": np.arange(4)}, r"x must be numbers .* got <U1 \(4, 3\)"),
        ({"x": np.ones((0, 3)), "y": np.arange(0)}, r"x must be numbers .* got float64 \(0, 3\)"),
        ({"x": np.ones((4, 3)), "y": np.arange(3)}, r"y must be 4 whole numbers or texts, .* got int64 \(3,\)"),
        ({"x": np.ones((4, 3)), "y": np.ones(4)}, r"y must be 4 whole numbers or texts, .* got float64 \(4,\)"),
        (
            {"x": np.array([[1.0, 2], [np.nan, 1], [3, np.inf]]), "y": np.arange(3)},
            r".* not finite in 2 of 3 signals, the first is number 1",
        ),
        ({"x": np.ones((4, 3)), "y": np.zeros(4, int)}, r"y holds one class only \(0\)"),
        ({"x": np.array([[{}], [{}]], dtype=object), "y": np.arange(2)}, r"not a readable \.npz of plain arrays"),
    ],
)
def test_names_the_file_and_what_is_wrong(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"mine\.npz: {message}"):
        read_signals(stored(tmp_path, **arrays))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("plain.npy", "text.npz", "absent.npz"):
        with pytest.raises(DataError, match=rf"{name}: not a readable \.npz"):
            read_signals(tmp_path / name)
