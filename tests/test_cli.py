"""The command line as a user meets it: bad commands get one clear line and the right exit code, never a traceback."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.lab.toys import Toy

import throughline.__main__
import throughline.session
from throughline.cli import main
from throughline.data import Source
from throughline.errors import ThroughlineError
from throughline.lab.engines import Engine
from throughline.lab.runner import Event, Started
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Finished, Progress
from throughline.report import write_report
from throughline.session import Ended, Request


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
    half = json.dumps({"paper": "groco", "scale": "laptop", "config": {}, "threads": 1, "metrics": {}})
    (tmp_path / "half.json").write_text(half)
    (tmp_path / "half").mkdir()
    unit = json.dumps({**json.loads(half), "arm": "plain", "seed": 0})
    (tmp_path / "half" / "run.json").write_text(unit)
    (tmp_path / "boom.py").write_text("raise ConnectionError('the server is away')")
    return tmp_path


LONG = "x" * 300  # more than a file system takes for a name

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
    (["run", "groco", "--seeds", "3,-1"], "of different numbers from 0"),
    (["run", "groco", "--seeds", "-1:3"], "of different numbers from 0"),
    (["run", "groco", "--seeds", "5:5"], "--seeds wants a count"),
    (["run", "groco", "--seeds", "1000000000"], "--seeds: 1000000000 are more than a run takes, which is 10000"),
    (["run", "groco", "--seeds", "0:" + "9" * 40], "are more than a run takes"),
    (["run", "groco", "--seeds", "0,4294967296"], "--seeds: a seed is at most 4294967295, got 4294967296"),
    (["run", "groco", "--seeds", "4294967295:4294967297"], "a seed is at most 4294967295"),
    (["run", "groco", "--arms", "plane"], "unknown arm 'plane'; did you mean plain?"),
    (["run", "groco", "--arms", ","], "no arm given"),
    (["run", "groco", "--set", "stepz=3"], "no field 'stepz'; the fields are steps: int = 3"),
    (["run", "groco", "--set", "steps=many"], "steps wants int, got 'many'"),
    (["run", "groco", "--set", "steps"], "'steps' is not of the form key=value"),
    (["run", "groco", "--jobs", "0"], "0 is not in the range x>=1"),
    (["run", "groco", "--jobs", "4096"], "this machine has"),
    (["run", "groco", "--engine", "slurm"], "--engine wants local, ray, ray://host:port or host:port, got 'slurm'"),
    (["run", "groco", "--engine", "ray://head"], "got 'ray://head'"),
    (["run", "--like", "half.json", "--engine", ""], "--engine wants local, ray"),
    (["run", "groco", "--threads", "4096"], "is more than the"),
    (["run", "groco", "--data", "nowhere.csv"], "nowhere.csv"),
    (["run", "groco", "--data", "."], "wants a table"),
    (["run", "groco", "--target", "label"], "give --data with them"),
    (["run", "groco", "--out", "file"], "file"),
    (["run", "groco", "--out", "file/below"], "cannot write results to file/below"),
    (["run", "groco", "--out", LONG], f"File name too long: {LONG}"),
    (["report", "--no-open", "--out", LONG], f"File name too long: {LONG}"),
    (["report", "--no-open", LONG], f"File name too long: {LONG}"),
    (["report", "--no-open", "--compare", LONG, LONG], f"File name too long: {LONG}"),
    (["run", "groco", "--data", LONG], f"File name too long: {LONG}"),
    (["run", "groco", "--tensorboard", LONG], "File name too long"),
    (["run", "--like", LONG], "File name too long"),
    (["report", "--no-open", "--out", "file"], "is a file"),
    (["run", "groco", "--sink", "nothing:here"], "--sink: cannot load 'nothing:here'"),
    (["run", "groco", "--sink", "print"], "--sink wants package.module:function"),
    (["run", "groco", "--sink", "boom:sink"], "cannot load 'boom:sink': ConnectionError: the server is away"),
    (["run", "groco", "--set", "device=banana"], "no field 'device'"),
    (["run", "groco", "--scale", "smoke", "--set", "steps=3.5"], "steps wants int, got '3.5'"),
    (["run", "groco", "--tensorboard", "file"], "--tensorboard"),
    (["run", "groco", "--resume"], "nothing to resume"),
    (["run", "--like", "missing.json"], "cannot read missing.json: No such file or directory"),
    (["run", "--like", "broken.json"], "broken.json is not valid JSON"),
    (["run", "--like", "other.json"], "other.json does not hold a JSON object"),
    (["run", "--like", "stranger.json"], "stranger.json is not a stored result (paper: field required)"),
    (["run", "--like", "half.json"], "half.json is not a stored result (arm: field required)"),
    (["report", "--no-open", "half"], "half/run.json is not a stored result (arms: field required)"),
    (["run", "groco", "--like", "stranger.json"], "--like repeats a stored configuration"),
    (["report", "--no-open"], "no run under"),
    (["board"], "no run under runs; make one with `throughline run`, or name the folder of your runs"),
    (["board", "file"], "is a file"),
    (["board", "--out", "file"], "is a file"),
    (["board", LONG], f"File name too long: {LONG}"),
    (["board", "--out", LONG], f"File name too long: {LONG}"),
    (["report", "yesterday", "--no-open"], "no run 'yesterday'"),
    (["data", "fetch"], "give the keys to fetch"),
    (["data", "fetch", "tabular/mamography.csv"], "tabular/mammography.csv"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[:60] for words, _ in BAD])
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


@pytest.mark.parametrize("words", [["groco"], ["--like", "stranger.json"]], ids=" ".join)
def test_a_missing_ray_is_said_before_any_work(toy: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "grpc", ModuleType("grpc"))
    for engine in ("ray", "10.0.0.7:6379"):
        result = call("run", *words, "--engine", engine)
        assert result.exit_code == 2
        cure = 'pip install "throughline[cluster]"'
        assert result.output == f"Error: --engine {engine}: not installed: ray; {cure}\n"


def test_a_cluster_that_is_not_there_is_said(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    for engine in ("ray", "127.0.0.1:9", "ray://127.0.0.1:9"):
        result = call("run", "groco", "--engine", engine)
        assert result.exit_code == 2
        assert "Error: --engine: no Ray cluster answers at " in result.output
        assert result.output.endswith("Connection refused); `ray start --head` starts one\n")
    assert not list(toy.glob("runs/*"))


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
    assert summary["checks"][0]["estimate"] == pytest.approx(0.5, abs=0.05)
    page = Path(summary["report"]).read_text()
    assert "A shifted mean is larger than a plain one." in page
    assert summary["command"] == "throughline run groco --scale laptop --seeds 1000:1003 --arms plain,shifted"
    folder = Path(summary["run"])

    stored = folder / "units" / "shifted-1001.json"
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


@pytest.fixture
def quick(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy claim, with units that are not computed: their events and results come at once."""

    def instead(claim: Any, run: Run, engine: Engine, *, on_event: Callable[[Event], None]) -> None:
        for unit in run.units:
            gain = (unit.arm == "shifted") * (1 + unit.seed % 2 / 64)
            values = {"mean": unit.seed + gain, "spread": 1.0, "seconds": 7.0}
            on_event(Started(unit))
            on_event(Progress(unit, [(0, {"loss": 1.0}), (1, {"loss": 0.5})], 0.5))
            facts = {key: run.manifest[key] for key in ("paper", "scale", "config", "threads")}
            measured = {"seconds": 1.0, "peak_mb": 1.0}
            run.write(unit, {"metrics": values, "measured": measured, "curves": {}, **facts}, {})
            on_event(Finished(unit, values, 1.0))

    monkeypatch.setattr("throughline.session.execute", instead)
    return toy


