"""The AnyLoss claim: its arms, scales and checks, and what one arm does on one seed."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.anyloss.config import Config
from throughline.errors import ThroughlineError
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MetricAsLoss(Claim):
    """On imbalanced data, training on a metric scores higher on that metric than training on cross-entropy."""

    paper = "anyloss"
    arms = (
        Arm(
            "bce",
            "Minimises binary cross-entropy, the usual loss, and calls positive what has a probability above one half.",
        ),
        Arm("mse", "Minimises the squared error between predicted probability and label in place of cross-entropy."),
        Arm(
            "metric_f1",
            "Minimises one minus F1, made differentiable by a steep sigmoid that pushes probabilities almost to 0 or "
            "1.",
        ),
        Arm(
            "metric_balanced_accuracy",
            "Minimises one minus balanced accuracy, the mean recall of both classes, in the same way as metric_f1.",
        ),
    )
    context = (
        Arm(
            "soft_f1",
            "Minimises one minus F1 as metric_f1 does, but on the probabilities as they are, without the steep "
            "sigmoid.",
        ),
        Arm(
            "bce_threshold",
            "Trains as bce does, then moves the decision threshold to where each metric is best on the training rows.",
        ),
        Arm(
            "metric_gmean",
            "Minimises one minus the geometric mean of both classes' recalls, in the same way as metric_f1.",
        ),
        Arm(
            "metric_accuracy",
            "Minimises one minus accuracy, the share of right predictions, in the same way as metric_f1.",
        ),
    )
    checks = (
        Beats("f1", "metric_f1", over="bce"),
        Beats("f1", "metric_f1", over="mse"),
        Beats("balanced_accuracy", "metric_balanced_accuracy", over="bce"),
    )
    scales = {
        "smoke": Config(sets=("haberman", "oil-spill"), steps=50),
        "laptop": Config(),
        "paper": Config(collection="imblearn", models=("slp", "mlp", "resnet"), folds=10, device="cuda"),
    }
    accepts = ("binary",)
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
        from throughline.claims.anyloss.data import splits

        if config.folds == 1:
            raise ThroughlineError("folds=1 leaves nothing to test on: --set folds=2 or more, or 0 for one 70/30 split")
        for model in config.models:
            for _ in splits(model, replace(config, device="cpu"), 0):
                pass

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        import torch

        from throughline.claims.anyloss.data import splits
        from throughline.claims.anyloss.training import SCORES, fit, histogram, measure

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
        from throughline.claims.anyloss import figures as draw

        shown = [arm for arm in draw.SHOWN if arm in results.arms]
        drawn = {
            "F1, mean over data sets; a line joins one seed": paired_dots(results, "f1", shown),
            "Balanced accuracy, mean over data sets": paired_dots(results, "balanced_accuracy", shown),
            "Every data set, the most imbalanced on top (mean over seeds)": draw.by_data_set(results),
            "Test probabilities of two arms, and the amplification A(p) over them": draw.amplification(results),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
