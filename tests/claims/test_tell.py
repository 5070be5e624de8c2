"""The TELL claim: the arms and their common ground, the user's data, the paper's sets."""

import pickle
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus
from tests.claims.stand_ins import Notes, colour_folder, wine_table

from throughline.claims.tell import training as module
from throughline.claims.tell.claim import InterpretableClustering
from throughline.claims.tell.config import Config
from throughline.claims.tell.data import load
from throughline.claims.tell.models import networks
from throughline.data import DataError, Source
from throughline.discrete.clustering import first_centers as part
from throughline.errors import ThroughlineError

CLAIM = InterpretableClustering()
SMOKE: Config = CLAIM.scales["smoke"]
DRAW = np.random.default_rng(0)


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    torch.manual_seed(seed)
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


# ---- arms ----


def test_layer_and_lloyd_start_from_the_same_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def watch(*args: Any, **options: Any) -> Any:
        found = kmeans_plusplus(*args, **options)
        drawn.append(found[0])
        return found

    monkeypatch.setattr(part, "kmeans_plusplus", watch)
    monkeypatch.setattr(module, "kmeans_plusplus", watch)
    CLAIM.run("tell_layer", SMOKE, 3, Notes())
    assert len(drawn) == 2
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-12)


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_every_arm_finds_something_and_repeats_itself(arm: str) -> None:
    metrics, _ = run(arm)
    assert 0.2 < metrics["nmi"] < 1
    assert metrics == run.__wrapped__(arm)[0]
    assert metrics != run(arm, seed=1)[0]
    assert ("inertia_ratio" in metrics) == (arm in ("tell_layer", "minibatch_kmeans"))


def test_the_layer_comes_close_to_lloyd_with_passes() -> None:
    for arm in ("tell_layer", "minibatch_kmeans"):
        metrics, notes = run(arm, passes=40, batch=100)
        course = list(notes.curve("inertia").values())
        assert len(course) == 40
        assert course[-1] == pytest.approx(metrics["inertia_ratio"])
        assert course[0] > course[-1]
        assert metrics["inertia_ratio"] < 1.03
    np.testing.assert_allclose(run("tell_layer")[1].arrays["lloyd"][-1], 1)


def test_the_network_arms_differ_in_the_clustering_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = module.TELL

    def watch(*args: Any, **options: Any) -> Any:
        seen[arm] = real(*args, **options)
        return seen[arm]

    monkeypatch.setattr(module, "TELL", watch)
    for arm in ("autoencoder_kmeans", "tell"):
        torch.manual_seed(0)
        CLAIM.run(arm, SMOKE, 0, Notes())
    plain, ours = (seen[arm].get_params() for arm in ("autoencoder_kmeans", "tell"))
    assert plain.pop("clustering_weight") == 0
    assert ours.pop("clustering_weight") == SMOKE.clustering_weight
    for name in ("encoder", "decoder"):
        one, other = plain.pop(name).state_dict(), ours.pop(name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert plain == ours
    without = seen["autoencoder_kmeans"]
    torch.manual_seed(0)
    CLAIM.run("tell", replace(SMOKE, clustering_weight=0.0), 0, Notes())
    assert torch.equal(without.encoder_[0].weight, seen["tell"].encoder_[0].weight)


def test_pictures_are_those_of_the_clusters() -> None:
    metrics, notes = run("tell")
    kept = notes.arrays
    assert kept["pictures"].shape == kept["typical"].shape == (10, 1, 8, 8)
    assert kept["size"].sum() == 300
    assert kept["share"] @ kept["size"] / 300 >= metrics["accuracy"]  # purity is at least the matched accuracy
    assert kept["latents"].shape == (3, 300 + 10, 10)
    np.testing.assert_allclose(np.linalg.norm(kept["latents"], axis=-1), 1, atol=1e-5)
    assert kept["latent_epochs"].tolist() == [1, 2, 3]
    pixels = load(SMOKE, 0).flat.numpy()
    for picture in kept["typical"].reshape(10, -1):
        assert (pixels == picture).all(1).any()


def test_the_typical_sample_is_the_nearest_one() -> None:
    kept, pixels = run("kmeans")[1].arrays, load(SMOKE, 0).flat.numpy()
    apart = cdist(kept["pictures"].reshape(10, -1), pixels)
    np.testing.assert_array_equal(kept["typical"].reshape(10, -1), pixels[apart.argmin(1)])


@pytest.mark.parametrize(("usual", "verdict"), [(0.99, "held"), (1.02, "refuted")])
def test_one_bad_optimum_in_many_does_not_refute_the_layer(usual: float, verdict: str) -> None:
    ratios = {seed: usual + 0.001 * (seed % 3) for seed in range(1000, 1000 + CLAIM.seeds["laptop"])} | {1007: 1.03}
    measured = SimpleNamespace(values=lambda metric, arm: ratios, looks=0)
    (check,) = (check for check in CLAIM.checks if check.metric == "inertia_ratio")
    assert check.judge(measured).verdict == verdict


# ---- data ----


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_takes_a_table(arm: str, tmp_path: Path) -> None:
    config = replace(SMOKE, data=wine_table(tmp_path), samples=0)
    CLAIM.prepare(config)
    samples = load(config, 0)
    assert samples.x.shape == (178, 13)
    assert (samples.flat.amin(0) == 0).all()
    assert (samples.flat.amax(0) == 1).all()
    notes = Notes()
    metrics = CLAIM.run(arm, replace(config, passes=30), 0, notes)
    assert arm not in ("kmeans", "tell_layer") or metrics["nmi"] > 0.7
    if arm in ("kmeans", "tell"):
        assert notes.arrays["pictures"].shape == (3, 13)


@pytest.mark.parametrize("network", ["dense", "convolutional"])
def test_takes_an_image_folder(network: str, tmp_path: Path) -> None:
    config = replace(SMOKE, data=colour_folder(tmp_path / "pictures", side=9), samples=0, network=network)
    CLAIM.prepare(config)
    assert CLAIM.run("kmeans", config, 0, Notes())["accuracy"] == 1
    notes = Notes()
    CLAIM.run("tell", config, 0, notes)
    assert notes.arrays["pictures"].shape == (2, 3, 9, 9)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 14)])
