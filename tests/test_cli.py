"""The command line as a user meets it: bad commands get one clear line and the right exit code, never a traceback."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.lab.toys import Toy

import throughline.session
from throughline.cli import main
from throughline.lab.store import Unit


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The toy claim behind the name groco, and a folder to work in."""
    monkeypatch.setattr(throughline.session, "find_claim", lambda slug: Toy())
    monkeypatch.setattr(throughline.lab.results, "find_claim", lambda slug: Toy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text("a,b,label\n" + "".join(f"{i},{i % 7},{i % 2}\n" for i in range(40)))
    (tmp_path / "nan.csv").write_text("a,b,label\n1,,0\n2,3,1\n")
    (tmp_path / "constant.csv").write_text("a,label\n1,1\n2,1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "stranger.json").write_text('{"hello": 1}')
    return tmp_path


BAD = [
    (["run", "grco"], "unknown paper 'grco'; did you mean groco?"),
    (["run", "infinite-width"], "is in the catalogue but its claim is not written yet"),
    (["run"], "no paper given"),
    (["runn", "groco"], "unknown command 'runn'; did you mean run?"),
    (["show", "anylos"], "did you mean anyloss?"),
    (["list", "--area", "discret"], "did you mean discrete?"),
    (["run", "groco", "--scale", "huge"], "'huge' is not one of 'smoke', 'laptop', 'paper'"),
    (["run", "groco", "--seeds", "many"], "--seeds wants a count (5), a range (10:20) or a list (3,7)"),
    (["run", "groco", "--seeds", "0"], "--seeds wants a count"),
    (["run", "groco", "--seeds", "3,3"], "of different numbers"),
    (["run", "groco", "--arms", "plane"], "unknown arm 'plane'; did you mean plain?"),
    (["run", "groco", "--arms", ","], "no arm given"),
    (["run", "groco", "--set", "stepz=3"], "no field 'stepz'; the fields are steps: int = 3"),
    (["run", "groco", "--set", "steps=many"], "steps wants int, got 'many'"),
    (["run", "groco", "--set", "steps"], "'steps' is not of the form key=value"),
    (["run", "groco", "--jobs", "0"], "0 is not in the range x>=1"),
    (["run", "groco", "--jobs", "4096"], "this machine has"),
    (["run", "groco", "--threads", "4096"], "is more than the"),
    (["run", "groco", "--data", "nowhere.csv"], "nowhere.csv"),
    (["run", "groco", "--data", "."], "wants a table"),
    (["run", "groco", "--target", "label"], "give --data with them"),
    (["run", "groco", "--out", "file"], "file"),
    (["run", "groco", "--out", "file/below"], "cannot write results to file/below"),
    (["run", "groco", "--sink", "nothing:here"], "--sink: cannot load 'nothing:here'"),
    (["run", "groco", "--sink", "print"], "--sink wants package.module:function"),
    (["run", "groco", "--tensorboard", "file"], "--tensorboard"),
    (["run", "groco", "--resume"], "nothing to resume"),
    (["run", "--like", "missing.json"], "cannot read missing.json: No such file or directory"),
    (["run", "--like", "broken.json"], "broken.json is not valid JSON"),
    (["run", "--like", "other.json"], "other.json does not hold a JSON object"),
    (["run", "--like", "stranger.json"], "is not a stored result"),
    (["run", "groco", "--like", "stranger.json"], "--like repeats a stored configuration"),
    (["report", "--no-open"], "no run under"),
    (["report", "yesterday", "--no-open"], "no run 'yesterday'"),
    (["data", "fetch"], "give the keys to fetch"),
    (["data", "fetch", "tabular/mamography.csv"], "tabular/mammography.csv"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_bad_command_gets_one_clear_line(
    toy: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    if "infinite-width" in words:
        monkeypatch.undo()
    result = call(*words)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, result.output
    assert lines[0].startswith("Error: ")
    assert message in lines[0]
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("module", ["tensorboard"])
def test_a_missing_extra_says_how_to_install_it(toy: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = call("run", "groco", "--tensorboard", "curves")
    assert result.exit_code == 2
    assert 'tensorboard is not installed; pip install "throughline[tensorboard]"' in result.output


def test_a_full_disk_is_said_and_the_run_is_incomplete(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/groco")

    monkeypatch.setattr("throughline.session.execute", full)
    result = call("run", "groco")
    assert result.exit_code == 3
    assert "Error: No space left on device: runs/groco; free some space" in result.output


def test_an_interrupt_keeps_what_was_computed(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("throughline.session.execute", interrupted)
    result = call("run", "groco", "--seeds", 2)
    assert result.exit_code == 3
    assert "interrupted; 6 of 6 units are left" in result.output


def test_a_bug_of_ours_stays_a_traceback(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throughline.session.judge", lambda results: 1 / 0)
    monkeypatch.setattr("throughline.session.execute", lambda *_, **__: None)
    assert isinstance(call("run", "groco").exception, ZeroDivisionError)


def test_from_command_to_verdict_and_back(toy: Path) -> None:
    """One real run through everything: verdict, report, JSON, resume, comparison, and an exact repeat."""
    result = CliRunner().invoke(main, ["run", "groco", "--arms", "plain,shifted", "--seeds", "3", "--json"])
    assert result.exit_code == 0, result.output
    (summary,) = json.loads(result.stdout)
    assert summary["verdict"] == "held"
    assert summary["checks"][0]["estimate"] == pytest.approx(0.5)
    page = Path(summary["report"]).read_text()
    assert "A shifted mean is larger than a plain one." in page
    assert summary["command"] == "throughline run groco --scale laptop --seeds 0:3 --arms plain,shifted"
    folder = Path(summary["run"])

    stored = folder / "units" / "shifted-1.json"
    again = call("run", "--like", stored)
    assert again.exit_code == 0, again.output
    assert "mean: " in again.output
    assert "≠" not in again.output

    record = json.loads(stored.read_text())
    record["metrics"]["mean"] += 1e-9
    (toy / "changed.json").write_text(json.dumps(record))
    assert call("run", "--like", toy / "changed.json").exit_code == 1

    other = call("report", "--no-open", "--compare", folder, folder)
    assert other.exit_code == 0, other.output
    assert "the same configuration and the same versions" in Path(other.output.strip()).read_text()

    rebuilt = call("report", folder.name, "--no-open")
    assert rebuilt.output.strip() == str(folder / "report.html") or rebuilt.output.strip().endswith("report.html")


def test_arms_left_out_make_it_incomplete(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from throughline.lab.store import Run

    def instead(claim: Any, run: Run, **_: Any) -> None:
        for unit in run.units:
            values = {"mean": unit.seed + (unit.arm == "shifted"), "spread": 1.0}
            run.write(unit, {"metrics": values, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})

    monkeypatch.setattr("throughline.session.execute", instead)
    result = call("run", "groco", "--arms", "plain")
    assert result.exit_code == 3
    assert "arms that the checks need were left out: shifted" in result.output
    assert call("run", "groco", "--scale", "smoke").exit_code == 0  # it ran, and says nothing about the claim
    assert "NO VERDICT" in call("run", "groco", "--scale", "smoke").output
    # several claims: incomplete outranks the rest, and every claim is listed
    both = call("run", "groco", "groco", "--json", "--data", "good.csv", "--target", "label")
    assert json.loads(both.stdout)[0]["config"]["data"]["target"] == "label"
    assert len(json.loads(both.stdout)) == 1  # named twice, run once


def test_listing_is_quick_and_torch_free() -> None:
    code = "import sys; from throughline.cli import main; main(['list'], standalone_mode=False); " + (
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas', 'scipy')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "55 papers" in found.stdout


def test_show_and_list_as_json() -> None:
    (entry,) = json.loads(call("list", "group", "ordering", "--json").output)
    assert json.loads(call("show", "groco", "--json").output) == entry
    assert "RelaxedSort" not in call("show", "groco").output
    assert "planned" in call("show", "infinite-width").output


def test_data_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THROUGHLINE_DATA", str(tmp_path))
    assert "tabular/mammography.csv" in call("data", "list").output
    (tmp_path / "tabular").mkdir()
    (tmp_path / "tabular" / "glass.csv").write_text("1,2,3\n")
    result = call("data", "verify", "tabular/glass.csv")
    assert result.exit_code == 2
    assert "1 altered: tabular/glass.csv; delete them" in result.output
    assert call("doctor").exit_code == 0


def test_unit_names_are_files(tmp_path: Path) -> None:
    assert Unit("metric_f1", 3).name == "metric_f1-3"
