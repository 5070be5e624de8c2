"""The network and what it is made of; public in `throughline.sensing.pulse`."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core._derivatives import transformed
from throughline.core.checks import check_floating, check_tensor, readable

__all__ = [
    "DifferentialFrameFusion",
    "PulseNet",
    "TemporalShiftAttention",
    "normalized_difference",
    "temporal_shift",
]

Inputs = Literal["fused", "raw", "difference"]
LEAST = 16  # pixels on a side: the network halves them four times


def normalized_difference(frames: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Change between frames whatever the exposure: D = (X' - X)/(X' + X + eps) with X' the next frame, over its σ.

    The standard deviation is that of the whole clip. The last frame is zero.

    Args:
        frames: floating point, ``(..., 3, T, H, W)`` with T >= 4, not negative.
        eps: keeps black pixels finite.

    Returns:
        The same shape and dtype; zeros for a clip that does not change.

    Raises:
        TypeError: ``frames`` is not floating point.
        ValueError: not 3 channels, fewer than 4 frames, or negative values; ``eps`` is not positive.

    >>> normalized_difference(torch.ones(3, 4, 2, 2)).unique()
    tensor([0.])
    """
    _check_frames(frames)
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    x = frames.to(torch.promote_types(frames.dtype, torch.float32))
    before, after = x[..., :-1, :, :], x[..., 1:, :, :]
    change = (after - before) / (after + before + eps)
    return F.pad(_over_deviation(change), (0, 0, 0, 0, 0, 1)).to(frames.dtype)