def test_the_convolutional_decoder_mirrors_the_encoder(shape: tuple[int, ...]) -> None:
    encoder, decoder = networks(Config(network="convolutional"), shape)
    z = encoder(torch.rand(2, *shape))
    assert z.shape == (2, 10)
    picture = decoder(z)
    assert picture.shape == (2, *shape)
    assert picture.min() >= 0
    assert picture.max() <= 1
    widths = [layer.out_channels for layer in encoder if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [16, 32, 32, 16]


def stand_in(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """torchvision's three data sets with forty small images each."""

    def make(channels: int, side: int, folder: str = "") -> Any:
        def data_set(where: str, *, train: bool, download: bool) -> SimpleNamespace:
            assert Path(where) == root
            assert download
            n = 28 if train else 12
            labels = np.arange(n) % 4
            pixels = (DRAW.integers(0, 80, (n, side, side, channels)) + 40 * labels[:, None, None, None]).astype("u1")
            if folder:
                (root / folder).mkdir(exist_ok=True)
                with (root / folder / ("train" if train else "test")).open("wb") as stream:
                    pickle.dump({"fine_labels": labels + 50, "coarse_labels": (labels // 2).tolist()}, stream)
            data = torch.from_numpy(pixels[..., 0]) if channels == 1 else pixels
            return SimpleNamespace(data=data, targets=labels.tolist(), base_folder=folder, root=where)

        return data_set

    datasets = ModuleType("torchvision.datasets")
    vars(datasets).update(MNIST=make(1, 12), CIFAR10=make(3, 8), CIFAR100=make(3, 8, "cifar-100-python"))
    torchvision = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.parametrize(("dataset", "clusters"), [("mnist", 4), ("cifar10", 4), ("cifar100", 2)])
def test_paper_scale_on_stand_ins(dataset: str, clusters: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path)
    config = replace(CLAIM.scales["paper"], dataset=dataset, root=str(tmp_path), device="cpu", epochs=4, batch=16)
    CLAIM.prepare(config)
    samples = load(config, 0)
    assert (len(samples.x), samples.clusters) == (40, clusters)  # both halves; superclasses of CIFAR-100
    assert samples.x.max() <= 1
    for arm in CLAIM.arms if dataset == "mnist" else ("tell",):
        assert np.isfinite(list(CLAIM.run(arm, replace(config, passes=3), 0, Notes()).values())).all()


def test_the_papers_settings() -> None:
    config = CLAIM.scales["paper"]
    assert (config.optimizer, config.lr, config.epochs, config.batch, config.latent) == ("Adadelta", 1, 3000, 256, 10)
    assert (config.dataset, config.network, config.clustering_weight) == ("mnist", "convolutional", 0.01 / 10)


def test_names_what_is_missing_or_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ThroughlineError, match="torchvision is not installed; pip install --no-deps torchvision"):
        CLAIM.prepare(replace(CLAIM.scales["paper"], device="cpu"))
    with pytest.raises(
        ThroughlineError, match="pretrain=4 of epochs=4 leaves none to cluster in; --set pretrain=3 or less"
    ):
        CLAIM.prepare(replace(SMOKE, pretrain=4))
    with pytest.raises(ThroughlineError, match="network=convolutional clusters images, and this is a table"):
        CLAIM.prepare(replace(SMOKE, data=wine_table(tmp_path), network="convolutional"))
    with pytest.raises(DataError, match=r"13467 features a row, and the most .* is 12288; give --size 32"):
        CLAIM.prepare(replace(SMOKE, data=colour_folder(tmp_path / "pictures", side=67)))
    with pytest.raises(
        DataError, match="10 classes wants two samples a class, and there are 5 in all; --set samples=0"
    ):
        CLAIM.prepare(replace(SMOKE, samples=5))
    file = tmp_path / "numbers.csv"
    file.write_text("a,b,kind\n" + "".join(f"5,{i},{'xy'[i % 2]}\n" for i in range(12)))
    with pytest.raises(
        DataError, match=r"numbers\.csv: 12 samples point in 1 directions, and 2 clusters of directions"
    ):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))
    np.savetxt(file, DRAW.standard_normal((150, 3)), delimiter=",")
    with pytest.raises(DataError, match=r"holds 150 different values, .* --target"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file)))
