"""Labels of a folder of videos: what is read, and what is refused before anything is decoded."""

from pathlib import Path

import pytest

from throughline.data import DataError, Source, read_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"not decoded here")
    (tmp_path / "labels.csv").write_text("file,bpm,subject\na.mp4,71.5,1\nb.mp4,90,2\n")
    (tmp_path / "a.mp4.pulse.csv").write_text("time,value\n0,0.5\n0.02,0.75\n0.05,0.1\n")
    return tmp_path


def test_reads_labels_and_waveforms(folder: Path) -> None:
    first, second = Source.of(folder).videos()
    assert (first.path, first.bpm, first.subject) == (folder / "a.mp4", 71.5, "1")
    assert first.pulse is not None
    assert first.pulse.tolist() == [[0, 0.02, 0.05], [0.5, 0.75, 0.1]]
    assert (second.bpm, second.subject, second.pulse) == (90, "2", None)


def test_without_subjects_every_file_is_one(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,bpm\na.mp4,71\nb.mp4,90\n")
    assert [video.subject for video in Source.of(folder).videos()] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, r"no labels\.csv in this folder; give one with the columns file and bpm"),
        ("file,rate\na.mp4,71\n", r"labels\.csv: no column bpm, the columns are file, rate"),
        ("name,bpm\na.mp4,71\n", r"labels\.csv: no column file"),
        ("file,bpm\nc.mp4,71\n", r"labels\.csv: c\.mp4 is listed, and there is no such file"),
        ("file,bpm\na.mp4,0\n", r"labels\.csv: a\.mp4 must have a rate from 20 to 250 beats per minute, got 0"),
        ("file,bpm\na.mp4,\nb.mp4,70\n", r"a\.mp4 must have a rate"),
        ("file,bpm\na.mp4,fast\n", r"a\.mp4 must have a rate .* got fast"),
        ("file,bpm\na.mp4,71\na.mp4,72\n", r"labels\.csv: two rows are about a\.mp4; keep one"),
    ],
)
def test_labels_that_cannot_be(folder: Path, labels: str | None, match: str) -> None:
    if labels is None:
        (folder / "labels.csv").unlink()
    else:
        (folder / "labels.csv").write_text(labels)
    with pytest.raises(DataError, match=match):
        Source.of(folder).videos()


@pytest.mark.parametrize(
    ("pulse", "match"),
    [
        ("seconds,value\n0,1\n1,2\n", "the columns time and value are wanted, got seconds, value"),
        ("time,value\n0,1\n", "two rows or more are wanted"),
        ("time,value\n0,1\n1,up\n", "a value is not a number"),
        ("time,value\n0,1\n0,2\n", "times that increase"),
        ("time,value\n0,1\n1,\n", "finite"),
    ],
)
def test_waveforms_that_cannot_be(folder: Path, pulse: str, match: str) -> None:
    (folder / "a.mp4.pulse.csv").write_text(pulse)
    with pytest.raises(DataError, match=match):
        Source.of(folder).videos()


@pytest.mark.parametrize("way", ["../c.mp4", "absolute", "link"])
def test_no_file_outside_of_the_folder_is_read(folder: Path, way: str) -> None:
    inside = folder / "faces"
    inside.mkdir()
    outside = folder / "c.mp4"
    outside.write_bytes(b"not decoded here")
    name = {"absolute": str(outside)}.get(way, way)
    if way == "link":
        (inside / "link").symlink_to(outside)
    (inside / "labels.csv").write_text(f"file,bpm\n{name},71\n")
    with pytest.raises(
        DataError, match=r"labels\.csv: .*(c\.mp4|link) lies outside of the folder; put the video into it"
    ):
        Source(str(inside)).videos()


def test_no_waveform_outside_of_the_folder_is_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "pulse.csv"
    (folder / "a.mp4.pulse.csv").rename(outside)
    (folder / "a.mp4.pulse.csv").symlink_to(outside)
    with pytest.raises(DataError, match=r"a\.mp4\.pulse\.csv lies outside of the folder"):
        Source.of(folder).videos()


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "faces"
    link.symlink_to(folder, target_is_directory=True)
    assert len(read_videos(link)) == 2


def test_a_link_within_the_folder_is_a_video(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "a.mp4").rename(folder / "more" / "a.mp4")
    (folder / "a.mp4").symlink_to(folder / "more" / "a.mp4")
    assert len(Source.of(folder).videos()) == 2
