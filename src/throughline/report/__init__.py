"""Reports: one self-contained HTML file per run, its figures as files, and a board over all runs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughline.report.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # with Matplotlib, which the board does without
        return getattr(importlib.import_module("throughline.report.page"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
