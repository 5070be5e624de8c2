"""Runs the units of a claim on an engine, resumed where a run broke off."""

import dataclasses
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from throughline.errors import ThroughlineError
from throughline.lab import engines
from throughline.lab.claim import Claim
from throughline.lab.engines.local import cores
from throughline.lab.finding import source_version
from throughline.lab.store import Run, Unit, age, code_version, new_run
from throughline.lab.unit import Finished, Started

__all__ = ["Event", "SetAside", "Started", "command_line", "cores", "execute", "open_run", "pending", "plan"]


class SetAside(NamedTuple):
    """A stored result was corrupted; it was moved to ``file`` and is computed again."""

    unit: Unit
    file: Path
    reason: str


Event = engines.Event | SetAside


def plan(
    claim: Claim, scale: str, config: Any, arms: tuple[str, ...], seeds: tuple[int, ...], *, threads: int, command: str
) -> dict[str, Any]:
    """The manifest of a run: all that its numbers depend on, hashed in ``key``, and the facts around them."""
    versions = code_version() | source_version(claim)
    values = dataclasses.asdict(config)
    depends = {"paper": claim.paper, "scale": scale, "config": _without_path(values), "threads": threads}
    return {
        "paper": claim.paper,
        **({"claim": claim.origin} if claim.origin else {}),
        "scale": scale,
        "arms": list(arms),
        "seeds": list(seeds),
        "config": values,
        "threads": threads,
        "key": sha256(dumps([depends, versions], sort_keys=True).encode()).hexdigest(),
        "command": command,
        "versions": versions,
        "commit": _commit(),
        "host": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": cores(),
            "python": sys.version.split()[0],
        },
    }


def open_run(
    root: Path,
    manifest: dict[str, Any],
    *,
    resume: bool | None = None,
    warn: Callable[[str], None] = lambda _: None,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[Run, bool]:
    """The folder to work in, and whether it is an earlier run that goes on.

    The newest run of the same key goes on if something of it is left (with ``resume=True`` in any case), and takes this
    request in place of its own; with ``resume=False`` none does. Before anything is written ``prepare`` is called,
    unless every unit is done already.
    """
    run = None if resume is False else _earlier(root, manifest, bool(resume), warn)
    if run is None and resume:
        what = f"no run of this exact configuration of {manifest['paper']} in {root}"
        raise ThroughlineError(f"nothing to resume: {what}")
    if run is None or run.unfinished(manifest):
        prepare()
    if run is not None:
        try:
            run.ask(manifest)
            return run, True
        except OSError as error:
            warn(f"cannot go on in {run.folder}: {error.strerror}; ignored")
    return new_run(root, manifest), False


def _earlier(root: Path, manifest: dict[str, Any], resume: bool, warn: Callable[[str], None]) -> Run | None:
    for path in sorted((root / manifest["paper"]).glob("*/run.json"), key=lambda p: age(p.parent), reverse=True):
        try:
            run = Run(path.parent)
            if run.manifest["key"] != manifest["key"] or _busy(run):
                continue
            return run if resume or run.goes_on() else None
        except ThroughlineError as error:
            warn(f"{error}; ignored")
        except OSError as error:
            warn(f"cannot go on in {path.parent}: {error.strerror}; ignored")
    return None


def execute(
    claim: Claim, run: Run, engine: engines.Engine, *, on_event: Callable[[Event], None] = lambda _: None
) -> None:
    """Let ``engine`` compute every unit that has no result yet."""
    with _locked(run), closing(engine.compute(claim, run, tuple(pending(run, on_event)))) as events:
        for event in events:
            on_event(event)


def pending(run: Run, on_event: Callable[[Event], None]) -> Iterator[Unit]:
    """The units still to be computed; a corrupted result is set aside, a good one reported as finished."""
    for unit in run.units:
        try:
            record = run.record(unit)
        except ValueError as error:
            on_event(SetAside(unit, run.set_aside(unit), str(error)))
            record = None
        if record is None:
            yield unit
        else:
            on_event(Finished(unit, record["metrics"], record["measured"]["seconds"]))


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    lock = FileLock(run.folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ThroughlineError(f"{run.folder} is being computed by another process; wait, or use --fresh") from None
    try:
        yield
    finally:
        lock.release()


def _busy(run: Run) -> bool:
    try:
        with _locked(run):
            return False
    except ThroughlineError:
        return True


def _without_path(values: dict[str, Any]) -> dict[str, Any]:
    data = values.get("data")  # the user's data counts by its content, wherever it lies
    return values if not data else {**values, "data": {k: v for k, v in data.items() if k != "path"}}


def _commit() -> str | None:
    package = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        inside = subprocess.run(
            ["git", "-C", str(package), "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() if inside.returncode == 0 else None


def _processor() -> str:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def command_line(arguments: Iterable[str]) -> str:
    """Arguments as a shell would take them."""
    return "throughline " + shlex.join(arguments)
