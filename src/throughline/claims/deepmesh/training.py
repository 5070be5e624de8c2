"""What every arm starts from: a decoder with codes of the training shapes, and an encoder that guesses codes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.deepmesh.config import Config
from throughline.claims.deepmesh.data import Task
from throughline.claims.deepmesh.models import Encoder, decoder_of
from throughline.claims.shared.random_batches import shuffled
from throughline.lab import Log

if TYPE_CHECKING:
    from throughline.geometry.isosurface import DeepSDF

__all__ = ["fit_decoder", "fit_encoder"]

CLAMP = 0.1  # distances are told apart up to this
CODE_WEIGHT, RISE = 1e-4, 100  # of mean |z| in the loss, and the epochs in which it rises
FIT, GUESS = 11, 13  # keep the draws of one seed apart


def fit_decoder(task: Task, config: Config, seed: int, log: Log, of: int) -> "tuple[DeepSDF, Tensor]":
    """Decoder and codes ``(shapes, latent)`` together, as DeepSDF (arXiv 1901.05103) learns them."""
    points, distances = (part.to(config.device) for part in (task.points, task.distances))
    count, size = len(points), min(config.shapes, len(points))
    draw = torch.Generator().manual_seed(seed * 100 + FIT)
    codes = (torch.randn(count, config.latent, generator=draw) / config.latent**0.5).to(config.device).requires_grad_()
    decoder = decoder_of(config).to(config.device)
    optimizer = torch.optim.Adam(
        [{"params": decoder.parameters(), "lr": config.decoder_lr}, {"params": [codes], "lr": config.code_lr}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.fit_steps)
    batches = shuffled(torch.arange(count), size, draw, drop_last=True)
    for step in range(config.fit_steps):
        rows = next(batches).to(config.device)
        some = torch.randint(points.shape[1], (size, config.points), generator=draw).to(config.device)
        x = points[rows[:, None], some]
        wanted = distances[rows[:, None], some].clamp(-CLAMP, CLAMP)
        z = codes[rows]
        error = (decoder(x, z[:, None]).clamp(-CLAMP, CLAMP) - wanted).abs().mean()
        epoch = step * size / count
        loss: Tensor = error + CODE_WEIGHT * min(1.0, epoch / RISE) * z.abs().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        log(step, of=of, distance_error=error)
    return decoder.eval().requires_grad_(False), codes.detach()


def fit_encoder(task: Task, codes: Tensor, config: Config, seed: int, log: Log, of: int) -> Encoder:
    """From an image to the code of what it shows, by the mean squared error."""
    draw = torch.Generator().manual_seed(seed * 100 + GUESS)
    encoder = Encoder(config).to(config.device)
    optimizer = torch.optim.AdamW(encoder.parameters(), config.encoder_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.encoder_steps)
    batches = shuffled(torch.arange(len(codes)), min(config.shapes, len(codes)), draw, drop_last=True)
    for step in range(config.encoder_steps):
        rows = next(batches)
        loss = F.mse_loss(encoder(task.images(rows, draw).to(config.device)), codes[rows.to(config.device)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        log(config.fit_steps + step, of=of, code_error=loss)
    return encoder.eval().requires_grad_(False)
