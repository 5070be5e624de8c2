"""The stn claim: what its arms share and where they differ, augmentations, own data, the networks of the paper."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.claims.stand_ins import Notes, colour_folder, wine_table
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared import distortion
from throughline.claims.shared.language_models import LanguageModel, endless_windows
from throughline.claims.stn import data, paper, tasks, training
from throughline.claims.stn.claim import TunesWhileTraining
from throughline.claims.stn.config import Config
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.search.best_response import BestResponseLinear, HyperparameterSpace, convert

CLAIM = TunesWhileTraining()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_repeat_and_count_their_steps(arm: str) -> None:
    metrics, notes = run(arm)
    seconds = metrics["cpu_seconds"]
    assert {**run.__wrapped__(arm)[0], "cpu_seconds": seconds} == metrics
    assert {**run(arm, seed=1)[0], "cpu_seconds": seconds} != metrics
    assert 0 < seconds < 60
    assert all(math.isfinite(value) for value in metrics.values())
    of = {of for _, of in notes.places}
    assert of == {18 if arm == "random_search" else 24 if arm == "final_values" else 12}
    assert max(step for step, _ in notes.places) in of
    course = notes.arrays["course"]
    assert (np.diff(course[:, 0]) >= 0).all()
    assert (np.diff(course[1:, 1]) <= 0).all()
    assert course[-1, 1] == pytest.approx(metrics["valid_loss"])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the arms trained: starting weights, rows of their batches, and the values they used."""
    found: dict[str, list[Any]] = {"starts": [], "batches": [], "choices": []}
    network, shuffled, fit = training.Trainer.network, tasks.shuffled, training.Trainer.fit

    def watched(self: Any) -> nn.Module:
        made = network(self)
        found["starts"].append(made[2].weight.detach().clone())  # type: ignore[index]
        return made

    def drawn(x: Tensor, y: Tensor, size: int, draw: torch.Generator) -> tasks.Batches:
        kept: list[Tensor] = []
        found["batches"].append(kept)
        for batch in shuffled(x, y, size, draw):
            kept.append(batch[1])
            yield batch

    def chosen(self: Any, choice: Any, *rest: Any) -> Any:
        found["choices"].append(dict(choice))
        return fit(self, choice, *rest)

    monkeypatch.setattr(training.Trainer, "network", watched)
    monkeypatch.setattr(training.Trainer, "fit", chosen)
    monkeypatch.setattr(data, "shuffled", drawn)
    return found


def test_a_fair_fight(seen: dict[str, list[Any]]) -> None:
    """Every network starts alike and meets the same rows in order; the first trial is the start of self-tuning."""
    for arm in CLAIM.arms:
        torch.manual_seed(hash(arm) % 1000)
        CLAIM.run(arm, SMOKE, 3, Notes())
    assert len(seen["starts"]) == 4  # three trials and the self-tuner
    assert all(torch.equal(start, seen["starts"][0]) for start in seen["starts"])
    train = [batches for batches in seen["batches"] if batches]
    tuned = train[-2]  # the self-tuner's training batches, then those for validation
    assert [len(b) for b in train] == [6, 6, 6, 9, 3]
    for batches in train[:3]:
        assert all(map(torch.equal, batches, tuned[:6]))
    task = CLAIM.task(SMOKE, 3)
    starts = HyperparameterSpace(task.hyperparameters).values()
    assert seen["choices"][0] == pytest.approx(starts)
    for choice in seen["choices"][1:]:
        assert all(low <= choice[name] <= high for name, (low, high) in task.searched.items())
    assert seen["choices"][1] != seen["choices"][2]


def test_search_ranges_are_the_lower_half_but_for_dropout() -> None:
    task = CLAIM.task(replace(CLAIM.scales["laptop"], dataset="digits", train=100, valid=100, test=100), 0)
    assert [h.name for h in task.hyperparameters] == [
        *("input dropout", "first dropout", "second dropout", "shift", "rotation", "noise")
    ]
    for h in task.hyperparameters:
        low, high = task.searched[h.name]
        assert low == h.low == 0
        assert high == (h.high if "dropout" in h.name else h.high / 2)
        assert h.initial == pytest.approx(0.05 * h.high)
        assert h.scale == 0.5


def test_final_values_are_those_of_self_tuning(seen: dict[str, list[Any]]) -> None:
    _, notes = run.__wrapped__("self_tuning", 2)
    run.__wrapped__("final_values", 2)
    assert list(seen["choices"][0].values()) == pytest.approx(notes.arrays["bands"][-1, 1:7].tolist())
    assert notes.curve("rotation")[12] == pytest.approx(seen["choices"][0]["rotation"])


