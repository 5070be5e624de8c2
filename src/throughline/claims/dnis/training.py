"""The arms of the dnis claim: the same recommender, data and budget, with tables of uniform, cut or searched sizes."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughline.claims.dnis.config import Config
from throughline.claims.dnis.models import Recommender
from throughline.claims.dnis.tasks import Task
from throughline.claims.shared.clocks import clock_of
from throughline.lab import Log
from throughline.search.embedding_size import (
    EmbeddingSizeSearch,
    MixedDimEmbedding,
    SearchableEmbedding,
    compress,
    frequency_blocks,
    make_searchable,
    mixed_dimensions,
    prune,
    weight_parameters,
)

__all__ = ["ARMS", "Fitted", "Plan", "Trainer", "plan_of"]

ORDER, VALID = 11, 13  # keep the draws of one seed apart
POINTS = (0.0, 0.25, 0.5, 0.625, 0.75, 0.875, 0.9375)  # sparsities of the trade-off that is kept for the pictures


class Plan(NamedTuple):
    """What sets an arm apart."""

    search: int = 0  # order of the search; 0 for none
    sparsity: float | None = None  # of the cut behind the training; None for no cut
    grid: bool = False  # whether the size is chosen on validation
    mixed: bool = False  # sizes by popularity


class Fitted(NamedTuple):
    """A trained model, one of those that an arm chooses from, and the course of its search."""

    model: nn.Module
    size: int
    valid: float  # of what the arm hands out
    alphas: list[Tensor]  # (L, K) after each epoch
    block_sizes: list[Tensor]  # (L,) after each epoch


ARMS: dict[str, Callable[[Config], Plan]] = {
    "uniform": lambda config: Plan(grid=True),
    "magnitude": lambda config: Plan(sparsity=config.sparsity),
    "dnis": lambda config: Plan(search=1, sparsity=config.sparsity),
    "mixed": lambda config: Plan(mixed=True),
    "dnis_full": lambda config: Plan(search=1),
    "dnis_16": lambda config: Plan(search=1, sparsity=config.higher_sparsity),
    "dnis_second_order": lambda config: Plan(search=2, sparsity=config.sparsity),
}


def plan_of(arm: str, config: Config) -> Plan:
    return ARMS[arm](config)


class Trainer:
    """What the arms share for one seed."""

    def __init__(self, task: Task, plan: Plan, config: Config, seed: int, log: Log) -> None:
        self.task, self.plan, self.config, self.seed, self.log = task, plan, config, seed, log
        self.blocks = frequency_blocks(task.counts, min(config.blocks, len(task.counts)))
        self.candidates: list[tuple[int, float]] = (  # sizes, and temperatures of the mixed ones
            [(size, 0.0) for size in config.sizes]
            if plan.grid
            else [(max(config.sizes), theta) for theta in (config.temperatures if plan.mixed else (0.0,))]
        )
        self.epoch, self.span = 0, config.epochs + config.search_epochs
        self.total = len(self.candidates) * (len(config.decays) + 1) * self.span

    def metrics(self) -> dict[str, float]:
        """Both regimes: the better of several weight decays, and none."""
        clock = clock_of(self.config.device)
        began = clock()
        regimes = {"": self.config.decays, "_without_decay": (0.0,)}
        found: dict[str, float] = {}
        for ending, decays in regimes.items():
            by_size = {
                candidate: min((self.fit(*candidate, decay) for decay in decays), key=lambda fit: fit.valid)
                for candidate in self.candidates
            }
            best = min(by_size.values(), key=lambda fit: fit.valid)
            product = self.product(best.model)
            found |= {f"{name}{ending}": value for name, value in self.task.test(product).items()}
            if not ending:
                found |= self.stored(product)
                found["size"] = float(best.size)
                self.keep(best, [best] if self.plan.mixed else list(by_size.values()))
        return found | {"cpu_seconds": clock() - began}

    def fit(self, size: int, theta: float, decay: float) -> Fitted:
        """The warm start and the phase behind it, with a search or without one; the best epoch of both."""
        config, task = self.config, self.task
        start = self.epoch
        torch.manual_seed(self.seed)
        model = self.mixed(theta) if self.plan.mixed else task.network(size)
        train = task.batches("train", torch.Generator().manual_seed(self.seed * 100 + ORDER))
        optimizer = torch.optim.Adam(
            weight_parameters(model), config.lr if decay else config.lr_without_decay, weight_decay=decay
        )
        best, state, since = float("inf"), copy.deepcopy(model.state_dict()), 0
        for _ in range(config.epochs):
            self.train(model, train, partial(self.step, model, optimizer))
            loss = task.valid(model)
            since = 0 if loss < best else since + 1
            if since == 0:
                best, state = loss, copy.deepcopy(model.state_dict())
            elif since >= config.patience:
                break
        model.load_state_dict(state)
        self.epoch = start + config.epochs  # of which some were saved
        if self.plan.search:
            self.searchable(model)
            state = copy.deepcopy(model.state_dict())
        alphas, block_sizes = self.looked(model)
        step = self.stepper(model, torch.optim.Adam(weight_parameters(model), config.search_lr, weight_decay=decay))
        for _ in range(config.search_epochs):
            self.train(model, train, step)
            loss = task.valid(model)
            if loss < best:
                best, state = loss, copy.deepcopy(model.state_dict())
            alpha, sizes = self.looked(model)
            alphas, block_sizes = alphas + alpha, block_sizes + sizes
        model.load_state_dict(state)
        return Fitted(model, size, task.valid(self.product(model)), alphas, block_sizes)

    def train(self, model: nn.Module, batches: Iterator[Tensor], step: Callable[[Tensor], object]) -> None:
        """An epoch."""
        for _ in range(self.task.steps):
            step(next(batches))
        self.epoch += 1
        self.log(self.epoch, of=self.total)

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
        loss = self.task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def stepper(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], object]:
        """A step of the second phase: with a search, on α first."""
        if not self.plan.search:
            return partial(self.step, model, optimizer)
        search = EmbeddingSizeSearch(
            model,
            self.task.loss,
            optimizer,
            alpha_lr=self.config.alpha_lr,
            order=self.plan.search,  # type: ignore[arg-type]
        )
        valid = self.task.batches("valid", torch.Generator().manual_seed(self.seed * 100 + VALID))
        return lambda batch: search.step(batch, next(valid))

    def mixed(self, theta: float) -> Recommender:
        """A model whose α is fixed: 1 in as many dimensions as popularity gives a block, and 0 behind them."""
        config, count = self.config, int(self.blocks.max()) + 1
        mean = max(1, round((1 - config.sparsity) * max(config.sizes)))
        sizes = mixed_dimensions(self.task.counts, count, base_dim=mean, temperature=theta)
        model = self.task.network(int(sizes.max()))
        for table in self.searchable(model):
            table.alpha.requires_grad_(False).copy_(torch.arange(int(sizes.max())) < sizes[:, None])
        return model

    def searchable(self, model: Recommender) -> list[SearchableEmbedding]:
        counts = dict.fromkeys(model.tables, self.task.counts)
        make_searchable(model, counts, num_blocks=int(self.blocks.max()) + 1)
        return [table for table in model.modules() if isinstance(table, SearchableEmbedding)]

    def product(self, model: nn.Module) -> nn.Module:
        """What the arm hands out: the model, or a copy of it cut at its sparsity."""
        return model if self.plan.sparsity is None else self.cut(model, self.plan.sparsity)[0]

    def cut(self, model: nn.Module, sparsity: float) -> tuple[nn.Module, list[Tensor]]:
        """A pruned copy, and the sizes of the features in each table."""
        made = copy.deepcopy(model)
        if not any(isinstance(table, SearchableEmbedding) for table in made.modules()):
            assert isinstance(made, Recommender)
            self.searchable(made)
        return made, prune(made, sparsity=sparsity)

    def stored(self, product: nn.Module) -> dict[str, float]:
        """Entries of the tables that are handed out, and their kilobytes: compressed, but for uniform ones."""
        made = copy.deepcopy(product)
        if self.plan.grid:
            assert isinstance(made, Recommender)
            entries = [p for name in made.tables for p in made.get_submodule(name).parameters()]
            kept = [sum(p.numel() for p in entries), sum(p.numel() * p.element_size() for p in entries)]
        else:
            if self.plan.mixed:
                prune(made, threshold=0.0)
            tables = [table for table in compress(made).modules() if isinstance(table, MixedDimEmbedding)]
            parts = [t for table in tables for t in (table.values, table.columns, table.offsets)]
            kept = [sum(len(table.values) for table in tables), sum(t.numel() * t.element_size() for t in parts)]
        return {"parameters": float(kept[0]), "kilobytes": kept[1] / 1000}

    def looked(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """α of the first table, and the mean size of its blocks if it were cut now; nothing without a search."""
        if not self.plan.search:
            return [], []
        alpha = next(table.alpha for table in model.modules() if isinstance(table, SearchableEmbedding))
        return [alpha.detach().clone().cpu()], [self.by_block(model, self.plan.sparsity or self.config.sparsity)]

    def by_block(self, model: nn.Module, sparsity: float) -> Tensor:
        """The mean size of each block of the first table after a cut, ``(L,)``."""
        return self.means(self.cut(model, sparsity)[1][0].cpu())

    def means(self, values: Tensor) -> Tensor:
        """The mean of values of features over each block."""
        zeros = torch.zeros(int(self.blocks.max()) + 1, dtype=torch.float64)
        return zeros.index_add(0, self.blocks, values.double()) / self.blocks.bincount()

    def keep(self, best: Fitted, fits: list[Fitted]) -> None:
        """Store for the pictures: error against entries, sizes by block, and the course of α."""
        self.log.keep(popularity=self.means(self.task.counts))
        test, metric = self.task.test, self.task.metric
        if self.plan.grid or self.plan.mixed:
            points = [(self.stored(fit.model)["parameters"], test(fit.model)[metric]) for fit in fits]
        else:
            cuts = [self.cut(best.model, sparsity) for sparsity in POINTS]
            points = [(float(sum(s.sum() for s in sizes)), test(model)[metric]) for model, sizes in cuts]
            self.log.keep(block_sizes=self.by_block(best.model, self.plan.sparsity or self.config.sparsity))
        if self.plan.mixed:
            table = next(t for t in best.model.modules() if isinstance(t, SearchableEmbedding))
            self.log.keep(block_sizes=table.alpha.sum(1).double())
        self.log.keep(tradeoff=torch.tensor(sorted(points), dtype=torch.float64))
        if best.alphas:
            self.log.keep(alphas=torch.stack(best.alphas), sizes_by_epoch=torch.stack(best.block_sizes))
