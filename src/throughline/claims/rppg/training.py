"""How the arms of the rppg claim are trained and tested."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.rppg.config import Config
from throughline.claims.shared.pulse_crops import random_crops
from throughline.claims.shared.pulse_rates import rate, rate_errors, snr
from throughline.claims.shared.pulse_videos import Video
from throughline.errors import ThroughlineError
from throughline.lab import Log
from throughline.sensing.pulse import PulseLoss, PulseNet, chrom, neg_pearson, pos

__all__ = ["CLASSICAL", "NETWORKS", "Recipe", "fit", "measure", "predict"]

POINTS = 40  # of a training curve
MIDDLE = 90.0  # beats per minute, where a prediction has no rate at all


class Recipe(NamedTuple):
    """What a network arm is made of."""

    inputs: Literal["fused", "raw", "difference"]
    attention: bool
    hybrid: bool  # the loss that moves from waveform to spectrum; otherwise negative Pearson


NETWORKS = {
    "physnet": Recipe("raw", False, False),
    "physfsunet": Recipe("fused", True, True),
    "difference": Recipe("difference", False, False),
    "fused": Recipe("fused", False, False),
}
CLASSICAL = {"pos": pos, "chrom": chrom}


def fit(arm: str, videos: list[Video], config: Config, seed: int, log: Log) -> nn.Module:
    """Train one network; crops, mirrors and their order are the same in all arms."""
    recipe, lr = NETWORKS[arm], getattr(config, f"{arm}_lr")
    torch.manual_seed(seed)
    network = PulseNet(channels=config.channels, inputs=recipe.inputs, attention=recipe.attention).to(config.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    criterion = PulseLoss(config.fs, time_weight=config.time_weight, frequency_weight=config.frequency_weight)
    draw = torch.Generator().manual_seed(seed)
    every = max(1, config.steps // POINTS)
    for step in range(config.steps):
        frames, pulse, known, bpm = batch(videos, config, draw)
        progress = step / max(1, config.steps - 1)
        predicted = network(frames)
        loss = _loss(criterion, predicted, pulse, known, bpm, progress, hybrid=recipe.hybrid)
        if not bool(loss.isfinite()):
            raise ThroughlineError(f"{arm} diverged at {arm}_lr={lr:g}; take a lower one: --set {arm}_lr={lr / 2:g}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == config.steps - 1:
            log(step, of=config.steps, loss=loss, pearson=neg_pearson(predicted, pulse).mean())
    return network.eval()


def batch(videos: list[Video], config: Config, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random crops: frames, waveforms, whether these are known, and rates."""
    crops = random_crops(videos, config.batch, config.crop, config.fs, draw)
    frames, pulse, known, bpm = (part.to(config.device) for part in crops)
    return frames.float() / 255, pulse, known, bpm


def _loss(
    criterion: PulseLoss, predicted: Tensor, pulse: Tensor, known: Tensor, bpm: Tensor, progress: float, *, hybrid: bool
) -> Tensor:
    """Clips whose waveform is unknown have the terms of the rate alone, in every arm."""
    alpha, beta = criterion.weights(progress)
    count, blind = len(known), len(known) - int(known.sum())
    total = predicted.new_zeros(())
    if count > blind:
        time = neg_pearson(predicted[known], pulse[known]).sum() / count
        total = total + (alpha * time if hybrid else time)
    if hybrid:
        total = total + beta * sum(criterion.frequency_terms(predicted, bpm))
    elif blind:
        total = total + sum(criterion.frequency_terms(predicted[~known], bpm[~known])) * (blind / count)
    return total


@torch.no_grad()
def predict(arm: str, network: nn.Module | None, video: Video, config: Config) -> Tensor:
    """The pulse of a whole video, ``(T,)``, from windows of ``config.frames``."""
    windows = max(1, video.length // config.frames)
    length = min(video.length, config.frames)
    parts = [video.read(place * length, (place + 1) * length) for place in range(windows)]
    if network is None:
        rgb = torch.cat([part.float().mean((-2, -1)) for part in parts], 1).mT / 255
        return CLASSICAL[arm](rgb.clamp_min(1e-6), config.fs)
    made = [network(part[None].to(config.device).float() / 255)[0].cpu() for part in parts]
    return torch.cat([(m - m.mean()) / m.std().clamp_min(1e-12) for m in made])


def measure(pulses: list[Tensor], videos: list[Video], config: Config) -> tuple[dict[str, float], np.ndarray]:
    """Errors over videos, and ``(2, n)`` true and estimated rates."""
    truth = torch.tensor([video.bpm for video in videos])
    found = torch.stack([rate(pulse, config.fs) for pulse in pulses])
    found = torch.where(found.isfinite(), found, MIDDLE)
    levels = [snr(pulse, config.fs, video.bpm) for pulse, video in zip(pulses, videos, strict=True)]
    scores = {
        **rate_errors(found, truth),
        "snr": float(np.mean([s if math.isfinite(s) else 0.0 for s in levels])),
    }
    return scores, torch.stack([truth, found]).numpy()
