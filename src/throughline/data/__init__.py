"""Real data: sets embedded in scikit-learn, downloads with checksums, planar instances and signals as the field draws
them, and the user's own tables, ratings, images, people, points, signals, meshes, simulations, videos and clips.
"""

import importlib
from typing import TYPE_CHECKING, Any

from throughline.data.clips import DetectedClip, read_clips
from throughline.data.download import DataError, Entry, Row, Status, describe, entries, fetch, folders, locate, verify
from throughline.data.people import Person, read_people
from throughline.data.ratings import Ratings, read_ratings
from throughline.data.source import Source
from throughline.data.splits import standardize, stratified_split
from throughline.data.tables import Table, binary, embedded, read_table, read_unlabelled
from throughline.data.videos import LabelledVideo, read_videos

if TYPE_CHECKING:
    from throughline.data.images import Images, Omniglot, digits, image_files, image_folder, mnist, omniglot, read_image
    from throughline.data.meshes import Mesh, read_mesh, read_meshes
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
    from throughline.data.signals import Signals, mnist1d, read_signals
    from throughline.data.simulations import Simulation, read_simulation

__all__ = [
    "DataError",
    "DetectedClip",
    "Entry",
    "Images",
    "LabelledVideo",
    "Mesh",
    "Omniglot",
    "Person",
    "PlanarBatch",
    "Ratings",
    "Row",
    "Signals",
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
    "mnist1d",
    "omniglot",
    "read_clips",
    "read_image",
    "read_mesh",
    "read_meshes",
    "read_people",
    "read_planar",
    "read_ratings",
    "read_signals",
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

IMAGES = ("Images", "Omniglot", "digits", "image_files", "image_folder", "mnist", "omniglot", "read_image")
LATER = {  # these are tensors: torch loads when the first of them is touched
    **dict.fromkeys(IMAGES, "images"),
    **dict.fromkeys(("Mesh", "read_mesh", "read_meshes"), "meshes"),
    **dict.fromkeys(("Signals", "mnist1d", "read_signals"), "signals"),
    **dict.fromkeys(("Simulation", "read_simulation"), "simulations"),
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = LATER.get(name, "planar")
        return getattr(importlib.import_module(f"throughline.data.{module}"), name)
    raise AttributeError(f"module 'throughline.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
