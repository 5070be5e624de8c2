"""The network: its size, what each layer computes by hand, and that clips do not see each other."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.sensing.pulse import (
    DifferentialFrameFusion,
    PulseNet,
    TemporalShiftAttention,
    neg_pearson,
    normalized_difference,
    temporal_shift,
)

SMALL = {"channels": (4, 4, 8)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(n: int = 2, frames: int = 12, side: int = 16) -> Tensor:
    return torch.rand(n, 3, frames, side, side, generator=seeded())


@pytest.fixture(autouse=True)
def _fixed_weights() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 824_836),
        ({"inputs": "raw", "attention": False}, 768_577),  # PhysNet
        ({"attention": False}, 824_836 - 3 * 16_769),
        ({"inputs": "difference"}, 768_577 + 3 * 16_769),
    ],
)
def test_number_of_parameters(options: dict, count: int) -> None:
    assert sum(p.numel() for p in PulseNet(**options).parameters()) == count


# ---- what goes in ----


def test_difference_by_hand() -> None:
    x = clips(1)[0].double() + 0.1
    d = torch.zeros_like(x)
    for t in range(11):
        d[:, t] = (x[:, t + 1] - x[:, t]) / (x[:, t + 1] + x[:, t] + 1e-7)
    torch.testing.assert_close(normalized_difference(x), d / d[:, :11].std(correction=0))
    assert (normalized_difference(x)[:, -1] == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 255.0])
def test_inputs_see_no_exposure(scale: float) -> None:
    x = clips() + 0.1
    torch.testing.assert_close(normalized_difference(x * scale), normalized_difference(x), rtol=1e-3, atol=1e-3)
    net = PulseNet(**SMALL).eval()
    torch.testing.assert_close(net(x * scale), net(x), rtol=1e-3, atol=1e-3)


def test_a_still_clip_and_black_pixels_stay_finite() -> None:
    still = clips()[:, :, :1].expand(-1, -1, 8, -1, -1)
    assert (normalized_difference(still) == 0).all()
    for x in (still, torch.zeros(1, 3, 8, 16, 16), torch.ones(1, 3, 8, 16, 16)):
        net = PulseNet(**SMALL)
        pulse = net(x.clone().requires_grad_())
        pulse.sum().backward()
        assert pulse.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# ---- layers ----


def test_shift_moves_a_third_either_way() -> None:
    x = torch.randn(2, 7, 5, 3, 3, generator=seeded())
    out = temporal_shift(x)
    for t in range(5):
        torch.testing.assert_close(out[:, :2, t], x[:, :2, t + 1] if t < 4 else torch.zeros(2, 2, 3, 3))
        torch.testing.assert_close(out[:, 2:4, t], x[:, 2:4, t - 1] if t else torch.zeros(2, 2, 3, 3))
    assert torch.equal(out[:, 4:], x[:, 4:])


def test_fusion_by_hand() -> None:
    stem, x = DifferentialFrameFusion(4).eval(), clips()
    raw = torch.stack([(one - one.mean()) / one.std(correction=0) for one in x])
    r, q = stem.raw(raw), stem.difference(normalized_difference(x))
    torch.testing.assert_close(stem(x), 0.5 * stem.both(0.5 * r + 0.5 * q) + 0.5 * stem.change(q), rtol=1e-4, atol=1e-5)
    layers = [m for m in stem.modules() if isinstance(m, nn.Conv3d)]
    assert [m.kernel_size for m in layers] == [(1, 5, 5)] * 2 + [(1, 3, 3)] * 2


@pytest.mark.parametrize("side", [1, 3, 8, 12, 16])
def test_attention_is_torchs(side: int) -> None:
    block, x = TemporalShiftAttention(8, heads=2), torch.randn(2, 8, 3, side, side, generator=seeded())
    peer = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        block.gate.fill_(0.7)
        for own, other in ((peer.in_proj_weight, block.projection.weight), (peer.in_proj_bias, block.projection.bias)):
            own.copy_(other)
        for own, other in zip(peer.out_proj.parameters(), block.out.parameters(), strict=True):
            own.copy_(other)
    out, places = block(x), min(side, 8)
    for b in range(2):
        for t in range(3):
            pooled = F.adaptive_avg_pool2d(temporal_shift(x)[b, :, t], places).flatten(1).T[None]
            normed = F.layer_norm(pooled, (8,), block.norm.weight, block.norm.bias)
            mixed = peer(normed, normed, normed, need_weights=False)[0][0].T.view(1, 8, places, places)
            expected = x[b, :, t] + 0.7 * F.interpolate(mixed, (side, side), mode="nearest")[0]
            torch.testing.assert_close(out[b, :, t], expected, rtol=1e-4, atol=1e-5)


def test_blocks_start_as_identity() -> None:
    x = torch.randn(2, 8, 3, 4, 4, generator=seeded())
    assert torch.equal(TemporalShiftAttention(8)(x), x)


# ---- the whole ----


@pytest.mark.parametrize("frames", [4, 5, 6, 7, 8, 33])
@pytest.mark.parametrize("inputs", ["fused", "raw", "difference"])
def test_any_length(frames: int, inputs: str) -> None:
    net, x = PulseNet(**SMALL, inputs=inputs), clips(1, frames)
    for _ in range(20):
        net(clips(2))  # running statistics, without which hardly anything comes through
    pulse = net.eval()(x)
    assert pulse.std() > 0.01
    assert pulse.shape == (1, frames)
    padded = torch.cat([x, x[:, :, -1:].expand(-1, -1, -frames % 4, -1, -1)], 2)
    torch.testing.assert_close(net(padded)[:, :frames], pulse)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (36, 20)])
def test_any_size(size: tuple[int, int]) -> None:
    assert PulseNet(**SMALL)(torch.rand(1, 3, 8, *size, generator=seeded())).shape == (1, 8)


@pytest.mark.parametrize("inputs", ["fused", "raw", "difference"])
def test_in_evaluation_a_clip_does_not_see_its_batch(inputs: str) -> None:
    net = PulseNet(**SMALL, inputs=inputs)
    for _ in range(3):
        net(clips(4))  # running statistics
    net.eval()
    x = clips(3)
    x[1] *= 1e3
    whole = net(x)
    for one, alone in zip(whole, x, strict=True):
        torch.testing.assert_close(one, net(alone[None])[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one, net(alone), rtol=1e-4, atol=1e-5)


def test_without_gradients_memory_is_used_twice_and_nothing_else_changes() -> None:
    net, x = PulseNet(**SMALL).eval(), clips()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.5)
        quiet, again = net(x), net(x)
    torch.testing.assert_close(quiet, net(x).detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(quiet, again)


@pytest.mark.parametrize("inputs", ["fused", "raw", "difference"])
def test_every_parameter_learns(inputs: str) -> None:
    net = PulseNet(**SMALL, inputs=inputs)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.5)
    neg_pearson(net(clips()), torch.randn(2, 12, generator=seeded())).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("bias"):  # a bias before a batch normalisation does nothing
            assert parameter.grad.abs().max() > 0, name


def test_learns_a_pulse() -> None:
    """A clip whose green channel beats: a few steps find the beat."""
    t = torch.arange(48) / 15.0
    beat = torch.sin(2 * math.pi * 1.5 * t)
    x = clips(2, 48) * 0.2 + 0.4
    x[:, 1] *= 1 + 0.05 * beat.view(1, -1, 1, 1)
    net = PulseNet(**SMALL)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        loss = neg_pearson(net(x), beat.expand(2, -1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("record", [True, False])
def test_attention_hands_on_the_memory_format(clips: int, record: bool) -> None:
    """Of one clip too, whose strides of the batch say nothing: the pooling behind would copy it all."""
    x = torch.rand(clips, 8, 4, 12, 12).contiguous(memory_format=torch.channels_last_3d)
    with torch.set_grad_enabled(record):
        made = TemporalShiftAttention(8)(x)
    assert made.stride() == x.stride()
