"""Folders of pictures: known pixels, and every defect that a folder can have."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

import throughline.data
from throughline.data import DataError, image_files, image_folder, read_image
from throughline.data.images import describe_images

OMNIGLOT = "omniglot/images_background_small1.zip", "omniglot/images_background_small2.zip"


def paint(file: Path, color: object = (255, 0, 0), size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(file)
    return file


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name, color in (("c10/b.png", 10), ("c2/img10.PNG", 30), ("c2/img2.jpg", 20), ("C3/a.bmp", 40)):
        paint(tmp_path / name, (color,) * 3)
    for ignored in (".cache/x.png", "c2/notes.txt", "c2/.hidden.png"):
        (tmp_path / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / ignored).write_text("no image")
    (tmp_path / "readme.md").write_text("no class")
    data = image_folder(tmp_path)
    assert data.classes == ("c2", "C3", "c10")
    assert data.labels.tolist() == [0, 0, 1, 2]
    assert (data.images[:, 0, 0, 0] * 255).round().int().tolist() == [20, 30, 40, 10]
    assert data.images.shape == (4, 3, 4, 4)
    assert data.images.dtype == torch.float32
    assert data.images.is_contiguous()


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (255, 51, 0), (1, 0.2, 0)),
        ("L", 51, (0.2, 0.2, 0.2)),
        ("1", 1, (1, 1, 1)),
        ("P", 0, (0, 0, 0)),
        ("RGBA", (255, 51, 0, 255), (1, 0.2, 0)),
        ("LA", (51, 255), (0.2, 0.2, 0.2)),
        ("I;16", 204 * 257, (0.8, 0.8, 0.8)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, color: object, expected: tuple[float, ...]) -> None:
    paint(tmp_path / "a" / "1.png", color, mode=mode)
    paint(tmp_path / "b" / "1.png")
    torch.testing.assert_close(image_folder(tmp_path).images[0, :, 2, 2], torch.tensor(expected, dtype=torch.float32))


def test_size_cuts_the_centre_and_resizes(tmp_path: Path) -> None:
    stripes = np.zeros((8, 16, 3), np.uint8)
    stripes[:, 2:14] = 255  # the centred square is white
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes).save(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / "1.png", (0, 0, 0), (3, 5))
    data = image_folder(tmp_path, size=4)
    assert data.images.shape == (2, 3, 4, 4)
    assert (data.images[0] == 1).all()
    assert (data.images[1] == 0).all()
    wide = image_folder(tmp_path, size=(2, 4)).images
    assert wide.shape == (2, 3, 2, 4)
    assert (wide[0, 0, :, 0] < wide[0, 0, :, 1]).all()  # the black ends are in it


def test_photographs_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    (tmp_path / "a").mkdir()
    Image.new("RGB", (6, 2)).save(tmp_path / "a" / "1.jpg", exif=exif)
    paint(tmp_path / "b" / "1.png", size=(2, 6))
    assert image_folder(tmp_path).images.shape == (2, 3, 6, 2)


def test_a_folder_without_two_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such folder; an image folder holds one folder"):
        image_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no class folders in it; put the images of each class"):
        image_folder(tmp_path)
    paint(tmp_path / "only" / "1.png")
    with pytest.raises(DataError, match=r"one class only \(only\)"):
        image_folder(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"an empty class folder, no images .* add some or remove it") as caught:
        image_folder(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: ")
    paint(tmp_path / "b" / "deeper" / "1.png")
    with pytest.raises(DataError, match=r"it holds folders: is it the one to give\?"):
        image_folder(tmp_path)


@pytest.mark.parametrize("defect", ["text", "empty", "cut", "floating point"])
def test_an_unreadable_image_is_named(tmp_path: Path, defect: str) -> None:
    paint(tmp_path / "a" / "1.png")
    file = tmp_path / "b" / ("1.tif" if defect == "floating point" else "1.png")
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(noise, "png")
    paint(file, 0.5, mode="F") if defect == "floating point" else paint(file)
    if defect != "floating point":
        file.write_bytes({"text": b"not an image", "empty": b"", "cut": noise.getvalue()[:5000]}[defect])
    with pytest.raises(DataError, match=r"not a readable image \(.*\); replace or remove it") as caught:
        image_folder(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / "1.png", size=(7, 5))
    with pytest.raises(
        DataError, match=r"1\.png: 5 × 7 pixels, the images before it have 4 × 4; bring them to one size"
    ):
        image_folder(tmp_path)


@pytest.mark.parametrize("size", [0, -1, (3, 0), (1, 2, 3)])
def test_a_bad_size_is_named(tmp_path: Path, size) -> None:
    with pytest.raises(ValueError, match="size must be a positive number of pixels or"):
        image_folder(tmp_path, size=size)


@pytest.mark.parametrize("suffix", ["jfif", "avif", "JPE", "tga", "jp2", "pbm", "webp", "ico", "tiff"])
def test_every_suffix_that_pillow_opens_counts(tmp_path: Path, suffix: str) -> None:
    if f".{suffix}".lower() == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    for name in (f"a/1.{suffix}", "a/0.png", "b/0.png"):
        paint(tmp_path / name, size=(16, 16), mode="1" if suffix == "pbm" and name.endswith("pbm") else "RGB", color=1)
    assert image_folder(tmp_path).labels.tolist() == [0, 0, 1]
    assert len(image_files(tmp_path)) == 3


def test_what_is_no_picture_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        paint(tmp_path / name)
    for name in ("a/film.mpg", "a/values.h5", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"no image")
    assert image_folder(tmp_path).labels.tolist() == [0, 1, 1]
    assert describe_images(tmp_path) == f"{tmp_path.name}: 3 images in 2 classes (a 1, b 2); 3 other files left out"


def test_loose_and_nested_images_are_said_with_numbers(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "loose.png", "b/deep/1.png", "b/deep/er/2.jfif"):
        paint(tmp_path / name)
    left = r"images left out, 1 beside the class folders and 2 in folders within them"
    with pytest.warns(UserWarning, match=f"{left}: put them into a class folder or elsewhere") as caught:
        assert len(image_folder(tmp_path).images) == 2
    assert caught[0].filename == __file__
    assert describe_images(tmp_path).endswith(f"2 images in 2 classes (a 1, b 1); {left}")
    (tmp_path / "loose.png").unlink()
    with pytest.warns(UserWarning, match="images left out, 2 in folders within them: put"):
        image_folder(tmp_path)


def test_loose_images_alone_are_counted(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")
    with pytest.raises(DataError, match="no class folders and 1 image of no class in it; put the images of each class"):
        image_folder(tmp_path)


def test_heic_is_said(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / "1.png")
    for name in ("b/IMG_1.HEIC", "b/IMG_2.heif"):
        (tmp_path / name).write_bytes(b"from a telephone")
    for read in (image_folder, image_files, describe_images):
        with pytest.raises(DataError, match=r"IMG_\d\.\w+: a picture in HEIC, .* one of 2; convert them to JPEG"):
            read(tmp_path)


def test_heic_is_read_where_a_plugin_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.png", "b/1.png"):
        paint(tmp_path / name)
    (tmp_path / "b" / "1.png").rename(tmp_path / "b" / "1.heic")
    monkeypatch.setitem(Image.EXTENSION, ".heic", "PNG")
    assert len(image_folder(tmp_path).images) == 2


def png(file: Path, width: int, height: int) -> Path:
    """The head of a PNG of that size; what comes behind it is not read before the size is refused."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    file.write_bytes(content + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    return file


