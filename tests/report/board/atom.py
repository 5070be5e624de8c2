"""What RFC 4287 demands of a feed, written down from its text and the RELAX NG schema of its appendix B."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

A, X = "{http://www.w3.org/2005/Atom}", "{http://www.w3.org/1999/xhtml}"
COMMON = {"{http://www.w3.org/XML/1998/namespace}base", "{http://www.w3.org/XML/1998/namespace}lang"}
IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
REFERENCE = re.compile(r"[^\s<>\"{}|\\^`]*")
DATE = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
)
MEDIA = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
ONE, MAYBE, ANY = (1, 1), (0, 1), (0, 10**9)
FEED = {
    **dict.fromkeys(("id", "title", "updated"), ONE),
    **dict.fromkeys(("generator", "icon", "logo", "rights", "subtitle"), MAYBE),
    **dict.fromkeys(("author", "category", "contributor", "link", "entry"), ANY),
}
ENTRY = {
    **dict.fromkeys(("id", "title", "updated"), ONE),
    **dict.fromkeys(("content", "published", "rights", "source", "summary"), MAYBE),
    **dict.fromkeys(("author", "category", "contributor", "link"), ANY),
}
PERSON = {"name": ONE, "uri": MAYBE, "email": MAYBE}
LINK = {"href", "rel", "type", "hreflang", "title", "length"}


def wrong(text: str) -> list[str]:
    """Every rule that ``text`` breaks; none of a valid feed."""
    feed = ET.fromstring(text.encode())
    if feed.tag != f"{A}feed":
        return [f"the root is {feed.tag}"]
    entries = feed.findall(f"{A}entry")
    found = [*_container(feed, FEED), *(flaw for entry in entries for flaw in _entry(entry))]
    if not feed.findall(f"{A}author") and not all(entry.findall(f"{A}author") for entry in entries):
        found.append("neither the feed nor each entry has an author (4.1.1)")
    if [child.tag for child in feed][len(feed) - len(entries) :] != [f"{A}entry"] * len(entries):
        found.append("something of the feed's own stands after an entry")
    names = [(entry.findtext(f"{A}id"), entry.findtext(f"{A}updated")) for entry in entries]
    if len(set(names)) < len(names):
        found.append("two entries have the same id and date (4.1.1)")
    return found


def _entry(entry: ET.Element) -> Iterator[str]:
    yield from _container(entry, ENTRY)
    content = entry.find(f"{A}content")
    if content is None and "alternate" not in [link.get("rel", "alternate") for link in entry.findall(f"{A}link")]:
        yield "an entry has neither content nor an alternate link (4.1.2)"
    if content is not None and content.get("src") is not None and entry.find(f"{A}summary") is None:
        yield "content from elsewhere wants a summary (4.1.2)"


def _container(parent: ET.Element, allowed: dict[str, tuple[int, int]]) -> Iterator[str]:
    yield from _plain(parent, set())
    names = [child.tag.removeprefix(A) for child in parent]
    for name, (least, most) in allowed.items():
        if not least <= names.count(name) <= most:
            yield f"{names.count(name)} {name} in {parent.tag}"
    alternates = [
        (link.get("type"), link.get("hreflang"))
        for link in parent.findall(f"{A}link")
        if link.get("rel", "alternate") == "alternate"
    ]
    if len(set(alternates)) < len(alternates):
        yield "two alternate links of one type and language (4.1.1, 4.1.2)"
    for child, name in zip(parent, names, strict=True):
        if name not in allowed:
            yield f"{name} in {parent.tag}"
        elif name != "entry":
            yield from _child(child, name)


def _child(child: ET.Element, name: str) -> Iterator[str]:
    text = child.text or ""
    if name in ("title", "subtitle", "summary", "rights", "content"):
        yield from _text(child, name)
    elif name in ("author", "contributor"):
        yield from _plain(child, set())
        inside = [part.tag.removeprefix(A) for part in child]
        for part, (least, most) in PERSON.items():
            if not least <= inside.count(part) <= most:
                yield f"{inside.count(part)} {part} in a person (3.2)"
        yield from (f"{part} in a person" for part in inside if part not in PERSON)
    elif name == "link":
        yield from _plain(child, LINK)
        if child.get("href") is None or not REFERENCE.fullmatch(child.get("href", "")):
            yield "a link without a reference (4.2.7.1)"
        if not MEDIA.fullmatch(child.get("type", "text/html")):
            yield "a link's type is no media type (4.2.7.3)"
        if not (re.fullmatch(r"[\w-]+", child.get("rel", "alternate")) or IRI.fullmatch(child.get("rel", ""))):
            yield "a link's rel is neither a name nor an IRI (4.2.7.2)"
    elif name == "category":
        yield from _plain(child, {"term", "scheme", "label"})
        if child.get("term") is None:
            yield "a category without a term (4.2.2.1)"
    elif name in ("updated", "published"):
        yield from _plain(child, set(), text=True)
        if not DATE.fullmatch(text):
            yield f"{text!r} is no date (3.3)"
    elif name == "id":
        yield from _plain(child, set(), text=True)
        if not IRI.fullmatch(text):
            yield f"{text!r} is no absolute IRI (4.2.6)"


def _text(child: ET.Element, name: str) -> Iterator[str]:
    yield from _attributes(child, {"type", "src"} if name == "content" else {"type"})
    kind = child.get("type", "text")
    if kind == "xhtml":
        if [part.tag for part in child] != [f"{X}div"] or (child.text or "").strip():
            yield f"{name} of type xhtml holds one div and nothing else (3.1.1.3)"
        elif any(not part.tag.startswith(X) for part in child.iter() if part is not child):
            yield f"something that is no XHTML in {name}"
    elif kind in ("text", "html"):
        if len(child):
            yield f"{name} of type {kind} has elements inside (3.1.1)"
    elif name != "content" or not MEDIA.fullmatch(kind):
        yield f"{name} of type {kind} (3.1.1)"


def _plain(element: ET.Element, attributes: set[str], *, text: bool = False) -> Iterator[str]:
    yield from _attributes(element, attributes)
    if text and len(element):
        yield f"elements in {element.tag}"
    loose = [part for part in (element.text, *(child.tail for child in element)) if part and part.strip()]
    if loose and not text:
        yield f"loose text in {element.tag}: {loose[0].strip()}"


def _attributes(element: ET.Element, allowed: set[str]) -> Iterator[str]:
    yield from (f"attribute {name} of {element.tag}" for name in set(element.keys()) - COMMON - allowed)
