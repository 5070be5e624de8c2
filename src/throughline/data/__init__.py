"""Real data: sets embedded in scikit-learn, downloads with checksums, planar instances as the field draws them, and the
user's own tables, ratings, images, points, simulations and videos.
"""

import importlib
from typing import TYPE_CHECKING, Any

from throughline.data.download import DataError, Entry, Row, Status, describe, entries, fetch, folders, locate, verify
from throughline.data.ratings import Ratings, read_ratings
from throughline.data.source import Source
from throughline.data.splits import standardize, stratified_split
from throughline.data.tables import Table, binary, embedded, read_table, read_unlabelled
from throughline.data.videos import LabelledVideo, read_videos

if TYPE_CHECKING:
    from throughline.data.images import Images, Omniglot, digits, image_files, image_folder, mnist, omniglot, read_image
    from throughline.data.planar import (
        PlanarBatch,
        convex_hull,
        delaunay,
        hull_scores,
        label_planar,
        make_planar,
        read_planar,
        solve_tsp,
        tour_length,
        triangulation_scores,
    )
    from throughline.data.simulations import Simulation, read_simulation

__all__ = [
    "DataError",
    "Entry",
    "Images",
    "LabelledVideo",
    "Omniglot",
    "PlanarBatch",
    "Ratings",
    "Row",
    "Simulation",
    "Source",
    "Status",
    "Table",
    "binary",
    "convex_hull",
    "delaunay",
    "describe",
    "digits",
    "embedded",
    "entries",
    "fetch",
    "folders",
    "hull_scores",
    "image_files",
    "image_folder",
    "label_planar",
    "locate",
    "make_planar",
    "mnist",
    "omniglot",
    "read_image",
    "read_planar",
    "read_ratings",
    "read_simulation",
    "read_table",
    "read_unlabelled",
    "read_videos",
    "solve_tsp",
    "standardize",
    "stratified_split",
    "tour_length",
    "triangulation_scores",
    "verify",
]

IMAGES = {"Images", "Omniglot", "digits", "image_files", "image_folder", "mnist", "omniglot", "read_image"}
SIMULATIONS = {"Simulation", "read_simulation"}


def __getattr__(name: str) -> Any:
    if name in __all__:  # images and planar points are tensors: torch loads when the first of these is touched
        module = "images" if name in IMAGES else "simulations" if name in SIMULATIONS else "planar"
        return getattr(importlib.import_module(f"throughline.data.{module}"), name)
    raise AttributeError(f"module 'throughline.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
