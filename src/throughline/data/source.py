"""What a user puts under a claim, a file or a folder and how to read it, with a digest of its content."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from throughline.data.download import DataError, resolve, sha256
from throughline.data.frames import TABLE_FILES, notes, read_frame
from throughline.data.tables import Table, binary, read_table, table_of

if TYPE_CHECKING:
    import pandas as pd

    from throughline.data.clips import DetectedClip
    from throughline.data.images import Images
    from throughline.data.meshes import Mesh
    from throughline.data.people import Person
    from throughline.data.planar import PlanarBatch
    from throughline.data.ratings import Ratings
    from throughline.data.signals import Signals
    from throughline.data.simulations import Simulation
    from throughline.data.videos import LabelledVideo

__all__ = ["KINDS", "Kind", "Source", "content_digest", "files_of"]

Kind = Literal[
    "table",
    "binary",
    "planar",
    "ratings",
    "text",
    "images",
    "tables",
    "simulation",
    "videos",
    "people",
    "signals",
    "meshes",
    "clips",
]  # what a path can be read as
KINDS: dict[Kind, str] = {
    "table": "a table",
    "binary": "a table of two classes",
    "planar": "a file of planar points",
    "ratings": "a table of ratings",
    "text": "a text file",
    "images": "an image folder",
    "tables": "a folder of tables",
    "simulation": "a folder of meshes and values at their nodes",
    "videos": "a folder of videos with labels.csv",
    "people": "a folder of people with parsing and keypoints",
    "signals": "a .npz of signals and their classes",
    "meshes": "a folder of closed meshes",
    "clips": "a folder of clips of keypoints (.npz)",
}
SIGNAL_FILES = (".npz",)


@dataclass(frozen=True)
class Source:
    """A file or folder of data and how to read it; `Source.of` makes one and computes its digest."""

    path: str  # absolute, or a registry key
    target: str | None = None  # of a table: name or index of the label column, the last by default
    size: int | None = None  # of images: pixels on a side
    digest: str = ""  # SHA-256 of the content
    positive: str | None = None  # of a table of two classes: the label to be found; the rarer one by default

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        target: str | None = None,
        size: int | None = None,
        *,
        positive: str | None = None,
    ) -> "Source":
        """Return the source of a file, a folder or a registry key.

        Raises:
            DataError: there is none, it is neither table, text nor folder, or ``target``, ``positive`` or ``size`` does
                not fit it.
        """
        place = resolve(path)
        folder = place.is_dir()
        signals = not folder and place.suffix.lower() in SIGNAL_FILES
        if not folder and not signals and place.suffix.lower() not in TABLE_FILES:
            raise DataError(f"{place}: neither a table ({', '.join(TABLE_FILES)}) nor an image folder; give either")
        if folder and target is not None:
            raise DataError(f"{place}: a target column ({target!r}) is for tables, and this is a folder; leave it out")
        if folder and positive is not None:
            raise DataError(
                f"{place}: a positive class ({positive!r}) is for tables, and this is a folder; leave it out"
            )
        if signals and (target, positive) != (None, None):
            raise DataError(f"{place}: a target or positive class is for tables, and this is a .npz; leave it out")
        if not folder and size is not None:
            raise DataError(f"{place}: an image size ({size}) is for image folders, and this is a file; leave it out")
        if size is not None and size < 1:
            raise DataError(f"{place}: an image size must be a positive number of pixels, got {size}")
        registered = not Path(path).expanduser().exists()
        name = os.fspath(path) if registered else str(place.resolve())
        return cls(name, target, size, positive=positive, digest=content_digest(place))

    def check_unchanged(self) -> None:
        """Compare the content with the digest.

        Raises:
            DataError: it is another content, or gone.
        """
        if self.digest and content_digest(resolve(self.path)) != self.digest:
            raise DataError(
                f"{self.path}: its content is not what the run was started with; restore it, or start a run of the new "
                "content with the same command"
            )

    @property
    def kind(self) -> Literal["table", "images", "signals"]:
        """What it holds at first sight: "images" for a folder, "signals" for a .npz, "table" for another file or a
        registry key."""
        if Path(self.path).suffix.lower() in SIGNAL_FILES and not Path(self.path).is_dir():
            return "signals"
        return "images" if Path(self.path).is_dir() else "table"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All that it can be read as; whether the content agrees, its reader says."""
        if self.kind == "images":
            return ("images", "tables", "simulation", "videos", "people", "meshes", "clips")
        if self.kind == "signals":
            return ("signals",)
        text: tuple[Kind, ...] = ("text",) if Path(self.path).suffix.lower() == ".txt" else ()
        return ("table", "binary", "planar", "ratings", *text)

    def described(self, kind: Kind) -> str:
        """What is read of it as a kind, and what is left out, in one line."""
        if kind in ("table", "binary"):
            file = resolve(self.path)
            frame = read_frame(file)
            table = table_of(file, frame, self.target)
            if kind == "binary":
                binary(table, self.positive)  # says what is wrong with the classes, if something is
            return "; ".join([table.described(self.positive), *notes(frame)])
        if kind == "images":
            from throughline.data.images import describe_images

            return describe_images(self.path)
        if kind == "ratings":
            return self.ratings().described()
        return f"{Path(self.path).name}: {self._counted(kind)}"

    def _counted(self, kind: Kind) -> str:
        if kind == "text":
            return f"a text of {len(self.text()):,} characters"
        if kind == "tables":
            rows = [f"{name} {len(frame):,} rows" for name, frame in self.tables().items()]
            return f"{len(rows):,} tables ({', '.join(rows[:6])}{', …' * (len(rows) > 6)})"
        if kind == "videos":
            videos = self.videos()
            waves = sum(video.pulse is not None for video in videos)
            people = len({video.subject for video in videos})
            return f"{len(videos):,} videos of {people:,} subjects, {waves:,} with a waveform"
        if kind == "people":
            persons = self.people()
            known = sum(person.joints is not None for person in persons)
            return f"{len(persons):,} people, {known:,} with the body in 3D"
        if kind == "clips":
            clips = self.clips()
            frames = sum(len(clip.keypoints) for clip in clips)
            known = sum(clip.joints3d is not None for clip in clips)
            return f"{len(clips):,} clips of {frames:,} frames, {known:,} with joints in space"
        if kind == "signals":
            signals = self.signals()
            count, channels, length = signals.signals.shape
            return f"{count:,} signals of {channels:,} × {length:,} in {len(signals.classes):,} classes"
        if kind == "meshes":
            sizes = [f"{mesh.name} {len(mesh.faces):,} faces" for mesh in self.meshes()]
            return f"{len(sizes):,} closed meshes ({', '.join(sizes[:6])}{', …' * (len(sizes) > 6)})"
        if kind == "simulation":
            meshes, inputs, _ = self.simulation()
            nodes = ", ".join(f"{mesh.p.shape[1]:,}" for mesh in meshes)
            return f"{len(inputs):,} simulations; meshes of {nodes} nodes"
        lengths = self.planar().lengths
        return f"{len(lengths):,} instances of {int(lengths.min()):,} to {int(lengths.max()):,} points"

    def table(self) -> Table:
        """Read the table; `throughline.data.read_table` says how."""
        return read_table(self.path, self.target)

    def text(self) -> str:
        """Read the whole text, which must be UTF-8 and not empty."""
        try:
            content = resolve(self.path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"({error.reason} at byte {error.start})"
            raise DataError(f"{self.path}: not UTF-8 text {where}; save it as UTF-8") from error
        if not content.strip():
            raise DataError(f"{self.path}: the file is empty; give one with text")
        return content

    def tables(self) -> "dict[str, pd.DataFrame]":
        """Read every table that lies in the folder, by file name without suffix, in their order."""
        files = sorted(f for f in Path(self.path).iterdir() if f.suffix.lower() in TABLE_FILES and f.name[0] != ".")
        if not files:
            raise DataError(f"{self.path}: no table in this folder ({', '.join(TABLE_FILES)}); give one with some")
        names = [file.stem for file in files]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{self.path}: two tables are named {twice}; rename one")
        return {file.stem: read_frame(file) for file in files}

    def simulation(self) -> "Simulation":
        """Read meshes and nodal values; `throughline.data.read_simulation` says how."""
        from throughline.data.simulations import read_simulation

        return read_simulation(self.path)

    def meshes(self) -> "list[Mesh]":
        """Read the meshes of a folder; `throughline.data.read_meshes` says how."""
        from throughline.data.meshes import read_meshes

        return read_meshes(self.path)

    def videos(self) -> "list[LabelledVideo]":
        """Read the labels of a folder of videos; `throughline.data.read_videos` says how."""
        from throughline.data.videos import read_videos

        return read_videos(self.path)

    def people(self) -> "list[Person]":
        """Read a folder of people; `throughline.data.read_people` says how."""
        from throughline.data.people import read_people

        return read_people(self.path)

    def clips(self) -> "list[DetectedClip]":
        """Read a folder of clips; `throughline.data.read_clips` says how."""
        from throughline.data.clips import read_clips

        return read_clips(self.path)

    def signals(self) -> "Signals":
        """Read a .npz of signals and their classes; `throughline.data.read_signals` says how."""
        from throughline.data.signals import read_signals

        return read_signals(self.path)

    def planar(self) -> "PlanarBatch":
        """Read a file of planar instances; `throughline.data.read_planar` says how."""
        from throughline.data.planar import read_planar

        self._check_no_target()
        return read_planar(self.path)

    def ratings(self) -> "Ratings":
        """Read a table of ratings; `throughline.data.read_ratings` says how."""
        from throughline.data.ratings import read_ratings

        self._check_no_target()
        return read_ratings(self.path)

    def _check_no_target(self) -> None:
        if self.target is not None:
            raise DataError(f"{self.path}: a target column ({self.target!r}) is for tables of features; leave it out")

    def images(self) -> "Images":
        """Read the image folder; `throughline.data.image_folder` says how."""
        from throughline.data.images import image_folder

        return image_folder(self.path, size=self.size)


def content_digest(place: Path) -> str:
    """Return the SHA-256 of a file, or of a folder over the ``sha256sum`` lines of `files_of` it in byte order."""
    if not place.is_dir():
        return sha256(place)
    named = sorted((os.fsencode(f"./{file.relative_to(place).as_posix()}"), file) for file in files_of(place))
    total = hashlib.sha256()
    for name, file in named:
        total.update(sha256(file).encode() + b"  " + name + b"\n")
    return total.hexdigest()


def files_of(folder: Path) -> list[Path]:
    """Return all files in and below a folder that count: hidden ones, and what is in hidden folders, do not."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return found
