"""Reports: self-contained, in the page's colours, honest about what is missing."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats
from tests.lab.toys import Config, Toy

from throughline.errors import ThroughlineError
from throughline.lab import Outcome, judge
from throughline.lab.plots import subplots
from throughline.lab.results import Results
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Run, Unit
from throughline.report import write_comparison, write_report
from throughline.report.figures import effects, svg


def results(root: Path, *, effect: float = 1.0, skip: tuple[Unit, ...] = (), **config: Any) -> Results:
    arms, seeds = ("plain", "shifted", "wild"), (0, 1, 2)
    manifest = plan(
        Toy(), "laptop", Config(**config), arms, seeds, threads=1, command="throughline run groco --x '<b>'"
    )
    run, _ = open_run(root, manifest, resume=False)
    rng = np.random.default_rng(0)
    for unit in run.units:
        if unit not in skip:
            mean = unit.seed + effect * (unit.arm == "shifted") + 0.01 * rng.normal()
            curves = {"loss": {"step": [0, 1], "value": [1.0, 0.5]}}
            measured = {"seconds": 1.0, "peak_mb": 300.0}
            run.write(unit, {"metrics": {"mean": mean, "spread": 1.0}, "measured": measured, "curves": curves}, {})
    return Results(Toy(), Run(run.folder), Config(**config))


def test_a_report_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report(results(tmp_path))
    page = path.read_text()
    assert set(re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)) == {"https://arxiv.org/abs/2301.02009"}
    assert "<link" not in page
    assert "url(http" not in page
    assert "@import" not in page
    for words in ("A shifted mean is larger", "held", "0.7", "A toy.", "Repeat it", "torch"):
        assert words in page
    assert "--x &#39;&lt;b&gt;&#39;" in page  # what comes from outside is escaped
    assert {file.name for file in (path.parent / "figures").iterdir()} == {"effect-1.svg", "own-1.svg", "curves-1.svg"}


class Shape(HTMLParser):
    """Which tables and pictures of a page have no element above them that scrolls in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.above: list[tuple[str, str]] = []
        self.found: dict[str, int] = {"table": 0, "svg": 0}
        self.loose: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        parent = self.above[-1] if self.above else ("", "")
        if tag in self.found:
            self.found[tag] += 1
            held = (
                parent == ("div", "scroll") if tag == "table" else [t for t, _ in self.above[-2:]] == ["figure", "div"]
            )
            self.loose += [] if held else [tag]
        if tag not in ("meta", "br", "link", "img", "input"):
            self.above.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self.above and self.above.pop()[0] != tag:
            pass

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_what_may_be_wide_scrolls_in_its_own_box(tmp_path: Path) -> None:
    first, second = results(tmp_path), results(tmp_path, effect=2.0, shift=0.25)
    for path in (write_report(first), write_comparison(first, second, tmp_path / "compare.html")):
        page = path.read_text(encoding="utf-8")
        shape = Shape(page)
        assert min(shape.found.values()) > 1
        assert not shape.loose
        for rule in ('name="viewport"', ".scroll { overflow-x: auto; }", "figure > div { overflow-x: auto; }"):
            assert rule in page


def test_arms_with_a_sentence_are_listed_above_their_numbers(tmp_path: Path) -> None:
    page = write_report(results(tmp_path)).read_text(encoding="utf-8")
    (listed,) = re.findall(r'<dl class="arms">.*?</dl>', page, re.DOTALL)
    assert re.findall(r'<dd class="about">(.*?)</dd>', listed) == ["Draws its mean as it is."]
    assert "shifted" not in listed  # it has none
    found = results(tmp_path)
    found.claim.about = dict  # type: ignore[method-assign]
    assert '<dl class="arms">' not in write_report(found).read_text(encoding="utf-8")


def test_long_names_take_more_lines_and_more_room() -> None:
    short = Outcome("s", "held", "mean: a", 1.0, 0.5, 1.5, 0.95, (0, 1, 2), (0.5, 1.0, 1.5), (0.0,), "r")
    long = dataclasses.replace(short, quantity="a_very_long_name " * 9)
    first, second = effects((short,)), effects((long,))
    title = second.axes[0].get_title(loc="left")
    assert max(map(len, title.splitlines())) <= 88 < len(title)
    assert "_" not in title
    assert second.get_figheight() > first.get_figheight()


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "held"), (-1.0, "refuted"), (0.001, "not shown")])
def test_the_verdict_leads(tmp_path: Path, effect: float, verdict: str) -> None:
    found = results(tmp_path, effect=effect)
    page = write_report(found, judge(found)).read_text()
    assert f"<title>groco: {verdict}</title>" in page
    assert ("would settle it" in page) == (verdict == "not shown")