def test_a_finished_run_reads_no_data_and_keeps_its_page(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, drawn = [], []
    monkeypatch.setattr("throughline.session._read", lambda *_: read.append(1))
    monkeypatch.setattr("throughline.report.write_report", lambda *_: (drawn.append(1), write_report(*_))[1])

    def work(*words: object) -> tuple[int, int, dict[str, Any]]:
        read.clear()
        drawn.clear()
        (summary,) = json.loads(call("run", "groco", "--json", *words).stdout)
        assert Path(summary["report"]).exists()
        return len(read), len(drawn), summary

    once = work("--seeds", 4)
    assert once[:2] == (1, 1)
    again = work("--seeds", 4, "--resume")
    assert again[:2] == (0, 0)
    assert again[2] == once[2]
    page = Path(once[2]["report"])
    page.unlink()
    assert work("--seeds", 4, "--resume")[:2] == (0, 1)  # a page that is gone is drawn again
    assert work("--seeds", 6, "--resume")[:2] == (1, 1)  # and what is wider is computed and drawn
    assert work("--seeds", 6, "--resume")[:2] == (0, 0)
    next((page.parent / "units").glob("*.json")).unlink()
    assert work("--seeds", 6, "--resume")[0] == 1


def test_arms_left_out_make_it_incomplete(quick: Path) -> None:
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
    shown = json.loads(call("show", "groco", "--json").output)
    assert list(shown.pop("arms")) == ["infonce", "groco", "infonce_top10"]
    assert shown == entry
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


def test_a_terminal_that_lacks_a_character_gets_another() -> None:
    for encoding in ("cp1252", "latin-1"):
        result = CliRunner(charset=encoding).invoke(main, ["list"])
        assert result.exit_code == 0, result.output
        assert "\n  ? groco " in result.output
        assert "\n    infinite-width " in result.output  # planned papers have no mark, so that the two stay apart


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (quick / "trackers.py").write_text(
        "calls = []\n"
        "def away(*point):\n    calls.append('away')\n    raise ConnectionError('no route\\nto host')\n"
        "def near(*point):\n    calls.append(point)\n"
    )
    monkeypatch.syspath_prepend(quick)
    result = call("run", "groco", "--seeds", 3, "--sink", "trackers:away", "--sink", "trackers:near")
    assert result.exit_code == 0, result.output
    told = "--sink trackers:away failed and is left out from here on (ConnectionError: no route to host)"
    assert result.output.count("left out") == 1
    assert told in result.output
    calls = sys.modules.pop("trackers").calls
    assert calls.count("away") == 1
    assert calls[1] == ("groco", "plain", 1000, 0, {"loss": 1.0})
    assert len(calls) == 1 + 3 * 3 * 2  # the other one hears of every point


def test_what_is_read_of_your_data_is_said_before_any_unit(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "".join(f"{i},name {i},{i % 4 > 0}\n" for i in range(40))
    (quick / "named.csv").write_text("a,b,label\n" + names)
    result = call("run", "groco", "--seeds", 3, "--data", "named.csv")
    told = (
        "reading named: 40 rows, 1 numeric column and 40 one-hot columns (b 40); target 'label': False (10), True (30)"
    )
    assert result.output.startswith(told)
    monkeypatch.setattr(Toy, "prepare", lambda self, config: config.data.table())
    result = call("run", "groco", "--seeds", 3, "--data", "named.csv")
    assert result.output.count("note: ") == 1  # read twice, said once
    assert f"note: {quick / 'named.csv'}: column 'b' holds 40 different texts" in result.output
    refused = call("run", "groco", "--data", "good.csv", "--positive", "1")
    assert refused.output == "Error: --positive: groco tells no positive class from the others; leave it out\n"
    monkeypatch.setattr(Toy, "accepts", ("binary",))
    chosen = call("run", "groco", "--data", "named.csv", "--positive", "True", "--json")
    assert "positive class True" in chosen.stderr
    (summary,) = json.loads(chosen.stdout)
    assert summary["config"]["data"]["positive"] == "True"
    assert summary["command"].endswith("--data named.csv --positive True")


def test_a_verdict_that_was_printed_is_a_look(quick: Path) -> None:
    first, again = (json.loads(call("run", "groco", "--seeds", 3, "--json").stdout)[0] for _ in range(2))
    assert first["run"] != again["run"]  # a run that was reported does not go on by itself
    (wider,) = json.loads(call("run", "groco", "--seeds", 6, "--resume", "--json").stdout)
    assert (wider["run"], wider["looks"], wider["checks"][0]["confidence"]) == (again["run"], 1, 0.995)
    assert "chosen after a look at some of them, so 99.5% takes the place of 95%" in wider["why"]


def test_data_that_changes_while_it_is_read_starts_nothing(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "prepare", lambda self, config: (quick / "good.csv").write_text("a,label\n1,0\n2,1\n"))
    result = call("run", "groco", "--data", "good.csv")
    assert result.exit_code == 2
    assert "its content is not what the run was started with" in result.output
    assert not list(quick.glob("runs/groco/*"))


def test_an_interrupt_ends_with_three_from_the_first_moment(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for place in ("throughline.session.run_claims", "throughline.session.find_claim"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            result = call("run", "groco")
        assert (result.exit_code, result.output) == (3, "Error: interrupted; the same command goes on from here\n")
    monkeypatch.setattr("throughline.cli.main", interrupted)  # as if an import of it were cut short
    with pytest.raises(SystemExit) as ended:
        throughline.__main__.main()
    assert ended.value.code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["run", "grco"],
        ["run", "groco", "--seeds", "x"],
        ["run", "groco", "--seeds", "4294967296,0"],
        ["run", "groco", "--sed", "3"],
        ["run", "groco", "--scale", "laptp"],
        ["run", "groco", "--set", "lrr=1"],
        ["run", "groco", "--threads", "1000"],
        ["run", "groco", "--engine", "rai"],
        ["run", "groco", "--target", "y"],
        ["run", "groco", "--data", "nothing.csv"],
    ],
    ids=" ".join,
)
def test_a_slip_is_told_before_anything_heavy_is_imported(words: list[str]) -> None:
    code = f"import sys, throughline.__main__ as m; sys.argv[1:] = {words}\ntry: m.main()\n" + (
        "except SystemExit as end: print(end.code, any(n in sys.modules for n in ('torch', 'matplotlib', 'sklearn')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout == "2 False\n", found.stderr


def test_windows_is_named(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    result = call("run", "groco")
    assert result.exit_code == 2
    assert result.output == "Error: claims run on Linux and macOS, this is Windows: use its Subsystem for Linux (WSL)\n"


def test_a_claim_may_change_the_working_folder_anywhere(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Toy, given: Any) -> dict[str, Any]:
        os.chdir("/")
        return {}

    monkeypatch.setattr(Toy, "prepare", away)
    monkeypatch.setattr(Toy, "figures", away)
    result = call("run", "groco", "--seeds", 3)
    assert result.exit_code == 0, result.output
    assert len(list(quick.glob("runs/groco/*/report.html"))) == 1


def test_your_file_may_have_any_name(quick: Path) -> None:
    for name in ("sales_$10_$20.csv", "caf\udce9.csv", "[red] a\\b {c} <d> & e.csv"):
        os.rename(quick / "good.csv", quick / name)
        result = call("run", "groco", "--seeds", 3, "--data", name, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)[0]["config"]["data"]["path"] == str(quick / name)
        again = call("run", "groco", "--seeds", 4, "--data", name, "--resume")
        assert again.exit_code == 0, again.output
        os.rename(quick / name, quick / "good.csv")


def test_a_folder_of_files_with_any_name_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "caf\udce9.png").write_bytes(b"1")
    first = Source.of(tmp_path).digest
    os.rename(tmp_path / "a" / "caf\udce9.png", tmp_path / "a" / "caf\udce8.png")
    assert Source.of(tmp_path).digest != first


def test_a_run_without_its_keys_is_named(quick: Path) -> None:
    (summary,) = json.loads(call("run", "groco", "--seeds", 3, "--json").stdout)
    manifest = Path(summary["run"]) / "run.json"
    whole = json.loads(manifest.read_text())
    for key in whole.keys() - {"earlier", "looks"}:
        manifest.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        for words in (
            ["report", "--no-open"],
            ["report", "--no-open", summary["run"]],
            ["report", "--no-open", "--compare", summary["run"], summary["run"]],
            ["run", "--like", manifest],
        ):
            result = call(*words)
            assert result.exit_code == 2, (key, result.output)
            assert result.output.startswith("Error: ")
            assert result.output.count("\n") == 1
            assert f"{manifest.relative_to(quick)} is not a stored result ({key}: field required); " in result.output
        result = call("run", "groco", "--seeds", 4, "--resume")
        assert result.exit_code == 2
        assert f"({key}: field required)" in result.output
        assert "ignored\nError: nothing to resume" in result.output
    for key, value, says in (
        ("scale", "huge", "groco has no scale 'huge'; it has smoke"),
        ("arms", ["x"], "unknown arm"),
    ):
        manifest.write_text(json.dumps({**whole, key: value}))
        result = call("run", "--like", manifest)
        assert (result.exit_code, result.output.count("\n")) == (2, 1)
        assert says in result.output
    manifest.write_text(json.dumps({**whole, "scale": "huge"}))
    assert "groco has no scale 'huge'" in call("report", "--no-open").output


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR])
def test_a_folder_that_refuses_is_named(toy: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), "runs/groco")

    monkeypatch.setattr("throughline.session.execute", refused)
    result = call("run", "groco")
    assert result.exit_code == 2
    assert f"Error: {os.strerror(code)}: runs/groco; " in result.output
    assert result.output.endswith("choose another folder with --out\n")


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchvision", "deepinv", "optuna"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("skimage", "botorch", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    lines = dict(line.split(maxsplit=1) for line in call("doctor").output.splitlines())
    assert lines["search"] == 'missing optuna: pip install "throughline[search]"'
    assert lines["parquet"] == "installed"
    assert lines["imaging"].startswith(
        "missing deepinv: pip install --no-deps torchvision (the build that matches torch "
    )
    assert lines["imaging"].endswith("), then pip install deepinv")


