"""GroCo's claim at paper scale: ResNet-50 on ImageNet, with the recipes of the paper for both losses."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import Tensor, nn

from throughline.claims.groco.config import NEGATIVES, Config
from throughline.claims.groco.models import projection
from throughline.claims.groco.training import infonce_hardest
from throughline.claims.shared.image_folders import unit_features, view_pairs
from throughline.claims.shared.probes import knn_accuracy, trained_accuracy
from throughline.claims.shared.process_groups import followers, process_group
from throughline.claims.shared.schedules import warm_cosine
from throughline.discrete.ordering import GroupOrderingLoss
from throughline.lab import Log, require

__all__ = ["train_imagenet"]

EPOCHS_OF_PROBE = 90
FOLLOW = "import sys; from throughline.claims.groco.paper import follow; follow(sys.argv[1])"


def train_imagenet(arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
    """Train on ``config.gpus`` processes, this one the first, and evaluate."""
    with followers(FOLLOW, {"arm": arm, "config": asdict(config), "seed": seed}, config.gpus) as address:
        with process_group(address, 0, config.gpus):
            encoder = _train(arm, config, seed, 0, log)
        return _evaluate(encoder, config, seed)


def follow(job: str) -> None:
    """Train in a process that `train_imagenet` started."""
    given = json.loads(job)
    config = Config(**{**given["config"], "data": None})
    torch.manual_seed(given["seed"])
    with process_group(given["address"], given["rank"], config.gpus):
        _train(given["arm"], config, given["seed"], given["rank"], None)


def recipe(arm: str, batch: int) -> tuple[float, int, int]:
    """Peak learning rate, warm-up epochs and output width of the paper's training (SimCLR's with plain SGD)."""
    return (0.75 * 32 * batch / 1024, 1, 2048) if arm == "groco" else (0.075 * batch**0.5, 10, 128)


def _train(arm: str, config: Config, seed: int, rank: int, log: Log | None) -> nn.Module:
    device = torch.device(config.device, rank) if config.device == "cuda" else torch.device(config.device)
    loader, sampler = view_pairs(
        os.path.join(config.root, "train"),
        config.size,
        config.batch,
        rank=rank,
        processes=config.gpus,
        seed=seed,
        workers=config.workers,
        pinned=device.type == "cuda",
        cj_prob=0.8,
        random_gray_scale=0.2,
    )
    lr, warmup, width = recipe(arm, config.batch)
    encoder = require("torchvision.models", extra="paper").resnet50(zero_init_residual=True)
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
    schedule = warm_cosine(optimizer, steps, warmup * len(loader))
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
        contrast = require("lightly.loss", extra="paper").NTXentLoss(
            config.infonce_temperature, gather_distributed=shared
        )
        return lambda z: contrast(z[0], z[1])
    return lambda z: infonce_hardest(z, config.top10_temperature, NEGATIVES)  # of the process's own share of the batch


def _evaluate(encoder: nn.Module, config: Config, seed: int) -> dict[str, float]:
    bank, bank_labels, queries, query_labels = (
        tensor
        for part in ("train", "val")
        for tensor in unit_features(encoder, os.path.join(config.root, part), config.size, config.workers)
    )
    return {
        "knn_accuracy": knn_accuracy(bank.float(), bank_labels, queries.float(), query_labels, k=config.k),
        "linear_accuracy": trained_accuracy(
            bank, bank_labels, queries, query_labels, epochs=EPOCHS_OF_PROBE, seed=seed
        ),
    }
