"""Training on a metric against training on cross-entropy ("AnyLoss: Transforming Classification Metrics into Loss
Functions", arXiv 2405.14745): a linear model on ten UCI sets and the paper's generator by default, the user's own
table, and 27 imbalanced sets, an MLP and a ResNet at paper scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from throughline.claims.anyloss.data import Split, digit_splits, table_splits, tables
from throughline.claims.anyloss.models import (
    SCORES,
    Fitted,
    best_threshold,
    fit_mlp,
    fit_resnet,
    fit_slp,
    hard_counts,
    histogram,
)
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab import Beats, Claim, Log, Quote, Results
from throughline.lab.plots import BASELINE, arm_color, paired_dots, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = ("bce", "mse", "bce_threshold", "soft_f1")  # arms whose gradients do not fade: they take the large steps
MODELS = ("slp", "mlp", "resnet")
CURVE = "#c9a227"  # of A(p)
SHOWN = ("bce", "mse", "metric_f1", "metric_balanced_accuracy", "soft_f1", "bce_threshold")


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    collection: str = "uci"  # or imblearn: its 27 sets
    sets: tuple[str, ...] = ()  # of the collection, all by default; `data` takes their place
    models: tuple[str, ...] = ("slp",)  # of slp, mlp, resnet (on MNIST, one digit against the rest)
    folds: int = 0  # of cross-validation; 0 is one 70/30 split
    steps: int = 1000  # of gradient descent on the full batch (slp)
    lr: float = 1.0  # slp: cross-entropy, squared error, and the metric without amplification
    metric_lr: float = 0.03  # slp: the amplified metrics
    epochs: int = 100  # mlp
    resnet_epochs: int = 3
    digits: tuple[int, ...] = tuple(range(10))  # resnet
    data: Source | None = None
    root: str = ""  # folder of torchvision's data sets
    device: str = "cpu"


class MetricAsLoss(Claim):
    """On imbalanced data, training on a metric scores higher on that metric than training on cross-entropy."""

    paper = "anyloss"
    arms = ("bce", "mse", "metric_f1", "metric_balanced_accuracy")
    context = ("soft_f1", "bce_threshold", "metric_gmean", "metric_accuracy")
    checks = (
        Beats("f1", "metric_f1", over="bce"),
        Beats("f1", "metric_f1", over="mse"),
        Beats("balanced_accuracy", "metric_balanced_accuracy", over="bce"),
    )
    scales = {
        "smoke": Config(sets=("haberman", "oil-spill"), steps=50),
        "laptop": Config(),
        "paper": Config(collection="imblearn", models=MODELS, folds=10, device="cuda"),
    }
    accepts = ("table",)
    quotes = tuple(
        Quote(f"{what} (MSE, BCE, AnyLoss; mean over 102 sets)", value, "authors' per-set tables, 10-fold CV")
        for what, value in (
            ("F1, SLP", "0.493, 0.561, 0.673"),
            ("balanced accuracy, SLP", "0.706, 0.739, 0.815"),
            ("G-mean, SLP", "0.543, 0.620, 0.810"),
            ("accuracy, SLP", "0.874, 0.881, 0.887"),
            ("F1, MLP", "0.607, 0.615, 0.727"),
            ("balanced accuracy, MLP", "0.765, 0.771, 0.832"),
            ("G-mean, MLP", "0.658, 0.666, 0.814"),
            ("accuracy, MLP", "0.895, 0.894, 0.886"),
        )
    )
    notes = (
        "Numbers are means over data sets. Two context arms tell how much of the gain is the idea's own: bce_threshold "
        "trains on cross-entropy and moves the decision threshold to where the metric is best on the training rows, "
        "soft_f1 drops the amplification. Both do about as well as the metric losses. "
        "Cross-entropy of the linear model is a convex problem, and 1000 steps at rate 1.0 all but solve it: Adam at "
        "0.05 and a quasi-Newton solver run to the end score an F1 that is lower by 0.002 and 0.010, and the paper's "
        "rate of 0.1 stops short, lower by 0.02. The paper trains MSE at 0.01, which stops shorter still; here it gets "
        "1.0. The metric losses take 0.03. The authors' MLP notebooks go on training one network from loss to loss and "
        "fold to fold; here every arm, fold and seed starts afresh. metric_gmean and metric_accuracy complete the "
        "paper's table of four metrics; at paper scale the names of other models' metrics begin with mlp and resnet."
    )

    def prepare(self, config: Config) -> None:
        if unknown := set(config.models) - set(MODELS):
            raise DataError(f"models must be among {', '.join(MODELS)}; got {', '.join(sorted(unknown))}")
        if torch.device(config.device).type == "cuda" and not torch.cuda.is_available():
            raise ThroughlineError(f"device={config.device}: torch sees no GPU here; --set device=cpu runs without")
        for model in config.models:
            for _ in splits(model, replace(config, device="cpu"), 0):
                pass

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for place, model in enumerate(config.models):
            scores: dict[str, list[list[float]]] = {}  # of every fold, by data set
            share, shapes, curves = {}, [], []
            own = list(splits(model, config, seed)) if model == "slp" else splits(model, config, seed)
            for number, split in enumerate(own):
                torch.manual_seed(seed)  # every set and fold starts afresh, and alike in all arms
                fitted = fit(arm, model, split, config)
                scores.setdefault(split.name, []).append(measure(arm, fitted, split))
                share[split.name] = float(split.y.mean())
                shapes.append(histogram(fitted.test))
                curves.append(fitted.losses)
                log(number, of=len(own) if isinstance(own, list) else None)
            by_set = np.array([np.mean(rows, axis=0) for rows in scores.values()])
            prefix = "" if place == 0 else f"{model}_"
            metrics |= {prefix + name: float(value) for name, value in zip(SCORES, by_set.mean(0), strict=True)}
            if place == 0:
                keep = {name: by_set[:, column] for column, name in enumerate(SCORES)}
                log.keep(names=list(share), share=list(share.values()), shape=np.mean(shapes, axis=0), **keep)
                losses = np.mean(curves, axis=0)
                every = max(1, config.steps // len(losses)) if model == "slp" else 1
                for step, loss in enumerate(losses):
                    log(step * every, of=every * len(losses), loss=loss)
        return metrics

    def figures(self, results: Results) -> "dict[str, Figure]":
        drawn = {
            "F1, mean over data sets; a line joins one seed": paired_dots(results, "f1", _found(results)),
            "Balanced accuracy, mean over data sets": paired_dots(results, "balanced_accuracy", _found(results)),
        }
        if any(results.kept(arm, seed) for arm in results.arms for seed in results.seeds):
            drawn["Every data set, the most imbalanced on top (mean over seeds)"] = by_data_set(results)
            drawn["Test probabilities of two arms, and the amplification A(p) over them"] = amplification(results)
        return drawn


def splits(model: str, config: Config, seed: int) -> Iterator[Split]:
    """The training and test parts of one seed, the same in all arms."""
    if model == "resnet":
        found = digit_splits(config.root, config.digits)
    else:
        data = tables(config.sets, config.collection, config.data)
        found = table_splits(data, config.folds, seed, torch.float64 if model == "slp" else torch.float32)
    for split in found:
        yield Split(split.name, *(part.to(config.device) for part in split[1:]))


def fit(arm: str, model: str, split: Split, config: Config) -> Fitted:
    """Train one arm's model on one split."""
    if model == "slp":
        return fit_slp(arm, split, lr=config.lr if arm in PLAIN else config.metric_lr, steps=config.steps)
    if model == "mlp":
        return fit_mlp(arm, split, epochs=config.epochs)
    return fit_resnet(arm, split, epochs=config.resnet_epochs)


