"""The lpn claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.lpn.config import Config
from throughline.claims.shared.checks import WhereKnown
from throughline.errors import ThroughlineError
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results, Within
from throughline.lab.plots import curve_bands, paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "prior_rmse": "RMSE of R against −log p",
    "matching_loss": "proximal matching loss on held-out samples",
    "deblur_psnr": "PSNR of deblurred images (dB)",
}


class LearnsTheLogPrior(Claim):
    """Trained with proximal matching, the network's exact prior is the data's −log p; trained with l1 or l2 it is
    not."""

    paper = "lpn"
    arms = (
        Arm(
            "l2",
            "Trains the denoiser on squared error, whose best answer is the mean of the clean samples that fit the "
            "noisy one.",
        ),
        Arm(
            "l1",
            "Trains the denoiser on absolute error, whose best answer is the median of the clean samples that fit the "
            "noisy one.",
        ),
        Arm(
            "proximal_matching",
            "Trains as l1 at first, then on a loss that rewards ever closer hits alone, and so approaches the "
            "likeliest clean sample.",
        ),
    )
    checks = (
        WhereKnown(
            Beats("prior_rmse", "proximal_matching", over="l1", lower=True),
            Beats("matching_loss", "proximal_matching", over="l1", lower=True),
        ),
        WhereKnown(
            Beats("prior_rmse", "proximal_matching", over="l2", lower=True),
            Beats("matching_loss", "proximal_matching", over="l2", lower=True),
        ),
        WhereKnown(
            Beats("prox_rmse", "proximal_matching", over="l1", lower=True),
            Within("noise_in_order", "proximal_matching", at_least=1.0),
        ),
        WhereKnown(
            Within("mean_rmse", "l2", at_most=0.05),
            Within("prior_defined", "proximal_matching", at_least=0.99),
        ),
    )
    scales = {
        "smoke": Config(hidden=16, depth=2, batch=64, pretrain=24, matching=6),
        "laptop": Config(),
        "paper": Config(
            dataset="mnist",
            channels=64,
            image_batch=200,
            image_pretrain=20_000,
            image_matching=5_000,
            scored=100,
            restored=20,
            denoisers=True,
            device="cuda",
        ),
    }
    accepts = ("table", "images")
    quotes = (
        Quote("deblurring CelebA (σ_blur 1, σ_noise 0.02), PSNR / SSIM of LPN", "33.0 / .92", "not verified"),
        Quote("the same, BM3D; DnCNN; GS", "31.0 / .88; 32.3 / .90; 33.0 / .92", "not verified"),
        Quote("sparse-view tomography of MayoCT, LPN", "34.14 / .891", "not verified"),
        Quote(
            "the same, filtered back-projection; adversarial regulariser", "21.29 / .203; 33.48 / .890", "not verified"
        ),
        Quote("compressed sensing of MayoCT, 1/16 and 1/4, LPN", "38.03 / .919; 44.05 / .973", "not verified"),
        Quote("the same, adversarial regulariser", "29.71 / .712; 37.94 / .920", "not verified"),
    )
    notes = (
        "Data: x ~ Laplace(0, 1) under noise of deviation 1, as in the paper's figure 1. The prox of −log p is "
        "the soft threshold at 1, and the prior the absolute value; the posterior mean, which l2 should find, "
        "has a closed form, and mean_rmse says how near l2 came. All arms start from the same weights and see "
        "the same samples and noise, in 16,000 steps of Adam: l1 and l2 at a rate of 1e-3 and, from half-time "
        "on, 1e-4; proximal matching 4,000 steps with l1 and then 2,000 for each γ of .5, .5, .4, .3, .2 and .1. "
        "The paper takes 44,000 steps of 2,000 samples. Nothing was tuned: rates, steps and γ were fixed "
        "beforehand. R comes from the inverse in float64, less R(0); where a network cannot reach a point "
        "(prior_defined below 1) it counts as 0. Own data have no known prior. A table is scaled to deviation 1, "
        "every column of numbers but the one that --target names being a coordinate; images become grey squares "
        "of 28 pixels (--size 64). There proximal matching is to have the lower matching loss on held-out "
        "samples, and its R to rise with every level of noise. Images are also blurred and mixed, and deblurred "
        "with the network in ADMM against total variation, each with the weight of its data term that is best on "
        "training images. At paper scale --set dataset=celeba --set channels=256 --set image_batch=64 trains on "
        "CelebA."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.lpn.data import load

        for name in ("gammas", "table_gammas"):
            if len(getattr(config, name)) != len(config.rates):
                counts = f"{len(getattr(config, name))} and {len(config.rates)}"
                raise ThroughlineError(f"{name} and rates must be as many, got {counts}")
        load(config, 0)  # so that a fault of the data is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.lpn.data import load
        from throughline.claims.lpn.training import train

        task = load(config, seed)
        return task.measure(train(arm, task, config, seed, log), arm, log)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.lpn import figures as draw

        drawn = {
            "What each arm has learned over the truth: the denoiser f and its exact prior R": draw.functions(results),
            "R of corrupted samples, less its mean on clean ones, all seeds": draw.violins(results),
            "Deblurred images of one seed": draw.strip(results),
        }
        for metric, label in LABELS.items():
            if metric in results.metrics:
                drawn[f"{label[0].upper()}{label[1:]}, one line for each seed"] = paired_dots(
                    results, metric, label=label
                )
        if "prox_rmse" in results.curves:
            drawn["Distance to the prox of −log p while training (mean, and range over seeds)"] = curve_bands(
                results, "prox_rmse", label="RMSE against the soft threshold"
            )
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
