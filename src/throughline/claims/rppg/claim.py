"""The rppg claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.rppg.config import Config
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results, Within
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from throughline.claims.rppg.data import Domains

DOMAINS = {"same_rates": "held-out, like the training videos", "cross_rates": "never seen"}  # of the pictures


class ReadsPulseInHardVideos(Claim):
    """Fusing difference frames with raw frames, shift-attention and the dynamic hybrid loss make a 3D network that was
    trained on easy videos read heart rate in hard ones."""

    paper = "rppg"
    arms = (
        Arm(
            "physnet",
            "Trains a 3D network on raw video frames, without attention, to correlate with the measured pulse wave.",
        ),
        Arm(
            "physfsunet",
            "Trains all of the paper: raw frames fused with differences between frames, attention, and a loss that "
            "moves from waveform to spectrum.",
        ),
    )
    context = (
        Arm("difference", "Trains as physnet does, on differences between neighbouring frames alone."),
        Arm(
            "fused",
            "Trains as physnet does, on raw frames fused with their differences: physfsunet without attention and "
            "without its loss.",
        ),
        Arm(
            "pos",
            "Learns nothing: reads the pulse from the frame's mean colour, projected onto a plane at right angles to "
            "the skin's tone.",
        ),
        Arm(
            "chrom",
            "Learns nothing: reads the pulse from two differences within the frame's mean colour, weighed so that "
            "motion cancels.",
        ),
    )
    checks = (
        Beats("cross_mae", "physfsunet", over="physnet", lower=True),
        Within("same_mae", "physnet", at_most=1.0),  # both have learned what they were trained on
        Within("same_mae", "physfsunet", at_most=1.0),
    )
    scales = {
        "smoke": Config(train=4, same=3, cross=4, curve=1, frames=96, crop=32, channels=(4, 4, 8), steps=3),
        "laptop": Config(),
        "paper": Config(
            "pure-mmpd",
            frames=160,
            crop=160,
            size=128,
            fs=30.0,
            channels=(16, 32, 64),
            steps=15_000,
            physnet_lr=1e-3,
            physfsunet_lr=1e-3,
            difference_lr=1e-3,
            fused_lr=1e-3,
            frequency_weight=(1.0, 5.0),
            device="cuda",
        ),
    }
    accepts = ("videos",)
    quotes = (
        Quote("MAE in bpm, PURE to MMPD, physFSUNet", "7.58", "the abstract; all others from a digest, not verified"),
        Quote("the same, raw frames only", "18.20", "not verified"),
        Quote("the same, difference frames only", "11.62", "not verified"),
        Quote("the same, RhythmFormer as quoted there", "8.98", "not verified; elsewhere in the paper 9.73"),
        Quote("r, PURE to MMPD, physFSUNet", "0.50", "not verified; raw frames 0.00, differences 0.25"),
        Quote("MAE in bpm, MMPD to MMPD, physFSUNet", "3.67", "not verified"),
    )
    notes = (
        "Faces are generated, since PURE, UBFC-rPPG and MMPD need a signed agreement: easy ones (motion 0.2, light "
        "0.15, light skin) to train on, hard ones (motion 0.5, light 0.8, darker skin) that no arm has seen. physnet "
        "reads raw frames, has no attention and learns by negative Pearson correlation; difference and fused change "
        "only its input, physfsunet has all of the paper. Every arm has the same clips, crops, mirrors, updates and "
        "optimiser, and a rate of its own, chosen by the error on easy videos on seeds 100 to 102: physnet has 0.33 "
        "bpm at 5e-4, 0.31 at 1e-3 and 8.8 at 2e-3, where one seed does not learn, physfsunet 2.3, 0.31, 0.43 and 0.47 "
        "at 2.5e-4, 5e-4, 1e-3 and 2e-3. difference and fused have 0.29 and 0.34 at 5e-4, 0.28 and 0.25 (two seeds) at "
        "2e-3, and take the 1e-3 in between. Nothing stops early. That a network reads the easy videos to within 1 bpm "
        "is a check of its own: without it an error on hard ones would say nothing. Two mends were made after earlier "
        "verdicts had been seen, none of which is counted any more. In 300 updates physnet did not learn the easy "
        "videos on four of ten seeds (easy error 6 to 34 bpm), at a lower rate neither; in 600 at 1e-3 it did (0.35 to "
        "0.37 on three seeds), so all arms take 600. Before that both domains were harder (motion up to 0.8, light up "
        "to 1): physnet did not learn the easy one, so they, and once the generator, were made easier. With the first "
        "weight of the spectrum's loss at 1, where the public PhysFormer recipe starts, physfsunet did not learn in "
        "300 updates (easy error 18 bpm), so it grows from 0.01 to 5 here; in that recipe the cross entropy has hardly "
        "a gradient. difference and fused stand beside the verdict, because in those runs of 300 updates they did "
        "better on hard videos than all of the paper, unlike in the paper: attention and the hybrid loss cost there. "
        "Not tried: larger frames, backgrounds that move with the head. Truth is the mean rate of a clip. pos and "
        "chrom learn nothing and read the mean colour of the whole frame, as of a face box. Whoever wants real faces "
        "gives a folder of videos (--data), or PURE and MMPD: --scale paper --set root=PURE --set test_root=MMPD, and "
        "--set box=[x,y,w,h] in shares of the frame, since nothing here finds a face. Of videos without a waveform the "
        "rate alone is learned, by the terms of the spectrum, in every arm."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.rppg.data import check

        check(config)
        self.domains(config, 0)  # so that a fault of the videos is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.rppg.data import strengths
        from throughline.claims.rppg.training import CLASSICAL, fit, measure, predict

        domains = self.domains(config, seed)
        network = None if arm in CLASSICAL else fit(arm, domains.train, config, seed, log)
        metrics: dict[str, float] = {}
        for name, videos in (("cross", domains.cross), ("same", domains.same)):
            pulses = [predict(arm, network, video, config) for video in videos]
            scores, rates = measure(pulses, videos, config)
            metrics |= {f"{name}_{metric}": value for metric, value in scores.items()}
            log.keep(**{f"{name}_rates": rates})
            if name == "cross" and videos[0].pulse is not None:
                log.keep(pulse=pulses[0], truth=videos[0].pulse[: len(pulses[0])], bpm=np.float32(videos[0].bpm))
        for name, sets in strengths(config, seed).items():
            found = [measure([predict(arm, network, v, config) for v in videos], videos, config)[0] for videos in sets]
            log.keep(**{name: np.array([scores["mae"] for scores in found], np.float32)})
        return metrics

    def domains(self, config: Config, seed: int) -> "Domains":
        """The videos of a seed, alike in every arm."""
        from throughline.claims.rppg import data, paper

        if config.data is None and config.dataset == "pure-mmpd":
            return paper.load(config)
        return data.load(config, seed)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.rppg import figures as draw
        from throughline.claims.shared.agreement_figures import bland_altman, estimates
        from throughline.claims.shared.pulse_figures import clip

        drawn = {
            "Mean error on videos never seen, one line for each seed": paired_dots(
                results, "cross_mae", label="mean absolute error in bpm"
            ),
            "Estimated against true heart rate, a dot for each video (all seeds)": estimates(
                results, DOMAINS, "bpm", limits=(45, 150)
            ),
            "Bland-Altman: error against the mean of truth and estimate, bias and limits": bland_altman(
                results, DOMAINS, "bpm"
            ),
            "Mean error against motion (in easy light) and against light (on calm faces)": draw.difficulty(results),
            "A hard clip's pulse, band-passed, and its spectrum": clip(results, results.config.fs),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
