"""The BO-REP claim: problems against formulas, the arms' common ground and budget, own data, the paper's sets."""

import itertools
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import Notes, wine_table
from torch import Tensor

from throughline.claims.bo_rep import paper as reviews
from throughline.claims.bo_rep import training as arms
from throughline.claims.bo_rep.claim import SurvivesExplodingHypergradients
from throughline.claims.bo_rep.cleaning import flip
from throughline.claims.bo_rep.config import Config, kind, levels
from throughline.claims.bo_rep.data import load
from throughline.claims.bo_rep.problems import Encoder, Problem
from throughline.claims.shared.texts import encode
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab.results import Results, judge
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit

CLAIM = SurvivesExplodingHypergradients()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_repeats_itself_and_says_how_it_went(arm: str) -> None:
    metrics, notes = run(arm)
    assert metrics == run.__wrapped__(arm)[0]
    assert metrics != run(arm, seed=1)[0]
    assert all(math.isfinite(value) for value in metrics.values())
    assert notes.arrays["levels"].tolist() == [2.0, 1.0]
    assert notes.arrays["losses"].tolist() == [metrics["test_loss"], metrics["test_loss_benign"]]
    for name in ("loss", "norm", "loss_benign", "norm_benign"):
        assert len(notes.curve(name)) >= 1
    assert metrics["oracle_calls"] == max(notes.curve("norm")) + max(notes.curve("norm_benign"))
    assert metrics["norm_range"] >= 1


def test_all_arms_spend_the_oracle_calls_of_bo_rep_to_a_step() -> None:
    found = {arm: run(arm, steps=31, period=2, warmup=3)[0] for arm in ARMS}
    spent = {arm: metrics["oracle_calls"] / 2 for arm, metrics in found.items()}
    per_step = {"ma_soba": 32 * (1 + 3), "bo_rep": 16 * 2 + 31 * 3, "ma_soba_clipped": 32 * (1 + 3)}
    for arm, calls in per_step.items():
        assert spent[arm] == 3 + calls
    assert spent["bo_rep"] == arms.budget(replace(SMOKE, steps=31, period=2, warmup=3))
    assert spent["stocbio"] <= spent["bo_rep"] < spent["stocbio"] + 2 + 2 + 2  # another step would not fit
    assert spent["anil"] <= spent["bo_rep"] < spent["anil"] + 5
    for arm, metrics in found.items():
        assert metrics["call_share"] == spent[arm] / spent["ma_soba"] <= 1
    even = {arm: run(arm)[0] for arm in CLAIM.arms}
    assert even["bo_rep"]["oracle_calls"] == even["ma_soba"]["oracle_calls"]
    assert even["bo_rep"]["call_share"] == 1


@pytest.mark.parametrize(("period", "lower_steps"), [(1, 3), (2, 3), (3, 1), (4, 2)])
def test_the_baseline_never_has_fewer_calls_than_bo_rep(period: int, lower_steps: int) -> None:
    config = {"steps": 7, "period": period, "lower_steps": lower_steps, "gains": (1.0,)}
    plain, ours = (run(arm, **config)[0] for arm in CLAIM.arms)
    assert ours["oracle_calls"] <= plain["oracle_calls"] < ours["oracle_calls"] + 4
    assert ours["call_share"] == ours["oracle_calls"] / plain["oracle_calls"]


def test_the_two_arms_differ_in_what_the_paper_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, dict[str, Any]] = {}
    starts: dict[str, list[Tensor]] = {}
    real = arms.BOREP

    def watch(upper: Any, lower: Any, x: Any, y: Any, **options: Any) -> Any:
        if arm not in made:
            made[arm] = options
            starts[arm] = [p.detach().clone() for p in (*x.values(), *y.values())]
        return real(upper, lower, x, y, **options)

    monkeypatch.setattr(arms, "BOREP", watch)
    for arm in CLAIM.arms:
        CLAIM.run(arm, replace(SMOKE, lr=0.1), 0, Notes())
    assert all(torch.equal(a, b) for a, b in zip(*starts.values(), strict=True))
    plain, ours = made["ma_soba"], made["bo_rep"]
    different = {name: (plain[name], ours[name]) for name in plain if plain[name] != ours[name]}
    assert different == {"period": (1, 2), "lower_steps": (1, 2), "normalize": (False, True)}


