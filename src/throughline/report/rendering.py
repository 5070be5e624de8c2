"""What every page shares: templates that escape, numbers as a reader wants them, and texts that any file may hold."""

import math
import re

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

__all__ = ["number", "printable", "template"]

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def template(name: str) -> Template:
    """A template of ours, in which whatever comes from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("throughline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["words"] = lambda text: str(text).replace("_", " ")
    return environment.get_template(name)


def number(value: float | None) -> str:
    """A number as a reader wants it: four significant digits, no noise.

    >>> number(0.93142), number(1.2e-12), number(None), number(12345.6)
    ('0.9314', '1.2e-12', '–', '12346')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def printable(text: str) -> str:
    """Half characters and controls, which no SVG or feed may hold, spelt out.

    >>> printable("a\\x00b")
    'a\\\\x00b'
    """
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text.encode(errors="backslashreplace").decode())
