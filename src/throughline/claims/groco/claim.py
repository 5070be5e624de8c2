"""GroCo against NT-Xent ("Learning by Sorting: Self-supervised Learning with Group Ordering Constraints", arXiv
2301.02009): Omniglot drawings by default, the user's image folder, ImageNet at paper scale.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.sorting import relaxed_sort
from throughline.data import DataError, Source, digits, image_folder, omniglot, stratified_split
from throughline.discrete.ordering import GroupOrderingLoss
from throughline.errors import ThroughlineError
from throughline.lab import Beats, Claim, Log, Quote, Results, require
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEGATIVES = 10  # the paper's
EVALUATIONS = 5  # k-NN accuracies along a run
DRAWN_STEEPNESS = 30.0
SHOWN, NEIGHBOURS = 5, 5  # anchors, and nearest neighbours of each, in the picture


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the learning rates and the temperature were searched for each arm."""

    images: str = "omniglot"  # digits, omniglot or imagenet; `data` takes their place
    epochs: int = 12
    batch: int = 256
    k: int = 5  # neighbours that vote
    infonce_lr: float = 8e-3
    groco_lr: float = 8e-3
    temperature: float = 0.1
    size: int = 28
    data: Source | None = None
    root: str = ""  # imagenet: the folder that holds train/ and val/
    device: str = "cpu"
    gpus: int = 1  # imagenet: processes, with a GPU each
    workers: int = 8  # imagenet: loader processes of each


class GroupOrdering(Claim):
    """After the same self-supervised training, nearest neighbours are more often of the same class when groups were
    ordered than when pairs were contrasted."""

    paper = "groco"
    arms = ("infonce", "groco")
    context = ("infonce_top10",)
    checks = (Beats("knn_accuracy", "groco", over="infonce"),)
    scales = {
        "smoke": Config("digits", epochs=2, size=8),
        "laptop": Config(),
        "paper": Config("imagenet", epochs=100, batch=1024, k=20, size=224, device="cuda"),
    }
    accepts = ("images",)
    quotes = (
        Quote("k-NN accuracy (k = 20), ImageNet, ResNet-50, 100 epochs, GroCo", "60.5 %", "the authors' model table"),
        Quote("linear probe, the same network", "69.2 %", "the authors' model table"),
    )
    notes = (
        "Chosen by k-NN accuracy on one held-out seed (1000), over 15 epochs. Peak learning rates 1e-3, 2e-3, 4e-3, "
        "8e-3: GroCo 0.525, 0.600, 0.613, 0.657; NT-Xent at its best temperature, 0.1 for each rate, 0.524, 0.560, "
        "0.590, 0.597. At 8e-3 its temperatures 0.05, 0.07, 0.1, 0.2, 0.5 gave 0.554, 0.583, 0.597, 0.571, 0.468. All "
        "20 pairs were tried for NT-Xent; GroCo's steepness and number of negatives were not tuned. Both arms train "
        "at 8e-3, the end of the grid. The context arm takes NT-Xent's settings untuned. Training lasts 12 epochs in "
        "all arms, for time alone. At paper scale NT-Xent's recipe runs without LARC."
    )

    def prepare(self, config: Config) -> None:
        if config.images == "imagenet" and config.data is None:
            folders = [os.path.join(config.root, part) for part in ("train", "val")]
            if not config.root or not all(map(os.path.isdir, folders)):
                raise ThroughlineError(
                    f"ImageNet needs --set root=FOLDER with train/ and val/ in it, got {config.root!r}"
                )
            for package in ("torchvision", "lightly"):
                require(package, extra="paper")
            return
        split = load(config, 0)
        if len(split.bank) <= NEGATIVES:
            raise DataError(f"{NEGATIVES} negatives need more than {NEGATIVES} training images, got {len(split.bank)}")

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        if config.images == "imagenet" and config.data is None:
            from throughline.claims.groco.paper import train_imagenet

            return train_imagenet(arm, config, seed, log)
        split = load(config, seed)
        encoder, projector = convnet(split.bank.shape[1]), projection(128, 128, 128)
        train(encoder, projector, arm, config, split, seed, log)
        bank, queries = (embed(encoder, split.scaled(x)) for x in (split.bank, split.queries))
        keep_pictures(encoder, projector, bank, queries, split, seed, log)
        return {
            "knn_accuracy": knn_accuracy(bank, split.bank_labels, queries, split.query_labels, k=config.k),
            "linear_accuracy": linear_accuracy(bank, split.bank_labels, queries, split.query_labels),
        }

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.groco import figures as draw

        drawn = {
            "k-NN accuracy on the queries during training (mean, and range over seeds)": draw.curves(results),
            "k-NN accuracy, one line per seed": paired_dots(results, "knn_accuracy", label="k-NN accuracy"),
            "Margins after training: similarity of the other view minus that of the hardest negative": draw.margins(
                results
            ),
            "Queries (left) and their nearest neighbours; a frame marks the right class": draw.neighbours(results),
            f"Mean P of training images after an epoch and at the end, at steepness {DRAWN_STEEPNESS:g} (at the loss's "
            "1 it hardly changes): rows are sorted positions, columns an anchor's negatives and its positive": (
                draw.permutations(results)
            ),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}


