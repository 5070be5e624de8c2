"""The dnis claim: what its arms share and where they differ, the recommenders, ratings of the user's own, and the files
of the paper.
"""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.claims.stand_ins import Notes
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.dnis import figures, paper, tasks, training
from throughline.claims.dnis.claim import SearchedSizes
from throughline.claims.dnis.config import Config
from throughline.claims.dnis.models import Recommender
from throughline.data import DataError, Source, read_ratings
from throughline.lab.results import Results
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit
from throughline.search.embedding_size import SearchableEmbedding, frequency_blocks, mixed_dimensions

CLAIM = SearchedSizes()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)
SMALL = {"rows": 600, "sizes": (3, 6), "batch": 100, "search_epochs": 1, "epochs": 2}


def trainer(arm: str, seed: int = 0, **changes: Any) -> training.Trainer:
    config = replace(SMOKE, **{**SMALL, **changes})
    return training.Trainer(CLAIM.task(config, seed), training.plan_of(arm, config), config, seed, Notes())


@cache
def run(arm: str) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **SMALL), 0, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_count_their_epochs_and_keep_what_is_drawn(arm: str) -> None:
    metrics, notes = run(arm)
    assert {"mse", "mse_without_decay", "parameters", "kilobytes", "size", "cpu_seconds"} == set(metrics)
    fits = 2 * (2 if arm == "uniform" else 1)
    assert {of for _, of in notes.places} == {fits * 3}
    assert max(step for step, _ in notes.places) == fits * 3
    assert ("alphas" in notes.arrays) == arm.startswith("dnis")
    assert notes.arrays["popularity"].shape == (10,)
    assert (np.diff(notes.arrays["tradeoff"][:, 0]) > 0).all()


def test_what_the_arms_hand_out() -> None:
    features, half = 2625, 2625 * 3
    found = {arm: run(arm)[0] for arm in ARMS}
    assert found["uniform"]["parameters"] == features * found["uniform"]["size"]
    assert found["uniform"]["kilobytes"] == found["uniform"]["parameters"] * 4 / 1000
    assert found["magnitude"]["parameters"] == found["dnis"]["parameters"] == half
    assert found["dnis_second_order"]["parameters"] == half
    assert found["dnis_full"]["parameters"] == 2 * half
    assert found["dnis_16"]["parameters"] == 2 * half - round(1.5 * half)
    assert found["dnis"]["kilobytes"] == (5 * half + 4 * (features + 1)) / 1000


def test_arms_start_alike_and_meet_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Any]] = {}
    made = Recommender.__init__

    def watched(self: Recommender, *args: Any) -> None:
        made(self, *args)
        seen["start"].append(self.table.weight.detach().clone())

    monkeypatch.setattr(Recommender, "__init__", watched)
    rows: dict[str, list[Tensor]] = {}
    starts = {}
    for arm in ("uniform", "magnitude", "dnis"):
        seen["start"], rows[arm] = [], []
        one = trainer(arm)
        loss = one.task.loss

        def kept(model: nn.Module, batch: Any, arm: str = arm, loss: Any = loss) -> Tensor:
            rows[arm].append(batch[0])
            return loss(model, batch)

        one.task = one.task._replace(loss=kept)
        one.fit(6, 0.0, 1e-5)
        starts[arm] = seen["start"][0]
    assert all(torch.equal(starts["uniform"], start) for start in starts.values())
    plain, searched = rows["magnitude"], rows["dnis"]
    assert all(map(torch.equal, plain, rows["uniform"]))
    steps = len(plain) // 3
    assert all(map(torch.equal, plain[: 2 * steps], searched[: 2 * steps]))
    assert all(map(torch.equal, plain[2 * steps :], searched[2 * steps + 1 :: 2]))  # between them those of validation
    assert len(searched) == 4 * steps