def measure(arm: str, fitted: Fitted, split: Split) -> list[float]:
    """Every score on the test part, at p > 1/2 or at the threshold that is best for it on the training part."""
    found = []
    for score in SCORES.values():
        threshold = best_threshold(fitted.train, split.y, score) if arm == "bce_threshold" else 0.0
        found.append(float(score(hard_counts(fitted.test, split.y_test, threshold))))
    return found


def by_data_set(results: Results) -> "Figure":
    """A dot per arm and data set, with a line from cross-entropy to the arm that trains on the metric."""
    names, share = next((k["names"], k["share"]) for arm in results.arms for k in _kept(results, arm))
    order = np.argsort(share)[::-1]
    figure, axes = subplots(1, 2, size=(8.4, 0.34 * len(names) + 1.7), sharey=True)
    for axis, metric in zip(axes, ("f1", "balanced_accuracy"), strict=True):
        aimed = f"metric_{metric}"
        means = {arm: np.mean([k[metric] for k in _kept(results, arm)], 0) for arm in SHOWN if _kept(results, arm)}
        if "bce" in means and aimed in means:
            axis.hlines(range(len(names)), means["bce"][order], means[aimed][order], color=BASELINE, alpha=0.6)
        for arm, values in means.items():
            look = {"markersize": 6.5} if arm in ("bce", aimed) else {"markersize": 4, "alpha": 0.55}
            label = arm.replace("_", " ")
            axis.plot(values[order], range(len(names)), "o", color=arm_color(results, arm), label=label, **look)
        axis.set_xlabel(metric.replace("_", " "))
        axis.grid(axis="x", color=BASELINE, alpha=0.25)
    axes[0].set_yticks(range(len(names)), [f"{names[i]} ({share[i]:.0%})" for i in order])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def amplification(results: Results) -> "Figure":
    """A(p) for three amplifications over the histograms of bce and metric_f1."""
    figure, axis = subplots(size=(6.4, 3.4))
    for arm in ("bce", "metric_f1"):
        shapes = [k["shape"] for k in _kept(results, arm)]
        if shapes:
            mean = np.mean(shapes, axis=0)
            edges = np.linspace(0, 1, len(mean) + 1)
            axis.stairs(mean, edges, fill=True, color=arm_color(results, arm), alpha=0.45, label=arm.replace("_", " "))
    axis.set(xlabel="predicted probability p", ylabel="share of the test rows")
    axis.legend(loc="upper left", bbox_to_anchor=(0.08, 1.0), frameon=False)
    _amplified(axis.twinx())
    return figure


def _amplified(axis: "Axes") -> None:
    p = np.linspace(0, 1, 401)
    for steepness, style in ((10, ":"), (33, "--"), (73, "-")):
        value = 1 / (1 + np.exp(-steepness * (p - 0.5)))
        axis.plot(p, value, style, color=CURVE, linewidth=1.4, label=f"L = {steepness}")
    axis.set_ylabel("A(p)")
    axis.patch.set_alpha(0)
    axis.legend(loc="center right", frameon=False)


def _found(results: Results) -> tuple[str, ...]:
    return tuple(arm for arm in SHOWN if arm in results.arms)


def _kept(results: Results, arm: str) -> list[dict[str, np.ndarray]]:
    found = (results.kept(arm, seed) for seed in results.seeds) if arm in results.arms else ()
    return [arrays for arrays in found if arrays]
