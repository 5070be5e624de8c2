"""Tensors that are costly to compute, kept in the user's cache folder; without the file the numbers are the same."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["kept"]

DIGEST = 32  # bytes of a SHA-256, ahead of the tensors


def kept(kind: str, key: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns, from the file that an earlier call with this ``key`` has left, or made and left now.

    A file that is damaged is made anew. Processes that want the same file wait for the first. Where the cache folder
    cannot be written, nothing is kept.

    Args:
        kind: folder below the cache.
        key: everything that the tensors depend on, as JSON values.
        make: computes the tensors, to the same bits each time.
    """
    import filelock
    import pooch

    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    file = Path(pooch.os_cache("throughline")) / kind / f"{name}.safetensors"
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(file.with_name(f".{name}.lock")))
        except (OSError, NotImplementedError):
            return make()
        found = _read(file)
        if found is None:
            found = make()
            with suppress(OSError):
                _write(file, found)
    return found


def _read(file: Path) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = file.read_bytes()
        if content[:DIGEST] != hashlib.sha256(content[DIGEST:]).digest():
            return None
        return dict(load(content[DIGEST:]))
    except (OSError, SafetensorError):
        return None


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