Views = Callable[[Tensor, torch.Generator], Tensor]


class Split(NamedTuple):
    """Labelled bank, whose images are also the unlabelled training set, and queries; pixels in [0, 1]."""

    bank: Tensor  # (n, c, h, w)
    bank_labels: Tensor
    queries: Tensor
    query_labels: Tensor
    views: Views  # one random view of every image
    mean: Tensor  # of the bank's pixels by channel
    std: Tensor

    def scaled(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def load(config: Config, seed: int) -> Split:
    """Images, split by drawer (Omniglot) or 75 to 25 within each class."""
    if config.data is None and config.images == "omniglot":
        drawn = omniglot()
        small = F.interpolate(drawn.images, size=(config.size, config.size), mode="bilinear", antialias=True)
        queries = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:5]
        test = torch.isin(drawn.drawers, queries)
        return _split(small, drawn.labels, ~test, test, affine_view)
    if config.data is None:
        images, view = digits(), affine_view
    else:
        images, view = image_folder(config.data.path, size=config.data.size or 32), photo_view
    train, test = (torch.as_tensor(part) for part in stratified_split(images.labels.numpy(), seed, test=0.25))
    return _split(images.images, images.labels, train, test, view)


def _split(images: Tensor, labels: Tensor, train: Tensor, test: Tensor, views: Views) -> Split:
    std, mean = torch.std_mean(images[train], (0, 2, 3), keepdim=True)
    return Split(images[train], labels[train], images[test], labels[test], views, mean, std.clamp_min(1e-6))


def affine_view(x: Tensor, draw: torch.Generator) -> Tensor:
    """Rotate by up to 15°, scale 0.7 to 1.3 (aspect 0.85 to 1.15), shear and shift images ``(n, c, h, w)``."""
    angle, scale, aspect, shear = _uniform(len(x), draw, (-15, 15), (0.7, 1.3), (0.85, 1.15), (-0.3, 0.3))
    angle = angle * (math.pi / 180)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    stretch = torch.zeros(len(x), 2, 2)
    stretch[:, 0, 0], stretch[:, 0, 1], stretch[:, 1, 1] = scale * aspect.sqrt(), shear, scale / aspect.sqrt()
    shift = torch.stack(_uniform(len(x), draw, (-0.2, 0.2), (-0.2, 0.2)), -1)
    return _warped(x, torch.cat([turn @ stretch, shift[..., None]], -1))


