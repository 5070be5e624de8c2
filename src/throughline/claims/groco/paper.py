"""GroCo's claim at paper scale: ResNet-50 on ImageNet, with the recipes of the paper for both losses."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from throughline.claims.groco.config import NEGATIVES, Config
from throughline.claims.groco.evaluation import knn_accuracy
from throughline.claims.groco.models import projection
from throughline.claims.groco.training import infonce_hardest
from throughline.discrete.ordering import GroupOrderingLoss
from throughline.lab import Log, require

__all__ = ["train_imagenet"]

EPOCHS_OF_PROBE = 90
FOLLOW = "import sys; from throughline.claims.groco.paper import follow; follow(sys.argv[1])"


def train_imagenet(arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
    """Train on ``config.gpus`` processes, this one the first, and evaluate."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    job = {"arm": arm, "config": asdict(config), "seed": seed, "address": address}
    others = [
        subprocess.Popen([sys.executable, "-c", FOLLOW, json.dumps({**job, "rank": rank})])
        for rank in range(1, config.gpus)
    ]
    try:
        with _group(address, 0, config.gpus):
            encoder = _train(arm, config, seed, 0, log)
        return _evaluate(encoder, config, seed)
    finally:
        for other in others:
            other.kill()


def follow(job: str) -> None:
    """Train in a process that `train_imagenet` started."""
    given = json.loads(job)
    config = Config(**{**given["config"], "data": None})
    torch.manual_seed(given["seed"])
    with _group(given["address"], given["rank"], config.gpus):
        _train(given["arm"], config, given["seed"], given["rank"], None)


def recipe(arm: str, batch: int) -> tuple[float, int, int]:
    """Peak learning rate, warm-up epochs and output width of the paper's training (SimCLR's with plain SGD)."""
    return (0.75 * 32 * batch / 1024, 1, 2048) if arm == "groco" else (0.075 * batch**0.5, 10, 128)


def _train(arm: str, config: Config, seed: int, rank: int, log: Log | None) -> nn.Module:
    datasets = require("torchvision.datasets", extra="paper")
    models = require("torchvision.models", extra="paper")
    views = require("lightly.transforms", extra="paper").DINOTransform(
        global_crop_size=config.size, n_local_views=0, cj_prob=0.8, random_gray_scale=0.2
    )
    device = torch.device(config.device, rank) if config.device == "cuda" else torch.device(config.device)
    images = datasets.ImageFolder(os.path.join(config.root, "train"), views)
    sampler: DistributedSampler[Any] = DistributedSampler(images, config.gpus, rank, seed=seed, drop_last=True)
    loader = DataLoader(
        images,
        config.batch // config.gpus,
        sampler=sampler,
        num_workers=config.workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=config.workers > 0,
    )
    lr, warmup, width = recipe(arm, config.batch)
    encoder = models.resnet50(zero_init_residual=True)
    features = encoder.fc.in_features
    encoder.fc = nn.Identity()
    model: nn.Module = nn.Sequential(encoder, projection(features, features, width)).to(device)
    if config.gpus > 1:
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        model = nn.parallel.DistributedDataParallel(model)
    loss_of = _objective(arm, config)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-6)
    steps = len(loader) * config.epochs
    rise = max(1, min(warmup * len(loader), steps // 2))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rise)),
        ],
        milestones=[rise],
    )
    half = torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else nullcontext()
    step = 0
    for epoch in range(config.epochs):
        sampler.set_epoch(epoch)
        for pair, _ in loader:
            batch = torch.cat([view.to(device, non_blocking=True) for view in pair[:2]])
            with half:
                z = model(batch)
            loss = loss_of(z.float().unflatten(0, (2, -1)))  # the loss in float32
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if log is not None and step % max(1, steps // 300) == 0:
                log(step, of=steps, loss=loss)
            step += 1
    return encoder  # type: ignore[no-any-return]


def _objective(arm: str, config: Config) -> Callable[[Tensor], Tensor]:
    shared = config.gpus > 1
    if arm == "groco":
        return GroupOrderingLoss(gather_distributed=shared)
    if arm == "infonce":
        contrast = require("lightly.loss", extra="paper").NTXentLoss(config.temperature, gather_distributed=shared)
        return lambda z: contrast(z[0], z[1])
    return lambda z: infonce_hardest(z, config.temperature, NEGATIVES)  # of the process's own share of the batch


@torch.no_grad()
def _features(encoder: nn.Module, config: Config, part: str) -> tuple[Tensor, Tensor]:
    transforms = require("torchvision.transforms", extra="paper")
    resize = [transforms.Resize(config.size * 256 // 224), transforms.CenterCrop(config.size), transforms.ToTensor()]
    normal = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = require("torchvision.datasets", extra="paper").ImageFolder(
        os.path.join(config.root, part), transforms.Compose([*resize, normal])
    )
    device = next(encoder.parameters()).device
    encoder.eval()
    found = [
        (F.normalize(encoder(x.to(device)).float(), dim=-1).half().cpu(), y)
        for x, y in DataLoader(images, 256, num_workers=config.workers)
    ]
    return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


def _evaluate(encoder: nn.Module, config: Config, seed: int) -> dict[str, float]:
    device = next(encoder.parameters()).device
    bank, bank_labels = (t.to(device) for t in _features(encoder, config, "train"))
    queries, query_labels = (t.to(device) for t in _features(encoder, config, "val"))
    return {
        "knn_accuracy": knn_accuracy(bank.float(), bank_labels, queries.float(), query_labels, k=config.k),
        "linear_accuracy": _probe(bank, bank_labels, queries, query_labels, seed),
    }


def _probe(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, seed: int) -> float:
    """A linear layer on the stored features: SGD with a cosine schedule."""
    layer = nn.Linear(bank.shape[1], int(bank_labels.max()) + 1).to(bank.device)
    std, mean = torch.std_mean(bank.float(), 0)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    draw, batch = torch.Generator().manual_seed(seed), 1024
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS_OF_PROBE * -(-len(bank) // batch))
    for _ in range(EPOCHS_OF_PROBE):
        for rows in torch.split(torch.randperm(len(bank), generator=draw).to(bank.device), batch):
            loss = F.cross_entropy(layer((bank[rows].float() - mean) / std.clamp_min(1e-6)), bank_labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    guesses = torch.cat([layer((q.float() - mean) / std.clamp_min(1e-6)).argmax(1) for q in torch.split(queries, 8192)])
    return float((guesses == query_labels).double().mean())


@contextmanager
def _group(address: str, rank: int, processes: int) -> Iterator[None]:
    if processes == 1:
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, address, rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
