"""Where results lie: a folder per run, a JSON file (and arrays) per unit, written whole or not at all.

runs/<paper>/<run id>/run.json                 what was asked: config, arms, seeds, versions, host
                          units/<arm>-<seed>.json  what came out: metrics, curves, times (digest in the last key)
                          units/<arm>-<seed>.npz   arrays for the figures
                          units/<arm>-<seed>.txt   the traceback of a unit that failed
                          units/<arm>-<seed>.log   what it printed
                          report.html, figures/    what a reader looks at
                          summary.json             the same for machines: verdict, checks, metrics
"""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, PositiveInt, ValidationError

import throughline
from throughline.errors import ThroughlineError

__all__ = ["Run", "Unit", "age", "code_version", "find_run", "new_run", "read_json", "unit_key", "write_atomically"]


LAST_SEED = 2**32 - 1  # NumPy's generators take no larger one
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]


class Unit(NamedTuple):
    """One arm on one seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


class Asked(BaseModel):
    """The units that a request wants: every arm on every seed."""

    arms: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]


class Look(BaseModel):
    """A verdict that somebody has seen, and the seeds that it rests on."""

    verdict: str
    seeds: list[Seed]


class Manifest(BaseModel):
    """A run.json: what is asked, all that the numbers depend on (hashed in ``key``), and the facts around them."""

    paper: str
    claim: str | None = None  # where a claim that is not ours was found
    scale: str
    arms: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    earlier: list[Asked] = []  # requests before this one
    looks: list[Look] = []
    config: dict[str, Any]
    threads: PositiveInt
    key: str
    command: str
    versions: dict[str, str]
    commit: str | None
    host: dict[str, Any]


class Result(BaseModel):
    """A unit's JSON, as far as it takes to repeat the unit."""

    paper: str
    claim: str | None = None
    scale: str
    arm: str
    seed: Seed
    config: dict[str, Any]
    threads: PositiveInt
    metrics: dict[str, float]


