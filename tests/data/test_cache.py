"""What is kept is what was made, to the bit; whatever happens to the file, the numbers are the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from throughline.data import cache
from throughline.data.cache import kept

KEY = {"of": "everything", "size": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    return tmp_path / "throughline" / "any"


def made() -> dict[str, Tensor]:
    return {"a": torch.arange(2.0), "b": torch.arange(6).view(2, 3).T}


def unmade() -> dict[str, Tensor]:
    raise AssertionError("it was there already")


def test_is_made_once(folder: Path) -> None:
    first, again = kept("any", KEY, made), kept("any", dict(reversed(KEY.items())), unmade)
    for name, tensor in made().items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(again[name], tensor)
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert not list(folder.glob("*.partial"))
    assert kept("any", {**KEY, "size": 3}, lambda: {"a": torch.zeros(1)})["a"].tolist() == [0]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:40] + b"?" + c[41:], lambda c: b""])
def test_a_damaged_file_is_made_anew(folder: Path, damage: object) -> None:
    kept("any", KEY, made)
    (file,) = folder.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))  # type: ignore[operator]
    assert torch.equal(kept("any", KEY, made)["a"], torch.arange(2.0))
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "file" / project)
    assert kept("any", {}, made)["a"].tolist() == [0, 1]
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(cache, "_write", full)
    assert kept("any", {}, made)["a"].tolist() == [0, 1]

    def fails() -> dict[str, Tensor]:
        raise OSError("of the computation itself")

    with pytest.raises(OSError, match="of the computation itself"):
        kept("any", {}, fails)