def test_the_command_repeats_the_seeds(quick: Path) -> None:
    for given, repeats in (("3", "1000:1003"), ("4:7", "4:7"), ("7,3,5", "7,3,5"), ("0,4294967295", "0,4294967295")):
        (summary,) = json.loads(call("run", "groco", "--seeds", given, "--json").stdout)
        assert summary["command"] == f"throughline run groco --scale laptop --seeds {repeats}"


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughline.session, "cores", lambda: 4)
    jobs = throughline.session._jobs
    assert [jobs(Request(), threads) for threads in (1, 2, 3, 4)] == [4, 2, 1, 1]
    assert jobs(Request(jobs=4), 1) == 4
    assert jobs(Request(jobs=1), 4) == 1
    with pytest.raises(ThroughlineError, match="--jobs 3 with --threads 2 would need 6 cores, this machine has 4"):
        jobs(Request(jobs=3), 2)
    with pytest.raises(ThroughlineError, match="--threads 5 is more than the 4 cores"):
        jobs(Request(), 5)


def test_a_stored_unit_is_compared_number_by_number(quick: Path) -> None:
    words = ("--seeds", 3, "--arms", "shifted,plain", "--set", "steps=4", "--data", "good.csv", "--target", "label")
    (summary,) = json.loads(call("run", "groco", *words, "--json").stdout)
    assert summary["arms"] == ["plain", "shifted"]  # in the order of the claim
    assert summary["seeds"] == [1000, 1001, 1002]
    assert summary["config"]["steps"] == 4
    assert summary["command"] == (
        "throughline run groco --scale laptop --seeds 1000:1003 --arms plain,shifted --set steps=4"
        " --data good.csv --target label"
    )
    unit = Path(summary["run"]) / "units" / "shifted-1001.json"
    whole = json.loads(unit.read_text())

    def like(**metrics: float) -> Result:
        (quick / "like.json").write_text(json.dumps({**whole, "metrics": {**whole["metrics"], **metrics}}))
        return call("run", "--like", "like.json")

    assert like().exit_code == 0
    assert "spread: 1.0 ≠ 1.5 (stored)" in like(spread=1.5).output
    assert like(spread=1.5).exit_code == 1
    assert like(seconds=0.25).exit_code == 0  # a time is never twice the same
    assert like(step_cost=0.25).exit_code == 0  # nor is a ratio of two
    assert like(lost=2.0).exit_code == 1
    (quick / "good.csv").write_text("a,b,label\n1,2,0\n2,3,1\n")
    changed = like()
    assert changed.exit_code == 2
    assert "its content is not what like.json was computed from; restore the file" in changed.output


