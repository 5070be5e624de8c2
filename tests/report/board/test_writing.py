"""The board on disk: a page, a feed and reports that lead to each other, and nothing of anybody else's touched."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from tests.report.board.atom import A, wrong
from tests.report.board.invented import check, finding, leave

from throughline.cli import main
from throughline.errors import ThroughlineError
from throughline.report.board import render, tally, write_board


def links(page: str) -> list[str]:
    return [unquote(href) for href in re.findall(r'<a href="([^"]*)"', page)]


def page(*findings: object) -> str:
    return render(findings, lambda found: "", feed="verdicts.xml", about="All.")  # type: ignore[arg-type]


def test_page_feed_and_reports_lie_side_by_side(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "public" / "board"
    for found in (finding(day=1), finding(day=2, verdict="refuted"), finding(day=3, verdict="refuted")):
        leave(runs, found)
    leave(runs, finding("my claim#1?", day=4, verdict="not shown"))
    leave(runs, finding("tell", day=5), summary=False)
    written = write_board(runs, out, print)
    assert written == out / "index.html"
    text = written.read_text(encoding="utf-8")
    reports = [href for href in links(text) if href != "verdicts.xml"]
    assert reports == ["reports/my claim#1?/20261104-120000-abcdef.html", "reports/groco/20261103-120000-abcdef.html"]
    feed = (out / "verdicts.xml").read_text(encoding="utf-8")
    assert wrong(feed) == []
    told = [unquote(link.get("href", "")) for link in ET.fromstring(feed).iterfind(f"{A}entry/{A}link")]
    assert told == [
        "reports/my claim#1?/20261104-120000-abcdef.html",
        "reports/groco/20261102-120000-abcdef.html",
        "reports/groco/20261101-120000-abcdef.html",
    ]
    for href in (*reports, *told):
        assert (out / href).read_text(encoding="utf-8").startswith("<!doctype html>"), href


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for found in (finding(day=1), finding("tell", day=2, verdict="refuted")):
        leave(tmp_path / "runs", found)
    first, second = (write_board(tmp_path / "runs", tmp_path / name, print).parent for name in ("a", "b"))
    for name in ("index.html", "verdicts.xml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    write_board(tmp_path / "runs", first, print)  # over itself


def test_somebody_elses_page_is_left_alone(tmp_path: Path) -> None:
    leave(tmp_path / "runs", finding())
    other = tmp_path / "site" / "index.html"
    other.parent.mkdir()
    other.write_text("<h1>Mine</h1>")
    with pytest.raises(ThroughlineError, match=r"index.html is there and no board; choose another folder with --out"):
        write_board(tmp_path / "runs", other.parent, print)
    assert other.read_text() == "<h1>Mine</h1>"
    assert list(other.parent.iterdir()) == [other]


def test_the_command_says_where_the_page_is_and_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    leave(Path("runs"), finding())
    broken = leave(Path("runs"), finding("tell"))
    (broken / "run.json").write_text("{")
    found = CliRunner().invoke(main, ["board"])
    assert (found.exit_code, found.stdout) == (0, "board/index.html\n")
    assert found.stderr.startswith("left out runs/tell/")
    leave(Path("others"), finding())
    monkeypatch.setenv("THROUGHLINE_RUNS", "others")
    found = CliRunner().invoke(main, ["board", "--out", "b"])
    assert (found.exit_code, found.stdout, found.stderr) == (0, "b/index.html\n", "")


def test_a_board_is_made_without_anything_heavy(tmp_path: Path) -> None:
    leave(tmp_path / "runs", finding())
    code = "import sys; from throughline.cli import main; main(sys.argv[1:], standalone_mode=False); " + (
        "sys.exit(str([m for m in ('torch', 'matplotlib', 'sklearn', 'pandas') if m in sys.modules] or ''))"
    )
    words = ["board", str(tmp_path / "runs"), "--out", str(tmp_path / "board")]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == ""
    assert (tmp_path / "board" / "index.html").exists()


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    text = page(finding())
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', text)) == {"verdicts.xml", "data:,"}
    assert "url(" not in text
    assert "@import" not in text


def test_what_runs_say_is_escaped() -> None:
    evil = "\"'><script>alert(1)</script>"
    told = dict.fromkeys(("paper", "verdict", "why", "claim", "scale"), evil)
    checks = [check(evil, sentence=evil, quantity=evil)]
    command = f"throughline run x --set {json.dumps(evil)}"
    text = page(finding(**told, checks=checks, versions={"throughline": evil}, command=command))  # type: ignore[arg-type]
    assert "<script>alert" not in text
    assert text.count("<script") == 1  # ours
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_what_has_no_verdict_shows_none() -> None:
    for verdict in ("incomplete", "no verdict"):
        text = page(finding(verdict=verdict, checks=[check("held"), check("refuted")]))
        body = text.partition("<tbody")[2].partition("</tbody>")[0]
        assert f'<span class="badge {verdict.replace(" ", "-")}">' in body
        assert not re.search(r"\b(held|refuted)\b|\bmark\b", body)


def test_counts_name_the_three_verdicts_always() -> None:
    assert tally([]) == {"held": 0, "refuted": 0, "not shown": 0}
    counted = tally([finding(verdict=v) for v in ("stray", "held", "incomplete", "held", "not run")])
    assert list(counted.items()) == [
        ("held", 2),
        ("refuted", 0),
        ("not shown", 0),
        ("incomplete", 1),
        ("not run", 1),
        ("stray", 1),
    ]


def test_times_are_left_out_where_nobody_kept_them() -> None:
    assert "Duration" in page(finding())
    assert "Duration" not in page(finding(duration=None))
