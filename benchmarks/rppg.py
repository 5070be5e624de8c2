"""Speed bars of heart rate from video: POS, detrending and rates against the loops and dense matrices of the public
toolbox (ubicomplab/rPPG-Toolbox), written anew, and the network against PhysNet.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.sensing.pulse import PulseNet, detrend, heart_rate, pos

FS = 30.0
Setup = dict[str, Callable[[], Any]]


def traces(count: int, frames: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    t = torch.arange(frames) / FS
    beat = torch.sin(2 * math.pi * 1.2 * t)[:, None] * torch.tensor([0.33, 0.77, 0.53])
    light = 1 + 0.1 * torch.sin(0.5 * t)[:, None]
    noise = 0.001 * torch.randn(count, frames, 3, generator=draw)
    return torch.tensor([0.8, 0.6, 0.5]) * light * (1 + 0.005 * beat + noise)


def pos_loop(rgb: np.ndarray) -> np.ndarray:
    """A window at a time, as in the toolbox, whose loop leaves the last window out: here it is counted."""
    length, total = math.ceil(1.6 * FS), np.zeros(len(rgb))
    plane = np.array([[0, 1, -1], [-2, 1, 1]])
    for end in range(length, len(rgb) + 1):
        window = rgb[end - length : end]
        s = plane @ (window / window.mean(0)).T
        h = s[0] + s[0].std() / s[1].std() * s[1]
        total[end - length : end] += h - h.mean()
    return total


def pos_case(count: int, frames: int) -> Setup:
    rgb = traces(count, frames)
    array = rgb.double().numpy()

    def peer() -> np.ndarray:
        return np.stack([pos_loop(one) for one in array])

    def agree() -> None:
        found, expected = pos(rgb[:2], FS), torch.from_numpy(peer_two())
        torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=1e-3)

    def peer_two() -> np.ndarray:
        return np.stack([pos_loop(one) for one in array[:2]])

    return {"ours": lambda: pos(rgb, FS), "peer": peer, "agree": agree}


def pos_memory(count: int, frames: int) -> Setup:
    """The peer is one copy of the windows that none of ours lays out."""
    rgb, length = traces(count, frames), math.ceil(1.6 * FS)

    def peer() -> Tensor:
        return rgb.mT.unfold(-1, length, 1).contiguous()

    return {"ours": lambda: pos(rgb, FS), "peer": peer, "agree": pos_case(2, 120)["agree"]}


def detrend_case(frames: int) -> Setup:
    x = torch.randn(frames, generator=torch.Generator().manual_seed(0))

    def agree() -> None:
        short = x[:500].double()
        second = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(498, 500))
        dense = np.eye(500) + 1e4 * (second.T @ second).toarray()
        expected = short - torch.from_numpy(np.linalg.solve(dense, short.numpy()))
        torch.testing.assert_close(detrend(short), expected, atol=1e-8, rtol=0)

    return {"ours": lambda: detrend(x), "agree": agree}


def rate_case(count: int, frames: int) -> Setup:
    """Against SciPy on the whole batch: a banded solve, filtfilt and a padded periodogram."""
    x = traces(count, frames)[..., 1]
    array = x.double().numpy()
    b, a = scipy.signal.butter(1, (0.75, 2.5), "bandpass", fs=FS)
    bands = np.zeros((3, frames))
    second = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(frames - 2, frames))
    system = scipy.sparse.eye_array(frames) + 1e4 * (second.T @ second)
    for k in range(3):
        bands[2 - k, k:] = system.diagonal(k)

    def peer() -> np.ndarray:
        trend = scipy.linalg.solveh_banded(bands, array.T).T
        filtered = scipy.signal.filtfilt(b, a, array - trend)
        f, power = scipy.signal.periodogram(filtered, FS, nfft=4096, detrend=False)
        band = (f >= 0.75) & (f <= 2.5)
        return 60 * f[band][power[:, band].argmax(-1)]

    def agree() -> None:
        torch.testing.assert_close(
            heart_rate(x, FS, low=0.75, high=2.5).double(), torch.from_numpy(peer()), atol=0.01, rtol=0
        )

    return {"ours": lambda: heart_rate(x, FS, low=0.75, high=2.5), "peer": peer, "agree": agree}


class PhysNet(nn.Module):
    """The published 3D encoder and decoder, layer by layer."""

    def __init__(self) -> None:
        super().__init__()

        def conv(before: int, after: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> list[nn.Module]:
            padding = [k // 2 for k in kernel]
            return [nn.Conv3d(before, after, kernel, padding=padding), nn.BatchNorm3d(after), nn.ReLU(inplace=True)]

        def up() -> list[nn.Module]:
            layer = nn.ConvTranspose3d(64, 64, (4, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
            return [layer, nn.BatchNorm3d(64), nn.ELU()]

        self.layers = nn.Sequential(
            *conv(3, 16, (1, 5, 5)),
            nn.MaxPool3d((1, 2, 2)),
            *conv(16, 32),
            *conv(32, 64),
            nn.MaxPool3d(2),
            *conv(64, 64),
            *conv(64, 64),
            nn.MaxPool3d(2),
            *conv(64, 64),
            *conv(64, 64),
            nn.MaxPool3d((1, 2, 2)),
            *conv(64, 64),
            *conv(64, 64),
            *up(),
            *up(),
        )
        self.head = nn.Conv3d(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        pulse: Tensor = self.head(F.adaptive_avg_pool3d(self.layers(x), (x.shape[2], 1, 1))).flatten(1)
        return pulse


def network_case(frames: int, side: int) -> Setup:
    torch.manual_seed(0)
    ours, peer = PulseNet().eval(), PhysNet().eval()
    x = torch.rand(1, 3, frames, side, side)

    def run(net: nn.Module, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = net(frames)
        return result

    def agree() -> None:
        """Without fusion and attention it is PhysNet on standardised frames."""
        plain = PulseNet(inputs="raw", attention=False).eval()
        plain.load_state_dict(dict(zip(plain.state_dict(), peer.state_dict().values(), strict=True)))
        part = x[:, :, :16, :32, :32]
        standard = (part - part.mean()) / part.std(correction=0)
        torch.testing.assert_close(run(plain, part), run(peer, standard), atol=1e-4, rtol=1e-3)

    return {"ours": lambda: run(ours, x), "peer": lambda: run(peer, x), "agree": agree}


TORCH = f"torch {torch.__version__}"
NUMPY = f"NumPy {np.__version__}"
CASES = [
    Case(
        "POS, 32 traces of 1,800 frames",
        partial(pos_case, 32, 1_800),
        1 / 20,
        f"a window at a time, {NUMPY}",
        bytes=4.0 * 32 * 1_800 * 4,
    ),
    Case(
        "POS, 32 traces of 1,800 frames: memory",
        partial(pos_memory, 32, 1_800),
        peer=f"one copy of its windows, {TORCH}",
        work="less",
        bar_memory=1.0,
    ),
    Case("detrending, 10,000 frames", partial(detrend_case, 10_000), bar_seconds=0.02),
    Case(
        "heart_rate, 64 pulses of 1,800 frames",
        partial(rate_case, 64, 1_800),
        0.9,
        f"SciPy {scipy.__version__}, whole batch",
    ),
    Case(
        "PulseNet, forward, 160 frames of 72 × 72",
        partial(network_case, 160, 72),
        1.25,
        f"PhysNet, {TORCH}",
        bar_memory=1.3,
        work="less",
    ),
]


def projecting(frames: int) -> Callable[[], Any]:
    rgb = traces(4, frames)
    return lambda: pos(rgb, FS)


def counting(frames: int) -> Callable[[], Any]:
    x = torch.randn(4, frames)
    return lambda: heart_rate(x, FS)


def detrending(frames: int) -> Callable[[], Any]:
    x = torch.randn(4, frames)
    return lambda: detrend(x)


def watching(frames: int) -> Callable[[], Any]:
    net, video = PulseNet().eval(), torch.rand(1, 3, frames, 32, 32)

    @torch.no_grad()
    def call() -> Tensor:
        return net(video)

    return call


GROWTH = [
    Growth("POS, 4 traces", "frames", 2**14, projecting, time=1, memory=1),
    Growth("heart_rate, 4 pulses", "frames", 2**14, counting, time=1, memory=1),
    Growth("detrend, 4 pulses", "frames", 2**14, detrending, time=1, memory=1),
    Growth("PulseNet, 32 × 32 pixels", "frames", 64, watching, time=1, memory=1),
]