def test_another_start_is_where_it_should_be() -> None:
    for arm, share in (("self_tuning", 0.05), ("other_start", 0.5)):
        first = run(arm, steps=1, warmup=1)[1].arrays["bands"][0]
        limits = [0.9] * 3 + [8 * 2 / 7, 60, 1]
        np.testing.assert_allclose(first[1:7], [share * limit for limit in limits], rtol=1e-5)
        assert (first[7:13] < first[1:7]).all()
        assert (first[13:] > first[1:7]).all()


def test_the_best_moment_is_what_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CLAIM.task(SMOKE, 0)
    best = training.Best(task, replace(SMOKE, decay=0.1, decay_after=2, stop_after=3), Notes())
    nets = [task.network() for _ in range(5)]
    losses = iter([3.0, 1.0, 2.0, 2.0, 5.0])
    monkeypatch.setattr(best, "task", task._replace(score=lambda net, part: tasks.Score(next(losses), 0.5)))
    optimizer, least, rates = torch.optim.SGD(nets[0].parameters(), 1.0), float("inf"), []
    for step, net in enumerate(nets):
        least = best.look(step, net, optimizer, least)
        rates.append(optimizer.param_groups[0]["lr"])
    assert torch.equal(best.network[2].weight, nets[1][2].weight)  # type: ignore[index]
    assert (best.loss, least) == (1.0, 1.0)
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1])
    assert best.stopped


def test_a_rate_that_has_decayed_to_nothing_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CLAIM.task(SMOKE, 0)
    best = training.Best(task, replace(SMOKE, decay=0.1, decay_after=1, least_lr=0.05), Notes())
    monkeypatch.setattr(best, "task", task._replace(score=lambda net, part: tasks.Score(1.0, 0.5)))
    network = task.network()
    optimizer, least, stopped = torch.optim.SGD(network.parameters(), 1.0), float("inf"), []
    for step in range(3):
        least = best.look(step, network, optimizer, least)
        stopped.append(best.stopped)
    assert stopped == [False, False, True]


def test_steps_that_one_trial_leaves_go_to_another() -> None:
    _, notes = run("random_search", stop_after=1, lr=0.0)
    assert len(notes.arrays["trials"]) == 3  # a second look without gain stops after six steps: nothing is left over
    _, notes = run("random_search", stop_after=1, lr=0.0, trial_steps=12, trials=1)
    assert len(notes.arrays["trials"]) == 2


@pytest.mark.parametrize(("trials", "trial_steps"), [(2, 9), (6, 3)])
def test_more_trials_are_shorter_and_cost_the_same(trials: int, trial_steps: int, seen: dict[str, list[Any]]) -> None:
    _, notes = run.__wrapped__("random_search", trials=trials, trial_steps=trial_steps)
    assert len(notes.arrays["trials"]) == len(seen["choices"]) == trials
    assert sum(map(len, seen["batches"])) == trials * trial_steps == SMOKE.trials * SMOKE.trial_steps
    laptop = CLAIM.scales["laptop"]
    assert laptop.trials * laptop.trial_steps == 4_500  # of which the notes say what it costs beside self-tuning


@pytest.mark.parametrize("search", ["tpe", "grid"])
def test_samplers_of_optuna(search: str, seen: dict[str, list[Any]]) -> None:
    metrics, _ = run.__wrapped__("random_search", search=search)
    assert math.isfinite(metrics["test_loss"])
    ranges = CLAIM.task(SMOKE, 0).searched
    assert len(seen["choices"]) == 3
    for choice in seen["choices"]:
        assert all(low <= choice[name] <= high for name, (low, high) in ranges.items())
    if search == "tpe":
        starts = HyperparameterSpace(CLAIM.task(SMOKE, 0).hyperparameters).values()
        assert seen["choices"][0] == pytest.approx(starts)


def test_self_tuning_learns() -> None:
    changes = {"steps": 400, "warmup": 40, "train": 400, "valid": 300, "test": 500, "hidden": 48, "every": 40}
    metrics, notes = run("self_tuning", **changes)
    assert metrics["test_accuracy"] > 0.7  # by chance 0.1
    bands = notes.arrays["bands"]
    assert (bands[-1, 1:7] != bands[0, 1:7]).all()


# ---- augmentations ----