def test_the_arms_meet_the_same_batches() -> None:
    for level in levels(SMOKE):
        one, other = load(SMOKE, 3, level), load(SMOKE, 3, level)
        for name in ("upper_batches", "lower_batches"):
            for _ in range(3):
                assert torch.equal(next(getattr(one, name)), next(getattr(other, name)))
    assert not torch.equal(next(load(SMOKE, 3, 2.0).upper_batches), next(load(SMOKE, 4, 2.0).upper_batches))


def test_a_step_that_explodes_ends_the_training_and_not_the_unit() -> None:
    metrics, notes = run("ma_soba", lr=1e30)
    assert metrics["oracle_calls"] < run("ma_soba")[0]["oracle_calls"]
    assert len(notes.arrays["losses"]) == 2


def test_step_sizes_are_those_of_the_nearest_level() -> None:
    for config in (SMOKE, CLAIM.scales["laptop"], CLAIM.scales["paper"], replace(SMOKE, dataset="sentiment140")):
        for arm in ARMS:
            tuned = arms.STEP_SIZES[kind(config)][arm]
            for level, size in tuned.items():
                assert arms.step_size(arm, config, level + 1e-3) == size
            assert arms.step_size(arm, replace(config, lr=7.0), 1.0) == 7.0
        for level, norm in arms.CLIP_NORMS[kind(config)].items():
            assert arms.clip_norm(config, level + 1e-3) == norm
        assert arms.clip_norm(replace(config, clip=7.0), 1.0) == 7.0


def quadratic() -> Problem:
    """F = |y − t|²/2 + |x|²/2 and G = |y − Ax|²/2 without noise, in float64."""
    a, t = torch.tensor([[1.0, 2.0], [0.0, 1.0]]).double(), torch.tensor([1.0, -1.0]).double()
    x, y = ({"p": torch.tensor(values).double()} for values in ([0.3, -0.2], [0.1, 0.4]))
    return Problem(
        x,
        y,
        lambda x, y, _: ((y["p"] - t).square().sum() + x["p"].square().sum()) / 2,
        lambda x, y, _: (y["p"] - a @ x["p"]).square().sum() / 2,
        itertools.repeat(None),
        itertools.repeat(None),
        lambda x, y: {"loss": 0.0, "accuracy": 0.0},
        lambda x, y: 0.0,
    )


def test_without_effect_clipping_leaves_ma_soba() -> None:
    plain, free = (run(arm, lr=1.0, clip=1e9)[0] for arm in ("ma_soba", "ma_soba_clipped"))
    assert free == pytest.approx(plain, rel=1e-4)
    short = run("ma_soba_clipped", lr=1.0, clip=1e-3)[0]
    assert abs(short["test_loss"] - plain["test_loss"]) > 1e-3


def test_hypergradients_are_clipped_before_they_are_averaged() -> None:
    p = quadratic()
    config = replace(SMOKE, warmup=1, lower_steps=1, period=1, steps=3, lower_lr=0.5, adjoint_lr=0.5, momentum=0.5)
    a, t = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    x, y = (p.x["p"].numpy().copy(), p.y["p"].numpy().copy())
    y = y - 0.5 * (y - a @ x)
    z, m, norms = np.zeros(2), np.zeros(2), []
    for _ in range(3):
        y = y - 0.5 * (y - a @ x)
        z = z - 0.5 * (z - (y - t))
        gradient = x + a.T @ z
        norms.append(np.linalg.norm(gradient))
        m = 0.5 * m + 0.5 * gradient * min(1.0, 0.8 / norms[-1])
        x = x - 0.3 * m
    assert min(norms) < 0.8 < max(norms)  # one is cut, and one is left
    found = list(arms.clipped(p, config, 0.3, 0.8))
    assert [calls for calls, _ in found] == [1 + 4, 1 + 8, 1 + 12]
    np.testing.assert_allclose([norm for _, norm in found], norms, rtol=1e-6)
    np.testing.assert_allclose(p.x["p"].numpy(), x, rtol=1e-6)
    np.testing.assert_allclose(p.y["p"].numpy(), y, rtol=1e-6)


