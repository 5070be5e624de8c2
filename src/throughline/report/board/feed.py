"""An Atom feed (RFC 4287) with an entry for every verdict that is new or another than before."""

import json
import uuid
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from throughline.report.board.findings import Finding, changes
from throughline.report.board.intervals import figures
from throughline.report.rendering import printable

__all__ = ["feed"]

ATOM, XHTML = "http://www.w3.org/2005/Atom", "http://www.w3.org/1999/xhtml"
VERDICTS = uuid.UUID("5d0b4a5e-7a3c-4f0e-9d0c-3d8c1f7b6e21")  # the space of our names: ids follow from content alone
EPOCH = "1970-01-01T00:00:00Z"


def feed(findings: Sequence[Finding], link: Callable[[Finding], str], *, page: str, name: str) -> str:
    """The feed as XML text, the same for the same findings.

    Args:
        findings: what runs have shown, oldest first; those without a verdict or a date have no entry.
        link: where a finding is told in full, relative to the feed; empty where it is not.
        page: the board, relative to the feed.
        name: of the feed's own file.
    """
    root = ET.Element("feed", {"xmlns": ATOM, "xml:lang": "en"})
    told = [(finding, before) for finding, before in changes(findings) if finding.date]
    _add(root, "id", _id("feed", *_origin(findings)))
    _add(root, "title", "Throughline: verdicts")
    _add(root, "subtitle", "New verdicts of claims, and those that have changed")
    _add(root, "updated", max((_date(finding) for finding, _ in told), default=EPOCH))
    ET.SubElement(_add(root, "author"), "name").text = "Throughline"
    _add(root, "link", rel="self", type="application/atom+xml", href=name)
    _add(root, "link", rel="alternate", type="text/html", href=page)
    for finding, before in sorted(told, key=lambda pair: _date(pair[0]), reverse=True):
        root.append(_entry(finding, before, link(finding) or page))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _entry(finding: Finding, before: str | None, href: str) -> ET.Element:
    entry = ET.Element("entry")
    told = f" ({finding.settings})" if finding.settings else ""
    then = f", before: {before}" if before else ""
    _add(entry, "id", _id(*_origin([finding]), finding.verdict))
    _add(entry, "title", f"{finding.paper}: {finding.verdict} at {finding.scale} scale{told}{then}")
    _add(entry, "updated", _date(finding))
    _add(entry, "link", rel="alternate", type="text/html", href=href)
    _add(entry, "category", term=finding.verdict)
    if finding.entry:
        _add(entry, "category", term=finding.entry.area)
    _add(entry, "summary", f"{finding.verdict.capitalize()}: {finding.why}.")
    body = ET.SubElement(_add(entry, "content", type="xhtml"), "div", xmlns=XHTML)
    claim = finding.claim or (finding.entry.claim if finding.entry else "")
    if claim:
        _add(body, "p", claim)
    _add(body, "p", f"{finding.verdict.capitalize()}: {finding.why}; {len(finding.seeds)} seeds.")
    checks = [_told(check.sentence, check.verdict, *figures(check)) for check in finding.checks]
    listed = _add(body, "ul") if checks else body
    for told in checks:
        _add(listed, "li", told)
    return entry


def _told(sentence: str, verdict: str, estimate: str, interval: str) -> str:
    return f"{sentence.replace('_', ' ')}: {verdict}, {estimate}{f' [{interval}]' if interval else ''}"


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, {key: printable(value) for key, value in attributes.items()})
    element.text = None if text is None else printable(text)
    return element


def _date(finding: Finding) -> str:
    return f"{finding.date:%Y-%m-%dT%H:%M:%SZ}" if finding.date else EPOCH


def _origin(findings: Sequence[Finding]) -> list[str]:
    """What names the first of the findings for good: the run that it is of."""
    return [word for finding in findings[:1] for word in (finding.paper, finding.scale, finding.run)]


def _id(*words: str) -> str:
    return uuid.uuid5(VERDICTS, json.dumps(words)).urn
