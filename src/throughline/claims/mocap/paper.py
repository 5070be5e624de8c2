"""SURREAL with the network of the released code: what only the paper scale needs."""

import random

import torch
from torch import Tensor, nn

from throughline.claims.mocap.config import Config
from throughline.claims.mocap.data import Case
from throughline.claims.mocap.models import HeatmapNet
from throughline.claims.shared.surreal import Sequence, found, read
from throughline.data import DataError
from throughline.geometry.body import BodyPrediction
from throughline.geometry.motion import Clip, heatmaps, supervised_loss
from throughline.lab import Log

__all__ = ["cases", "pretrained"]

POOL = 64  # sequences that training draws its frames from at a time
POINTS = 100  # of the training curve


def cases(config: Config, seed: int) -> list[Case]:
    """Clips of the test split, others for every seed."""
    files = found(config.root, "test")
    random.Random(seed).shuffle(files)
    made: list[Case] = []
    for file in files:
        if len(made) == config.clips:
            break
        one = read(file, config.smpl, frames=config.frames, side=config.side, observed=True)
        if len(one.keypoints) == config.frames:
            clip = Clip(one.camera, one.keypoints, None, one.flow, one.mask)
            made.append(Case(one.body, clip, inputs(one), one.joints, one.vertices))
    if not made:
        raise DataError(f"{config.root}: no test sequence has {config.frames} frames")
    return made


def pretrained(config: Config, seed: int, log: Log, of: int) -> nn.Module:
    """`HeatmapNet` trained on frames of a pool of sequences, one of which is replaced at every step."""
    draw, files = random.Random(seed), found(config.root, "train")
    torch.manual_seed(seed)
    network = HeatmapNet(config.side).to(config.device).train()
    optimizer = torch.optim.Adam(network.parameters(), config.lr)
    pool: list[Sequence] = []
    for step in range(config.steps):
        if len(pool) == POOL:
            pool.pop(draw.randrange(POOL))
        pool.append(read(draw.choice(files), config.smpl, frames=config.frames, side=config.side))
        rows = [(one, draw.randrange(len(one.keypoints))) for one in draw.choices(pool, k=config.batch)]
        shown = [inputs(one, slice(frame, frame + 1)) for one, frame in rows]
        given = (torch.cat(parts).to(config.device) for parts in zip(*shown, strict=True))
        true = [BodyPrediction(*(part[frame] for part in one.truth)) for one, frame in rows]
        target = BodyPrediction(*(torch.stack(parts).to(config.device) for parts in zip(*true, strict=True)))
        loss = supervised_loss(network(*given), target).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % max(1, config.steps // POINTS) == 0:
            log(step, of=of, train_loss=loss)
    return network.eval()


def inputs(one: Sequence, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    """Heatmaps times 20 beside colours, less a half; gender; and the camera."""
    pictures = 20 * heatmaps(one.keypoints[rows], one.camera.image_size)
    whole = torch.cat((pictures, one.images[rows].float() / 255), 1) - 0.5
    K = one.camera.K
    scale = torch.stack((K[0, 0] / 400, K[0, 2] / 100, K[1, 2] / 100))
    return whole, torch.full((len(whole), 1), float(one.gender)), scale.expand(len(whole), -1)
