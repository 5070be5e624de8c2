"""The sd-darts claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.sd_darts.config import Config
from throughline.claims.shared.cells.config import PAPER, RANDOM
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results
from throughline.lab.plots import curve_bands, paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FlattensTheSupernet(Claim):
    """Self-distillation with voting teachers makes the supernet's loss flatter and the architecture read from it
    better."""

    paper = "sd-darts"
    arms = (
        Arm("darts", "Trains a supernet by first-order DARTS and keeps the option of the largest weight everywhere."),
        Arm(
            "self_distillation",
            "Does the same, and draws the supernet's predictions to the mean of its last three states, an epoch apart.",
        ),
    )
    context = (
        Arm("one_teacher", "Does as self_distillation does, with the last state alone for a teacher."),
        RANDOM,
    )
    checks = (
        Beats("sharpness", "self_distillation", over="darts", lower=True),
        Beats("test_accuracy", "self_distillation", over="darts"),
    )
    scales = {
        "smoke": Config(
            samples=200, batch=32, epochs=4, warmup=1, measured=50, every=2, products=2, final_epochs=1, retrainings=1
        ),
        "laptop": Config(),
        "paper": Config(**PAPER, warmup=5, darts_arch_lr=3e-4, measured=250),
    }
    accepts = ("signals", "images")
    quotes = (
        Quote("CIFAR-10 test error %, SD-DARTS", "not available", "its abstract has no figures"),
        Quote("the same, DARTS of first order", "3.00 ± 0.14", "arXiv 1806.09055, table 1"),
        Quote("the same, DARTS of second order", "2.76 ± 0.09", "the same table"),
    )
    notes = (
        "Signals of MNIST-1D, the first 1,000 of them. Every arm of a seed starts from the same supernet and sees the "
        "same halves and batches, bit for bit; alpha's rate is 3e-3, ten times that of DARTS, since the schedule is "
        "thirty times shorter. sharpness is how much the loss of the validation half rises 0.05 uphill in the weights, "
        "at the end of the search, with the batch's own statistics; beside it stand validation_loss, since a lower "
        "loss is a flatter one, eigenvalue, that of the Hessian in alpha which is largest in absolute value, and gap, "
        "the accuracy of the supernet on that half less that of the network which keeps the largest options with the "
        "weights as they are. test_accuracy is that of the architecture trained from scratch on both halves from three "
        "seeds, looked up in a table of all 729 architectures that was made once; rank and regret are those of the "
        "table. Strength and temperature are ours: the paper's are not known to us, nor whether its vote is the mean "
        "of probabilities. How settings are chosen, on seeds 100 to 104 and for each arm among six: by "
        "held_out_accuracy, that of the architecture trained on the training half and scored on the validation half, "
        "which --set tuning=true adds. For self_distillation strength 0.3, 1 and 3 with temperature 1 and 4 "
        "(throughline run sd-darts --arms self_distillation --seeds 100:105 --set tuning=true --set strength=3), the "
        "winner of which one_teacher takes over; for darts, since stronger decay of the weights is the cheap way to a "
        "flatter supernet, darts_decay 3e-4, 1e-3 and 3e-3 with darts_arch_lr 1e-3 and 3e-3. The settings here are "
        "those before any choice. one_teacher and random only inform; random trains as many architectures as the "
        "passes of one search pay for. At paper scale --set space=s2, s3 or s4 are the other spaces; NAS-Bench-201: "
        "--set space=cells --set layers=5 --set epochs=100 --set warmup=10 --set benchmark=FILE."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.sd_darts.training import check
        from throughline.claims.shared.cells import loading

        check(config)
        loading.check(config)

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.sd_darts.training import searched
        from throughline.claims.shared.cells import loading, truth
        from throughline.claims.shared.cells.random_search import random_search

        setting = loading.load(config, seed)
        decisions, found = random_search(setting, log) if arm == "random" else searched(arm, setting, config, log)
        return truth.worth(setting, decisions) | found

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.sd_darts import figures as draw
        from throughline.claims.shared.cells import figures as shared

        drawn = {
            "Validation loss around the supernet at the end of the search (mean, and range over seeds)": draw.slices(
                results
            ),
            "Dominant eigenvalue of the Hessian in alpha during the search (mean, and range over seeds)": curve_bands(
                results, "eigenvalue", label="eigenvalue", xlabel="epoch"
            ),
            "Supernet, and what is left of it when only the largest options stay": draw.gap(results),
            "Where the arms land among all architectures": shared.landscape(results),
            "What was decided on the first seed": shared.cells(results),
            shared.AGREEMENT: shared.agreement(results),
            "Sharpness, one line for each seed": paired_dots(results, "sharpness", label="sharpness"),
            "Test accuracy, one line for each seed": paired_dots(results, "test_accuracy", label="test accuracy"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
