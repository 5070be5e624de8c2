"""The BO-REP claim: its arms, scales and checks, and what one arm does on one seed."""

import math
from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.bo_rep.config import Config, levels
from throughline.lab import Arm, Beats, Claim, Log, Matches, Quote, Results, Within
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 20  # of a curve
MARGIN = 0.05  # of the test loss, within which two arms are alike


class SurvivesExplodingHypergradients(Claim):
    """Where the hypergradient's norm ranges over orders of magnitude, as for a recurrent encoder in the exploding
    regime, BO-REP reaches a lower test loss than tuned MA-SOBA on the same oracle calls; where it does not, the two
    match."""

    paper = "bo-rep"
    arms = (
        Arm(
            "ma_soba",
            "Moves the outer parameters in proportion to a running average of their gradient through the inner "
            "problem, with one inner step each time.",
        ),
        Arm(
            "bo_rep",
            "Averages as ma_soba does but divides by the norm, so that all outer steps are equally long, and takes "
            "the inner steps in bursts.",
        ),
    )
    context = (
        Arm(
            "ma_soba_clipped",
            "Takes the steps of ma_soba, but shortens every gradient that is longer than a tuned norm before it enters "
            "the running average.",
        ),
        Arm(
            "stocbio",
            "Estimates each outer gradient anew after a few inner steps, with a truncated series for the inner "
            "problem's inverse Hessian, and averages nothing.",
        ),
        Arm(
            "anil",
            "Learns a starting point of the inner parameters along with the outer ones, by differentiating through a "
            "few inner steps from there.",
        ),
    )
    checks = (
        Beats("test_loss", "bo_rep", over="ma_soba", lower=True),
        Matches("test_loss_benign", "bo_rep", "ma_soba", margin=MARGIN),
        Within("call_share", "bo_rep", at_most=1.0),
    )
    scales = {
        "smoke": Config(
            "descriptions", gains=(2.0, 1.0), embedding=4, hidden=8, length=8, batch=4, steps=6, warmup=2, neumann=2
        ),
        "laptop": Config(),
        "paper": Config(
            "amazon",
            gains=(2.0, 1.0),
            embedding=300,
            hidden=4096,
            layers=2,
            length=64,
            lower_lr=1e-3,
            adjoint_lr=1e-2,
            lower_steps=3,
            samples=2_000,
            device="cuda",
        ),
    }
    accepts = ("text", "table")
    quotes = (
        Quote(
            "accuracy on hyper-representation, hyperparameter optimisation and hyper-cleaning",
            "curves above those of MAML, ANIL, StocBiO, TTSA, SABA and MA-SOBA",
            "figures of the paper, not read off",
        ),
    )
    notes = (
        "Step sizes of x: factor-2 grids on two held-out seeds (100, 101), mean test loss. Gain 2: bo_rep from 0.1 to "
        "1.6 gives 2.260 2.179 2.164 2.230 2.352 (taken: 0.4), ma_soba from 0.5 to 16 gives 2.479 2.469 2.512 2.571 "
        "2.671 2.779 (1; in a pilot run 0.25 gave 2.53, and 0.5 gave 2.47). Gain 1.6: 2.212 2.162 2.175 2.216 2.366 "
        "(0.2), 2.367 2.289 2.243 2.211 2.218 2.236 (4). Gain 1: 2.171 2.119 2.120 2.185 2.346 (0.2), 2.317 2.243 "
        "2.189 2.155 2.141 2.158 (8). Gain 1.3, in the pilot: 0.4 and 8. The arms in context: stocbio from 0.25 to 16, "
        "best 1, 8, 8 with 2.690, 2.407, 2.313 at gains 2, 1.6, 1 (with ten Neumann terms one of its steps costs 14 "
        "calls: it takes 114); anil from 0.125 to 8, best 1 with 2.263, 2.156, 2.117: where little explodes, as good "
        "as bo_rep. The other rates (0.1, momentum 0.9) are not tuned, in any arm. An oracle call is a stochastic "
        "gradient or a product with a second derivative; call_share is how many an arm took over those of ma_soba when "
        "none of its steps explodes, and that arm takes as many steps as the calls of bo_rep pay for. With gain 2 the "
        "first hypergradient has a norm of 55 to 75. bo_rep walks out of that region, with norms above 5 for about ten "
        "steps and 0.1 to 0.2 later; a plain step that suits the rest leaps out of it at once, and the encoder that it "
        "leaves is poor to the end. So norm_range (99th percentile over the median) is large for bo_rep and not for "
        "ma_soba, whose explosion is one step. ma_soba is not clipped, as in the paper. ma_soba_clipped cuts each "
        "stochastic hypergradient down to a norm before it enters the running average, as clip_grad_norm_ does before "
        "the step of an optimiser with momentum; its step size and norm were chosen together, on the same seeds: at "
        "gain 2, step sizes of 2, 8 and 32 with a norm of 1 give 2.255 2.239 2.294, with 0.25 2.240 2.155 2.246, with "
        "0.0625 2.777 2.215 2.143; 32 with 0.125 and 0.03125 2.205 and 2.168. From 0.0625 down every step is clipped, "
        "and the product alone counts (128 with 0.015625 and 512 with 0.0039 give 2.143 again, 128 with 0.0625 and 512 "
        "with 0.0156 2.34): steps of one length, as bo_rep's. 32 with 0.0625 is best, or as good as 32 with 0.03125, "
        "at all gains (2.128, 2.115 and 2.102 at 1.6, 1.3 and 1), and was taken. On tables it was set by hand. On a "
        "table the two problems are a share `flipped` of wrong labels and none; the step sizes are the best of two "
        "tables together (phoneme and white wine, seeds 100 and 101): with flips bo_rep from 0.25 to 32 takes 0.5, "
        "ma_soba from 16 to 65,536 by factors of 4 takes 256, without 0.5 and 64 on a flat course; each table alone "
        "would like others, so tune yours: --arms bo_rep --set lr=1. Where the authors' code departs from the paper "
        "(accumulated lower gradients, mixed products on validation batches, a penalty c|y|), the paper is followed. "
        "Paper scale was run on stand-ins alone: its reviews are 25 categories of the collection of 2023, its step "
        "sizes those of the authors for BO-REP in every arm, and its gains are 2 and 1. Tweets: --set "
        "dataset=sentiment140 --set lower_lr=0.05 --set lower_steps=10 --set steps=600."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.bo_rep.data import load

        load(config, 0, levels(config)[0])  # so that a fault of the data is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.bo_rep.data import load
        from throughline.claims.bo_rep.training import clip_norm, courses, plain_budget, step_size

        places, budget = levels(config), plain_budget(config)
        found: list[dict[str, float]] = []
        for number, level in enumerate(places):
            curves = {0: ("loss", "norm"), len(places) - 1: ("loss_benign", "norm_benign")}.get(number)
            problem, norms, calls = load(config, seed, level), [math.nan], 0
            course = courses(arm, problem, config, step_size(arm, config, level), clip_norm(config, level))
            for step, (calls, norm) in enumerate(course, start=1):
                norms.append(norm)
                log(number * budget + calls, of=len(places) * budget)
                if curves is not None:
                    log(calls, of=None, **{curves[1]: norm})
                    if step % max(1, config.steps // POINTS) == 0:
                        log(calls, of=None, **{curves[0]: problem.probe(problem.x, problem.y)})
            middle, high = np.nanpercentile(norms, [50, 99])
            found.append({**problem.test(problem.x, problem.y), "calls": calls, "norm_range": float(high / middle)})
        log.keep(levels=np.array(places), losses=np.array([part["loss"] for part in found]))
        total = sum(part["calls"] for part in found)
        return {
            "test_loss": found[0]["loss"],
            "test_loss_benign": found[-1]["loss"],
            "test_accuracy": found[0]["accuracy"],
            "test_accuracy_benign": found[-1]["accuracy"],
            "norm_range": found[0]["norm_range"],
            "norm_range_benign": found[-1]["norm_range"],
            "oracle_calls": total,
            "call_share": total / (len(places) * budget),
        }

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.bo_rep import figures as draw

        what, unit = draw.words(results.config)
        drawn = {
            f"On part of the test data and in every step, by oracle calls: {what[0]} on the left, {what[1]} on the "
            "right; bands reach from the lowest to the highest seed": draw.courses(results, what),
            f"Test loss at the end against {unit}, a dot per seed, each arm with its best step size": draw.final(
                results, unit
            ),
            f"Test loss at the end, {what[0]}, one line per seed": paired_dots(results, "test_loss", label="test loss"),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
