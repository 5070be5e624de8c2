"""Folders of images as squares of one side."""

from pathlib import Path

from PIL import Image

from throughline.claims.shared.square_images import square_images


def test_the_side_is_that_of_the_smallest_square(tmp_path: Path) -> None:
    for name, size in {"a/tall": (20, 31), "a/wide": (44, 18), "b/large": (50, 50)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert square_images(str(tmp_path), 256).images.shape == (3, 3, 18, 18)
    assert square_images(str(tmp_path), 10).images.shape == (3, 3, 10, 10)
