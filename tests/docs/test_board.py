"""The board of our papers: every built claim has a row, what was not run has no verdict, the front page counts them."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

from tests.docs.test_docs import DOCS, load
from tests.report.board.atom import A, wrong

from throughline.catalog import papers

board = load(DOCS / "_ext" / "board.py")
BUILT = {entry.slug for entry in papers() if entry.available}


def test_every_claim_that_is_built_has_a_row_that_leads_to_its_page(tmp_path: Path) -> None:
    text = board.write_board(DOCS, tmp_path).read_text(encoding="utf-8")
    rows = dict(re.findall(r'data-verdict="([\w ]+)">\n<th [^>]*data-value="([\w-]+)"', text))
    listed = re.findall(r'<a href="\.\./generated/papers/([\w-]+)\.html">', text)
    assert set(listed) == BUILT
    assert len(listed) == len(BUILT)
    assert '<a href="../index.html">Throughline</a>' in text
    assert rows
    for path in (DOCS / "results").glob("*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        (told,) = re.findall(rf'data-verdict="([\w ]+)">\n<th [^>]*data-value="{kept["paper"]}"', text)
        assert told == kept["verdict"]


def test_the_feed_of_our_papers_is_valid_and_ends_with_their_verdicts(tmp_path: Path) -> None:
    feed = board.write_board(DOCS, tmp_path).with_name("verdicts.xml").read_text(encoding="utf-8")
    assert wrong(feed) == []
    last: dict[str, str] = {}
    for entry in ET.fromstring(feed).iter(f"{A}entry"):  # the latest first
        slug, _, told = (entry.findtext(f"{A}title") or "").partition(": ")
        last.setdefault(slug, told.partition(" at ")[0])
        (link,) = entry.iter(f"{A}link")
        assert link.get("href") == f"../generated/papers/{slug}.html"
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "results").glob("*.json")]
    assert last == {each["paper"]: each["verdict"] for each in kept if each["scale"] != "smoke"}


def test_what_was_not_run_has_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "history.jsonl").touch()
    shutil.copy(DOCS / "results" / "groco.json", tmp_path / "results")
    told = {found.paper: found.verdict for found in board.findings(tmp_path)}
    assert told.pop("groco") == json.loads((DOCS / "results" / "groco.json").read_text())["verdict"]
    assert told == dict.fromkeys(BUILT - {"groco"}, "not run")
    text = board.write_board(tmp_path, tmp_path / "out").read_text(encoding="utf-8")
    assert text.count('data-verdict="not run">\n') == len(BUILT) - 1


def test_the_front_page_counts_and_leads_to_the_board(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "groco.json").write_text('{"paper": "groco", "verdict": "refuted", "scale": "laptop"}')
    path = board.write_counts(tmp_path)
    assert path.read_text(encoding="utf-8") == (
        f"{{bdg-success-line}}`0 held` {{bdg-danger}}`1 refuted` {{bdg-warning-line}}`0 not shown` "
        f"{{bdg-secondary}}`{len(BUILT) - 1} not run` of {len(BUILT)} claims that are built: "
        '<a href="board/index.html">the board of all verdicts</a>.\n'
    )
    before = path.stat().st_mtime_ns
    board.write_counts(tmp_path)
    assert path.stat().st_mtime_ns == before
    front = (DOCS / "index.md").read_text(encoding="utf-8")
    assert f"```{{include}} {path.relative_to(tmp_path).as_posix()}\n" in front


def test_a_build_to_html_ends_with_the_board(tmp_path: Path) -> None:
    def app(kind: str) -> SimpleNamespace:
        return SimpleNamespace(srcdir=DOCS, outdir=tmp_path / kind, builder=SimpleNamespace(format=kind))

    board.finish(app("latex"), None)
    board.finish(app("html"), ValueError("no luck"))
    assert not list(tmp_path.iterdir())
    board.finish(app("html"), None)
    assert {path.name for path in (tmp_path / "html" / "board").iterdir()} == {"index.html", "verdicts.xml"}