def test_images_are_moved_as_scipy_moves_them() -> None:
    x = torch.rand(3, 2, 9, 9, generator=seeded())
    for k in range(1, 3):  # whole pixels, no turn: the draw gives shift · u, so choose it by u
        draw = seeded(7)
        torch.rand(3, generator=draw)
        across, down = (2 * torch.rand(3, generator=draw) - 1 for _ in range(2))
        out = distortion.moved(x, k / across, torch.zeros(3), seeded(7))
        for b in range(3):
            wanted = ndimage.shift(x[b].numpy(), (0, -k * (down / across)[b].item(), -k), order=1, mode="grid-constant")
            np.testing.assert_allclose(out[b].numpy(), wanted, atol=2e-5)


def test_images_are_turned_around_their_middle() -> None:
    x = torch.rand(2, 1, 9, 9, generator=seeded())
    u = 2 * torch.rand(2, generator=seeded(7)) - 1
    out = distortion.moved(x, torch.zeros(2), 90 / u, seeded(7))
    torch.testing.assert_close(out, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(
        distortion.moved(x, torch.zeros(2), torch.zeros(2), seeded()).round(decimals=4), x.round(decimals=4)
    )


def test_every_image_is_moved_on_its_own() -> None:
    x = torch.rand(1, 1, 9, 9, generator=seeded()).expand(6, -1, -1, -1)
    out = distortion.moved(x, torch.tensor([0.0, 0, 3, 3, 3, 3]), torch.zeros(6), seeded())
    torch.testing.assert_close(out[0], out[1])
    assert len({tuple(image.flatten().tolist()) for image in out[2:]}) == 4


def test_colours_of_grey_images_keep_their_hue() -> None:
    x = torch.rand(4, 1, 5, 5, generator=seeded()).expand(-1, 3, -1, -1)
    values = {name: torch.full((4,), 0.5) for name in ("hue", "saturation", "contrast", "brightness")}
    out = distortion.jittered(x, values, seeded())
    torch.testing.assert_close(out, out[:, :1].expand_as(out))
    none = {name: torch.zeros(4) for name in values}
    colours = torch.rand(4, 3, 5, 5, generator=seeded())
    torch.testing.assert_close(distortion.jittered(colours, none, seeded()), colours)


def test_a_third_of_a_turn_permutes_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distortion, "uniform", lambda n, draw, like: torch.ones(n))
    x = torch.rand(2, 3, 5, 5, generator=seeded()) * 0.2 + 0.4
    values = {name: torch.zeros(2) for name in ("saturation", "contrast", "brightness")}
    out = distortion.jittered(x, {**values, "hue": torch.full((2,), 1 / 3)}, seeded())
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(out - grey, (x - grey).roll(1, 1))


def test_holes_are_cut_out() -> None:
    x = torch.ones(4, 3, 16, 16)
    out = distortion.cutout(x, torch.tensor([0.0, 1, 4, 1]), torch.tensor([8.0, 4, 4, 0]), seeded())
    gone = (out == 0).all(1).flatten(1).sum(1).tolist()
    assert gone[0] == 0
    assert 4 <= gone[1] <= 20
    assert gone[1] < gone[2] <= 80
    assert gone[3] <= 1
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(distortion.cutout(x, torch.zeros(4), torch.zeros(4), seeded()), x)


# ---- data of the user's own ----


@pytest.mark.parametrize("arm", ARMS)
def test_takes_a_table(arm: str, tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), steps=60, trial_steps=30)
    CLAIM.prepare(config)
    notes = Notes()
    metrics = CLAIM.run(arm, config, 0, notes)
    assert metrics["test_accuracy"] > 0.6
    if arm == "self_tuning":
        assert set(notes.points[-1][1]) == {"input dropout", "first dropout", "second dropout", "noise"}


def test_says_that_it_diverged(tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), steps=90, lr=3.0)
    with pytest.raises(ThroughlineError, match=r"self-tuning diverged at lr=3; take a lower one: --set lr=1"):
        CLAIM.run("self_tuning", config, 0, Notes())


def test_takes_an_image_folder(tmp_path: Path) -> None:
    config = replace(SMOKE, data=colour_folder(tmp_path / "pictures"), steps=60, trial_steps=30)
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        notes = Notes()
        assert CLAIM.run(arm, config, 0, notes)["test_accuracy"] > 0.8
    assert {"brightness", "shift", "rotation", "noise"} < set(notes.points[-1][1])


def one_image_of_red(root: Path) -> Source:
    colour_folder(root)
    for file in sorted((root / "red").iterdir())[1:]:
        file.unlink()
    return Source.of(root)


