"""read_video on real files: what it cuts out, whose clock it takes, and what it refuses."""

import math
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.sensing.pulse import heart_rate, pos, pulse_snr, read_video, synthetic_pulse_video
from throughline.sensing.pulse import video as _pulse_video

av = pytest.importorskip("av")
WIDTH, HEIGHT = 48, 32


def pictures(count: int = 30, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(
    path: Path,
    images: np.ndarray,
    *,
    fs: int = 30,
    times: list[int] | None = None,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write a lossless video; ``times`` are milliseconds."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=fs, options=options or {})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def mp4(path: Path, images: np.ndarray, **container: str) -> Path:
    return write(path, images, codec="libx264rgb", pixels="rgb24", options={"crf": "0"}, container=container)


def tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(3, 0, 1, 2).float() / 255


# ---- pixels ----


def test_the_whole_frame_comes_back(tmp_path: Path) -> None:
    images = pictures()
    for path in (write(tmp_path / "a.mkv", images), mp4(tmp_path / "a.mp4", images)):
        frames, fs = read_video(path, size=(HEIGHT, WIDTH))
        torch.testing.assert_close(frames, tensor(images))
        assert fs == pytest.approx(30, rel=1e-3)  # Matroska stamps are milliseconds


@pytest.mark.parametrize("box", [(0, 0, 48, 32), (8, 4, 32, 24), (16, 0, 32, 32)])
def test_pixels_are_means_over_areas(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    images = pictures(5)
    frames, _ = read_video(write(tmp_path / "a.mkv", images), size=(8, 16), box=box)
    x, y, w, h = box
    part = tensor(images)[..., y : y + h, x : x + w].transpose(0, 1)
    torch.testing.assert_close(frames, F.interpolate(part, (8, 16), mode="area").transpose(0, 1), atol=1e-5, rtol=0)


def test_a_fraction_of_a_pixel_counts_as_a_fraction() -> None:
    shares = _pulse_video._shares(0.5, 2.0, 2, 3)
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]))
    torch.testing.assert_close(_pulse_video._shares(0.3, 6.4, 5, 7).sum(1), torch.ones(5))