def test_an_image_of_400_megapixels_is_refused_in_one_line(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / "1.png")
    file = png(tmp_path / "b" / "2.png", 20_000, 20_000)
    for read in (lambda: image_folder(tmp_path, size=4), lambda: read_image(file, 4)):
        with pytest.raises(DataError, match=r"2\.png: more than 178,956,970 pixels; make the image smaller") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_panorama_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(paint(tmp_path / "wide.png", size=(15, 10)), 4).shape == (3, 4, 4)


def test_a_size_may_be_a_number_of_numpy_or_a_list(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        paint(tmp_path / name)
    assert image_folder(tmp_path, size=np.int64(3)).images.shape == (2, 3, 3, 3)
    assert image_folder(tmp_path, size=[2, 3]).images.shape == (2, 3, 2, 3)
    with pytest.raises(ValueError, match=r"size must be a positive number of pixels or \(height, width\), got 2\.5"):
        image_folder(tmp_path, size=2.5)


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match=r"module 'throughline\.data' has no attribute 'imagenet'"):
        throughline.data.imagenet  # noqa: B018
    assert "mnist" in dir(throughline.data)
    for name in throughline.data.__all__:
        assert getattr(throughline.data, name)


def test_images_without_labels_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("b/img10.png", "b/img2.png", "a/deep/x.png", "loose.png", ".hidden/y.png", "b/.z.png"):
        paint(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    found = [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)]
    assert found == ["a/deep/x.png", "b/img2.png", "b/img10.png", "loose.png"]
    image = read_image(paint(tmp_path / "wide.png", (255, 0, 51), (9, 5)), 4)
    assert image.shape == (3, 4, 4)
    assert image[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    with pytest.raises(DataError, match="no such folder"):
        image_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images \(\.bmp, .* in it or below"):
        image_files(tmp_path / "empty")
