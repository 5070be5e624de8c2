"""The darts-pt claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.darts_pt.config import Config
from throughline.claims.shared.cells.config import PAPER, RANDOM
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ChoosesByRemoval(Claim):
    """From the same supernet, perturbation-based selection finds a better architecture than the largest alpha."""

    paper = "darts-pt"
    arms = (
        Arm(
            "magnitude", "Trains a supernet by first-order DARTS and keeps the option of the largest weight everywhere."
        ),
        Arm(
            "perturbation",
            "Takes the same supernet edge by edge: keeps the option whose removal costs most accuracy, and tunes "
            "before the next.",
        ),
    )
    context = (
        Arm("magnitude_tuned", "Goes edge by edge and tunes as perturbation does, and keeps the largest weights."),
        Arm("fixed_alpha", "Trains the supernet's weights alone, all options alike, and selects as perturbation does."),
        RANDOM,
    )
    checks = (Beats("test_accuracy", "perturbation", over="magnitude"),)
    scales = {
        "smoke": Config(samples=200, epochs=3, tuning_epochs=1, final_epochs=1, retrainings=1),
        "laptop": Config(),
        "paper": Config(**{**PAPER, "space": "s2"}, tuning_lr=0.0025),
    }
    accepts = ("signals", "images")
    quotes = (
        Quote("CIFAR-10 test error %, space of DARTS, by magnitude", "3.00 ± 0.14", "the paper's table 1"),
        Quote("the same, by perturbation", "2.61 ± 0.08", "the same table"),
        Quote("the same, by perturbation with alpha fixed", "2.87", "the same table"),
        Quote("space S2: magnitude, perturbation, alpha fixed", "4.85, 2.79, 2.59", "the paper's table of S1 to S4"),
        Quote("space S4: magnitude, perturbation, alpha fixed", "7.20, 2.64, 2.52", "the same table"),
        Quote("NAS-Bench-201: magnitude, perturbation, alpha fixed", "45.7, 11.89, 6.20", "test error on CIFAR-10"),
    )
    notes = (
        "Signals of MNIST-1D, few of them (1,000), so that operations without weights overfit less than convolutions "
        "and weights mislead. Every arm of a seed has the same supernet, halves and batches, bit for bit; the two that "
        "learn alpha differ only after the search. Settings are those of DARTS, but for a rate of alpha ten times as "
        "high, 3e-3, since the schedule is thirty times shorter. The rate of tuning is one for the three arms that "
        "tune, chosen by the mean of their supernet_accuracy on seeds 100 to 109: 0.685 at the paper's 0.0025, 0.737 "
        "at 0.01, 0.761 at 0.02, 0.796 at 0.04, 0.800 at 0.08, 0.768 at 0.16. test_accuracy is that of the decided "
        "network trained from scratch on both halves from three seeds, looked up in a table of all 729 architectures "
        "that was made once; rank and regret are those of the table. supernet_accuracy is that of the supernet on its "
        "validation half after the last decision, without tuning. The context arms are without a check; random trains "
        "as many architectures as the passes of one search pay for. The picture of all architectures tells how little "
        "most of those with a convolution differ: what this setting mostly punishes is a cell without any. At paper "
        "scale --set space=darts, s3 or s4 and --set dataset=cifar100 or svhn (with --set final_channels=16 --set "
        "final_layers=8) are the paper's others; NAS-Bench-201: --set space=cells --set layers=5 --set epochs=100 "
        "--set benchmark=FILE."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.shared.cells import loading

        loading.check(config)

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.darts_pt.selecting import select
        from throughline.claims.shared.cells import loading, truth
        from throughline.claims.shared.cells.random_search import random_search

        setting = loading.load(config, seed)
        decisions, found = random_search(setting, log) if arm == "random" else select(arm, setting, config, log)
        return truth.worth(setting, decisions) | found

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.darts_pt import figures as draw
        from throughline.claims.shared.cells import figures as shared

        drawn = {
            "Where the arms land among all architectures": shared.landscape(results),
            "An option's weight, and the accuracy without it, when its edge was decided": draw.removals(results),
            "Validation accuracy of the supernet along the selection (mean, and range over seeds)": draw.course(
                results
            ),
            "What was decided on the first seed": shared.cells(results),
            shared.AGREEMENT: shared.agreement(results),
            "Test accuracy, one line for each seed": paired_dots(results, "test_accuracy", label="test accuracy"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
