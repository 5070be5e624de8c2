"""A unit on a worker of a cluster: computed as on any machine, in a folder of its own, and handed back to be kept."""

import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from throughline.data.shipping import place
from throughline.lab.engines.local import Local
from throughline.lab.store import Run, Unit, new_run, write_atomically
from throughline.lab.unit import Failed, Finished, Progress, Started

__all__ = ["Answer", "answer", "keep"]

INTERVAL = 1.0  # seconds between two messages of a unit: of 2,000 units at once, a single process must hear them all


class Answer(NamedTuple):
    """A unit as it comes back."""

    event: Finished | Failed
    record: dict[str, Any]  # empty when it failed
    arrays: dict[str, np.ndarray]
    printed: bytes
    traceback: str


class Sealed:
    """A claim that is unpickled by the unit alone: the worker has no need of the libraries that the claim imports."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    def __reduce__(self) -> Any:
        return pickle.loads, (self.pickled,)


def answer(
    claim: bytes,
    manifest: Mapping[str, Any],
    unit: Unit,
    send: Callable[[Started | Progress], None],
    content: Callable[[], dict[str, bytes]] | None,
    code: Mapping[str, bytes],
) -> Answer:
    """Compute ``unit`` of the pickled ``claim``.

    Args:
        manifest: of the run.
        send: is called with what happens before the end.
        content: fetches the user's own files; None where there are none.
        code: the sources of a claim that is not ours, by their paths below the folder that they are imported from.
    """
    config = dict(manifest["config"])
    if content is not None:
        here = place(config["data"]["digest"], Path(config["data"]["path"]).name, content)
        config["data"] = {**config["data"], "path": str(here)}
    with tempfile.TemporaryDirectory(prefix="throughline-") as folder:
        run = new_run(Path(folder, "runs"), {**manifest, "config": config})
        points: list[tuple[int, dict[str, float]]] = []
        share: float | None = None
        sent = time.monotonic()
        with _importable(Path(folder, "code"), code):
            for event in Local(1).compute(Sealed(claim), run, [unit]):  # type: ignore[arg-type]
                match event:
                    case Started():
                        send(event)
                    case Progress(_, more, share):
                        points += more
                        if time.monotonic() - sent >= INTERVAL:
                            send(Progress(unit, points, share))
                            points, sent = [], time.monotonic()
                    case Finished() | Failed():
                        last = event
        if points:
            send(Progress(unit, points, share))
        log, traceback = run.file(unit, "log"), run.file(unit, "txt")
        return Answer(
            last,
            run.record(unit) or {},
            run.arrays(unit),
            log.read_bytes() if log.exists() else b"",
            traceback.read_text(encoding="utf-8") if traceback.exists() else "",
        )


@contextmanager
def _importable(folder: Path, code: Mapping[str, bytes]) -> Iterator[None]:
    """Lay sources out in ``folder``, from which the process of a unit imports before all other places."""
    for name, source in code.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def keep(run: Run, answer: Answer) -> Finished | Failed:
    """Store an answer in the run's own folder, as if the unit had been computed there."""
    event, record, arrays, printed, traceback = answer
    file = run.file(event.unit, "txt")
    run.file(event.unit, "log").write_bytes(printed)
    if isinstance(event, Failed):
        write_atomically(file, traceback)
        return event._replace(file=file)
    run.write(event.unit, {**record, "config": run.manifest["config"]}, arrays)
    file.unlink(missing_ok=True)
    return event