def test_only_a_search_moves_alpha() -> None:
    for arm in ("uniform", "magnitude"):
        model = trainer(arm).fit(6, 0.0, 1e-5).model
        assert not any(isinstance(m, SearchableEmbedding) for m in model.modules())
    one = trainer("dnis")
    fitted = one.fit(6, 0.0, 1e-5)
    assert (fitted.alphas[0] == 1).all()
    assert (fitted.alphas[1] < 1).any()
    assert fitted.block_sizes[0] @ one.blocks.bincount().double() == pytest.approx(2625 * 3)


def test_mixed_sizes_are_those_of_the_rule() -> None:
    one = trainer("mixed")
    model = one.fit(6, 0.3, 1e-5).model
    table = model.get_submodule("table")
    assert isinstance(table, SearchableEmbedding)
    sizes = mixed_dimensions(one.task.counts, base_dim=3, temperature=0.3)
    assert torch.equal(table.alpha.sum(1).long(), sizes)
    assert one.stored(model)["parameters"] == int(sizes @ one.blocks.bincount())
    assert torch.equal(table.alpha, (torch.arange(int(sizes.max())) < sizes[:, None]).float())
    assert not table.alpha.requires_grad


def test_the_best_epoch_of_both_phases_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation errors are made up: the warm start stops after two that are no better, and the search never helps."""
    one = trainer("dnis", epochs=9, search_epochs=3)
    told = iter([3.0, 2.0, 2.5, 2.0, 5.0, 1.9, 4.0, 0.7])
    states: list[dict[str, Tensor]] = []

    def valid(model: nn.Module) -> float:
        states.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return next(told)

    one.task = one.task._replace(valid=valid)
    fitted = one.fit(6, 0.0, 1e-5)
    assert fitted.valid == 0.7  # of the cut table
    assert len(states) == 8  # four of the warm start, three of the search, and one of the cut
    for name, p in fitted.model.named_parameters():
        assert torch.equal(p, states[5][name])
    assert one.epoch == 12


def test_each_regime_takes_the_best_candidate_on_validation() -> None:
    one = trainer("uniform", decays=(1e-6, 1e-2))
    asked = []

    def fit(size: int, theta: float, decay: float) -> training.Fitted:
        asked.append((size, decay))
        model = one.task.network(size)
        model.constant.data.fill_(
            {(3, 1e-6): 1.0, (3, 1e-2): 2.0, (6, 1e-6): 3.0, (6, 1e-2): 4.0}.get((size, decay), 5.0)
        )
        return training.Fitted(model, size, {(3, 1e-2): 0.5, (6, 0.0): 0.2}.get((size, decay), 0.9), [], [])

    one.fit = fit  # type: ignore[method-assign]
    found = one.metrics()
    assert sorted(asked) == [(s, d) for s in (3, 6) for d in (0.0, 1e-6, 1e-2)]
    tested = {c: one.task.test(_constant(one.task.network(3), c))["mse"] for c in (2.0, 5.0)}
    assert found["mse"] == pytest.approx(tested[2.0], rel=0.05)
    assert found["mse_without_decay"] == pytest.approx(tested[5.0], rel=0.05)
    assert found["size"] == 3


def _constant(model: Recommender, value: float) -> Recommender:
    model.constant.data.fill_(value)
    return model


# ---- ratings as a task ----


def test_parts_are_disjoint_and_as_large_as_asked() -> None:
    parts = tasks.drawn_parts(Config(), 1000, 3)
    assert {part: len(rows) for part, rows in parts.items()} == {"test": 100, "valid": 200, "train": 700}
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(1000))
    assert not torch.equal(parts["test"], tasks.drawn_parts(Config(), 1000, 4)["test"])
    few = tasks.drawn_parts(replace(Config(), rows=50), 1000, 3)
    assert [len(rows) for rows in few.values()] == [5, 10, 35]


def test_counts_are_of_the_training_part_alone() -> None:
    ids = np.stack([np.arange(40) % 4, 4 + np.arange(40) % 3], 1)
    task = tasks.rating_task(Config(batch=8), ids, np.arange(40) % 5 + 1.0, 8, 0)
    rows = tasks.drawn_parts(Config(), 40, 0)["train"]
    assert task.counts.tolist() == np.bincount(ids[rows].ravel(), minlength=8).tolist()
    assert task.steps == len(rows) // 8
    x, y = next(task.batches("train", torch.Generator().manual_seed(0)))
    assert (x.shape, y.shape, y.dtype) == ((8, 2), (8,), torch.float32)
    model = task.network(4)
    assert model.constant.item() == pytest.approx(float(np.mean((rows.numpy() % 5) + 1.0)))
    assert task.test(model)["mse"] >= 0


def test_the_factorisation_machine_is_its_sum_over_pairs() -> None:
    torch.manual_seed(0)
    model = Recommender("fm", 9, 3, 5, 0.5)
    model.bias.weight.data.normal_()
    ids = torch.tensor([[0, 4, 8], [1, 5, 6]])
    for row, found in zip(ids, model(ids), strict=True):
        e = model.table.weight[row]
        pairs = sum((e[i] * e[j]).mean() for i in range(3) for j in range(i))
        torch.testing.assert_close(found, pairs + model.bias.weight[row].sum() + 0.5)


@pytest.mark.parametrize("kind", ["fm", "mlp", "neumf", "wide-deep", "deepfm"])
def test_every_recommender_searches_its_tables(kind: str) -> None:
    one = trainer("dnis", model=kind, rows=300)
    assert one.task.network(6).tables == (("table", "products") if kind == "neumf" else ("table",))
    fitted = one.fit(6, 0.0, 1e-5)
    assert math.isfinite(fitted.valid)
    product = one.product(fitted.model)
    assert one.stored(product)["parameters"] == 2625 * 3 * (2 if kind == "neumf" else 1)
    assert not torch.equal(fitted.model(torch.tensor([[0, 1000]])), fitted.model(torch.tensor([[1, 1000]])))


def test_the_smallest_task_learns() -> None:
    """Ratings that are an inner product of hidden tastes: every arm halves the error of the mean."""
    draw = np.random.default_rng(0)
    ids = np.stack([draw.integers(0, 30, 3000), 30 + draw.integers(0, 20, 3000)], 1)
    taste = draw.standard_normal((50, 3))
    ratings = 3 + (taste[ids[:, 0]] * taste[ids[:, 1]]).sum(1)
    config = replace(SMOKE, sizes=(8, 16), batch=100, epochs=12, search_epochs=4, lr=0.03, search_lr=0.01)
    task = tasks.rating_task(config, ids, ratings, 50, 0)
    plain = task.test(task.network(8))["mse"]
    for arm in CLAIM.arms:
        one = training.Trainer(task, training.plan_of(arm, config), config, 0, Notes())
        found = task.test(one.product(one.fit(16, 0.0, 1e-5).model))["mse"]
        assert found < 0.3 * plain, arm


# ---- ratings of the user's own ----


def stars(folder: Path, count: int = 200, scale: tuple[float, float] = (0, 100)) -> Source:
    draw = np.random.default_rng(0)
    low, high = scale
    rows = [f"u{draw.integers(20)},i{draw.integers(15)},{low + (high - low) * (n % 6) / 5:g}" for n in range(count)]
    (folder / "stars.csv").write_text("user,item,rating\n" + "\n".join(rows) + "\n")
    return Source.of(folder / "stars.csv")


def test_takes_a_table_of_ratings(tmp_path: Path) -> None:
    config = replace(SMOKE, data=stars(tmp_path), sizes=(3, 6))
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        metrics = CLAIM.run(arm, config, 0, Notes())
        assert 0 < metrics["mse"] < 5  # on the scale from 1 to 5
    assert metrics["parameters"] == 35 * 3
    other = replace(config, data=stars(tmp_path, scale=(1, 5)))
    for name, value in CLAIM.run("dnis", other, 0, Notes()).items():
        if name != "cpu_seconds":
            assert value == pytest.approx(metrics[name], rel=1e-5)


def test_fewer_features_than_blocks(tmp_path: Path) -> None:
    (tmp_path / "stars.csv").write_text("user,item,rating\n" + "\n".join(f"a,i{n % 3},{n % 4}" for n in range(40)))
    config = replace(SMOKE, data=Source.of(tmp_path / "stars.csv"), sizes=(2,))
    notes = Notes()
    CLAIM.run("dnis", config, 0, notes)
    assert notes.arrays["alphas"].shape[1:] == (4, 2)


@pytest.mark.parametrize(
    ("count", "scale", "match"),
    [(19, (0, 5), "20 ratings or more are wanted, .* got 19 from 0 to 5"), (60, (3, 3), "got 60 from 3 to 3")],
)
def test_ratings_that_will_not_do(tmp_path: Path, count: int, scale: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        CLAIM.prepare(replace(SMOKE, data=stars(tmp_path, count, scale)))


# ---- the paper's files ----


def movielens(folder: Path, comma: bool) -> Config:
    """Thirty users with ten ratings each, the last of which is a favourite of its third."""
    draw, lines = np.random.default_rng(0), []
    for user in range(30):
        for time, item in enumerate([*draw.permutation(12)[:9].tolist(), 12 + user % 3]):
            lines.append((user + 1, 7 * item, 1 + draw.integers(9) / 2, 100 + time))
    order = draw.permutation(len(lines))
    head = "userId,movieId,rating,timestamp\n" if comma else ""
    body = "\n".join(("," if comma else "::").join(map(str, lines[i])) for i in order)
    (folder / ("ratings.csv" if comma else "ratings.dat")).write_text(head + body + "\n")
    return replace(
        CLAIM.scales["paper"],
        dataset="movielens-20m" if comma else "movielens-1m",
        root=str(folder),
        device="cpu",
        sizes=(4, 8),
        batch=32,
        epochs=2,
        search_epochs=1,
        decays=(1e-5,),
    )


def test_movielens_by_ratings(tmp_path: Path) -> None:
    config = movielens(tmp_path, comma=True)
    CLAIM.prepare(config)
    task = CLAIM.task(config, 0)
    found = read_ratings(tmp_path / "ratings.csv")
    assert len(task.counts) == len(found.user_ids) + len(found.item_ids)
    assert task.counts.sum() == 2 * 210
    same = tasks.ratings_of(config, found, 0)
    assert torch.equal(task.counts, same.counts)
    assert set(CLAIM.run("dnis", config, 0, Notes())) >= {"mse", "mse_without_decay"}


def test_lists_of_items(tmp_path: Path) -> None:
    config = movielens(tmp_path, comma=False)
    task = CLAIM.task(config, 0)
    people, many = 30, 15
    assert task.counts.sum() == 2 * (300 - 60)  # two are held out of each
    better, worse = next(task.batches("train", torch.Generator().manual_seed(0)))
    assert torch.equal(better[:, 0], worse[:, 0])
    assert (worse[:, 1] >= people).all()

    class Known(nn.Module):
        """Likes the favourite of each user best, or least."""

        def __init__(self, sign: float) -> None:
            super().__init__()
            users, items, _, times = paper._movielens(tmp_path / "ratings.dat")
            last = times == 109
            self.own = {int(u): int(i) + people for u, i in zip(users[last], items[last], strict=True)}
            self.sign = sign

        def forward(self, ids: Tensor) -> Tensor:
            return torch.tensor([self.sign * (self.own[u] == i) for u, i in ids.tolist()])

    assert task.test(Known(1.0)) == {"ranking_error": 0.0, "hit_rate": 1.0}
    assert task.test(Known(-1.0))["ranking_error"] == pytest.approx(1 - 1 / math.log2(many - 9 + 1))
    model = task.network(4)
    assert task.valid(model) > 0
    metrics = CLAIM.run("dnis", config, 0, Notes())
    assert 0 <= metrics["ranking_error"] <= 1
    assert 0 <= metrics["hit_rate_without_decay"] <= 1


def criteo(folder: Path, rows: int = 400) -> Config:
    draw, lines = np.random.default_rng(0), []
    for row in range(rows):
        numbers = ["" if draw.random() < 0.1 else str(draw.integers(-2, 50)) for _ in range(13)]
        words = [f"{draw.integers(3):08x}" for _ in range(24)] + ["" if row % 2 else "aa", f"once{row}"]
        lines.append("\t".join([str(row % 2), *numbers, *words]))
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    return replace(movielens(folder, comma=True), dataset="criteo", model="deepfm")


def test_clicks(tmp_path: Path) -> None:
    config = criteo(tmp_path)
    ids, clicks, features = paper._criteo(tmp_path / "train.txt")
    assert ids.shape == (400, 39)
    assert clicks.tolist() == [0.0, 1.0] * 200
    spans = [(int(ids[:, c].min()), int(ids[:, c].max())) for c in range(39)]
    assert all(a[1] < b[0] for a, b in pairwise(spans))  # a column's ids lie behind the last one's
    assert spans[-1][1] < features
    assert len(ids[:, 38].unique()) == 1  # what occurs once is one of the others
    assert [len(ids[:, c].unique()) for c in range(13, 38)] == [3] * 24 + [2]
    assert torch.equal(ids[0::2, 37].unique(), ids[:1, 37])
    task = CLAIM.task(config, 0)
    model = task.network(4)
    rows = tasks.drawn_parts(config, 400, 0)["test"]
    with torch.no_grad():
        logits, truth = model(ids[rows]), clicks[rows]
    found = task.test(model)
    assert found["ranking_error"] == pytest.approx(1 - roc_auc_score(truth, logits))
    assert found["log_loss"] == pytest.approx(F.binary_cross_entropy_with_logits(logits, truth).item())
    metrics = CLAIM.run("magnitude", replace(config, lr=0.02), 0, Notes())
    assert metrics["ranking_error"] < 0.05  # the click is in a column


def test_missing_files_are_named(tmp_path: Path) -> None:
    for dataset, file in paper.FILES.items():
        with pytest.raises(DataError, match=rf"{file}: no such file; get {dataset} .* --set root=FOLDER"):
            CLAIM.prepare(replace(CLAIM.scales["paper"], dataset=dataset, root=str(tmp_path)))
    with pytest.raises(DataError, match="no such file"):
        CLAIM.prepare(CLAIM.scales["paper"])


# ---- pictures ----


def test_pictures_are_made_of_what_was_kept(tmp_path: Path) -> None:
    config = replace(SMOKE, **SMALL)
    store, _ = open_run(tmp_path, plan(CLAIM, "smoke", config, ARMS, (0, 1), threads=1, command="throughline run dnis"))
    drawings = (figures.tradeoff, figures.sizes, figures.alphas)
    assert [draw(Results(CLAIM, store, config)) for draw in drawings] == [None] * 3
    for arm in ARMS:
        for seed in (0, 1):
            metrics, notes = run(arm)
            store.write(Unit(arm, seed), {"metrics": metrics, "measured": {}, "curves": {}}, notes.arrays)
    results = Results(CLAIM, store, config)
    tradeoff, sizes, alphas = (draw(results) for draw in drawings)
    labels = [text.get_text() for text in tradeoff.axes[0].get_legend().get_texts()]
    assert labels == ["uniform", "magnitude", "dnis", "mixed"]
    assert tradeoff.axes[0].lines[1].get_ydata()[-1] == 0  # the largest uniform table is what others are held against
    assert [text.get_text() for text in sizes.axes[0].get_legend().get_texts()] == [
        "magnitude",
        "dnis",
        "mixed",
        "uniform",
    ]
    panels = [axis for axis in alphas.axes if axis.images]
    assert [axis.get_title() for axis in panels] == ["start, epoch 0", "middle, epoch 1", "end, epoch 1"]
    assert (panels[0].images[0].get_array() == 1).all()
    assert len(CLAIM.figures(results)) == 6
    blocks = frequency_blocks(torch.from_numpy(run("dnis")[1].arrays["popularity"]), 10)
    assert blocks.tolist() == list(range(10))  # the most frequent block first