def photo_view(x: Tensor, draw: torch.Generator) -> Tensor:
    """Random resized crop (20 to 100 % of the area), flip, colour jitter and grey, of images ``(n, 3, h, w)``."""
    area, ratio, left, top = _uniform(len(x), draw, (0.2, 1), (math.log(3 / 4), math.log(4 / 3)), (-1, 1), (-1, 1))
    width = (area * ratio.exp()).sqrt().clamp(max=1)
    height = (area / ratio.exp()).sqrt().clamp(max=1)
    mirror, grey, jitter = (u < p for u, p in zip(_uniform(len(x), draw, *[(0, 1)] * 3), (0.5, 0.2, 0.8), strict=True))
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = torch.where(mirror, -width, width), left * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, top * (1 - height)
    view = _warped(x, theta, "border")
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    bright, contrast, saturation = (
        torch.where(jitter, u, 1.0).view(-1, 1, 1, 1) for u in _uniform(len(x), draw, *[(0.6, 1.4)] * 3)
    )
    view = (view * bright).clamp(0, 1)
    view = torch.lerp((view * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True), view, contrast).clamp(0, 1)
    saturation = torch.where(grey.view(-1, 1, 1, 1), 0.0, saturation)
    return torch.lerp((view * luma).sum(1, keepdim=True), view, saturation).clamp(0, 1)


def convnet(channels: int) -> nn.Sequential:
    """Four strided convolutions to 128 features."""
    widths = (channels, 16, 32, 64, 128)
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def projection(width: int, hidden: int, out: int) -> nn.Sequential:
    """The paper's projector: three layers, normalised at the end; its output bias would be undone there."""
    return nn.Sequential(
        *(nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, out, bias=False), nn.BatchNorm1d(out, affine=False)),
    )


