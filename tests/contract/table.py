"""The table of the contract suite: every public part in a few lines, gathered from `rows`. Parts know nothing of it."""

import importlib
from pathlib import Path

from tests.contract.part import Part

PARTS: list[Part] = []
NOT_PARTS: dict[str, str] = {}  # public names that are no parts, each with the reason

for file in sorted((Path(__file__).parent / "rows").glob("*.py")):
    rows = importlib.import_module(f"tests.contract.rows.{file.stem}")
    PARTS += rows.PARTS
    NOT_PARTS |= getattr(rows, "NOT_PARTS", {})