class Run:
    """A run's folder and what was asked of it.

    Raises:
        ThroughlineError: the folder's run.json cannot be read, or is not one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # for good: a claim, or a library in it, may change the working folder
        self.manifest = read_json(folder / "run.json", Manifest)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def paper(self) -> str:
        return str(self.manifest["paper"])

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit that is asked for, seed by seed so that pairs complete early."""
        return _units(self.manifest)

    def file(self, unit: Unit, suffix: str) -> Path:
        return self.folder / "units" / f"{unit.name}.{suffix}"

    def record(self, unit: Unit) -> dict[str, Any] | None:
        """The stored result of ``unit``, or None when there is none; a corrupted one raises ValueError."""
        path = self.file(unit, "json")
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_bytes())
            digest = record.pop("digest")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f"{path} is not a result") from None
        if digest != _digest(record) or record["key"] != unit_key(self.manifest, unit):
            raise ValueError(f"{path} was altered after it was written")
        if "arrays" in record and record["arrays"] != _file_digest(self.file(unit, "npz")):
            raise ValueError(f"{self.file(unit, 'npz')} is missing or was altered after it was written")
        return dict(record)

    def arrays(self, unit: Unit) -> dict[str, np.ndarray]:
        """The arrays that ``unit`` kept for the figures."""
        path = self.file(unit, "npz")
        if not path.exists():
            return {}
        try:
            with np.load(path) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return {}

    def write(self, unit: Unit, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Store a unit's result: the arrays first, then the JSON that makes it count."""
        body = {"key": unit_key(self.manifest, unit), "arm": unit.arm, "seed": unit.seed, **record}
        if arrays:
            path = self.file(unit, "npz")
            partial = path.with_suffix(f".{os.getpid()}.partial.npz")
            np.savez_compressed(partial, allow_pickle=False, **arrays)
            os.replace(partial, path)
            body["arrays"] = _file_digest(path)
        write_atomically(self.file(unit, "json"), _dump(body | {"digest": _digest(body)}))

    def set_aside(self, unit: Unit) -> Path:
        """Move a corrupted result out of the way, keeping it."""
        path = self.file(unit, "json")
        aside = path.with_suffix(f".corrupt-{datetime.now(UTC):%Y%m%d%H%M%S%f}")
        os.replace(path, aside)
        return aside

    def unfinished(self, request: Mapping[str, Any] | None = None) -> tuple[Unit, ...]:
        """The units without a stored result, of what is asked for now or of another request."""
        return tuple(unit for unit in _units(request or self.manifest) if not self.file(unit, "json").exists())

    def goes_on(self) -> bool:
        """Whether something is left of this or an earlier request, were it only the report."""
        left = any(map(self.unfinished, [self.manifest, *self.manifest.get("earlier", [])]))
        return left or self.manifest["seeds"] not in [look["seeds"] for look in self.manifest.get("looks", [])]

    def ask(self, manifest: Mapping[str, Any]) -> None:
        """Take the request of another manifest of the same key; nothing that the run has is dropped."""
        asked = [{key: found[key] for key in ("arms", "seeds")} for found in (self.manifest, manifest)]
        earlier = [request for request in (*self.manifest.get("earlier", []), asked[0]) if request != asked[1]]
        wanted = {key: manifest[key] for key in ("arms", "seeds", "config", "command")}  # data may have moved
        self._keep({**self.manifest, **wanted, "earlier": [r for i, r in enumerate(earlier) if r not in earlier[:i]]})

    def seen(self, verdict: str) -> None:
        """Note that somebody has seen a verdict over the seeds that are asked for."""
        look = {"verdict": verdict, "seeds": self.manifest["seeds"]}
        looks = self.manifest.get("looks", [])
        if look not in looks:
            self._keep({**self.manifest, "looks": [*looks, look]})

    def _keep(self, manifest: dict[str, Any]) -> None:
        if manifest != self.manifest:
            write_atomically(self.folder / "run.json", _dump(manifest))
            self.manifest = manifest


def new_run(root: Path, manifest: Mapping[str, Any]) -> Run:
    """A fresh folder under ``root`` for ``manifest``.

    Raises:
        ThroughlineError: the folder cannot be made or written.
    """
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{manifest['key'][:6]}"
    for attempt in range(1000):
        folder = root / str(manifest["paper"]) / (f"{stamp}-{attempt}" if attempt else stamp)
        with contextlib.suppress(FileExistsError):
            try:
                folder.mkdir(parents=True)
                (folder / "units").mkdir()
                write_atomically(folder / "run.json", _dump(manifest))
            except FileExistsError:
                if not folder.is_dir():  # something else lies where a folder is wanted
                    raise ThroughlineError(f"cannot write results to {root}: a file is in the way") from None
                raise
            except OSError as error:
                raise ThroughlineError(
                    f"cannot write results to {root}: {error.strerror}; choose another folder with --out"
                ) from None
            return Run(folder)
    raise ThroughlineError(f"cannot find a free name for a run under {root}")


def find_run(root: Path, name: str | None = None, paper: str | None = None) -> Run:
    """The run called ``name``: a folder, an id or its beginning, a paper's newest; without a name the newest of all."""
    if name and (Path(name) / "run.json").is_file():
        return Run(Path(name))
    folders = sorted((p.parent for p in root.glob("*/*/run.json")), key=age)
    if paper:
        folders = [p for p in folders if p.parent.name == paper]
    if name:
        folders = [p for p in folders if p.name.startswith(name) or p.parent.name == name]
    if not folders:
        what = f"no run {name!r}" if name else "no run"
        raise ThroughlineError(f"{what} under {root}; give a run's folder or id, or make one with `throughline run`")
    return Run(folders[-1])


def age(folder: Path) -> tuple[str, int, str]:
    """The order in which runs were made, by their folders' names; within one second the count at the end tells."""
    day, time, _, count = [*folder.name.split("-"), "", "", ""][:4]
    return f"{day}-{time}", int(count) if count.isdigit() else 0, folder.parent.name


def _units(asked: Mapping[str, Any]) -> tuple[Unit, ...]:
    return tuple(Unit(arm, seed) for seed in asked["seeds"] for arm in asked["arms"])


def unit_key(manifest: Mapping[str, Any], unit: Unit) -> str:
    """What a result depends on, as one hash: claim, config, data, code version (in the run's key), arm and seed."""
    return _digest([manifest["key"], unit.arm, unit.seed])


@cache
def code_version() -> dict[str, str]:
    """Versions that the numbers depend on; ``source`` is a hash of the package's own code."""
    source = hashlib.sha256()
    package = Path(throughline.__file__).parent
    for path in sorted(package.rglob("*.py")):
        source.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    found = {"throughline": throughline.__version__, "source": source.hexdigest()[:16]}
    for name in ("torch", "numpy", "scipy", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_json(path: Path, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """A JSON object of ours, whole: a `Manifest` or a `Result`, either without ``kind``, or a clear error."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ThroughlineError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ThroughlineError(f"{path} is not valid JSON; delete the run's folder, or restore the file") from None
    if not isinstance(value, dict):
        raise ThroughlineError(f"{path} does not hold a JSON object")
    try:
        (kind or (Result if "metrics" in value else Manifest)).model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise ThroughlineError(
            f"{path} is not a stored result ({what}); it takes a run.json or units/*.json of a run's folder"
        ) from None
    return value


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace") as stream:  # file names need not be UTF-8
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=False) + "\n"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