def test_names_what_is_missing_or_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"13467 values an image, and the most is 12288; give --size 32"):
        CLAIM.prepare(replace(SMOKE, data=colour_folder(tmp_path / "pictures", side=67)))
    file = tmp_path / "numbers.csv"
    np.savetxt(file, np.random.default_rng(0).standard_normal((150, 3)), delimiter=",")
    with pytest.raises(DataError, match=r"150 different values, .* --target"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))
    with pytest.raises(DataError, match=r"class red has 1 of 21 rows, and 3 parts need one each"):
        CLAIM.prepare(replace(SMOKE, data=one_image_of_red(tmp_path / "few")))
    with pytest.raises(ThroughlineError, match=r"test must be .* got 99999; dataset=digits has no more: --set test=…"):
        CLAIM.prepare(replace(SMOKE, test=99_999))
    for name, cure, config in (
        ("optuna", r'pip install "throughline\[search\]"', replace(SMOKE, search="tpe")),
        ("torchvision.datasets", "pip install --no-deps torchvision", replace(CLAIM.scales["paper"], device="cpu")),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ThroughlineError, match=cure):
            CLAIM.prepare(config)
    with pytest.raises(DataError, match=r"ptb\.train\.txt: no such file; get ptb\.train\.txt .* --set root=FOLDER"):
        CLAIM.prepare(replace(SMOKE, dataset="ptb", root=str(tmp_path)))


# ---- the paper's scale ----


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's CIFAR-10 with forty images."""

    def make(root: str, *, train: bool, download: bool) -> SimpleNamespace:
        assert download
        draw, n = np.random.default_rng(int(train)), 40 if train else 20
        return SimpleNamespace(data=draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), targets=(np.arange(n) % 10))

    datasets, torchvision = ModuleType("torchvision.datasets"), ModuleType("torchvision")
    vars(datasets)["CIFAR10"] = make
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_cifar_on_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    config = replace(
        CLAIM.scales["paper"], hidden=16, batch=8, steps=5, warmup=1, trials=2, trial_steps=2, every=2, device="cpu"
    )
    CLAIM.prepare(config)
    task = CLAIM.task(config, 0)
    starts = {h.name: h.initial for h in task.hyperparameters}
    assert len(starts) == 15
    assert (starts["holes"], starts["length"], starts["dropout 0"]) == (1, 4, pytest.approx(0.05))
    assert [len(next(task.batches(part, seeded()))[0]) for part in ("train", "valid")] == [8, 8]
    for arm in ARMS:
        notes = Notes()
        assert math.isfinite(CLAIM.run(arm, config, 0, notes)["test_loss"])
        if arm == "random_search":
            holes = notes.arrays["trials"][:, list(starts).index("holes")]
            assert (holes == holes.round()).all()


def test_the_network_is_the_papers() -> None:
    with torch.device("meta"):
        net = paper.AlexNet()
        assert net(torch.empty(2, 3, 32, 32)).shape == (2, 10)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in layers] == [
        (width, (3, 3), (stride, stride))
        for width, stride in zip((64, 192, 384, 256, 256), (2, 1, 1, 1, 1), strict=True)
    ]
    assert [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)] == [
        *((1024, 4096), (4096, 4096), (4096, 10))
    ]


def penn_config(folder: Path) -> Config:
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "<unk>", "the", "dog", "N"]
    draw = np.random.default_rng(0)
    lines = [" ".join(words[i] for i in draw.integers(len(words), size=12)) for _ in range(60)]
    (folder / "ptb.train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return replace(
        SMOKE, dataset="ptb", root=str(folder), hidden=8, batch=4, length=5, lr=1.0, clip=0.25, tune_scale=False
    )


@pytest.fixture
def penn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    config = penn_config(tmp_path)
    monkeypatch.setattr(paper, "fetch", lambda key: tmp_path / "ptb.train.txt")
    return config


def test_the_treebank_on_a_stand_in(penn: Config) -> None:
    CLAIM.prepare(penn)
    for arm in ARMS:
        notes = Notes()
        metrics = CLAIM.run(arm, penn, 0, notes)
        assert metrics["test_loss"] < 1.1 * math.log(12)
    names = {h.name: h.shared for h in CLAIM.task(penn, 0).hyperparameters}
    assert len(names) == 7
    assert [name for name, shared in names.items() if shared] == ["embedding dropout", "weight dropout"]


