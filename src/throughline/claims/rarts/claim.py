"""The rarts claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.rarts.config import Config
from throughline.claims.shared.cells.config import PAPER, RANDOM
from throughline.lab import Arm, Beats, Claim, Costs, Log, Quote, Results, Within
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLOSE = 1e-3  # to a closed form


class RelaxesTheSearch(Claim):
    """RARTS finds a better architecture than first-order DARTS and is cheaper than second-order DARTS, and on the
    solvable model it goes next to the bilevel solution, where first-order DARTS does not."""

    paper = "rarts"
    arms = (
        Arm(
            "darts_first",
            "Alternates between the architecture on validation batches and the weights on training batches, each with "
            "the other as it is, and keeps the option of the largest weight everywhere.",
        ),
        Arm(
            "darts_second",
            "Does the same, but moves the architecture by what the validation loss will be after a step on the "
            "weights.",
        ),
        Arm(
            "rarts",
            "Trains two tied copies of the weights, one on training and one on validation batches, and moves the "
            "architecture that they share by the gradients of both losses.",
        ),
    )
    context = (
        Arm(
            "rarts_gauss_seidel",
            "Does as rarts does, with the newest values in every gradient, which takes four passes a step instead of "
            "two.",
        ),
        RANDOM,
    )
    checks = (
        Beats("test_accuracy", "rarts", over="darts_first"),
        Costs("step_cost", "rarts", over="darts_second", at_most=0.6),
        *(Within("solvable_error", str(arm), at_most=CLOSE) for arm in arms),
    )
    scales = {
        "smoke": Config(samples=200, epochs=3, final_epochs=1, retrainings=1, timed=3, warmup=1, solvable_steps=300),
        "laptop": Config(),
        "paper": Config(**PAPER),
    }
    seeds = {"smoke": 2, "laptop": 15, "paper": 5}
    accepts = ("signals", "images")
    quotes = (
        Quote("CIFAR-10 test error %, space of DARTS, RARTS", "2.65 ± 0.07", "from memory, not verified"),
        Quote("the same, DARTS of first order", "3.00 ± 0.14", "arXiv 1806.09055, table 1"),
        Quote("the same, DARTS of second order", "2.76 ± 0.09", "the same table"),
        Quote("time of the search beside second-order DARTS", "60 % less", "the paper's abstract"),
    )
    notes = (
        "Signals of MNIST-1D, the first 1,000 of them. Every arm of a seed starts from the same supernet and sees the "
        "same halves and batches, bit for bit, with the same rates and schedule; alpha's rate is 3e-3, ten times that "
        "of DARTS, since the schedule is thirty times shorter. Nothing is tuned, in any arm: lambda and beta are 1, "
        "which is ours, since the paper's values are not known to us. rarts takes the fused sweep, of two passes a "
        "step; the paper writes the sweep of rarts_gauss_seidel, and which one its times are of is not known to us. "
        "test_accuracy is that of the architecture trained from scratch on both halves from three seeds, looked up in "
        "a table of all 729 architectures that was made once; rank and regret are those of the table. Read it with "
        "care: in rarts alpha also sees the training loss, which likes capacity, so that it puts a convolution on "
        "almost every edge (convolutions counts them), and the cell with one on every edge does as well without any "
        "search. That cell and the median of all are lines in the picture of all architectures; the arm random trains "
        "as many as the passes of one search pay for, and keeps the best on the validation half. step_cost is the "
        "median processor time (on a GPU, the time that passes) of an arm's step, in steps of first-order DARTS that "
        "are taken in turn with it on the same supernet and batch, after a warm-up. The solvable model is that of the "
        "DARTS paper: L_v = alpha w - 2 alpha + 1 and L_t = (w - alpha)^2, whose bilevel solution is alpha = w = 1. "
        "From (2, -2), in steps of plain SGD with rates of 0.02, lambda = beta = 10 and the look ahead of second order "
        "by 0.02, solvable_error is the distance of where an arm ends from its own closed form, (2, 2), 2/1.04 twice, "
        "or 400/370 for alpha of rarts, and solvable_distance the one from the solution. As lambda and beta grow the "
        "limit of rarts goes to the solution; second order is exact for a look ahead of 1/2 alone. It is the same on "
        "every seed. rarts_gauss_seidel and random only inform. The architectures that a run keeps are not trained on "
        "ImageNet. NAS-Bench-201: --set space=cells --set layers=5 --set epochs=100 --set benchmark=FILE."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.shared.cells import loading

        loading.check(config)

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.rarts import searching
        from throughline.claims.shared.cells import loading, truth
        from throughline.claims.shared.cells.random_search import random_search

        setting = loading.load(config, seed)
        if arm == "random":
            decisions, found = random_search(setting, log)
            return truth.worth(setting, decisions) | found
        decisions, found = searching.searched(arm, setting, config, log)
        found |= {"step_cost": searching.step_cost(arm, setting, config), **searching.solved(arm, config, log)}
        return truth.worth(setting, decisions) | found

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.rarts import figures as draw
        from throughline.claims.shared.cells import figures as shared

        drawn = {
            "The solvable model: courses from the same start, and where theory has them end (crosses)": draw.plane(
                results
            ),
            "Where the arms land among all architectures": shared.landscape(results),
            "Weights of the options on each edge during the search, first seed": draw.weights(results),
            "What was decided on the first seed": shared.cells(results),
            shared.AGREEMENT: shared.agreement(results),
            "Time of a step, in steps of first-order DARTS, one line for each seed": draw.costs(results),
            "Test accuracy, one line for each seed": paired_dots(results, "test_accuracy", label="test accuracy"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
