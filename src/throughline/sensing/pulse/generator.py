"""Videos of a face whose pulse is known; public in `throughline.sensing.pulse`."""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.sensing.pulse.checks import Rate, frame_rate

__all__ = ["synthetic_pulse_video"]

LIGHT_SKIN, DARK_SKIN = (0.85, 0.64, 0.54), (0.28, 0.18, 0.13)
PULSE_COLOUR = (0.45, 1.0, 0.65)  # of the relative change, green 1
AMPLITUDE = 0.012  # of green in the lightest skin
SHIFT, ROLL, YAW = 0.14, 0.25, 0.7  # half-widths of the frame, and radians, at motion 1
SLOW, FAST = (0.05, 0.5), (0.6, 2.2)  # Hz; the second lies inside the pulse band
MAP = 64  # places on a side of the face that is painted once and then moved
EXPOSURE = 0.75
PIXELS = 2**22  # of all frames that are drawn at a time


class Scene(NamedTuple):
    """All that is drawn at random of n clips before the sensor's noise; courses are ``(n, T)``."""

    pulse: Tensor
    bpm: Tensor
    melanin: Tensor
    across: Tensor
    down: Tensor
    roll: Tensor
    yaw: Tensor
    brightness: Tensor
    sides: Tensor  # (n, 2, 3), the colours of the lights from left and right
    face: Tensor  # (n, 5, MAP, MAP): coverage, pulse, reflectance, depth, shine
    ground: Tensor  # (n, 3, H, W)
    size: Tensor  # (n, 2), half-axes of the face


