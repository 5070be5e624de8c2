"""The feed against the rules of RFC 4287, and the same for the same runs, whenever it is written."""

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from tests.report.board.atom import A, wrong
from tests.report.board.invented import check, finding

from throughline.report.board import Finding, feed


def written(*findings: Finding) -> str:
    return feed(findings, lambda found: f"reports/{found.run}.html", page="index.html", name="verdicts.xml")


EVERY = (
    finding(day=1, verdict="held"),
    finding("tell", day=2, verdict="refuted", claim="Ours < theirs & <script>alert(1)</script>\x00 \ud800"),
    finding("my_own", day=3, verdict="not shown", why="", checks=[check(estimate=None)], command="<&'\""),
    finding(day=4, verdict="held"),
    finding(day=5, verdict="incomplete"),
    finding(day=6, verdict="not shown", checks=[]),
    finding("anyloss", run="renamed", finished=None),
)


def test_it_is_valid() -> None:
    assert wrong(written(*EVERY)) == []
    assert wrong(written()) == []
    assert wrong(written(finding(verdict="no verdict"))) == []


def test_it_tells_new_verdicts_and_changes_the_latest_first() -> None:
    root = ET.fromstring(written(*EVERY))
    titles = [entry.findtext(f"{A}title") for entry in root.iter(f"{A}entry")]
    assert titles == [
        "groco: not shown at laptop scale, before: held",
        "my_own: not shown at laptop scale",
        "tell: refuted at laptop scale",
        "groco: held at laptop scale",
    ]
    assert root.findtext(f"{A}updated") == "2026-11-06T13:00:00Z"
    first = root.find(f"{A}entry")
    assert first is not None
    assert [link.get("href") for link in first.iter(f"{A}link")] == ["reports/20261106-120000-abcdef.html"]
    assert [category.get("term") for category in first.iter(f"{A}category")] == ["not shown", "discrete"]


def test_what_runs_say_stays_text() -> None:
    text = written(*EVERY)
    assert "<script" not in text
    told = "".join(ET.fromstring(text).itertext())
    assert "Ours < theirs & <script>alert(1)</script>\\x00 \\ud800" in told
    assert "ours beats theirs in some metric: held, 0.50 [0.25, 0.75]" in told


def test_ids_stay_whatever_comes_after() -> None:
    def ids(*findings: Finding) -> list[str]:
        return [element.text or "" for element in ET.fromstring(written(*findings)).iter(f"{A}id")]

    before, after = ids(*EVERY[:2]), ids(*EVERY)
    assert after[0] == before[0]  # the feed's own
    assert set(before) < set(after)
    assert len(set(after)) == len(after)
    assert all(name.startswith("urn:uuid:") for name in after)
    assert written(*EVERY) == written(*EVERY)
    assert ids(EVERY[0]) == [
        "urn:uuid:c8cf5f99-8fca-5765-afca-51517288add6",
        "urn:uuid:83772db9-bb9f-5ff6-b8c2-e7870996384e",
    ]


def test_a_verdict_that_is_confirmed_leaves_the_feed_as_it_is() -> None:
    assert written(EVERY[0], EVERY[3]) == written(EVERY[0])


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (replaced("<title>Throughline: verdicts</title>", ""), "0 title"),
        (replaced("urn:uuid:", "uuid "), "no absolute IRI"),
        (replaced("13:00:00Z", "13:00:00"), "is no date"),
        (replaced("2026-11", "2026-13"), "is no date"),
        (replaced("<name>Throughline</name>", ""), "0 name in a person"),
        (replaced("<author>\n    <name>Throughline</name>\n  </author>", ""), "has an author"),
        (replaced("<subtitle>", "<subtitle>a</subtitle><subtitle>"), "2 subtitle"),
        (replaced('rel="self"', 'rel="alternate" hreflang="en"'), ""),
        (replaced('rel="self" type="application/atom+xml"', 'type="text/html"'), "two alternate links"),
        (replaced(' href="verdicts.xml"', ""), "a link without a reference"),
        (replaced(' term="held"', ""), "a category without a term"),
        (replaced("<summary>", '<summary type="markdown">'), "summary of type markdown"),
        (replaced("<summary>", "<summary><b>a</b>"), "has elements inside"),
        (replaced('<content type="xhtml">', '<content type="xhtml">a'), "one div and nothing else"),
        (replaced("<entry>", "<entry>a"), "loose text"),
        (replaced("<entry>", "<entry><generator>a</generator>"), "generator in"),
        (replaced("<entry>", '<entry kind="a">'), "attribute kind"),
        (replaced("</entry>", "</entry><rights>a</rights>"), "after an entry"),
    ],
)
def test_the_rules_find_what_is_wrong(spoil: Callable[[str], str], rule: str) -> None:
    text = written(EVERY[0])
    assert spoil(text) != text
    found = wrong(spoil(text))
    assert any(rule in flaw for flaw in found) if rule else found == []
