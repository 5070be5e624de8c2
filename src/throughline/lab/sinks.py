"""Where training curves can go besides the result files: TensorBoard, or any function of yours.

A sink is one function, called in the parent process for every curve point of every unit, in order within a unit:

    def sink(paper: str, arm: str, seed: int, step: int, values: dict[str, float]) -> None: ...

`throughline run PAPER --sink package.module:function` plugs in another tracker.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from throughline.errors import ThroughlineError
from throughline.lab.claim import require

__all__ = ["Sink", "find_sink", "tensorboard"]

Sink = Callable[[str, str, int, int, dict[str, float]], None]


def tensorboard(folder: Path) -> Sink:
    """Writes each unit's curves as one TensorBoard run, ``folder/paper/arm-seed``.

    Raises:
        ThroughlineError: TensorBoard is not installed, or ``folder`` cannot be written.
    """
    require("tensorboard", extra="tensorboard")
    module = importlib.import_module("torch.utils.tensorboard")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThroughlineError(f"--tensorboard: cannot write to {folder}: {error.strerror}") from None
    writers: dict[str, Any] = {}

    def sink(paper: str, arm: str, seed: int, step: int, values: dict[str, float]) -> None:
        name = f"{paper}/{arm}-{seed}"
        if name not in writers:
            writers[name] = module.SummaryWriter(str(folder / name))
        for key, value in values.items():
            writers[name].add_scalar(key, value, step)
        writers[name].flush()

    return sink


def find_sink(name: str) -> Sink:
    """The function that ``package.module:function`` names, looked up from the current folder too.

    >>> find_sink("builtins:print")
    <built-in function print>
    """
    module, colon, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except Exception as error:  # whatever a tracker's module raises as it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ThroughlineError(f"--sink: cannot load {name!r}: {reason}") from None
    if not callable(found):
        raise ThroughlineError(f"--sink wants package.module:function, got {name!r}")
    return found  # type: ignore[no-any-return]