def synthetic_pulse_video(
    n: int,
    *,
    frames: int = 300,
    size: int = 64,
    fs: Rate = 30.0,
    motion: float = 0.2,
    light: float = 0.2,
    melanin: tuple[float, float] = (0.0, 1.0),
    bpm: tuple[float, float] = (50.0, 130.0),
    noise: float = 0.004,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Clips of a face before a textured ground, with a pulse of known waveform in its skin.

    The face is an ellipse with eyes, mouth and a texture of its own. It shifts, rolls and turns, mostly below and, more
    weakly, inside the band of the pulse. Light drifts and flickers; two lights of different colours come from the two
    sides, so that a turn of the head changes the skin's colour; a spot shines. Darker skin shows less pulse. Every
    value carries noise and is rounded to 8 bits.

    Args:
        n: clips, at least 1.
        frames: T, at least 4.
        size: pixels on a side, at least 8.
        fs: frames per second, above 5, a Fraction too.
        motion: 0 for none; 1 shifts by a seventh of the frame's half-width, rolls by 14° and turns by 40°.
        light: 0 for a steady white light; 1 drifts by a fifth, flickers by a fiftieth and colours both sides.
        melanin: range, within [0, 1], of the skin's darkness.
        bpm: range of the mean rate in beats per minute, which wanders by 1 to 2 % in each clip.
        noise: standard deviation of the sensor's noise; white is 1.
        generator: the source of randomness, on the CPU.

    Returns:
        ``frames`` ``(n, 3, T, H, W)`` in [0, 1], ``pulse`` ``(n, T)``, ``bpm`` ``(n,)`` (the mean rate over the
        clip) and ``melanin`` ``(n,)``, in single precision.

    Raises:
        ValueError: an argument is out of range.

    >>> made = synthetic_pulse_video(2, frames=90, size=16, generator=torch.Generator().manual_seed(0))
    >>> made["frames"].shape, made["pulse"].shape, made["bpm"].shape
    (torch.Size([2, 3, 90, 16, 16]), torch.Size([2, 90]), torch.Size([2]))
    """
    fs = frame_rate(fs)
    _check(n, frames, size, fs, motion, light, melanin, bpm, noise)
    scene = _scene(n, frames, size, fs, motion, light, melanin, bpm, generator)
    out = torch.empty(n, 3, frames, size, size, device="cpu")
    step = max(1, PIXELS // (3 * frames * size**2))
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        part = Scene(*(field[rows] for field in scene))
        drawn = _draw(part, light)
        grain = torch.randn(drawn.shape, generator=generator, device="cpu")
        out[rows] = drawn.add_(grain, alpha=noise).mul_(255).round_().div_(255).clamp_(0, 1)
    return {"frames": out, "pulse": scene.pulse, "bpm": scene.bpm, "melanin": scene.melanin}


def _scene(
    n: int,
    frames: int,
    size: int,
    fs: float,
    motion: float,
    light: float,
    melanin: tuple[float, float],
    bpm: tuple[float, float],
    generator: torch.Generator | None,
) -> Scene:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn: Tensor = low + (high - low) * torch.rand(n, *shape, generator=generator, device="cpu")
        return drawn

    time = torch.arange(frames, device="cpu") / fs

    def course(band: tuple[float, float], waves: int = 3) -> Tensor:
        """A sum of sinusoids of random rates and phases, of variance one in the mean."""
        rates, phases = uniform(*band, waves, 1), uniform(0, 2 * math.pi, waves, 1)
        total: Tensor = torch.sin(2 * math.pi * rates * time + phases).sum(1) * (2 / waves) ** 0.5
        return total

    def moves(reach: float) -> Tensor:
        return motion * reach * (0.6 * course(SLOW) + 0.08 * course(FAST))

    rate, wander = uniform(*bpm, 1), uniform(0.01, 0.02, 1)
    phase = torch.cumsum(rate / 60 / fs * (1 + wander * course((0.05, 0.15))), 1)
    mean_rate = (phase[:, -1] - phase[:, 0]) * (60 * fs / (frames - 1))
    phase = 2 * math.pi * phase + uniform(0, 2 * math.pi, 1)
    brightness = 1 + light * (0.2 * course((0.03, 0.25)) + 0.02 * course((0.6, 3.0)))
    sides = 1 + light * 0.5 * torch.stack([uniform(-1, 1, 3), uniform(-1, 1, 3)], 1)
    return Scene(
        pulse=torch.sin(phase) + 0.35 * torch.sin(2 * phase - 0.8),
        bpm=mean_rate,
        melanin=uniform(*melanin),
        across=moves(SHIFT),
        down=moves(SHIFT),
        roll=moves(ROLL),
        yaw=moves(YAW),
        brightness=brightness.clamp_min(0.2),
        sides=sides,
        face=_paint(uniform),
        ground=_ground(uniform, size),
        size=torch.stack([uniform(0.62, 0.74), uniform(0.78, 0.9)], 1),
    )


def _paint(uniform: "_Uniform") -> Tensor:
    """The face in coordinates of its own, from -1.2 to 1.2: ``(n, 5, MAP, MAP)``."""
    line = torch.linspace(-1.2, 1.2, MAP, device="cpu")
    v, u = line.view(-1, 1), line.view(1, -1)
    inside = torch.sigmoid((1 - (u**2 + v**2)) * 12)
    eye = sum(torch.exp(-(((u - s) / 0.16) ** 2) - ((v + 0.25) / 0.09) ** 2) for s in (-0.38, 0.38))
    mouth = torch.exp(-((u / 0.3) ** 2) - ((v - 0.5) / 0.09) ** 2)
    skin = (1 - (eye + mouth).clamp(0, 1)) * torch.ones(MAP, MAP, device="cpu")
    texture = 1 + 0.06 * _waves(uniform, u, v, 6, 12.0)
    reflectance = texture * (0.25 + 0.75 * skin)
    depth = (1 - u**2 - v**2).clamp_min(0).sqrt()
    shine = torch.exp(-(((u - 0.1) / 0.25) ** 2) - ((v + 0.6) / 0.2) ** 2)
    flat = (inside, inside * skin, depth, shine)
    coverage, pulse, depth, shine = (f.expand(len(reflectance), -1, -1) for f in flat)
    return torch.stack([coverage, pulse, reflectance, depth, shine], 1)


def _ground(uniform: "_Uniform", size: int) -> Tensor:
    line = torch.linspace(-1, 1, size, device="cpu")
    pattern = 1 + 0.35 * _waves(uniform, line.view(1, -1), line.view(-1, 1), 5, 8.0)
    ground: Tensor = (uniform(0.2, 0.7, 3)[..., None, None] * pattern.unsqueeze(1)).clamp(0, 1)
    return ground


def _waves(uniform: "_Uniform", x: Tensor, y: Tensor, count: int, most: float) -> Tensor:
    """A random texture of plane waves, ``(n, H, W)``, of variance one in the mean."""
    along, up, phase = (uniform(a, b, count, 1, 1) for a, b in ((-most, most), (-most, most), (0, 2 * math.pi)))
    total: Tensor = torch.sin(along * x + up * y + phase).sum(1) * (2 / count) ** 0.5
    return total


def _draw(scene: Scene, light: float) -> Tensor:
    """All frames without noise, ``(n, 3, T, H, W)``."""
    (n, frames), size = scene.pulse.shape, scene.ground.shape[-1]
    line = torch.linspace(-1, 1, size, device="cpu")

    def field(course: Tensor) -> Tensor:
        return course.view(n, frames, 1, 1)

    x, y = line.view(1, -1) - field(scene.across), line.view(-1, 1) - field(scene.down)
    cos, sin = field(scene.roll.cos()), field(scene.roll.sin())
    u = (cos * x + sin * y) / (scene.size[:, 0].view(n, 1, 1, 1) * field(scene.yaw.cos().clamp_min(0.5)))
    v = (cos * y - sin * x) / scene.size[:, 1].view(n, 1, 1, 1)
    grid = torch.stack([u, v], -1).view(n, frames * size, size, 2) / 1.2
    sampled = F.grid_sample(scene.face, grid, padding_mode="border", align_corners=True)
    covered, pulsing, reflectance, depth, shine = sampled.view(n, 5, frames, size, size).unbind(1)
    # two lights, 45° to both sides, wrapped around the head: linear in its normal (u, depth), turned by the yaw
    cos, sin = scene.yaw.cos().unsqueeze(1), scene.yaw.sin().unsqueeze(1)
    left, right = scene.sides.unsqueeze(-1).unbind(1)  # (n, 3, 1)
    even = 0.3 + 0.22 * (left + right)
    sideways = 0.155 * (right * (cos - sin) - left * (cos + sin))
    ahead = 0.155 * (left * (cos - sin) + right * (cos + sin))
    dark = scene.melanin.view(n, 1)
    skin = torch.lerp(torch.tensor(LIGHT_SKIN, device="cpu"), torch.tensor(DARK_SKIN, device="cpu"), dark)
    beat = AMPLITUDE * (1 - 0.55 * dark) * scene.pulse
    shine = shine.mul_(covered * (0.15 * light) * (1 + field(scene.yaw.sin())))
    drawn = torch.empty(n, 3, frames, size, size, device="cpu")
    for c, strength in enumerate(PULSE_COLOUR):
        lit = torch.addcmul(even[:, c].view(n, 1, 1, 1), u, field(sideways[:, c]))
        lit.addcmul_(depth, field(ahead[:, c])).mul_(reflectance).mul_(skin[:, c].view(n, 1, 1, 1))
        lit.mul_(1 + pulsing * field(strength * beat)).add_(shine)
        behind = (scene.ground[:, c] * even[:, c].view(n, 1, 1)).unsqueeze(1)
        drawn[:, c] = torch.lerp(behind.expand_as(lit), lit, covered).mul_(field(EXPOSURE * scene.brightness))
    return drawn


class _Uniform(Protocol):
    def __call__(self, low: float, high: float, *shape: int) -> Tensor: ...


def _check(
    n: int,
    frames: int,
    size: int,
    fs: float,
    motion: float,
    light: float,
    melanin: tuple[float, float],
    bpm: tuple[float, float],
    noise: float,
) -> None:
    for name, value, least in (("n", n, 1), ("frames", frames, 4), ("size", size, 8)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 5 < fs < math.inf:
        raise ValueError(f"fs must be above 5 frames per second, got {fs}")
    for name, amount in (("motion", motion), ("light", light), ("noise", noise)):
        if not 0 <= amount < math.inf:
            raise ValueError(f"{name} must be finite and not negative, got {amount}")
    if not 0 <= melanin[0] <= melanin[1] <= 1:
        raise ValueError(f"melanin must be two increasing numbers in [0, 1], got {melanin}")
    if not 0 < bpm[0] <= bpm[1] < 30 * fs:
        raise ValueError(f"bpm must be two increasing rates below half of the frame rate, got {bpm}")
