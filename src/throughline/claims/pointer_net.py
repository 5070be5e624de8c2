"""Pointer networks against sequence-to-sequence models ("Pointer Networks", arXiv 1506.03134): hulls, tours and
triangulations drawn as in the paper, or the user's own points.
"""

from itertools import islice
from typing import TYPE_CHECKING

from torch import nn

from throughline.claims._pointer_net_data import Config, Split, check, load, task_of
from throughline.claims._pointer_net_models import AttentionSequence, PlainSequence, decoded, train
from throughline.data.planar import hull_scores, tour_length, triangulation_scores
from throughline.discrete.pointer import PointerNetwork
from throughline.lab import Beats, Claim, Log, Within

if TYPE_CHECKING:
    pass


class Pointing(Claim):
    """Pointing beats attending over a fixed vocabulary, and one model serves lengths that it never saw."""

    paper = "pointer-net"
    arms = ("attention", "lstm", "pointer", "pointer_lengths", "pointer_tour")
    context = ("pointer_triangles",)
    checks = (
        Beats("hull_accuracy", "pointer", over="attention"),
        Within("long_area", "pointer_lengths", at_least=0.97),
        Within("tour_ratio", "pointer_tour", at_most=1.08),
    )
    scales = {
        "smoke": Config(
            points=5,
            lengths=(5, 6),
            tested_lengths=(5, 12),
            cities=(4, 5),
            tested_cities=(4, 5, 6),
            hidden=16,
            steps=30,
            test=64,
        ),
        "laptop": Config(),
        "paper": Config(
            points=50,
            lengths=(5, 50),
            tested_lengths=(5, 10, 50, 100, 200, 500),
            cities=(5, 20),
            tested_cities=(5, 10, 20, 25, 30, 40, 50),
            triangulated=50,
            hidden=512,
            init_range=0.08,
            steps=156_250,  # 20 epochs
            test=1_000,
            attention_lr=1.0,
            lstm_lr=1.0,
            pointer_lr=1.0,
            pointer_lengths_lr=1.0,
            pointer_tour_lr=1.0,
            pointer_triangles_lr=1.0,
            optimizer="sgd",
            pairs=1_000_000,
            device="cuda",
        ),
    }
    accepts = ("planar",)
    quotes = ()
    notes = ""

    def prepare(self, config: Config) -> None:
        check(config, (*self.arms, *self.context))

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        split = load(arm, config, seed)
        net = model(arm, config, split)
        rate = getattr(config, f"{arm}_lr")
        batches = islice(split.batches, config.steps)
        train(net, batches, steps=config.steps, lr=rate, momentumless=config.optimizer == "sgd", log=log)
        scores = [score(arm, net, test, config) for test in split.tests]
        return summarise(arm, scores, split)


def model(arm: str, config: Config, split: Split) -> nn.Module:
    """The network of an arm; those with a fixed vocabulary are made for the size that they are trained on."""
    if arm.startswith("pointer"):
        return PointerNetwork(hidden_size=config.hidden, init_range=config.init_range).to(config.device)
    kind = {"attention": AttentionSequence, "lstm": PlainSequence}[arm]
    return kind(split.seen[1], config.hidden, init_range=config.init_range).to(config.device)


def score(arm, net, test, config):
    task = task_of(arm)
    if task == "tsp":
        tours = decoded(net, test, beam_size=config.beam, constraint="tour")
        ours, best = (tour_length(test.points, t).double().mean() for t in (tours, test.targets))
        return {"ratio": float(ours / best)}
    if task == "delaunay":
        return triangulation_scores(decoded(net, test, beam_size=config.beam), test.targets)
    return hull_scores(test.points, decoded(net, test), test.targets)


def summarise(arm, scores, split):
    return {f"{k}_{t.points.shape[1]}": v for s, t in zip(scores, split.tests) for k, v in s.items()}