def test_an_incomplete_run_says_what_is_missing(tmp_path: Path) -> None:
    found = results(tmp_path, skip=(Unit("plain", 1),))
    found.run.file(Unit("plain", 1), "txt").write_text("Traceback …\nValueError: <no luck>\n")
    page = write_report(Results(Toy(), found.run, Config())).read_text()
    assert "<title>groco: incomplete</title>" in page
    assert "ValueError: &lt;no luck&gt;" in page
    assert "one unit has no result (plain-1)" in page


def test_an_empty_run_still_has_a_page(tmp_path: Path) -> None:
    every = tuple(Unit(arm, seed) for arm in ("plain", "shifted", "wild") for seed in range(3))
    assert "incomplete" in write_report(results(tmp_path, skip=every)).read_text()


def test_a_comparison_names_what_differs(tmp_path: Path) -> None:
    first, second = results(tmp_path), results(tmp_path, effect=2.0, shift=0.25)
    page = write_comparison(first, second, tmp_path / "compare.html").read_text()
    assert "<td>shift</td><td>0.5</td><td>0.25</td>" in page
    second.run.manifest["paper"] = "anyloss"
    with pytest.raises(ThroughlineError, match="cannot compare a run of groco with a run of anyloss"):
        write_comparison(first, second, tmp_path / "never.html")


def drawing() -> Figure:
    figure, axis = subplots()
    axis.plot([0, 1], [0, 1], color="black", label="a line")
    axis.imshow(np.eye(3))
    axis.set_title("title")
    axis.legend()
    return figure


def test_svg_follows_the_pages_colours_and_is_reproducible() -> None:
    text = svg(drawing(), "fig")
    assert "#000000" not in text
    assert "currentColor" in text
    assert text == svg(drawing(), "fig")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("fig") for name in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert used
    assert set(used) <= set(ids)
    ElementTree.fromstring(text)


def test_two_figures_share_no_id() -> None:
    first, second = (set(re.findall(r'\bid="([^"]+)"', svg(drawing(), name))) for name in ("one", "two"))
    assert not first & second


def test_infinite_intervals_are_drawn(tmp_path: Path) -> None:
    found = results(tmp_path)
    found.seeds = (0,)
    outcome = judge(found).outcomes[0]
    assert math.isinf(outcome.low)
    assert "no interval from 1 seeds" in write_report(found).read_text()


def test_a_claim_needs_no_data(tmp_path: Path) -> None:
    found = results(tmp_path)
    del found.run.manifest["config"]["data"]
    assert "laptop scale, 3 seeds." in write_report(found).read_text()
    found.run.manifest["config"]["data"] = {"path": "my.csv"}
    assert "laptop scale, 3 seeds, on my.csv." in write_report(found).read_text()


HOSTILE = "sales_$10_$20 \\frac{ ^ 5 % # _x $\\foo$.csv"


def test_texts_of_figures_are_taken_literally() -> None:
    figure, (left, right) = subplots(1, 2)
    left.plot([1, 2], [1e-5, 1e5], label=HOSTILE)
    left.set(yscale="log", title=HOSTILE, xlabel=HOSTILE, ylabel=HOSTILE)
    left.set_xticks([1, 2], [HOSTILE, "caf\udce9"])
    left.annotate(HOSTILE, (1, 1))
    left.legend(title=HOSTILE)
    right.bar([HOSTILE, "$"], [1, 2])
    right.text(0, 0, "caf\udce9")
    figure.suptitle(HOSTILE)
    drawn = [text.text for text in ElementTree.fromstring(svg(figure, "fig")).iter() if text.tag.endswith("}text")]
    assert drawn.count(HOSTILE) == 9
    assert drawn.count("caf\\udce9") == 2
    assert "\\mathdefault" not in "".join(filter(None, drawn))  # the powers of ten of the logarithmic axis are set


def test_hostile_names_of_runs_and_files_reach_no_parser(tmp_path: Path) -> None:
    first, second = results(tmp_path / "a"), results(tmp_path / "b")
    for found in (first, second):
        found.run.folder = found.run.folder.rename(found.run.folder.with_name(HOSTILE))
    first.run.manifest["config"]["data"] = {"path": f"/{HOSTILE}"}
    page = write_comparison(first, second, tmp_path / "compare.html").read_text(encoding="utf-8")
    assert page.count(HOSTILE) > 4
    assert f"on /{HOSTILE}" in write_report(first).read_text(encoding="utf-8")


