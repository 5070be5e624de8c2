"""GroCo's claim: its arms, scales and checks, and what one arm does on one seed."""

import os
from typing import TYPE_CHECKING

from throughline.claims.groco.config import NEGATIVES, Config
from throughline.data import DataError
from throughline.errors import ThroughlineError
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results, require
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GroupOrdering(Claim):
    """After the same self-supervised training, nearest neighbours are more often of the same class when groups were
    ordered than when pairs were contrasted."""

    paper = "groco"
    arms = (
        Arm(
            "infonce",
            "Pulls two views of an image together and pushes all other images of the batch away: the loss NT-Xent.",
        ),
        Arm(
            "groco",
            "Asks only that an image's other view ranks above the ten most similar other images, through a "
            "differentiable sort.",
        ),
    )
    context = (
        Arm(
            "infonce_top10",
            "Contrasts as infonce does, but only with the ten most similar images and, like groco, moves only the "
            "image they are compared with.",
        ),
    )
    checks = (Beats("knn_accuracy", "groco", over="infonce"),)
    scales = {
        "smoke": Config("digits", epochs=2, size=8),
        "laptop": Config(),
        "paper": Config(
            "imagenet",
            epochs=100,
            batch=1024,
            k=20,
            infonce_temperature=0.1,
            top10_temperature=0.1,
            size=224,
            device="cuda",
        ),
    }
    accepts = ("images",)
    quotes = (
        Quote("k-NN accuracy (k = 20), ImageNet, ResNet-50, 100 epochs, GroCo", "60.5 %", "the authors' model table"),
        Quote("linear probe, the same network", "69.2 %", "the authors' model table"),
    )
    notes = (
        "Each arm has a peak learning rate of its own, and NT-Xent and the context arm each a temperature, chosen by "
        "k-NN accuracy on seeds 100 to 102. Rates 4e-3, 8e-3, 1.6e-2, 3.2e-2, at a temperature of 0.1: GroCo (from "
        "8e-3 on) 0.592, 0.596, 0.595; NT-Xent 0.543, 0.560, 0.558, 0.523; the context arm 0.575, 0.585, 0.582, 0.560. "
        "Temperatures 0.07, 0.1, 0.2 at 8e-3: NT-Xent 0.555, 0.560, 0.525; the context arm 0.572, 0.585, 0.600, and "
        "0.599 at 0.4. All take their best. GroCo's steepness and number of negatives were not tuned. Training lasts "
        "12 epochs in all arms, for time alone. At paper scale the rates are those of the paper's recipes, and "
        "NT-Xent's runs without LARC."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.groco.data import load

        if config.images == "imagenet" and config.data is None:
            folders = [os.path.join(config.root, part) for part in ("train", "val")]
            if not config.root or not all(map(os.path.isdir, folders)):
                raise ThroughlineError(
                    f"ImageNet needs --set root=FOLDER with train/ and val/ in it, got {config.root!r}"
                )
            if config.batch // config.gpus <= NEGATIVES:
                raise ThroughlineError(
                    f"batch={config.batch} on gpus={config.gpus}: {NEGATIVES} negatives need more than {NEGATIVES} "
                    f"images on each; --set batch={(NEGATIVES + 1) * config.gpus} or more"
                )
            for package in ("torchvision", "lightly"):
                require(package, extra="paper")
            return
        split = load(config, 0)
        if len(split.bank) <= NEGATIVES:
            raise DataError(
                f"{NEGATIVES} negatives need more than {NEGATIVES} training images, got {len(split.bank)}; add images"
            )

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.groco.data import load
        from throughline.claims.groco.evaluation import keep_pictures
        from throughline.claims.groco.models import encoder_of, projection
        from throughline.claims.groco.training import train
        from throughline.claims.shared.evaluation import outputs
        from throughline.claims.shared.probes import knn_accuracy, linear_accuracy

        if config.images == "imagenet" and config.data is None:
            from throughline.claims.groco.paper import train_imagenet

            return train_imagenet(arm, config, seed, log)
        split = load(config, seed)
        encoder, projector = encoder_of(split.bank.shape[1]), projection(128, 128, 128)
        train(encoder, projector, arm, config, split, seed, log)
        bank, queries = (outputs(encoder, split.scaled(x)) for x in (split.bank, split.queries))
        keep_pictures(encoder, projector, bank, queries, split, seed, log)
        return {
            "knn_accuracy": knn_accuracy(bank, split.bank_labels, queries, split.query_labels, k=config.k),
            "linear_accuracy": linear_accuracy(bank, split.bank_labels, queries, split.query_labels),
        }

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.groco import figures as draw
        from throughline.claims.groco.evaluation import DRAWN_STEEPNESS
        from throughline.claims.shared.neighbour_figures import neighbours

        drawn = {
            "k-NN accuracy on the queries during training (mean, and range over seeds)": draw.curves(results),
            "k-NN accuracy, one line per seed": paired_dots(results, "knn_accuracy", label="k-NN accuracy"),
            "Margins after training: similarity of the other view minus that of the hardest negative": draw.margins(
                results
            ),
            "Queries (left) and their nearest neighbours; a frame marks the right class": neighbours(results),
            f"Mean P of training images after an epoch and at the end, at steepness {DRAWN_STEEPNESS:g} (at the loss's "
            "1 it hardly changes): rows are sorted positions, columns an anchor's negatives and its positive": (
                draw.permutations(results)
            ),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
