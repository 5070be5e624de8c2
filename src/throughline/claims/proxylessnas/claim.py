"""The proxylessnas claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.proxylessnas.config import Config
from throughline.lab import Arm, Claim, Costs, Log, Matches, Quote, Results, require
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from throughline.claims.proxylessnas.data import Task


class SearchesInOnePath(Claim):
    """Searching with binary paths needs the memory of one network, and with the measured latency in the loss it finds a
    faster network that is as accurate."""

    paper = "proxylessnas"
    arms = (
        Arm(
            "softmax",
            "Trains all candidates of every layer at once, mixed by their probabilities, as DARTS of first order does, "
            "and ignores latency.",
        ),
        Arm(
            "paths",
            "Trains a single path at a time, drawn anew for every batch, lets pairs of candidates compete, and ignores "
            "latency.",
        ),
        Arm("paths_latency", "Searches as paths does, with the expected latency of measured candidates in the loss."),
    )
    context = (
        Arm(
            "random",
            "Draws networks at random, as many as the passes of paths pay for, and keeps the most accurate on the "
            "validation half after training on the other.",
        ),
    )
    checks = (
        Costs("saved_bytes", "paths", over="softmax", at_most=0.25),
        Costs("relative_latency", "paths_latency", over="paths", at_most=0.9),
        Matches("test_accuracy", "paths_latency", to="paths", margin=0.02),
    )
    scales = {
        "smoke": Config(
            samples=64, batch=16, warmup=1, epochs=1, final_epochs=1, paths=2, networks=1, rounds=1, repeats=1
        ),
        "laptop": Config(),
        "paper": Config(
            dataset="imagenet",
            batch=256,
            warmup=40,
            epochs=120,
            every=5,
            lr=0.025,
            smoothing=0.1,
            arch_lr=1e-3,
            final_epochs=300,
            final_decay=4e-5,
            device="cuda",
        ),
    }
    accepts = ("signals", "images")
    quotes = (
        Quote("ImageNet top-1 on a V100, for it: accuracy and latency", "75.1 %, 5.1 ms", "abstract and table of GPUs"),
        Quote("the same, MnasNet", "74.0 %, 6.1 ms", "table of GPUs"),
        Quote("the same, MobileNetV2", "72.0 %, 6.1 ms", "table of GPUs"),
        Quote("on a phone, by gradient without latency in the loss", "71.8 %, 83 ms", "not verified"),
        Quote("the same, with it", "74.2 %, 79 ms", "not verified"),
        Quote("the same, by REINFORCE", "74.6 %, 78 ms", "not verified"),
        Quote("search in hours of a GPU; MnasNet", "200; 40,000", "not verified"),
    )
    notes = (
        "All arms of a seed start from one supernet and see the same batches: weights alone at first, then one step on "
        "the weights and one on the architecture for a batch. The rate of the architecture is one for all arms; beta1 "
        "of its Adam is 0, as binary paths need it, and 0.5 in softmax, as DARTS has it. What an arm ends with, the "
        "largest alpha of each block, is trained anew from the same weights on all training rows, and only that is "
        "tested. saved_bytes are the distinct storages, beside the parameters, that a forward pass in training keeps "
        "for the backward pass: of the mixture, or the mean over random paths. The largest path there is keeps less "
        "than a quarter of the mixture, so that this check holds by construction. relative_latency is the time of the "
        "final network at one batch and one thread, in turns with the network that has the least kernel and expansion "
        "in every block; milliseconds are kept beside it, and predicted_ms is the table's. The table is measured anew "
        "in each unit, so that paths_latency does not repeat to the last digit. On MNIST-1D nearly every network of "
        "the space is accurate, and the third check says no more than that. step_seconds is the processor time of an "
        "iteration. To choose rates by, --set held_out=validation trains what was found on one half of the training "
        "rows and scores it on the other; the metric is called test_accuracy all the same. arch_lr is ten times the "
        "6e-3 that is said to be the authors' on CIFAR-10, for a schedule this short, and strength the authors'. "
        "random only informs; its networks are also trained as what was found is, as the points in the first picture. "
        "At paper scale: --set root=FOLDER with train/ and val/ of ImageNet; softmax wants many times the memory "
        "there, hence a smaller --set batch=…"
    )

    def prepare(self, config: Config) -> None:
        if config.data is None and config.dataset == "mnist1d":
            require("mnist1d", extra="signals")
        self.task(config, 0)  # what the units will need is read: a fault is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.proxylessnas.training import ARMS

        return ARMS[arm](arm, self.task(config, seed), config, log)

    def task(self, config: Config, seed: int) -> "Task":
        """The task of a seed, alike in every arm."""
        from throughline.claims.proxylessnas import data, paper

        if config.data is None and config.dataset == "imagenet":
            return paper.load(config, seed)
        return data.load(config, seed)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.proxylessnas import figures as draw
        from throughline.claims.shared.cells.figures import AGREEMENT, agreement

        drawn = {
            "Accuracy against measured latency, one point for each network": draw.pareto(results),
            "Bytes kept for the backward pass against the number of candidates": draw.memory(results),
            "Latency by the table against that of the whole network": draw.predicted(results),
            "Probabilities of the options, block by block": draw.probabilities(results),
            AGREEMENT: agreement(results),
            "Test accuracy, one line for each seed": paired_dots(results, "test_accuracy", label="test accuracy"),
            "Latency beside the least network, one line for each seed": paired_dots(
                results, "relative_latency", label="latency, of the least network's"
            ),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
