"""What a run shows: a table on a terminal, lines elsewhere, and an honest guess of the time that is left."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.lab.toys import Config, Toy

from throughline.display import Display
from throughline.lab.runner import SetAside, Started, open_run, plan
from throughline.lab.store import Unit
from throughline.lab.unit import Failed, Finished, Lost, Progress

FIRST, SECOND, THIRD = Unit("plain", 0), Unit("shifted", 0), Unit("plain", 1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("throughline.display.time", found)
    return found


def display(tmp_path: Path, *, terminal: bool, jobs: int = 1) -> tuple[Display, io.StringIO]:
    manifest = plan(Toy(), "laptop", Config(), ("plain", "shifted"), (0, 1), threads=1, command="")
    run, _ = open_run(tmp_path, manifest)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    return Display(Toy(), run, jobs, console, {}), stream


def table(shown: Display) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=100).print(shown.table())
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_the_table_follows_the_events(tmp_path: Path, clock: Clock) -> None:
    shown, stream = display(tmp_path, terminal=True)
    with shown.showing():
        assert table(shown)[1:] == [
            "plain · ·",
            "shifted · ·",
            "0 of 4 units, time left unknown until the first unit ends",
        ]
        for event in (Started(FIRST), Started(SECOND), Progress(SECOND, [], 0.25)):
            shown(event)
        assert table(shown)[1:3] == ["plain … ·", "shifted 25% ·"]
        clock.now += 20.0
        shown(Finished(FIRST, {"mean": 0.123456}, 1.0))
        # two wait for 20 seconds each; the one that runs has had its 20 and is given a tenth
        assert table(shown)[1:] == ["plain 0.1235 ·", "shifted 25% ·", "1 of 4 units, about 42 s left"]
        shown(Failed(SECOND, "ValueError: no luck", Path("there.txt")))
        assert table(shown)[1:] == ["plain 0.1235 ·", "shifted failed ·", "2 of 4 units, about 40 s left"]
        shown(Finished(THIRD, {"mean": float("nan")}, 1.0))  # one of an earlier run: it took no time of this one
        assert table(shown)[1] == "plain 0.1235 –"
    assert "shifted, seed 0 failed: ValueError: no luck (traceback: there.txt)" in stream.getvalue()
    assert "plain, seed 0: mean" not in stream.getvalue()


def test_a_lost_unit_waits_again(tmp_path: Path, clock: Clock) -> None:
    shown, stream = display(tmp_path, terminal=False)
    for event in (Started(FIRST), Progress(FIRST, [], 0.5), Lost(FIRST, "lost with its worker")):
        shown(event)
    assert table(shown)[1] == "plain · ·"
    shown(Started(FIRST))
    clock.now += 2.0
    shown(Finished(FIRST, {"mean": 1.0}, 1.0))
    assert stream.getvalue().splitlines()[0] == "[0/4] groco plain, seed 0: lost with its worker"
    assert table(shown)[1] == "plain 1 ·"


def test_more_jobs_leave_less_time(tmp_path: Path, clock: Clock) -> None:
    shown, _ = display(tmp_path, terminal=False, jobs=3)
    shown(Started(FIRST))
    clock.now += 90.0
    shown(Finished(FIRST, {"mean": 1.0}, 1.0))
    assert table(shown)[-1] == "1 of 4 units, about 1 min 30 s left"


def test_lines_elsewhere(tmp_path: Path, clock: Clock) -> None:
    shown, stream = display(tmp_path, terminal=False)
    with shown.showing():
        shown(SetAside(FIRST, Path("a/plain-0.corrupt"), "it [was] altered"))
        shown(Started(FIRST))
        clock.now += 2.0
        shown(Finished(FIRST, {"mean": 1.0}, 1.0))
        shown(Failed(SECOND, "its process ended", Path("[b]/x.txt")))
    assert stream.getvalue().splitlines() == [
        "[0/4] groco plain, seed 0: corrupted result (it [was] altered), kept as plain-0.corrupt, computed again",
        "[1/4] groco plain, seed 0: mean 1, 2.0 s, about 6.0 s left",
        "[2/4] groco shifted, seed 0 failed: its process ended (traceback: [b]/x.txt), about 4.0 s left",
    ]