def test_stocbio_takes_the_hypergradient_of_neumann() -> None:
    p = quadratic()
    config = replace(SMOKE, warmup=1, neumann=3, lower_steps=2, steps=2, lower_lr=0.5, adjoint_lr=0.5)
    a, t = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    x, y = (p.x["p"].numpy().copy(), p.y["p"].numpy().copy())
    for _ in range(1 + 2):
        y = y - 0.5 * (y - a @ x)
    u = 0.5 * sum(0.5**j for j in range(3 + 1)) * (y - t)
    gradient = x + a.T @ u  # the mixed derivative is −Aᵀ
    calls, norm = next(arms.stocbio(p, config, 0.1))
    assert calls == 1 + 2 + 1 + 3 + 1
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-6)
    np.testing.assert_allclose(p.y["p"].numpy(), y)
    np.testing.assert_allclose(p.x["p"].numpy(), x - 0.1 * gradient, rtol=1e-6)


def test_anil_learns_the_start_through_the_lower_steps() -> None:
    p = quadratic()
    config = replace(SMOKE, warmup=1, lower_steps=2, steps=2, lower_lr=0.5)
    a, t = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    x, y = (p.x["p"].numpy().copy(), p.y["p"].numpy().copy())
    y = y - 0.5 * (y - a @ x)
    adapted = 0.25 * y + 0.75 * a @ x
    by_x, by_y = x + 0.75 * a.T @ (adapted - t), 0.25 * (adapted - t)
    calls, norm = next(arms.anil(p, config, 0.1))
    assert calls == 1 + 5
    assert norm == pytest.approx(np.linalg.norm(by_x))
    np.testing.assert_allclose(p.x["p"].numpy(), x - 0.1 * by_x)
    np.testing.assert_allclose(p.y["p"].numpy(), y - 0.1 * by_y)


# ---- text ----


def test_the_recurrent_matrix_is_orthogonal_times_the_gain() -> None:
    for gain in (2.0, 0.5):
        torch.manual_seed(0)
        encoder = Encoder(5, 4, 6, 2, gain)
        for name in ("weight_hh_l0", "weight_hh_l1"):
            matrix = getattr(encoder.rnn, name).detach()
            torch.testing.assert_close(matrix @ matrix.T, gain**2 * torch.eye(6), atol=1e-5, rtol=0)
    wild, tame = (load(SMOKE, 0, level).x for level in (2.0, 1.0))
    assert torch.equal(wild["vectors"], tame["vectors"])
    torch.testing.assert_close(wild["rnn.weight_hh_l0"], 2 * tame["rnn.weight_hh_l0"])
    assert torch.is_grad_enabled()


def test_a_text_has_three_parts_that_do_not_meet(tmp_path: Path) -> None:
    letters = "".join(chr(0x4E00 + i) for i in range(200))
    file = tmp_path / "alphabet.txt"
    file.write_text("".join(letter * 10 for letter in letters), encoding="utf-8")
    config = replace(SMOKE, data=Source.of(file), batch=500)
    assert kind(config) == "text"
    p = load(config, 0, 1.0)
    lower, upper = (next(b) for b in (p.lower_batches, p.upper_batches))
    assert lower.shape == (500, 9)
    assert (lower.min(), lower.max()) == (0, 89)
    assert (upper.min(), upper.max()) == (90, 179)
    assert p.y["weight"].shape == (200, 8)
    penalty = p.lower_loss(p.x, p.y, lower) - p.upper_loss(p.x, p.y, lower)
    assert penalty.item() == pytest.approx(0.5e-4 * sum(w.square().sum().item() for w in p.y.values()), rel=0.05)
    test = p.test(p.x, p.y)
    assert 0 <= test["accuracy"] < 0.2
    assert test["loss"] == pytest.approx(math.log(200), rel=0.2)
    assert p.probe(p.x, p.y) == pytest.approx(test["loss"], rel=1e-5)  # so short a test part is seen whole


def test_rare_characters_are_one(tmp_path: Path) -> None:
    file = tmp_path / "rare.txt"
    common = "ab" * 1_000
    file.write_text("".join(chr(0x4E00 + i) for i in range(400)) + common, encoding="utf-8")
    p = load(replace(SMOKE, data=Source.of(file)), 0, 1.0)
    assert p.y["weight"].shape == (256, 8)
    assert next(p.upper_batches).max() < 2  # the two that are common come first


