"""A frozen encoder of small pictures: a network that was taught to tell Omniglot's characters apart."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared import random_batches
from throughline.claims.shared.augmentation import affine_view
from throughline.claims.shared.evaluation import outputs
from throughline.claims.shared.pictures import grey, resized
from throughline.data import entries, omniglot
from throughline.data.cache import kept
from throughline.lab.store import code_version

__all__ = ["SIDE", "characters", "embed", "omniglot_encoder", "thickened"]

SIDE = 28  # of its pictures
BATCH, LR = 128, 3e-3


def characters() -> tuple[Tensor, Tensor]:
    """Omniglot's drawings as ``(n, 1, 28, 28)``, ink 1 on paper 0, and their characters ``(n,)``."""
    drawn = omniglot()
    return resized(drawn.images, SIDE), drawn.labels


def thickened(x: Tensor, draw: torch.Generator) -> Tensor:
    """A random half of the images with each stroke widened by a pixel on every side."""
    thick = torch.rand(len(x), generator=draw) < 0.5
    return torch.where(thick[:, None, None, None], F.max_pool2d(x, 3, stride=1, padding=1), x)


def convnet() -> nn.Sequential:
    """Three convolutions to 576 features of a 28 × 28 image."""
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in pairwise((1, 32, 64, 64))
    ]
    network = nn.Sequential(*blocks, nn.Flatten())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def omniglot_encoder(epochs: int, seed: int) -> nn.Module:
    """The network taught to tell Omniglot's characters apart, frozen; it is taught once for all arms of a seed."""
    key = {
        "seed": seed,
        "epochs": epochs,
        "data": [entry.sha256 for entry in entries() if entry.key.startswith("omniglot/")],
        "code": code_version(),
        "machine": [
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
        ],
    }
    with torch.random.fork_rng(devices=[]):  # the arm's own weights do not depend on whether this was kept
        encoder = convnet()
        encoder.load_state_dict(kept("encoders", key, lambda: _taught(epochs, seed)))
    return encoder.eval().requires_grad_(False)


def _taught(epochs: int, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    images, labels = characters()
    encoder, draw = convnet(), torch.Generator().manual_seed(seed)
    network = nn.Sequential(encoder, nn.Linear(576, int(labels.max()) + 1)).train()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    per_epoch = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, epochs * per_epoch, cycle_momentum=False)
    for rows in random_batches.epochs(epochs, len(images), BATCH, draw):
        x = thickened(affine_view(images[rows], draw), draw).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(x), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return encoder.state_dict()


def embed(encoder: nn.Module, images: Tensor) -> Tensor:
    """Its features ``(n, m)`` of images ``(n, c, h, w)`` of any size, grey or in colours."""
    images = grey(images) if images.shape[1] == 3 else images
    images = images if images.shape[-2:] == (SIDE, SIDE) else resized(images, SIDE)
    return outputs(encoder, images.contiguous(memory_format=torch.channels_last), chunk=512)
