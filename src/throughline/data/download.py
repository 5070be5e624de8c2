"""Downloads: a registry of keys, URLs, SHA-256 sums and licences, and the one way from a key to a verified local file.

``THROUGHLINE_DATA`` names the folder that is searched first, as ``<folder>/<key>``; a read-only mirror will do. A file
that is nowhere is downloaded into that folder, or into the user's cache where the variable is unset or its folder is
read-only.
"""

import csv
import difflib
import functools
import hashlib
import logging
import os
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Literal, NamedTuple

from throughline.errors import ThroughlineError

if TYPE_CHECKING:
    import requests

__all__ = [
    "DataError",
    "Entry",
    "Row",
    "Status",
    "describe",
    "entries",
    "fetch",
    "folders",
    "locate",
    "resolve",
    "sha256",
    "verify",
]

Status = Literal["ok", "missing", "altered"]
VARIABLE = "THROUGHLINE_DATA"


class DataError(ThroughlineError, ValueError):
    """Data that is missing, altered or unfit; the message names the file and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(message.encode(errors="backslashreplace").decode())  # file names need not be UTF-8


class Entry(NamedTuple):
    """One registered download."""

    key: str  # its path below the data folder
    sha256: str
    size: int  # bytes
    url: str
    licence: str
    what: str


class Row(NamedTuple):
    """An entry as it is listed: what it is and how its local file stands."""

    key: str
    size: int
    licence: str
    what: str
    status: Status
    path: Path


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Return the registry, in its own order.

    >>> next(entry.licence for entry in entries() if entry.key == "tabular/sonar.csv")
    'UCI'
    """
    text = (resources.files("throughline.data") / "registry.csv").read_text(encoding="utf-8")
    return tuple(
        Entry(row["key"], row["sha256"], int(row["bytes"]), row["url"], row["licence"], row["what"])
        for row in csv.DictReader(text.splitlines())
    )


def locate(key: str) -> Path:
    """Return where the file of ``key`` lies, or would be downloaded to; nothing is opened.

    Raises:
        DataError: ``key`` is not in the registry.
    """
    return _locate(_entry(key))


def fetch(key: str) -> Path:
    """Return a verified local file of a registry key: from ``THROUGHLINE_DATA``, else the cache, else downloaded.

    Raises:
        DataError: ``key`` is unknown, the file that is there is not the registered one, or the download fails.
    """
    entry = _entry(key)
    path = _locate(entry)
    if not path.exists():
        _download(entry, path)
    _check(entry, path)
    return path


def verify(keys: Iterable[str] | None = None) -> dict[str, Status]:
    """Return how the local file of each key stands: "ok", "missing" or "altered"; nothing is downloaded.

    Args:
        keys: registry keys; the whole registry by default.
    """
    return {row.key: row.status for row in describe(keys)}


def describe(keys: Iterable[str] | None = None) -> list[Row]:
    """Return one `Row` for each key, as `verify` finds it."""
    chosen = entries() if keys is None else [_entry(key) for key in keys]
    return [Row(e.key, e.size, e.licence, e.what, _status(e, path), path) for e in chosen for path in [_locate(e)]]


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return the user's own file or folder, or the verified file of a registry key.

    Raises:
        DataError: it is neither, or a pipe or device.
    """
    own = Path(path).expanduser()
    if own.exists():
        if not (own.is_file() or own.is_dir()):
            raise _no_file(own)
        return own
    if os.fspath(path) in {entry.key for entry in entries()}:
        return fetch(os.fspath(path))
    raise DataError(f"{path}: no such file, folder or registry key{_hint(os.fspath(path))}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; read once in a process, and again when its size or time of change differ."""
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            raise _no_file(path)
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error


def _no_file(path: Path) -> DataError:
    return DataError(f"{path}: a pipe or device, which can be read but once; save its content in a file and give that")


@functools.cache
def _sha256(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(key: str) -> Entry:
    for entry in entries():
        if entry.key == key:
            return entry
    raise DataError(f"{key}: no such key in the registry{_hint(key)}")


def _hint(wanted: str) -> str:
    keys = {name: entry.key for entry in entries() for name in (Path(entry.key).stem, Path(entry.key).name, entry.key)}
    near = dict.fromkeys(keys[name] for name in difflib.get_close_matches(wanted, keys, n=3, cutoff=0.6))
    asked = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{asked} `throughline data list` shows all keys"


def _locate(entry: Entry) -> Path:
    places = [folder / entry.key for folder in folders()]
    return next((place for place in places if place.exists()), next(filter(_writable, places), places[-1]))


def folders() -> list[Path]:
    """The folders in which files are looked for, in order: the one that ``THROUGHLINE_DATA`` names, then the cache."""
    import pooch

    cache = Path(pooch.os_cache("throughline"))
    named = os.environ.get(VARIABLE)
    if not named:
        return [cache]
    mirror = Path(named).expanduser()
    if mirror.exists() and not mirror.is_dir():
        raise DataError(
            f"{mirror}: {VARIABLE} must name a folder, and this is a file; point it at a folder or unset it"
        )
    return [mirror, cache]


def _writable(place: Path) -> bool:
    folder = next(parent for parent in place.parents if parent.exists())
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)  # the mode binds an administrator, too


def _status(entry: Entry, path: Path) -> Status:
    if not path.exists():
        return "missing"
    return "ok" if path.stat().st_size == entry.size and sha256(path) == entry.sha256 else "altered"


def _check(entry: Entry, path: Path) -> None:
    size = path.stat().st_size
    if size != entry.size:
        found = f"{size:,} bytes instead of {entry.size:,}" + (": it is truncated" if size < entry.size else "")
    elif (actual := sha256(path)) != entry.sha256:
        found = f"SHA-256 {actual} instead of {entry.sha256}"
    else:
        return
    raise DataError(
        f"{path}: not the registered {entry.key} ({found}); delete it and run `throughline data fetch {entry.key}`, "
        f"or replace it by {entry.url}"
    )


def _download(entry: Entry, path: Path) -> None:
    import filelock
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        get = pooch.HTTPDownloader(progressbar=_terminal(), hooks={"response": _close_refused})
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):  # a second process waits, then finds the file
            if path.exists():  # pooch would replace a wrong one without a word
                return
            pooch.retrieve(  # into a temporary file beside it, moved into place once its checksum is right
                entry.url, f"sha256:{entry.sha256}", path.name, path.parent, downloader=get
            )
            path.chmod(0o644)
    except (OSError, ValueError) as error:  # every network error of requests is an OSError
        cause = " ".join(str(error).split())
        raise DataError(
            f"{entry.key}: cannot be downloaded from {entry.url} ({cause}); put the file at {path}, "
            f"or point {VARIABLE} at a folder that holds {entry.key}"
        ) from error


def _close_refused(response: "requests.Response", **_: object) -> None:
    if not response.ok:  # pooch raises and leaves the connection open
        response.close()


def _terminal() -> bool:
    from importlib.util import find_spec

    return sys.stderr.isatty() and find_spec("tqdm") is not None  # pooch draws its bar with tqdm