def test_the_last_line_of_a_traceback_need_not_be_utf_8(tmp_path: Path) -> None:
    found = results(tmp_path, skip=(Unit("plain", 1),))
    found.run.file(Unit("plain", 1), "txt").write_bytes(b"Traceback\nValueError: caf\xe9\n")
    page = write_report(Results(Toy(), found.run, Config()))
    assert "ValueError: caf\ufffd" in page.read_text(encoding="utf-8")


def test_the_tables_say_mean_and_sample_deviation(tmp_path: Path) -> None:
    found = results(tmp_path)
    numbers = np.array(list(found.values("mean", "shifted").values()))
    page = write_report(found).read_text(encoding="utf-8")
    assert f'<td>{numbers.mean():.4g} <span class="soft">± {numbers.std(ddof=1):.4g}</span></td>' in page
    gains = found.values("mean", "shifted")
    differences = np.array([gains[s] - v for s, v in found.values("mean", "plain").items()])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert f"{differences.mean():.4g}, 95 % interval [{low:.4g}, {high:.4g}], 3 seeds" in page
    assert "range over the seeds [1, 1], 3 seeds" in page  # of the bound on every seed


@pytest.mark.parametrize(
    ("points", "scale"),
    [((0.5, 1.2, 0.8), "linear"), ((2e-9, 3e-4, 1e-8), "log"), ((-1.0, 1e4), "linear")],
)
def test_wide_ranges_are_drawn_on_a_logarithmic_axis(points: tuple[float, ...], scale: str) -> None:
    outcome = Outcome("s", "held", "q", 1.0, min(points), max(points), 1.0, (0, 1, 2), points, (1.0,), "r")
    (axis,) = effects((outcome,)).axes
    assert axis.get_xscale() == scale
    ratio = dataclasses.replace(outcome, quantity="seconds: a / b", points=(0.9, 1.1, 1.3))
    assert effects((ratio,)).axes[0].get_xscale() == "log"


EVIL = "<img src=x onerror=alert(1)>\"'`--></svg></style><script>alert(2)</script>{{ 7 * 7 }}\x00\x1b[31m]]>&amp;\u202e"


class Tags(HTMLParser):
    """The elements and the attributes that a page has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def poisoned(value: Any) -> Any:
    """Every text in a JSON value made hostile, keys of dictionaries included."""
    if isinstance(value, dict):
        return {f"{key}{EVIL}": poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def test_whatever_a_stored_run_holds_is_text(tmp_path: Path) -> None:
    """Hostile names of metrics, curves, files, versions or commands: no element and no handler comes of them."""
    found = results(tmp_path)
    clean = [Tags(write_report(found).read_text(encoding="utf-8"))]
    clean.append(Tags(write_comparison(found, found, tmp_path / "clean.html").read_text(encoding="utf-8")))
    manifest = json.loads((found.run.folder / "run.json").read_text())
    kept = ("paper", "scale", "arms", "seeds", "key", "looks", "earlier")
    hostile = {name: value if name in kept else poisoned(value) for name, value in manifest.items()}
    hostile["config"] = {**manifest["config"], "note": EVIL, "data": {"path": EVIL}, EVIL: EVIL}
    run = Run(found.run.folder)
    run.manifest = hostile
    for unit in run.units[:-1]:
        record = run.record(unit)
        assert record is not None
        record["metrics"] |= {EVIL: 1.0}
        run.write(unit, {**record, "curves": {**record["curves"], EVIL: {"step": [0, 1], "value": [1.0, 2.0]}}}, {})
    run.file(run.units[-1], "json").unlink()
    run.file(run.units[-1], "txt").write_text(f"Traceback\nValueError: {EVIL}\n", encoding="utf-8")
    evil = Results(Toy(), run, Config())
    assert EVIL in evil.metrics
    pages = [write_report(evil), write_comparison(evil, evil, tmp_path / "compare.html")]
    for page, before in zip(pages, clean, strict=True):
        text = page.read_text(encoding="utf-8")
        tags = Tags(text)
        assert tags.tags - before.tags <= {"h2", "ul", "figcaption", "details", "summary", "code", "li", "td", "em"}
        assert not tags.tags & {"img", "script", "iframe", "object"}
        assert not {name for name in tags.attributes if name.startswith("on")}
        assert "&lt;img src=x onerror=alert(1)&gt;" in text
        assert "49" not in text.split("{{ 7 * 7 }}")[0][-20:]
        assert "{{ 7 * 7 }}" in text
    for picture in (evil.run.folder / "figures").glob("*.svg"):
        ElementTree.fromstring(picture.read_text(encoding="utf-8"))
