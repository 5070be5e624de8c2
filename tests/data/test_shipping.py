"""The user's files on the way to another machine: what arrives is what the digest says, under the name it had."""

from pathlib import Path

import pooch
import pytest

from throughline.data import DataError, Source
from throughline.data.shipping import pack, place
from throughline.data.source import content_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "throughline" / "shipped"


def folder(root: Path) -> Path:
    for name in ("plants/daisy/1.png", "plants/a b/caf\udce9.png", "plants/.hidden/x", "plants/daisy/.DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, errors="surrogateescape")
    return root / "plants"


def test_a_folder_arrives_but_for_what_is_hidden(tmp_path: Path, cache: Path) -> None:
    source = Source.of(folder(tmp_path))
    packed = pack(source)
    assert packed is not None
    found = place(source.digest, "plants", lambda: packed)
    assert found == cache / source.digest / "plants"
    assert {file.relative_to(found).as_posix() for file in found.rglob("*.*")} == {"daisy/1.png", "a b/caf\udce9.png"}
    assert content_digest(found) == source.digest
    Source(str(found), digest=source.digest).check_unchanged()


def test_it_is_asked_for_once_and_again_when_it_was_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,label\n1,0\n2,1\n")
    source = Source.of(path)
    asked = []

    def content() -> dict[str, bytes]:
        asked.append(1)
        return pack(source) or {}

    for times, damage in ((1, None), (1, None), (2, "altered"), (3, "a longer text than it was")):
        found = place(source.digest, "mine.csv", content)
        if damage:
            found.write_text(damage)
            found = place(source.digest, "mine.csv", content)
        assert found.read_bytes() == path.read_bytes()
        assert len(asked) == times
    assert place(source.digest, "other.csv", lambda: {"other.csv": path.read_bytes()}).name == "other.csv"


def test_a_registry_key_stays_at_home() -> None:
    assert pack(Source("tabular/sonar.csv", digest="0" * 64)) is None


def test_too_much_and_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source.of(folder(tmp_path))
    (tmp_path / "plants" / "daisy" / "2.png").touch()
    with pytest.raises(DataError, match="its content is not what the run was started with"):
        pack(source)
    monkeypatch.setattr("throughline.data.shipping.MOST_BYTES", 20)
    with pytest.raises(
        DataError, match=r"plants: 0\.00 GB, more than the 0\.00 GB that are sent to the workers of a cluster"
    ):
        pack(source)