def test_names_a_text_that_is_too_short(tmp_path: Path) -> None:
    file = tmp_path / "short.txt"
    file.write_text("to be or not to be " * 40)
    with pytest.raises(DataError, match=r"short\.txt: the text has 760 characters, and at least 900 are wanted"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))
    with pytest.raises(DataError, match=r"dataset=descriptions: .* shorter than length=9999 \(--set length=…\)"):
        CLAIM.prepare(replace(SMOKE, length=9999))
    file.write_text("z" * 1000)
    with pytest.raises(DataError, match=r"short\.txt: all characters are the same"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))


# ---- a table ----


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_are_flipped_independently_and_never_to_themselves(classes: int) -> None:
    labels = torch.arange(20_000) % classes
    noisy = flip(labels, 0.3, classes, torch.Generator().manual_seed(0))
    share = (noisy != labels).double().mean().item()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5
    assert noisy.min() >= 0
    assert noisy.max() < classes
    moved = (noisy - labels)[noisy != labels] % classes
    assert torch.bincount(moved, minlength=classes)[1:].min() > 0.8 * len(moved) / (classes - 1)
    assert torch.equal(flip(labels, 0.0, classes, torch.Generator()), labels)


@pytest.mark.parametrize("arm", ARMS)
def test_takes_a_table(arm: str, tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), steps=60, warmup=20, lower_steps=5, rows=64)
    CLAIM.prepare(config)
    assert levels(config) == (0.4, 0.0)
    notes = Notes()
    metrics = CLAIM.run(arm, config, 0, notes)
    assert metrics["test_accuracy_benign"] > 0.85
    assert notes.arrays["levels"].tolist() == [0.4, 0.0]


def test_hyper_cleaning_is_the_formula(tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), rows=1_000)
    p = load(config, 0, 0.0)
    assert p.x["weights"].shape == (178 - 36 - 36,)
    draw = np.random.default_rng(0)
    x, w, b = draw.standard_normal(106), draw.standard_normal((3, 13)), draw.standard_normal(3)
    rows = next(p.lower_batches)
    assert sorted(rows.tolist()) == list(range(106))  # a batch as large as the part is all of it
    with torch.no_grad():
        p.x["weights"].copy_(torch.from_numpy(x))
        for name, value in {"weight": w, "bias": b}.items():
            p.y[name].copy_(torch.from_numpy(value))
    whole = p.lower_loss(p.x, p.y, rows).item()
    with torch.no_grad():
        p.x["weights"].fill_(40.0)  # all are trusted
    trusted = p.lower_loss(p.x, p.y, rows).item()
    penalty = 1e-3 * ((w**2).sum() + (b**2).sum())
    each = []
    for i in range(106):
        with torch.no_grad():
            p.x["weights"].fill_(-40.0)[i] = 40.0
        each.append((p.lower_loss(p.x, p.y, rows).item() - penalty) * 106)
    assert trusted == pytest.approx(np.mean(each) + penalty, rel=1e-4)
    assert whole == pytest.approx(np.mean(np.array(each) / (1 + np.exp(-x))) + penalty, rel=1e-4)


def test_weights_of_flipped_rows_fall(tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), steps=400, lower_steps=5, rows=64, warmup=50)
    p = load(config, 0, 0.4)
    clean = load(config, 0, 0.0)
    rows = torch.arange(106)
    for _ in arms.courses("bo_rep", p, config, 0.5, clip=1.0):
        pass
    one = {"weights": torch.full((106,), 40.0)}
    start = {name: torch.zeros_like(q) for name, q in p.y.items()}
    start["bias"] += torch.tensor([0.0, 1.0, 2.0])  # tells classes apart
    same = torch.tensor(
        [p.lower_loss(one, start, rows[i : i + 1]) == clean.lower_loss(one, start, rows[i : i + 1]) for i in range(106)]
    )
    assert 0.25 < 1 - same.double().mean() < 0.55
    trust = p.x["weights"].detach()
    assert trust[same].mean() > trust[~same].mean() + 0.1


