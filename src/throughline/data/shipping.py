"""The user's own files on the way to another machine: packed by content, and laid out in the cache there."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from throughline.data.download import DataError
from throughline.data.source import Source, content_digest, files_of

__all__ = ["MOST_BYTES", "pack", "place"]

MOST_BYTES = 2**30

Packed = dict[str, bytes]  # content by path, which starts with the name of the file or folder


def pack(source: Source) -> Packed | None:
    """The content of a source; None for a registry key, which every machine fetches and checks for itself.

    Raises:
        DataError: it is too much to be sent, or not what the digest was computed from.
    """
    place = Path(source.path)
    if not place.exists():
        return None
    files = {place: place.name}
    if place.is_dir():
        files = {file: f"{place.name}/{file.relative_to(place).as_posix()}" for file in files_of(place)}
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        raise DataError(
            f"{place}: {size / 1e9:.2f} GB, more than the {MOST_BYTES / 1e9:.2f} GB that are sent to the workers of a "
            "cluster; use --engine local, or give a part of it"
        )
    packed = {name: file.read_bytes() for file, name in files.items()}
    source.check_unchanged()
    return packed


def place(digest: str, name: str, content: Callable[[], Packed]) -> Path:
    """Where the file or folder ``name`` of this digest lies in the cache; until it does, ``content`` is asked for."""
    import filelock
    import pooch

    cache = Path(pooch.os_cache("throughline")) / "shipped"
    found = cache / digest / name
    found.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f".{digest}.lock"):
        if found.exists() and content_digest(found) == digest:
            return found
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            for path, data in content().items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            if found.is_dir():
                shutil.rmtree(found)
            os.replace(Path(folder, name), found)
    return found