def test_the_language_model_is_an_lstm() -> None:
    """Without dropout its hidden layers are nn.LSTM, and its state is carried on from window to window."""
    torch.manual_seed(0)
    net, tokens = LanguageModel(11, 8).eval(), torch.randint(11, (4, 10), generator=seeded())
    lstm = nn.LSTM(8, 8, 2, batch_first=True)
    with torch.no_grad():
        for place in range(2):
            for name, value in (
                ("weight_ih", net.inputs[place].weight),
                ("bias_ih", net.inputs[place].bias),
                ("weight_hh", net.hidden[place].weight),
                ("bias_hh", torch.zeros(32)),
            ):
                getattr(lstm, f"{name}_l{place}").copy_(value)
        whole, _ = lstm(net.embedding(tokens))
        parts = [net(tokens[:, :6]), net(tokens[:, 6:])]
    torch.testing.assert_close(torch.cat([p[2] for p in parts], 1), whole)
    torch.testing.assert_close(torch.cat([p[0] for p in parts], 2), net.decoder(whole).mT)


def test_the_language_model_converts_with_all_of_its_weights(penn: Config) -> None:
    task = CLAIM.task(penn, 0)
    net = convert(task.network(), HyperparameterSpace(task.hyperparameters), dropout=task.dropout)
    assert [isinstance(m, BestResponseLinear) for m in net.modules()].count(True) == 4
    assert type(net.model.decoder) is nn.Linear
    inputs, _ = next(task.batches("train", seeded()))
    hyper = net.space.sample(len(inputs), generator=seeded())
    net(inputs, hyper=hyper)[0].sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    before = net.model.carried[True][0][0].clone()  # type: ignore[index, operator]
    task.score(net, "valid")  # looks from the beginning, and leaves the stream where it was
    assert torch.equal(net.model.carried[True][0][0], before)  # type: ignore[index, operator]


def test_a_dropped_word_or_weight_is_dropped_for_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net, tokens = LanguageModel(11, 8).train(), torch.zeros(4, 6, dtype=torch.int64)
    for name in ("weight", "input", "hidden", "output"):
        getattr(net, f"{name}_drop").p = 0.0
    kinds = {bool(net(tokens)[2].eq(net(tokens)[2][:1]).all()) for _ in range(4)}
    assert kinds == {True} or False in kinds
    net.carried.clear()
    out = net(tokens)[2]
    torch.testing.assert_close(out, out[:1].expand_as(out))  # the same word, kept or dropped in all samples


def test_windows_of_text_follow_each_other() -> None:
    tokens = torch.arange(23)
    found = list(islice(endless_windows(tokens, 2, 4), 4))
    assert [x.tolist() for x, _ in found[:3]] == [
        [[0, 1, 2, 3], [11, 12, 13, 14]],
        [[4, 5, 6, 7], [15, 16, 17, 18]],
        [[8, 9], [19, 20]],
    ]
    assert all(torch.equal(y, x + 1) for x, y in found)
    assert torch.equal(found[3][0], found[0][0])


def test_the_loss_of_a_text_is_that_of_every_word() -> None:
    net, tokens = LanguageModel(11, 8), torch.randint(11, (60,), generator=seeded())
    found = paper.read(net, tokens, replace(SMOKE, length=3))
    net.carried = {}
    streams = tokens.view(10, 6)
    with torch.no_grad():
        expected = F.cross_entropy(net.eval()(streams[:, :-1])[0], streams[:, 1:])
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)


# ---- pictures ----


def test_pictures_survive_other_hyperparameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from throughline.claims.stn import figures as draw
    from throughline.lab.results import Results
    from throughline.lab.runner import open_run, plan
    from throughline.lab.store import Unit

    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0, 1), threads=1, command="throughline run stn")
    store, _ = open_run(tmp_path, manifest)
    pictures: list[Callable[[Results], Any]] = [draw.schedule, draw.starts, draw.compute]
    assert [picture(Results(CLAIM, store, SMOKE)) for picture in pictures] == [None] * 3
    for arm in ARMS:
        metrics, notes = run(arm)
        names = {name for _, values in notes.points for name in values}
        curves = {name: {"step": list(c), "value": list(c.values())} for name in names if (c := notes.curve(name))}
        order = ["valid_loss", *(h.name for h in CLAIM.task(SMOKE, 0).hyperparameters)]
        curves = {name: curves[name] for name in order if name in curves}
        store.write(Unit(arm, 0), {"metrics": metrics, "measured": {}, "curves": curves}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    schedule, starts, compute = (picture(results) for picture in pictures)
    assert [axis.get_title() for axis in schedule.axes] == order[1:]
    assert len(starts.axes[0].lines) == 2 + 2
    assert len(compute.axes[0].lines) == 2