def test_a_text_file_with_a_target_is_a_table(tmp_path: Path) -> None:
    file = tmp_path / "wine.txt"
    file.write_bytes(Path(wine_table(tmp_path).path).read_bytes())
    assert kind(replace(SMOKE, data=Source.of(file))) == "text"
    table = replace(SMOKE, data=Source.of(file, target="kind"))
    assert kind(table) == "table"
    assert load(table, 0, 0.4).y["weight"].shape == (3, 13)


def test_names_what_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("a,b\n" + "".join(f"{i},{i // 5}\n" for i in range(600)))
    with pytest.raises(DataError, match=r"column 'b' holds 120 different values, and at most 100 classes"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))
    for rows, says in (
        ([f"{i},{i * i},c{i // 2}" for i in range(20)], "class c0 has 2 of 20 rows, and 3 parts need one each"),
        ([f"{i},{i},{i % 2}" for i in range(7)], "one row of each of 2 classes in every part"),
        ([f"1,2,{i % 2}" for i in range(60)], "every column beside 'y' is constant"),
    ):
        file.write_text("a,b,y\n" + "\n".join(rows))
        with pytest.raises(DataError, match=rf"^{file}: .*{says}"):
            CLAIM.prepare(replace(SMOKE, data=Source.of(file)))


# ---- the paper's data ----

WORDS = ("good", "fine", "bad", "poor", "the", "thing", "is")


