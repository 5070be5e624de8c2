"""A data folder of its own for every test that asks for one: nothing outside ``tmp_path`` is written."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from throughline.data import Entry, download

Register = Callable[..., Entry]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder under ``THROUGHLINE_DATA``, with an empty cache beside it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("THROUGHLINE_DATA", str(folder))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(download, "entries", lambda: ())
    return folder


@pytest.fixture
def register(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Add an entry to an otherwise empty registry; ``store`` puts its file into the mirror, too."""

    def add(key: str, content: bytes, *, url: str = "http://127.0.0.1:9/closed", store: bool = True) -> Entry:
        entry = Entry(key, hashlib.sha256(content).hexdigest(), len(content), url, "CC0", "made up")
        known = (*download.entries(), entry)
        monkeypatch.setattr(download, "entries", lambda: known)
        if store:
            (mirror / key).parent.mkdir(parents=True, exist_ok=True)
            (mirror / key).write_bytes(content)
        return entry

    return add
