"""The pointer network claim: baselines by hand, arms on the same instances, the user's file, the paper's training."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import Notes
from torch import Tensor, nn

from throughline.claims.pointer_net.claim import Pointing
from throughline.claims.pointer_net.config import Config
from throughline.claims.pointer_net.data import load
from throughline.claims.pointer_net.training import decoded, network, nll
from throughline.claims.shared.planar_batches import are_tours, in_unit_square
from throughline.claims.shared.sequence_models import AttentionSequence, PlainSequence
from throughline.data import DataError, Source
from throughline.data.planar import PlanarBatch, make_planar, tour_length
from throughline.discrete.pointer import PAD, STOP, PointerNetwork
from throughline.errors import ThroughlineError
from throughline.lab.results import Results
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit
from throughline.session import Request, run_claims

CLAIM = Pointing()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    torch.manual_seed(seed)
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


def batch_of(n: int = 5, count: int = 3) -> PlanarBatch:
    return make_planar("hull", count, n, generator=torch.Generator().manual_seed(0))


def cells(lstm: nn.LSTM) -> nn.LSTMCell:
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    return cell


def by_hand(net: PlainSequence | AttentionSequence, points: Tensor, target: list[int]) -> Tensor:
    """Logits of one instance as the equations say, a cell and a pair at a time."""
    encoder, hidden = cells(net.encoder), net.encoder.hidden_size
    decoder = net.decoder if isinstance(net, AttentionSequence) else cells(net.decoder)
    h = c = torch.zeros(1, hidden)
    memory = []
    for point in points:
        h, c = encoder(point[None], (h, c))
        memory.append(h[0])
    context, rows = torch.zeros(hidden), []
    for step in range(len(target)):
        last = net.start if step == 0 else points[target[step - 1]]
        if isinstance(net, AttentionSequence):
            h, c = decoder(torch.cat([last, context])[None], (h, c))
            first, second, v = (m.weight for m in (net.attention.key, net.attention.query, net.attention.score))
            weights = torch.stack([v[0] @ torch.tanh(first @ e + second @ h[0]) for e in memory]).softmax(0)
            context = sum(w * e for w, e in zip(weights, memory, strict=True))  # type: ignore[assignment]
            rows.append(net.output(torch.cat([h[0], context])))
        else:
            h, c = decoder(last[None], (h, c))
            rows.append(net.output(h[0]))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [PlainSequence, AttentionSequence])
def test_baselines_are_their_equations(kind: type[PlainSequence | AttentionSequence]) -> None:
    torch.manual_seed(0)
    net, batch = kind(5, 7, init_range=0.8), batch_of()
    logits, found = net(batch.points, batch.targets), net.decode(batch.points)
    assert logits.shape == (3, batch.targets.shape[1], 6)
    assert max(p.abs().max() for p in net.parameters()) <= 0.8
    losses = []
    for row in range(3):
        target = [t for t in batch.targets[row].tolist() if t != PAD]
        expected = by_hand(net, batch.points[row], target)
        torch.testing.assert_close(logits[row, : len(target)], expected, rtol=1e-4, atol=1e-5)
        columns = [5 if t == STOP else t for t in target]
        losses += [-expected.log_softmax(-1)[i, j] for i, j in enumerate(columns)]
        greedy = [t for t in found[row].tolist() if t != PAD]
        chosen = by_hand(net, batch.points[row], [*greedy, 0])[: len(greedy) + 1].argmax(-1).tolist()
        assert chosen[: len(greedy)] == greedy
        assert len(greedy) == 12 or chosen[len(greedy)] == 5
    torch.testing.assert_close(nll(net, batch), torch.stack(losses).mean())


def test_the_pointers_loss_counts_the_same_symbols() -> None:
    torch.manual_seed(0)
    net = PointerNetwork(hidden_size=7, init_range=0.8)
    batch = make_planar("hull", 9, (4, 7), generator=torch.Generator().manual_seed(0))
    symbols = (batch.targets != PAD).sum()
    expected = -net.log_prob(batch.points, batch.targets, lengths=batch.lengths).sum() / symbols
    torch.testing.assert_close(nll(net, batch), expected)
    whole = decoded(net, PlanarBatch(*(torch.cat([x] * 60) for x in batch)))  # more than are decoded together
    assert torch.equal(whole[:9], whole[-9:])


def test_arms_of_one_problem_meet_the_same_instances_and_seeds_others() -> None:
    first = {arm: next(load(arm, SMOKE, 0).batches) for arm in ("attention", "lstm", "pointer")}
    for other in ("attention", "lstm"):
        assert all(torch.equal(a, b) for a, b in zip(first[other], first["pointer"], strict=True))
    split = load("pointer", SMOKE, 0)
    batches = list(islice(split.batches, 20))
    assert len({batch.points[0, 0, 0].item() for batch in batches}) == 20  # fresh ones, over two draws
    assert not torch.equal(batches[0].points, next(load("pointer", SMOKE, 1).batches).points)
    assert not torch.isin(split.tests[0].points[:, 0, 0], torch.cat([b.points[:, 0, 0] for b in batches])).any()


def test_sizes_of_training_and_test() -> None:
    lengths, tours = load("pointer_lengths", SMOKE, 0), load("pointer_tour", SMOKE, 0)
    seen = [batch.lengths.unique().tolist() for batch in islice(lengths.batches, 16)]
    assert sorted(map(tuple, seen))[:1] + sorted(map(tuple, seen))[-1:] == [(5,), (6,)]  # nearly one size a batch
    assert seen != sorted(seen)
    assert [test.points.shape for test in lengths.tests] == [(64, 5, 2), (64, 12, 2)]
    drawn = list(islice(tours.batches, 16))
    assert set(torch.cat([batch.lengths for batch in drawn]).tolist()) == {4, 5}
    assert {batch.points.shape[1] for batch in drawn} == {4, 5}
    assert [test.points.shape[1] for test in tours.tests] == [4, 5, 6]
    paper = CLAIM.scales["paper"]
    assert CLAIM.scales["laptop"].tested_lengths[-1] == 2 * CLAIM.scales["laptop"].lengths[1]
    assert paper.tour_steps == paper.steps == 20 * paper.pairs // paper.batch


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_speaks_for_its_metrics(arm: str) -> None:
    metrics, notes = run(arm)
    wanted = {
        "pointer_lengths": {"long_accuracy", "long_area", "long_invalid"},
        "pointer_tour": {"tour_ratio", "far_tour_ratio"},
        "pointer_triangles": {"triangle_accuracy", "triangle_coverage"},
    }
    assert set(metrics) == wanted.get(arm, {"hull_accuracy", "hull_area", "hull_invalid"})
    losses = [values["loss"] for _, values in notes.points if "loss" in values]
    assert min(losses[-10:]) < min(losses[:10])  # batches differ in size, and the larger is the harder
    assert len(notes.points) == SMOKE.steps
    if arm == "pointer":
        assert notes.arrays["distribution"].sum(-1) == pytest.approx(1, abs=1e-5)


def test_the_tour_ratio_is_over_all_sizes_of_training() -> None:
    metrics, notes = run("pointer_tour")
    assert notes.arrays["sizes"].tolist() == [4, 5, 6]
    tests = load("pointer_tour", SMOKE, 0).tests
    best = [tour_length(test.points, test.targets).sum().item() for test in tests[:2]]
    ratios = notes.arrays["ratio"]
    assert metrics["tour_ratio"] == pytest.approx(np.average(ratios[:2], weights=best))
    assert metrics["far_tour_ratio"] == ratios[2]
    assert (ratios >= 1).all()


def test_a_trained_pointer_gets_hulls_right() -> None:
    metrics, _ = run("pointer", points=4, steps=800, hidden=32, init_range=0.4)
    assert metrics["hull_accuracy"] > 0.5
    assert metrics["hull_area"] > 0.9


def write_instances(file: Path, sizes: list[int], *, task: str | None = None, scale: float = 100.0) -> Path:
    lines = []
    for row, n in enumerate(sizes):
        batch = make_planar(task or "hull", 1, n, generator=torch.Generator().manual_seed(row))  # type: ignore[arg-type]
        numbers = " ".join(f"{scale * v + 7:.6f}" for v in batch.points[0].flatten().tolist())
        indices = " ".join(str(i + 1) for i in batch.targets[0].tolist() if i >= 0)
        lines.append(numbers + (f" output {indices}" if task else ""))
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("arm", ARMS)
def test_takes_a_file_of_points(arm: str, tmp_path: Path) -> None:
    source = Source.of(write_instances(tmp_path / "mine.txt", [7] * 30 + [8] * 10))
    config = replace(SMOKE, data=source)
    CLAIM.prepare(config)
    split = load(arm, config, 0)
    batch = next(split.batches)
    assert batch.points.min() == 0
    assert batch.points.max() == 1  # the unit square, whatever the units of the file
    expected = {"pointer_lengths": ((2, 4), [4, 6, 8]), "pointer_tour": ((7, 8), [8])}.get(arm, ((7, 7), [7]))
    assert split.seen[0] >= expected[0][0]
    assert split.seen[1] == expected[0][1]
    assert [test.points.shape[1] for test in split.tests] == expected[1]
    metrics, _ = run(arm, data=source, steps=3, tour_steps=3)
    assert np.isfinite(list(metrics.values())).all()


def test_held_out_instances_are_not_trained_on(tmp_path: Path) -> None:
    config = replace(SMOKE, data=Source.of(write_instances(tmp_path / "mine.txt", [6] * 40)))
    split = load("pointer", config, 0)
    trained = torch.cat([batch.points[:, 0] for batch in islice(split.batches, 20)])
    assert len(split.tests[0].lengths) == 10
    for point in split.tests[0].points[:, 0]:
        assert not (trained == point).all(-1).any()
    assert len(trained.unique(dim=0)) == 30


def test_tours_of_the_file_are_believed_and_hulls_solved(tmp_path: Path) -> None:
    tours = Source.of(write_instances(tmp_path / "tours.txt", [5] * 12, task="tsp"))
    labels = tours.planar()
    assert are_tours(labels.targets, labels.lengths)
    backwards = labels._replace(targets=labels.targets[:, [0, 4, 3, 2, 1, 5]])
    assert are_tours(backwards.targets, backwards.lengths)
    lines = [line.partition(" output ") for line in (tmp_path / "tours.txt").read_text().splitlines()]
    turned = [f"{xy} output {' '.join([i.split()[0], *i.split()[:0:-1]])}" for xy, _, i in lines]
    (tmp_path / "turned.txt").write_text("\n".join(turned))
    mine = load("pointer_tour", replace(SMOKE, data=Source.of(tmp_path / "turned.txt")), 0).tests[0]
    solved = load("pointer_tour", replace(SMOKE, data=tours), 0).tests[0]
    assert torch.equal(mine.targets[:, [0, 4, 3, 2, 1, 5]], solved.targets)
    hulls = Source.of(write_instances(tmp_path / "hulls.txt", [5] * 12, task="hull")).planar()
    assert not are_tours(hulls.targets, hulls.lengths)


def test_shape_is_kept_in_the_unit_square() -> None:
    points = torch.tensor([[[10.0, 5.0], [14.0, 5.0], [10.0, 7.0], [99.0, 99.0]]]).double()
    expected = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]])
    assert torch.equal(in_unit_square(points, torch.tensor([3])), expected)


SQUARES = "0 0 1 0 0 1 1 1 2 3 3 2\n" * 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 1 0 0 1 1 1\n" * 7, r"attention needs 8 instances of one size, of at least 3 points, there are 7 of 4"),
        ("0 0 1 0\n" * 20, r"attention needs 8 instances .* of at least 3 points, there are none of more than 2"),
        ("0 0 1 0 0 1 1 1\n" * 20, r"pointer_lengths needs 8 instances of at least 6 points, .* none of more than 4"),
        (f"{SQUARES}0 0 1 1 2 2 3 3 4 4 5 5\n", r"the first 6 points of instance 21 lie on one line, or at one place"),
        (f"{SQUARES}{'1 1 ' * 6}\n" * 2, r"line 21: its 6 points all coincide; mend or remove it"),
        ("2 2 2 2 2 2 9 0 0 9 5 4\n" * 20, r"the first 3 points of instance 1 .* and pointer_lengths needs a hull of"),
        ("0 0 1\n", r"line 1: 3 coordinates before output"),
    ],
)
def test_a_file_that_does_not_do_stops_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        run_claims(["pointer-net"], Request(scale="smoke", data=str(tmp_path / "mine.txt"), out=tmp_path / "runs"))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.txt'}: ")
    assert "\n" not in str(caught.value)


def test_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="pointer-net wants a file of planar points, this is images"):
        run_claims(["pointer-net"], Request(scale="smoke", data=str(tmp_path / "pictures"), out=tmp_path / "runs"))
    file = write_instances(tmp_path / "mine.txt", [6] * 12)
    with pytest.raises(DataError, match=r"a target column .* is for tables of features; leave it out"):
        run_claims(["pointer-net"], Request(scale="smoke", data=str(file), target="x", out=tmp_path / "runs"))
    with pytest.raises(DataError, match="groco wants an image folder, this is table"):
        run_claims(["groco"], Request(scale="smoke", data=str(file), out=tmp_path / "runs"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lengths": (9, 5)}, r"lengths must be the least and the most, got 9 and 5; --set lengths=\[5,9\]"),
        ({"pairs": 10, "batch": 64}, r"pairs=10 do not fill a batch of 64; --set batch=10"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ThroughlineError, match=f"^{says}$"):
        CLAIM.prepare(replace(SMOKE, **changes))


def test_paper_scale_takes_a_step() -> None:
    paper = CLAIM.scales["paper"]
    tiny = replace(
        paper,
        points=6,
        lengths=(5, 6),
        tested_lengths=(5, 12),
        cities=(4, 5),
        tested_cities=(4, 22),
        triangulated=10,
        hidden=8,
        steps=5,
        tour_steps=5,
        pairs=300,
        test=4,
        device="cpu",
    )
    CLAIM.prepare(tiny)
    for arm in ARMS:
        notes = Notes()
        metrics = CLAIM.run(arm, tiny, 0, notes)
        assert len(notes.points) == 5  # two batches to an epoch, so that the set goes round
        assert np.isfinite(list(metrics.values())).all()


def test_the_schedules_are_those_of_the_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def spy(self: torch.optim.Optimizer, *args: Any, **options: Any) -> None:
        rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    CLAIM.run("lstm", replace(SMOKE, steps=4, lstm_lr=0.4), 0, Notes())
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    rates.clear()
    CLAIM.run("lstm", replace(SMOKE, steps=3, lstm_lr=1.0, optimizer="sgd"), 0, Notes())
    assert rates == [1.0] * 3


def test_networks_have_the_width_of_the_config() -> None:
    assert isinstance(net := network("pointer", SMOKE, 5), PointerNetwork)
    assert net.encoder.hidden_size == 16
    assert isinstance(other := network("attention", SMOKE, 5), AttentionSequence)
    assert other.output.out_features == 6


def test_draws_what_has_finished(tmp_path: Path) -> None:
    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0, 1), threads=1, command="throughline run pointer-net")
    store, _ = open_run(tmp_path, manifest)
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 1  # nothing yet
    for arm in ("attention", "pointer", "pointer_lengths"):
        metrics, notes = run(arm, 1, steps=3)
        curve = {"step": [0], "value": [1.0]}
        store.write(Unit(arm, 1), {"metrics": metrics, "measured": {}, "curves": {"loss": curve}}, notes.arrays)
    figures = list(CLAIM.figures(Results(CLAIM, store, SMOKE)).values())
    assert len(figures) == 5
    assert [axis.get_title() for axis in figures[1].axes[:3]] == ["hull", "pointer", "attention"]
    assert [axis.get_ylabel() for axis in figures[2].axes] == ["share of hulls right", "area covered"]
