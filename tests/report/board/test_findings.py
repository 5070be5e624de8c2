"""What a board tells of runs: the newest of each configuration, never a verdict that there is not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.lab.toys import Toy
from tests.report.board.invented import finding, leave
from tests.report.test_page import results

from throughline.errors import ThroughlineError
from throughline.lab import results as lab
from throughline.lab.store import Run
from throughline.report import write_report
from throughline.report.board import changes, newest, read_runs


def read(root: Path) -> list:
    told: list[str] = []
    found = read_runs(root, told.append)
    assert not told
    return found


def test_runs_are_read_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    for found in (finding("tell", day=2), finding("groco", "refuted", day=3), finding("anyloss", day=1)):
        leave(tmp_path, found)
    assert [each.paper for each in read(tmp_path)] == ["anyloss", "tell", "groco"]
    assert read(tmp_path)[2] == finding("groco", "refuted", day=3)


def test_a_run_that_goes_on_has_no_verdict(tmp_path: Path) -> None:
    folder = leave(tmp_path, finding(), summary=False)
    (folder / "units" / "ours-1000.json").write_text("{}")
    (found,) = read(tmp_path)
    assert (found.verdict, found.why, found.judged) == ("incomplete", "1 of 6 units are done", False)
    assert (found.scale, found.seeds, found.checks) == ("laptop", [1000, 1001, 1002], [])


def test_a_run_that_was_widened_has_outlived_its_verdict(tmp_path: Path) -> None:
    leave(tmp_path, finding(), seeds=[1000, 1001, 1002, 1003])
    (found,) = read(tmp_path)
    assert (found.verdict, found.why) == ("incomplete", "0 of 8 units are done")


@pytest.mark.parametrize("spoil", ["", "{", '{"verdict": 1}'])
def test_a_summary_that_is_none_counts_as_missing(tmp_path: Path, spoil: str) -> None:
    folder = leave(tmp_path, finding())
    (folder / "summary.json").write_text(spoil)
    assert read(tmp_path)[0].verdict == "incomplete"


def test_what_a_report_leaves_is_what_the_board_reads(tmp_path: Path) -> None:
    made = results(tmp_path)
    write_report(made)
    (found,) = read(tmp_path)
    assert (found.paper, found.run, found.verdict) == ("groco", made.run.id, "held")
    assert found.claim == "A shifted mean is larger than a plain one."
    assert found.seeds == [0, 1, 2]
    assert found.duration == 9.0  # nine units of a second
    assert found.checks[0].estimate == pytest.approx(1.0, abs=0.05)
    assert found.versions["throughline"]


def test_a_run_of_an_older_version_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "find_claim", lambda slug: Toy())
    made = results(tmp_path)
    told: list[str] = []
    (found,) = read_runs(tmp_path, told.append)
    assert told == [f"judging {made.run.folder}, once"]
    assert found.verdict == "held"
    assert (made.run.folder / "report.html").exists()
    assert Run(made.run.folder).manifest["looks"] == [{"verdict": "held", "seeds": [0, 1, 2]}]  # it has been seen
    assert read(tmp_path) == [found]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(slug: str) -> None:
        raise ImportError("no module\nnamed away")

    monkeypatch.setattr(lab, "find_claim", lost)
    leave(tmp_path, finding())
    broken = leave(tmp_path, finding("tell"))
    (broken / "run.json").write_text("[]")
    gone = results(tmp_path).run.folder
    told: list[str] = []
    assert [found.paper for found in read_runs(tmp_path, told.append)] == ["groco"]
    assert f"left out {broken}: {broken / 'run.json'} does not hold a JSON object" in told
    assert f"left out {gone}: ImportError: no module named away" in told


def test_a_folder_without_runs_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ThroughlineError, match=r"no run under .*; make one with `throughline run`"):
        read_runs(tmp_path, print)


def test_the_newest_of_each_configuration_is_shown() -> None:
    data = {"path": "/a/churn.csv", "digest": "1"}
    every = [
        finding(day=1),
        finding(day=2, config={"epochs": 3}),
        finding(day=3, scale="paper"),
        finding(day=4, verdict="incomplete", seeds=[1], versions={"throughline": "0.2.0"}),  # the first one's successor
        finding(day=5, config={"data": data}),
        finding(day=6, config={"data": {**data, "path": "/b/moved.csv"}}),
        finding(day=7, config={"data": {**data, "digest": "2"}}),
        finding("tell", day=8, run="renamed", finished=None),
    ]
    shown = newest(every)
    assert [each.date.day if each.date else None for each in shown] == [7, 6, 4, 3, 2, None]
    assert shown[2].verdict == "incomplete"


def test_a_change_is_a_new_verdict_or_another_one() -> None:
    every = [
        finding(day=1, verdict="held"),
        finding(day=2, verdict="incomplete"),
        finding(day=3, verdict="held"),
        finding(day=4, verdict="no verdict", scale="smoke"),
        finding("tell", day=5, verdict="refuted"),
        finding(day=6, verdict="not shown"),
        finding(day=7, verdict="held"),
    ]
    told = [(each.date.day, before) for each, before in changes(every) if each.date]
    assert told == [(1, None), (5, None), (6, "held"), (7, "not shown")]


@pytest.mark.parametrize(
    ("finished", "run", "date"),
    [
        ("2026-11-02T01:30:00+02:00", "20261101-120000-abcdef", datetime(2026, 11, 1, 23, 30, tzinfo=UTC)),
        (None, "20261101-120000-abcdef", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("<b>", "20261101-120000-abcdef-2", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        (None, "20261341-120000", None),
    ],
)
def test_the_date_is_that_of_the_last_unit_or_the_run(finished: str, run: str, date: datetime | None) -> None:
    found = finding(finished=finished, run=run).date
    assert (found and found.isoformat()) == (date and date.isoformat())  # in UTC, as it is shown


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("throughline run groco --scale laptop --seeds 0:5", ""),
        ("throughline run groco --scale paper --set epochs=3 --data 'a b.csv'", "--set epochs=3 --data 'a b.csv'"),
        ("throughline run ./my_idea.py --scale laptop --set epochs=3", "--set epochs=3"),
        ("throughline run --like /somewhere/run.json", ""),
        ("throughline run groco 'unbalanced", ""),
        ("", ""),
    ],
)
def test_settings_are_what_the_command_says_beside_scale_and_seeds(command: str, settings: str) -> None:
    assert finding(command=command).settings == settings


def test_the_summary_tells_when_the_last_unit_ended(tmp_path: Path) -> None:
    made = results(tmp_path)
    judged = lab.judge(made)
    assert lab.summary(made, judged)["finished"] is None  # of units that do not know
    for place, record in enumerate(made.records.values()):
        record["started"] = f"2026-11-01T12:00:{place:02d}+00:00"
    assert lab.summary(made, judged)["finished"] == "2026-11-01T12:00:09+00:00"
    made.records.clear()
    assert lab.summary(made, judged)["duration"] is None