def test_frames_are_turned_as_the_phone_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The display matrix cannot be written here; a file with one is read through the same attribute."""
    images = pictures(3)
    path = write(tmp_path / "a.mkv", images)
    decode = av.container.InputContainer.decode

    class Turned:
        def __init__(self, frame: Any, rotation: int) -> None:
            self.frame, self.rotation, self.time = frame, rotation, frame.time

        def to_ndarray(self, format: str) -> np.ndarray:
            return self.frame.to_ndarray(format=format)

    class Opened:
        def __init__(self, real: Any) -> None:
            self.real, self.streams, self.duration, self.format = real, real.streams, real.duration, real.format

        def __enter__(self) -> "Opened":
            return self

        def __exit__(self, *rest: object) -> None:
            self.real.close()

        def decode(self, stream: Any) -> Any:
            return (Turned(frame, -90) for frame in decode(self.real, stream))

    opened = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: Opened(opened(*a, **k)))
    frames, _ = read_video(path, size=(WIDTH, HEIGHT))
    torch.testing.assert_close(frames, torch.rot90(tensor(images), -1, (2, 3)))


def test_only_one_frame_is_held_at_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decode = write(tmp_path / "a.mkv", pictures(20)), _pulse_video._decode
    seen: list[Any] = []
    alive: list[int] = []

    def counted(name: Any) -> Any:
        for time, image in decode(name):
            copy = image.copy()
            seen.append(weakref.ref(copy))
            del image
            yield time, copy
            alive.append(sum(one() is not None for one in seen))

    monkeypatch.setattr(_pulse_video, "_decode", counted)
    frames, _ = read_video(path, size=(4, 4))
    assert max(alive) <= 2  # the one at hand, and the one that its successor replaces
    assert len(alive) == 20
    assert frames.untyped_storage().nbytes() == 3 * 20 * 16 * 4


def test_one_number_is_both_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", pictures(3))
    for size in (6, np.int64(6), [6, 6]):
        assert torch.equal(read_video(path, size=size)[0], read_video(path, size=(6, 6))[0])


def test_a_box_over_the_edge_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", pictures(5))
    for over, inside in (((-3, 0, 30, 30), (0, 0, 27, 30)), ((40, -2.5, 20, 60), (40, 0, 8, 32))):
        expected, _ = read_video(path, size=8, box=inside)
        torch.testing.assert_close(read_video(path, size=8, box=over)[0], expected)
        torch.testing.assert_close(read_video(path, size=8, box=lambda _, box=over: box)[0], expected)


# ---- boxes of a detector ----


def ramps() -> np.ndarray:
    """Three seconds that grow brighter to the right."""
    return np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[None, None, :, None], (90, 32, 48, 3)).copy()


def test_detected_boxes_are_smoothed(tmp_path: Path) -> None:
    """A jittering box over a ramp of brightness looks like a pulse; smoothed it does so much less."""
    path, draw = write(tmp_path / "a.mkv", ramps()), np.random.default_rng(0)
    jitter = [(10 + int(dx), 4, 20, 20) for dx in draw.integers(-2, 3, 90)]
    boxes = iter(jitter)
    seen: list[np.ndarray] = []

    def detect(image: np.ndarray) -> tuple[int, ...]:
        seen.append(image)
        return next(boxes)

    frames, _ = read_video(path, size=(8, 8), box=detect)
    assert len(seen) == 90
    assert (seen[0].dtype, seen[0].shape) == (np.uint8, (32, 48, 3))
    raw = np.std([5 * box[0] / 255 for box in jitter])
    assert float(frames.mean((0, 2, 3))[30:].std()) < 0.3 * raw
    still = iter([(10, 4, 20, 20)] * 90)
    fixed, _ = read_video(path, size=(8, 8), box=(10, 4, 20, 20))
    torch.testing.assert_close(read_video(path, size=(8, 8), box=lambda _: next(still))[0], fixed)


def test_a_moving_box_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", ramps())
    boxes = iter([(0, 0, 16, 16)] * 30 + [(30, 10, 16, 16)] * 60)
    frames, _ = read_video(path, size=(16, 16), box=lambda _: next(boxes))
    late, _ = read_video(path, size=(16, 16), box=(30, 10, 16, 16))
    assert (frames[:, -1] - late[:, -1]).abs().mean() < 0.02  # two seconds later


def test_no_face(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", pictures(20))
    with pytest.raises(ValueError, match="box: the detector found no face in any frame of"):
        read_video(path, box=lambda _: None)
    answers = iter([None] * 5 + [(0, 0, 8, 8)] + [None] * 14)
    frames, fs = read_video(path, size=(8, 8), box=lambda _: next(answers))
    assert frames.shape == (3, 15, 8, 8)
    assert fs == pytest.approx(30, rel=3e-3)
    torch.testing.assert_close(frames, read_video(path, size=(8, 8), box=(0, 0, 8, 8))[0][:, 5:])


# ---- time ----


def test_the_rate_is_that_of_the_time_stamps(tmp_path: Path) -> None:
    """A file that says 30 and holds 20: a rate of 80 bpm would be read as 120."""
    times = [50 * n for n in range(100)]
    path = write(tmp_path / "a.mkv", pictures(100), fs=30, times=times)
    assert read_video(path, size=(4, 4))[1] == pytest.approx(20, rel=1e-3)


def test_uneven_frames_are_resampled(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    times = np.cumsum(draw.choice([25, 33, 60], 200)).tolist()
    grey = [round(120 + 100 * math.sin(2 * math.pi * 1.3 * t / 1000)) for t in times]
    images = np.broadcast_to(np.array(grey, np.uint8)[:, None, None, None], (200, 16, 16, 3)).copy()
    path = write(tmp_path / "a.mkv", images, times=times)
    frames, fs = read_video(path, size=(2, 2), fs=25.0)
    assert fs == 25
    stamps = (np.array(times) - times[0]) / 1000
    wanted = np.arange(frames.shape[1]) / 25
    assert 0 <= stamps[-1] - wanted[-1] < 1 / 25
    expected = np.interp(wanted, stamps, np.array(grey) / 255)
    np.testing.assert_allclose(frames[0, :, 0, 0].numpy(), expected, atol=1e-5)
    assert float(heart_rate(frames[0, :, 0, 0], fs)) == pytest.approx(78, abs=1)


def test_rates_as_files_have_them(tmp_path: Path) -> None:
    path, fs = write(tmp_path / "a.mkv", pictures(20)), Fraction(30000, 1001)
    found, rate = read_video(path, size=4, fs=fs)
    torch.testing.assert_close(found, read_video(path, size=4, fs=float(fs))[0], rtol=0, atol=0)
    assert (type(rate), rate) == (float, float(fs))


def trimmed(path: Path, to: Path, seconds: float) -> Path:
    """Cut without encoding anew, as phones do: samples ahead of time zero stay in the file."""
    with av.open(str(path)) as source, av.open(str(to), "w", options={"movflags": "faststart"}) as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old)
        for packet in source.demux(old):
            if packet.dts is not None:
                shift = round(seconds / old.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, new
                target.mux(packet)
    return to


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(("codec", "pixels"), [("libx264rgb", "rgb24"), ("mpeg4", "yuv420p")])
def test_frames_before_the_cut_are_not_missing(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    whole = write(tmp_path / f"whole.{suffix}", pictures(60), codec=codec, pixels=pixels)
    frames, fs = read_video(trimmed(whole, tmp_path / f"cut.{suffix}", 0.5), size=(HEIGHT, WIDTH))
    assert frames.shape[1] == 45
    assert fs == pytest.approx(30, rel=1e-6)
    torch.testing.assert_close(frames, read_video(whole, size=(HEIGHT, WIDTH))[0][:, 15:])
    kept = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match=r"cut off, \d+ of its 45 frames|damaged"):
        read_video(tmp_path / f"half.{suffix}")


def test_home_is_where_the_tilde_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.mkv", pictures(3))
    assert read_video("~/a.mkv", size=4)[0].shape == (3, 3, 4, 4)
    with pytest.raises(FileNotFoundError, match=r"~/b\.mkv: no such file"):
        read_video("~/b.mkv")


# ---- from a file to a rate ----


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_pulse_of_a_generated_face_survives_the_file(tmp_path: Path, suffix: str) -> None:
    made = synthetic_pulse_video(
        1, frames=300, size=48, motion=0.0, light=0.05, melanin=(0, 0.2), generator=torch.Generator().manual_seed(0)
    )
    images = (made["frames"][0] * 255).round().byte().permute(1, 2, 3, 0).numpy()
    path = (write if suffix == "mkv" else mp4)(tmp_path / f"face.{suffix}", images)
    frames, fs = read_video(path, size=(12, 12), box=(12, 8, 24, 32))
    pulse = pos(frames.mean((-1, -2)).T, fs)
    rate = heart_rate(pulse, fs)
    assert float(rate) == pytest.approx(float(made["bpm"]), abs=1.5)
    assert pulse_snr(pulse, fs, rate) > 0


def test_moving_ground_without_a_face_says_so_in_its_confidence(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    field = draw.integers(40, 200, (64, 400, 3), dtype=np.uint8)
    steps = np.cumsum(draw.integers(0, 2, 300))
    images = np.stack([field[:, s : s + 64] for s in steps])
    frames, fs = read_video(write(tmp_path / "street.mkv", images), size=(8, 8))
    pulse = pos(frames.mean((-1, -2)).T, fs)
    assert pulse_snr(pulse, fs, heart_rate(pulse, fs)) < 0


# ---- what is refused ----


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"me\.mp4: no such file"):
        read_video(tmp_path / "me.mp4")
    with pytest.raises(ValueError, match="not a file; give a video"):
        read_video(tmp_path)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("my pulse was 71\n" * 100)
    with pytest.raises(ValueError, match=r"notes\.mp4: not a video that can be read"):
        read_video(tmp_path / "notes.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.mp4: not a video that can be read"):
        read_video(tmp_path / "empty.mp4")
    with av.open(str(tmp_path / "song.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with pytest.raises(ValueError, match=r"song\.wav: the file has no video stream"):
        read_video(tmp_path / "song.wav")


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    whole = mp4(tmp_path / "whole.mp4", pictures(60)).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # the index stands at the end
    with pytest.raises(ValueError, match=r"headless\.mp4: not a video that can be read, or it is damaged"):
        read_video(tmp_path / "headless.mp4")
    fast = mp4(tmp_path / "fast.mp4", pictures(60), movflags="faststart").read_bytes()
    (tmp_path / "half.mp4").write_bytes(fast[: len(fast) // 2])
    with pytest.raises(ValueError, match=r"half\.mp4: .*(cut off, \d+ of its 60 frames|damaged)"):
        read_video(tmp_path / "half.mp4")
    kept = write(tmp_path / "whole.mkv", pictures(60)).read_bytes()  # whose header counts seconds, not frames
    for share, match in ((0.5, r"cut off, 0\.\d of its 2\.0 seconds are there"), (0.01, "no frame can be read")):
        (tmp_path / "part.mkv").write_bytes(kept[: int(share * len(kept))])
        with pytest.raises(ValueError, match=rf"part\.mkv: .*{match}"):
            read_video(tmp_path / "part.mkv")


@pytest.mark.parametrize(
    "box",
    [
        (48, 0, 10, 10),
        (0, 33, 10, 3),
        (-9, 0, 9, 10),
        (0, 0, 0, 5),
        (0, 0, math.nan, 5),
        (0, 0, math.inf, 5),
        (1, 2),
        "me",
    ],
)
def test_boxes_outside_of_the_frame(tmp_path: Path, box: Any) -> None:
    path = write(tmp_path / "a.mkv", pictures(3))
    with pytest.raises(
        ValueError, match=r"box must (be finite and reach into the frame of 48 × 32 pixels|be \(x, y, width, height\))"
    ):
        read_video(path, box=box)
    with pytest.raises(ValueError, match="box must"):
        read_video(path, box=lambda _: box)


def test_too_little_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two frames, got 1"):
        read_video(write(tmp_path / "a.mkv", pictures(1)))
    path = write(tmp_path / "b.mkv", pictures(3))
    with pytest.raises(ValueError, match=r"size must be one or two positive numbers of pixels, got \(0, 4\)"):
        read_video(path, size=(0, 4))
    for size in (36.5, (4, 4, 4), "small", None):
        with pytest.raises(TypeError, match="size must be one or two whole numbers of pixels, got"):
            read_video(path, size=size)
    with pytest.raises(ValueError, match="fs must be a positive number of frames per second, got -1"):
        read_video(path, fs=-1)


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "throughline\[video\]"'):
        read_video(tmp_path / "me.mp4")