class Rows(list[dict[str, Any]]):
    """A stand-in for a data set of the `datasets` library."""

    def shuffle(self, seed: int) -> "Rows":
        return self

    def select(self, places: Any) -> "Rows":
        return Rows(self[i] for i in places)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[str, list[str]]:
    asked: list[str] = []

    def load_dataset(path: str, data_files: str = "", **options: Any) -> Any:
        asked.append(data_files or path)
        draw = np.random.default_rng(len(asked))
        rows = Rows()
        for _ in range(120):
            liked = bool(draw.integers(2))
            text = f"The thing IS {draw.choice(WORDS[:2] if liked else WORDS[2:4])} unheard"
            rows.append({"text": text, "rating": [1.0, 5.0][liked], "sentiment": [0, 4][liked]})
            rows.append({"text": "neither", "rating": 3.0, "sentiment": 0})
        return iter(rows) if options.get("streaming") else Rows(rows[::2])

    module = ModuleType("datasets")
    vars(module)["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    draw = np.random.default_rng(0)
    file = folder / "vectors.txt"
    file.write_text("".join(f"{w} {' '.join(f'{v:.3f}' for v in draw.standard_normal(6))}\n" for w in WORDS))
    return str(file), asked


def small(monkeypatch: pytest.MonkeyPatch, vectors: str, **changes: Any) -> Config:
    for name, size in {"HEAD": 5, "TRAINING_TASKS": 60, "TEST_TASKS": 12}.items():
        monkeypatch.setattr(reviews, name, size)
    return replace(
        CLAIM.scales["paper"],
        hidden=8,
        length=6,
        steps=20,
        warmup=5,
        samples=80,
        device="cpu",
        vectors=vectors,
        **changes,
    )


def test_paper_scale_learns_from_reviews(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vectors, asked = install(monkeypatch, tmp_path)
    config = small(monkeypatch, vectors, shots=10, tasks=4, lower_lr=0.3, lr=0.05)
    CLAIM.prepare(config)
    assert len(asked) == len(set(asked)) == 25
    assert all(name.endswith(".jsonl") for name in asked)
    found = {arm: CLAIM.run(arm, config, 0, Notes()) for arm in ARMS}
    assert all(math.isfinite(value) for metrics in found.values() for value in metrics.values())
    assert found["bo_rep"]["test_accuracy_benign"] > 0.7
    p = load(config, 0, 2.0)
    tokens, labels = next(p.upper_batches)
    assert (tokens.shape, labels.shape) == ((40, 6), (40,))
    assert not any("vectors" in name for name in p.x)  # the word vectors are given
    before = {name: q.detach().clone() for name, q in p.y.items()}
    p.test(p.x, p.y)
    assert all(torch.equal(before[name], q) for name, q in p.y.items())  # adapted copies


def test_paper_scale_cleans_tweets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vectors, asked = install(monkeypatch, tmp_path)
    config = small(monkeypatch, vectors, dataset="sentiment140", rows=32, lower_lr=0.3, lower_steps=5)
    assert levels(config) == (0.4, 0.0)
    CLAIM.prepare(config)
    assert asked == [reviews.TWEETS]
    p = load(config, 0, 0.4)
    assert p.x["weights"].shape == (48,)
    for arm in ARMS:
        assert math.isfinite(CLAIM.run(arm, config, 0, Notes())["test_loss"])


def test_words_become_places() -> None:
    words = {"a": 1, "b": 2}
    assert encode(["B x a A b", "x", ""], words, 3).tolist() == [[2, 1, 1], [0, 0, 0], [0, 0, 0]]
    torch.manual_seed(0)
    pooled = reviews.Pooled(Encoder(torch.randn(3, 4), 4, 5, 1, 1.0))
    long, short = pooled(torch.tensor([[1, 2, 0, 0]])), pooled(torch.tensor([[1, 2]]))
    assert torch.equal(long, short)  # what is not there has no part in the maximum
    assert (pooled(torch.tensor([[0, 0]])) == -1).all()


def test_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vectors, _ = install(monkeypatch, tmp_path)
    paper = replace(CLAIM.scales["paper"], device="cpu")
    with pytest.raises(ThroughlineError, match=r"dataset=amazon needs word vectors: --set vectors=FILE"):
        CLAIM.prepare(paper)
    with pytest.raises(ThroughlineError, match=r"vectors=nowhere.txt: there is no such file"):
        CLAIM.prepare(replace(paper, vectors="nowhere.txt"))
    for content, message in (
        ("a 1 2\nb 1\n", "line 2: a word and 2 numbers are wanted"),
        ("a b\n", "line 1: a word and numbers are wanted"),
        ("", "the file is empty"),
    ):
        (file := tmp_path / "bad.txt").write_text(content)
        with pytest.raises(ThroughlineError, match=message):
            CLAIM.prepare(replace(paper, vectors=str(file)))
    with pytest.raises(ThroughlineError, match=r"All_Beauty: 120 reviews, and 200 are wanted; --set shots"):
        CLAIM.prepare(replace(paper, vectors=vectors, shots=100))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ThroughlineError, match="datasets is not installed; pip install datasets"):
        CLAIM.prepare(replace(paper, vectors=vectors))


# ---- pictures ----


def test_draws_what_has_finished(tmp_path: Path) -> None:
    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0, 1, 2), threads=1, command="throughline run bo-rep")
    store = open_run(tmp_path, manifest)[0]
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 1  # nothing yet
    for seed, chosen in enumerate((ARMS, CLAIM.arms, CLAIM.arms)):
        for arm in chosen:
            metrics, notes = run(arm, seed)
            curves = {
                name: {"step": list(notes.curve(name)), "value": list(notes.curve(name).values())}
                for name in ("loss", "norm", "loss_benign", "norm_benign")
            }
            store.write(Unit(arm, seed), {"metrics": metrics, "measured": {}, "curves": curves}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    course, final, dots = CLAIM.figures(results).values()
    assert len(course.axes) == 4
    assert [axis.get_title() for axis in course.axes[:2]] == ["gain 2", "gain 1"]
    assert course.axes[2].get_yscale() == "log"
    means = [line for line in final.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert len(means) == len(ARMS)
    expected = np.mean([results.values("test_loss", "bo_rep")[seed] for seed in (0, 1, 2)])
    assert means[1].get_ydata()[0] == pytest.approx(expected)
    assert dots.axes[0].get_ylabel() == "test loss"
    outcomes = {outcome.sentence: outcome.verdict for outcome in judge(results).outcomes}
    assert outcomes["call_share of bo_rep is at most 1 on every seed"] == "held"


def test_pictures_of_a_table_say_what_was_flipped(tmp_path: Path) -> None:
    from throughline.claims.bo_rep.figures import words

    assert words(SMOKE) == (("gain 2", "gain 1"), "the gain of the recurrent matrix")
    table = replace(SMOKE, data=wine_table(tmp_path), flipped=0.25)
    assert words(table) == (("25% of the labels flipped", "none flipped"), "the share of flipped labels")