def temporal_shift(x: Tensor, *, fold_div: int = 3) -> Tensor:
    """Let channels see their neighbours in time: the first share takes frame t+1, the second t-1, the others stay.

    Zeros enter at both ends; there are no parameters.

    Args:
        x: ``(..., C, T, H, W)``.
        fold_div: each of the two shares has ⌊C / fold_div⌋ channels; at least 2.

    Raises:
        ValueError: ``x`` has fewer than four dimensions, or ``fold_div`` is below 2.

    >>> temporal_shift(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).repeat(3, 1, 1, 1)).flatten(1)
    tensor([[2., 3., 0.],
            [0., 1., 2.],
            [1., 2., 3.]])
    """
    check_tensor("x", x)
    if x.ndim < 4:
        raise ValueError(f"x must have shape (..., C, T, H, W), got {tuple(x.shape)}")
    if fold_div < 2:
        raise ValueError(f"fold_div must be at least 2, got {fold_div}")
    share = x.shape[-4] // fold_div
    first, second, rest = torch.split(x, [share, share, x.shape[-4] - 2 * share], -4)
    later = F.pad(first[..., 1:, :, :], (0, 0, 0, 0, 0, 1))
    earlier = F.pad(second[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    return torch.cat([later, earlier, rest], -4)


class DifferentialFrameFusion(nn.Module):
    """The stem: raw frames, which show where skin is, fused with their normalised differences, which show what changes.

    R and Q are convolutions of the standardised frames and of `normalized_difference`; the result is
    ½·g(½R + ½Q) + ½·k(Q). That both are fused is the paper's (arXiv 2507.07795); the layout is ours.

    Args:
        channels: of the result.

    Shapes:
        frames ``(B, 3, T, H, W)``, not negative, in any unit, to ``(B, channels, T, H, W)``.

    >>> DifferentialFrameFusion(4)(torch.rand(1, 3, 8, 6, 6)).shape
    torch.Size([1, 4, 8, 6, 6])
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.raw = _Layer(3, channels, (1, 5, 5))
        self.difference = _Layer(3, channels, (1, 5, 5))
        self.both = _Layer(channels, channels, (1, 3, 3))
        self.change = _Layer(channels, channels, (1, 3, 3))

    def forward(self, frames: Tensor) -> Tensor:
        change = self.difference(normalized_difference(frames))
        both = self.both(_mean(self.raw(_standardized(frames)), change))
        return _mean(both, self.change(change))


class TemporalShiftAttention(nn.Module):
    """Attention over the places of every frame, after `temporal_shift`, behind a gate that starts closed.

    The shifted features are averaged to at most ``grid`` × ``grid`` places; layer normalisation and self-attention
    over them, frame by frame; nearest upsampling; x + gate · result. Shift and self-attention are the paper's
    (arXiv 2507.07795); the layout is ours.

    Args:
        channels: C, a multiple of ``heads``.
        heads: of the attention.
        grid: places on a side at most.
        fold_div: of `temporal_shift`.

    Shapes:
        ``(..., C, T, H, W)`` to the same.

    Raises:
        ValueError: an argument is out of range, or the input has other channels.

    >>> x = torch.rand(1, 8, 4, 6, 6)
    >>> torch.equal(TemporalShiftAttention(8)(x), x)
    True
    """

    def __init__(self, channels: int, *, heads: int = 4, grid: int = 8, fold_div: int = 3) -> None:
        super().__init__()
        if heads < 1 or channels < 1 or channels % heads:
            raise ValueError(f"channels must be a positive multiple of heads={heads}, got {channels}")
        if grid < 1:
            raise ValueError(f"grid must be at least 1, got {grid}")
        if fold_div < 2:
            raise ValueError(f"fold_div must be at least 2, got {fold_div}")
        self.channels, self.heads, self.grid, self.fold_div = channels, heads, grid, fold_div
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        if x.ndim < 4 or x.shape[-4] != self.channels:
            raise ValueError(f"x must have shape (..., {self.channels}, T, H, W), got {tuple(x.shape)}")
        channels, frames, height, width = x.shape[-4:]
        grid = (min(height, self.grid), min(width, self.grid))
        images = x.reshape(-1, channels, frames, height, width).transpose(1, 2).flatten(0, 1)
        # the shift moves whole frames, and so may come after the pooling
        pooled = F.adaptive_avg_pool2d(images, grid).reshape(-1, frames, channels, *grid)
        shifted = temporal_shift(pooled.transpose(1, 2), fold_div=self.fold_div)
        places = self.norm(shifted.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.projection(places).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        result = self.out(mixed).mT.view(-1, channels, *grid)
        result = F.interpolate(result, (height, width), mode="nearest")
        # a view, by which one clip keeps the memory format that the layers behind look for
        result = result.reshape(*x.shape[:-4], frames, channels, height, width).transpose(-4, -3)
        if torch.is_grad_enabled() or result.dtype != x.dtype:  # autocast shortens the one and not the other
            return x + self.gate * result
        return result.mul_(self.gate).add_(x)


class PulseNet(nn.Module):
    """Pulse waveform from raw face video: a 3D network with frame fusion and shift-attention.

    "Robust and Generalizable Heart Rate Estimation via Deep Learning for Remote Photoplethysmography in Complex
    Scenarios" (arXiv 2507.07795). With its defaults 824,836 parameters; ``inputs="raw", attention=False`` is PhysNet
    (768,577 parameters). The waveform has no unit: read its rate with `heart_rate`. Time and memory are linear in
    frames and in pixels.

    Args:
        channels: of the stem, of the second layer and of all others.
        heads: of the attention.
        inputs: "fused", or one of its two halves with a stem of its own: standardised "raw" frames, or "difference".
        attention: whether each of the three stages ends in a `TemporalShiftAttention`.

    Shapes:
        frames ``(..., 3, T, H, W)``, not negative and in any unit, T >= 4, H and W at least 16, to ``(..., T)``.

    Raises:
        TypeError: the frames are not floating point.
        ValueError: an argument is out of range; not 3 channels, fewer than 4 frames, too few pixels, negative values.

    >>> PulseNet(channels=(4, 4, 8))(torch.rand(1, 3, 10, 16, 16)).shape
    torch.Size([1, 10])
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int] = (16, 32, 64),
        heads: int = 4,
        inputs: Inputs = "fused",
        attention: bool = True,
    ) -> None:
        super().__init__()
        if inputs not in ("fused", "raw", "difference"):
            raise ValueError(f'inputs must be "fused", "raw" or "difference", got {inputs!r}')
        if len(channels) != 3 or min(channels) < 1:
            raise ValueError(f"channels must be three positive numbers, got {channels}")
        first, second, wide = channels
        self.inputs = inputs
        self.stem = DifferentialFrameFusion(first) if inputs == "fused" else _Layer(3, first, (1, 5, 5))
        self.stages = nn.ModuleList()
        for before, middle, pool in ((first, second, 2), (wide, wide, 2), (wide, wide, (1, 2, 2))):
            stage = [_Layer(before, middle), _Layer(middle, wide)]
            block = [TemporalShiftAttention(wide, heads=heads)] if attention else []
            self.stages.append(nn.Sequential(*stage, *block, nn.MaxPool3d(pool)))
        self.last = nn.Sequential(_Layer(wide, wide), _Layer(wide, wide))
        self.upsample = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose3d(wide, wide, (4, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0)),
                    nn.BatchNorm3d(wide),
                    nn.ELU(),
                )
                for _ in range(2)
            )
        )
        self.head = nn.Conv3d(wide, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        _check_frames(frames)
        frame_count = frames.shape[-3]
        if min(frames.shape[-2:]) < LEAST:
            raise ValueError(f"frames must have at least {LEAST} × {LEAST} pixels, got shape {tuple(frames.shape)}")
        x = frames.reshape(-1, *frames.shape[-4:])
        if frame_count % 4:
            x = torch.cat([x, x[:, :, -1:].expand(-1, -1, -frame_count % 4, -1, -1)], 2)
        if self.inputs != "fused":
            x = _standardized(x) if self.inputs == "raw" else normalized_difference(x)
        x = F.max_pool3d(self.stem(x), (1, 2, 2))
        for stage in self.stages:
            x = stage(x)
        x = self.upsample(self.last(x)).mean((-2, -1), keepdim=True)
        pulse: Tensor = self.head(x).flatten(1)[:, :frame_count]
        return pulse.reshape(*frames.shape[:-4], frame_count)


class _Layer(nn.Module):
    """Convolution, batch normalisation and rectification; the second is part of the first in evaluation."""

    def __init__(self, before: int, after: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv, self.norm = nn.Conv3d(before, after, kernel, padding=padding), nn.BatchNorm3d(after)

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        if self.training:
            return F.relu_(norm(conv(x)))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert conv.bias is not None
        if not transformed():  # whose tensors know one memory format
            x = x.contiguous(memory_format=torch.channels_last_3d)  # with few channels twice as fast
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias + (conv.bias - norm.running_mean) * scale
        return F.relu_(F.conv3d(x, conv.weight * scale.view(-1, 1, 1, 1, 1), bias, padding=conv.padding))


def _mean(x: Tensor, y: Tensor) -> Tensor:
    """Half of the sum, in the memory of ``x`` where no gradient is recorded."""
    return (x + y if torch.is_grad_enabled() else x.add_(y)).mul_(0.5)


def _standardized(frames: Tensor) -> Tensor:
    x = frames.to(torch.promote_types(frames.dtype, torch.float32))
    return _over_deviation(x - x.mean((-4, -3, -2, -1), keepdim=True)).to(frames.dtype)


def _over_deviation(x: Tensor) -> Tensor:
    """``x`` over its population standard deviation along the last four dimensions; zeros where that is zero."""
    if not x.numel():
        return x
    scale = x.detach().abs().amax((-4, -3, -2, -1), keepdim=True)
    x = x / torch.where(scale > 0, scale, 1)  # squares of very small and very large numbers stay numbers
    variance = x.var((-4, -3, -2, -1), correction=0, keepdim=True)
    return torch.where(variance == 0, 0, x / torch.where(variance == 0, 1, variance).sqrt())


def _check_frames(frames: Tensor) -> None:
    check_floating("frames", frames)
    if frames.ndim < 4 or frames.shape[-4] != 3:
        raise ValueError(f"frames must have shape (..., 3, T, H, W), got {tuple(frames.shape)}")
    if frames.shape[-3] < 4:
        raise ValueError(f"frames must be at least 4 in time, got shape {tuple(frames.shape)}")
    if readable(frames) and bool((frames < 0).any()):
        raise ValueError(f"frames must not be negative, got {frames.amin().item():g}; leave out any standardisation")