def infonce(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views ``(2, B, D)``: each of the 2B finds its partner among the other 2B - 1."""
    views = F.normalize(z.flatten(0, 1), dim=-1)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=z.device).roll(z.shape[1])
    return F.cross_entropy(logits, partner)


def infonce_hardest(z: Tensor, temperature: float, negatives: int) -> Tensor:
    """NT-Xent with GroCo's choice: the hardest negatives of the anchor's own view, and only the anchor moves."""
    views = F.normalize(z, dim=-1)
    positive = (views * views.detach().flip(0)).sum(-1, keepdim=True)
    within = views @ views.detach().mT
    own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    logits = torch.cat([positive, within.masked_fill(own, -torch.inf).topk(negatives).values], -1) / temperature
    return F.cross_entropy(logits.flatten(0, 1), torch.zeros(logits[..., 0].numel(), dtype=torch.long, device=z.device))


def objective(arm: str, temperature: float, *, distributed: bool = False) -> Callable[[Tensor], Tensor]:
    """The loss in which the arms differ, of views ``(2, B, D)``."""
    if arm == "groco":
        return GroupOrderingLoss(NEGATIVES, gather_distributed=distributed)
    if arm == "infonce":
        return partial(infonce, temperature=temperature)
    return partial(infonce_hardest, temperature=temperature, negatives=NEGATIVES)


def train(
    encoder: nn.Module, projector: nn.Module, arm: str, config: Config, split: Split, seed: int, log: Log
) -> None:
    """Train on two random views of the bank's images; the order of images and the views are the same in all arms."""
    draw = torch.Generator().manual_seed(seed)
    loss_of = objective(arm, config.temperature)
    weights = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=1e-4)
    batch = min(config.batch, len(split.bank))
    per_epoch = len(split.bank) // batch
    steps = config.epochs * per_epoch
    lr = config.groco_lr if arm == "groco" else config.infonce_lr
    cycle = max(steps, 20)  # it divides by zero when the warm-up is one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, cycle, pct_start=0.1, cycle_momentum=False)
    watch = set(np.linspace(0, steps - 1, EVALUATIONS + 1).round().astype(int).tolist())
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(split.bank), generator=draw)
        rows = order[step % per_epoch * batch :][:batch]
        views = split.scaled(split.views(split.bank[rows].repeat(2, 1, 1, 1), draw))
        loss = loss_of(projector(encoder(views)).unflatten(0, (2, batch)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        seen = {}
        if step in watch:
            bank, queries = (embed(encoder, split.scaled(x)) for x in (split.bank, split.queries))
            seen["k-NN accuracy"] = knn_accuracy(bank, split.bank_labels, queries, split.query_labels, k=config.k)
        if step == min(per_epoch, steps) - 1 or step == steps - 1:
            log.keep(**{"late" if step == steps - 1 else "early": ordering(encoder, projector, split, seed)})
        log(step, of=steps, **seen, **({"loss": loss} if step % max(1, steps // 100) == 0 else {}))


@torch.no_grad()
def embed(network: nn.Module, x: Tensor) -> Tensor:
    """Features in evaluation mode, ``(n, d)``."""
    network.eval()
    features = torch.cat([network(part) for part in torch.split(x, 1024)])
    network.train()
    return features


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, k: int) -> float:
    """Accuracy of the vote of the k most similar of the bank (cosine), each with weight exp(similarity / 0.07)."""
    similarity, nearest = nearest_neighbours(bank, queries, k)
    votes = torch.zeros(len(queries), int(bank_labels.max()) + 1, device=bank.device)
    votes.scatter_add_(1, bank_labels[nearest], (similarity / 0.07).exp())
    return float((votes.argmax(1) == query_labels).double().mean())


def nearest_neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosine similarities of every query and their rows in the bank, ``(n, k)`` each."""
    bank = F.normalize(bank, dim=-1)
    parts = [(F.normalize(q, dim=-1) @ bank.T).topk(min(k, len(bank))) for q in torch.split(queries, 512)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def linear_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor) -> float:
    """Accuracy of a logistic regression on the standardised features."""
    from sklearn.linear_model import LogisticRegression

    std, mean = torch.std_mean(bank, 0)
    x, q = ((f - mean) / std.clamp_min(1e-6) for f in (bank, queries))
    probe = LogisticRegression(C=0.1, tol=1e-3, max_iter=500).fit(x.numpy(), bank_labels.numpy())
    return float(probe.score(q.numpy(), query_labels.numpy()))


@torch.no_grad()
def _similarities(encoder: nn.Module, projector: nn.Module, split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Of at most 1,024 images: similarity to the other view, and those to all others of the same view."""
    draw = torch.Generator().manual_seed(seed)
    some = split.bank[torch.randperm(len(split.bank), generator=draw)[:1024]]
    network = nn.Sequential(encoder, projector)
    one, other = (F.normalize(embed(network, split.scaled(split.views(some, draw))), dim=-1) for _ in range(2))
    return (one * other).sum(-1), (one @ one.T).fill_diagonal_(-torch.inf)


def ordering(encoder: nn.Module, projector: nn.Module, split: Split, seed: int) -> Tensor:
    """Mean P over anchors: columns are the hardest negatives, ascending, then the positive."""
    positive, negative = _similarities(encoder, projector, split, seed)
    hardest = negative.topk(min(NEGATIVES, len(negative) - 1)).values.flip(-1)
    return relaxed_sort(torch.cat([hardest, positive[:, None]], -1), steepness=DRAWN_STEEPNESS).matrix().mean(0)


def keep_pictures(
    encoder: nn.Module, projector: nn.Module, bank: Tensor, queries: Tensor, split: Split, seed: int, log: Log
) -> None:
    """Margins of the training images, and a few queries with their neighbours."""
    positive, negative = _similarities(encoder, projector, split, seed)
    chosen = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed))[:SHOWN]
    _, rows = nearest_neighbours(bank, queries[chosen], NEIGHBOURS)
    log.keep(
        margins=positive - negative.amax(-1),
        shown=torch.cat([split.queries[chosen, None], split.bank[rows]], 1).mul(255).byte(),
        right=split.bank_labels[rows] == split.query_labels[chosen, None],
    )


def _uniform(n: int, draw: torch.Generator, *ranges: tuple[float, float]) -> tuple[Tensor, ...]:
    return tuple(torch.rand(n, generator=draw) * (high - low) + low for low, high in ranges)


def _warped(x: Tensor, theta: Tensor, padding: str = "zeros") -> Tensor:
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)