def test_ten_seeds_and_one_thread_are_the_default(quick: Path) -> None:
    (summary,) = json.loads(call("run", "groco", "--json").stdout)
    assert summary["seeds"] == list(range(1000, 1010))
    assert summary["command"] == "throughline run groco --scale laptop"
    assert json.loads((Path(summary["run"]) / "run.json").read_text())["threads"] == 1
    (smoke,) = json.loads(call("run", "groco", "--scale", "smoke", "--json").stdout)
    assert (smoke["verdict"], smoke["seeds"]) == ("no verdict", [1000, 1001])


def test_a_stored_nan_is_the_same_again() -> None:
    equal = throughline.session._equal
    assert equal(float("nan"), float("nan"))
    assert not equal(1.0, float("nan"))
    assert not equal(None, 1.0)


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((3, 1), 3), ((1, 3), 3)])
def test_of_several_claims_the_worst_counts(monkeypatch: pytest.MonkeyPatch, codes: tuple[int, int], code: int) -> None:
    ended = dict(zip(("groco", "anyloss"), codes, strict=True))

    def instead(names: list[str], *_: Any, **__: Any) -> list[Ended]:
        return [Ended(ended[name], {"paper": name}) for name in names]

    monkeypatch.setattr(throughline.session, "run_claims", instead)
    result = call("run", "groco", "anyloss", "--json")
    assert result.exit_code == code
    assert [entry["paper"] for entry in json.loads(result.stdout)] == ["groco", "anyloss"]
