"""Real data: sets embedded in scikit-learn, downloads with checksums, and the user's own tables and image folders."""

import importlib
from typing import TYPE_CHECKING, Any

from throughline.data.download import DataError, Entry, Row, Status, describe, entries, fetch, folders, locate, verify
from throughline.data.source import Source
from throughline.data.splits import standardize, stratified_split
from throughline.data.tables import Table, binary, embedded, read_table, read_unlabelled

if TYPE_CHECKING:
    from throughline.data.images import Images, Omniglot, digits, image_files, image_folder, mnist, omniglot, read_image

__all__ = [
    "DataError",
    "Entry",
    "Images",
    "Omniglot",
    "Row",
    "Source",
    "Status",
    "Table",
    "binary",
    "describe",
    "digits",
    "embedded",
    "entries",
    "fetch",
    "folders",
    "image_files",
    "image_folder",
    "locate",
    "mnist",
    "omniglot",
    "read_image",
    "read_table",
    "read_unlabelled",
    "standardize",
    "stratified_split",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # images are tensors: torch loads when the first of these is touched
        return getattr(importlib.import_module("throughline.data.images"), name)
    raise AttributeError(f"module 'throughline.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
