"""TELL against scikit-learn's k-means and its own alternation written out; the contract tests cover the rest."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from tests.allocation import allocated
from torch import Tensor, nn

from throughline.discrete.clustering import TELL, KMeansLayer, tell

DIGITS = load_digits().data / 16
LABELS = load_digits().target


# ---- the estimator without a network ----


def lloyd(x: np.ndarray, centers: np.ndarray) -> float:
    """Inertia of spherical k-means, written out."""
    for _ in range(200):
        labels = (x @ centers.T).argmax(1)
        centers = normalize(np.stack([x[labels == j].sum(0) for j in range(len(centers))]))
    return float((2 - 2 * (x @ centers.T).max(1)).sum())


def test_a_step_on_the_sphere_is_that_of_the_loss() -> None:
    """The layer's documented training loop, by autograd; rows of zeros too."""
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:3] = 0
    layers = [KMeansLayer(6, 5, generator=torch.Generator().manual_seed(1)).double() for _ in range(2)]
    one, other = (torch.optim.Adadelta(layer.parameters()) for layer in layers)
    for _ in range(3):
        tell.spherical_step_(layers[0], x, one)
        other.zero_grad()
        layers[1].loss(x).backward()
        layers[1].normalize_gradient_()
        other.step()
        layers[1].project_()
        torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=1e-12, atol=0)


def test_online_steps_are_those_of_mini_batch_k_means() -> None:
    ours = TELL(10, normalize=False, random_state=4)
    peer = MiniBatchKMeans(10, random_state=4, reassignment_ratio=0.0)
    for batch in np.array_split(DIGITS, 12):
        ours.partial_fit(batch)
        peer.partial_fit(batch)
        np.testing.assert_allclose(ours.cluster_centers_, peer.cluster_centers_, atol=1e-10)
        np.testing.assert_array_equal(ours.labels_, peer.labels_)
        assert ours.inertia_ == pytest.approx(peer.inertia_)
    assert ours.n_iter_ == 12


def test_euclidean_fit_reaches_k_means() -> None:
    x, truth = make_blobs(900, 4, centers=6, cluster_std=0.4, random_state=1)
    peer = KMeans(6, n_init=10, random_state=0).fit(x)
    ours = TELL(6, normalize=False, random_state=0).fit(x)
    assert adjusted_rand_score(ours.labels_, truth) > 0.99
    assert peer.inertia_ <= ours.inertia_ * (1 + 1e-9)
    assert ours.inertia_ < 1.001 * peer.inertia_


def test_spherical_fit_is_about_as_good_as_lloyd() -> None:
    x = normalize(DIGITS)
    for seed in (0, 1):
        start, _ = kmeans_plusplus(x, 10, random_state=seed)
        ours = TELL(10, random_state=seed).fit(DIGITS)
        assert ours.inertia_ < 1.02 * lloyd(x, start)
        assert ours.inertia_ == pytest.approx((cdist(x, ours.cluster_centers_) ** 2).min(1).sum())
        np.testing.assert_allclose(np.linalg.norm(ours.cluster_centers_, axis=1), 1)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fitted_attributes_agree_with_each_other(unit: bool, dtype: Any) -> None:
    x = DIGITS.astype(dtype)
    fitted = TELL(10, normalize=unit, max_epochs=5, random_state=0).fit(x)
    apart = cdist(normalize(DIGITS) if unit else DIGITS, fitted.cluster_centers_)
    np.testing.assert_allclose(fitted.transform(x), apart, atol=1e-5)
    assert fitted.transform(x).dtype == dtype
    assert fitted.labels_.dtype == np.int32
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(x))
    np.testing.assert_array_equal(fitted.labels_, apart.argmin(1))
    assert fitted.inertia_ == pytest.approx((apart.min(1) ** 2).sum(), rel=1e-5)
    assert fitted.n_iter_ == 5
    assert fitted.encoder_ is None


def test_inertia_does_not_cancel_far_from_the_origin() -> None:
    x = (DIGITS + 1000).astype(np.float32)
    fitted = TELL(10, normalize=False, max_epochs=3, random_state=0).fit(x)
    exact = ((x.astype(float) - fitted.cluster_centers_[fitted.labels_]) ** 2).sum()
    assert fitted.inertia_ == pytest.approx(exact, rel=1e-3)


def test_stops_when_the_centres_rest() -> None:
    x, _ = make_blobs(90, 3, centers=[[9, 0, 0], [0, 9, 0], [0, 0, 9]], random_state=0)
    for unit in (True, False):
        assert TELL(3, normalize=unit, tol=1e-2, max_epochs=500, random_state=0).fit(x).n_iter_ < 200
    assert TELL(3, tol=0, max_epochs=150, random_state=0).fit(x).n_iter_ == 150
    loose = TELL(3, tol=10, random_state=0).fit(x)
    assert loose.n_iter_ == 1


def test_the_tolerance_is_in_standard_deviations() -> None:
    x = DIGITS * 1e3 + 1e5
    fitted = TELL(5, normalize=False, random_state=0, max_epochs=1).fit(x)
    assert fitted._spread(x) == pytest.approx(x.var(0).mean() ** 0.5)
    unit = TELL(5, random_state=0, max_epochs=1).fit(DIGITS)
    assert unit._spread(DIGITS) == pytest.approx(normalize(DIGITS).var(0).mean() ** 0.5)
    plain = TELL(5, normalize=False, tol=0.05, random_state=0).fit(DIGITS)
    assert 1 < plain.n_iter_ < 100
    scaled = TELL(5, normalize=False, tol=0.05, random_state=0).fit(DIGITS * 1024)
    assert scaled.n_iter_ == plain.n_iter_


def test_zero_rows_are_no_first_centres() -> None:
    x = np.concatenate([np.zeros((50, 64)), DIGITS[:60]])
    fitted = TELL(12, random_state=0).fit(x)
    np.testing.assert_allclose(np.linalg.norm(fitted.cluster_centers_, axis=1), 1)
    np.testing.assert_allclose(fitted.transform(x)[:50], 1)
    with pytest.raises(ValueError, match=r"at least n_clusters=12 samples with a direction .* got n_samples=5 that"):
        TELL(12).fit(x[:55])


def test_may_start_where_k_means_ends() -> None:
    x = normalize(DIGITS)
    start = KMeans(10, n_init=10, random_state=np.random.RandomState(2)).fit(x).cluster_centers_
    fitted = TELL(10, init="k-means", max_epochs=1, batch_size=10**6, random_state=2).fit(DIGITS)
    turned = (fitted.cluster_centers_ * normalize(start)).sum(1)
    assert (turned > 0.995).all()  # after the one step of a pass


def test_works_with_what_scikit_learn_has() -> None:
    pipe = make_pipeline(StandardScaler(), TELL(4, max_epochs=3, random_state=0)).set_output(transform="pandas")
    assert list(pipe.fit_transform(DIGITS[:100]).columns) == ["tell0", "tell1", "tell2", "tell3"]
    search = GridSearchCV(TELL(max_epochs=2, random_state=0), {"n_clusters": [2, 4]}, scoring=lambda m, x: -m.inertia_)
    assert search.fit(DIGITS[:100]).best_params_ == {"n_clusters": 4}
    assert clone(TELL(3, alpha=0.5)).alpha == 0.5
    fitted = TELL(5, max_epochs=2, random_state=0).fit(DIGITS[:100])
    twin, continued = pickle.loads(pickle.dumps(fitted)), fitted.partial_fit(DIGITS[100:200])
    np.testing.assert_array_equal(twin.partial_fit(DIGITS[100:200]).cluster_centers_, continued.cluster_centers_)


def test_read_only_and_integer_data_of_any_layout() -> None:
    frozen = DIGITS.copy()
    frozen.flags.writeable = False
    expected = TELL(5, max_epochs=2, random_state=0).fit(DIGITS).labels_
    np.testing.assert_array_equal(TELL(5, max_epochs=2, random_state=0).fit(frozen).predict(frozen), expected)
    whole = (DIGITS * 16).astype(np.uint8)
    np.testing.assert_array_equal(TELL(5, max_epochs=2, random_state=0).fit(whole).predict(whole), expected)
    ordered = np.asfortranarray(DIGITS)
    np.testing.assert_array_equal(TELL(5, max_epochs=2, random_state=0).fit(ordered).predict(ordered), expected)


def test_fitting_inside_no_grad_is_fitting() -> None:
    plain = TELL(5, max_epochs=2, random_state=0).fit(DIGITS)
    with torch.no_grad():
        again = TELL(5, max_epochs=2, random_state=0).fit(DIGITS)
    np.testing.assert_array_equal(plain.labels_, again.labels_)


@pytest.mark.parametrize("unit", [True, False])
def test_many_rows_need_no_more_memory_than_a_chunk(unit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "FIRST_ROWS", 2**11)
    monkeypatch.setattr(tell, "CHUNK", 2**16)
    rows, k = 400_000, 32
    x = np.random.default_rng(0).standard_normal((rows, 8), dtype=np.float32)  # 13 MB
    fitted = TELL(k, normalize=unit, max_epochs=1, batch_size=8192, random_state=0)
    peaks = [allocated(lambda: fitted.fit(x)), allocated(lambda: fitted.predict(x))]
    table = rows * k * 4  # of all distances, 51 MB; with features beside it would be 410 MB
    assert peaks[0] < 40 * rows + table / 10, peaks  # the order of the rows and their labels
    assert peaks[1] < 16 * rows + table / 10, peaks


# ---- with a network ----


class Shifted(nn.Module):
    """An encoder whose training mode is another function, so that confusing the modes shows."""

    def __init__(self, out: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(64, out, bias=False)
        self.norm = nn.BatchNorm1d(out, momentum=0.01)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(self.drop(x.flatten(1))))


class Unflat(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 64)
        self.shape = shape

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).sigmoid().unflatten(1, self.shape)


def networks(*shape: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"encoder": Shifted(), "decoder": Unflat(*shape)}


IMAGES = DIGITS.reshape(-1, 1, 8, 8)[:300]
OPTIONS = {"batch_size": 50, "max_epochs": 6, "random_state": 0}


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8)])
def test_trains_copies_and_predicts_in_evaluation_mode(shape: tuple[int, ...]) -> None:
    given, x = networks(*shape), IMAGES.reshape(-1, *shape)
    before = copy.deepcopy(given["encoder"].state_dict())
    state = torch.get_rng_state()
    fitted = TELL(4, **given, **OPTIONS).fit(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[name]) for name, v in given["encoder"].state_dict().items())
    np.testing.assert_array_equal(fitted.predict(x), fitted.labels_)
    assert not fitted.encoder_.training
    assert not fitted.decoder_.training
    with torch.no_grad():
        z = normalize(fitted.encoder_(torch.as_tensor(x, dtype=torch.float32)).numpy())
    apart = cdist(z, fitted.cluster_centers_)
    np.testing.assert_array_equal(fitted.labels_, apart.argmin(1))
    np.testing.assert_allclose(fitted.transform(x), apart, atol=1e-5)
    assert fitted.inertia_ == pytest.approx((apart.min(1) ** 2).sum(), rel=1e-4)
    again = TELL(4, **given, **OPTIONS).fit(torch.as_tensor(x))
    np.testing.assert_array_equal(again.cluster_centers_, fitted.cluster_centers_)
    assert fitted.decoder_(fitted.layer_.centers).shape == (4, *shape)


def by_hand(rows: np.ndarray, *, pretrain: int, epochs: int, weight: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The alternation written out with torch and scikit-learn; without dropout, which has a seed of its own."""
    x = torch.as_tensor(rows, dtype=torch.float32)
    f, g = copy.deepcopy(networks(64)["encoder"]), copy.deepcopy(networks(64)["decoder"])
    f.drop = nn.Identity()
    adam = torch.optim.Adam([*f.parameters(), *g.parameters()], lr=1e-3)
    rng = np.random.RandomState(0)
    w = torch.zeros(0)
    for epoch in range(epochs):
        if epoch == pretrain:
            with torch.no_grad():
                z = normalize(torch.cat([f.eval()(part) for part in x.split(50)]).numpy())
            start, _ = kmeans_plusplus(z, 4, random_state=rng)
            w = (2e-3 * torch.as_tensor(start)).requires_grad_()
            adadelta = torch.optim.Adadelta([w])
        order = rng.permutation(len(x))
        rng.randint(2**31 - 1)
        f.train()
        for part in x[order].split(50)[: len(x) // 50]:
            z = nn.functional.normalize(f(part))
            loss = ((g(z) - part) ** 2).mean()
            if epoch >= pretrain and epoch % 2:
                loss = loss + weight * (2 - (z @ w.detach().T / 1e-3).amax(1)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            if epoch >= pretrain and epoch % 2 == 0:
                (row,) = torch.autograd.grad((2 - (z.detach() @ w.T / 1e-3).amax(1)).mean(), w)
                length = row.norm(dim=1, keepdim=True)
                w.grad = torch.where(length > 0, 2e-4 * row / length, 0.0)
                adadelta.step()
                w.data = 2e-3 * w.data / w.data.norm(dim=1, keepdim=True)
    return w.detach().numpy() / 2e-3, f.state_dict()


@pytest.mark.parametrize("pretrain", [0, 1, 4])
def test_the_alternation_is_the_papers(pretrain: int) -> None:
    x = DIGITS[:330]  # a last batch that is not full
    given = networks(64)
    given["encoder"].drop = nn.Identity()
    fitted = TELL(4, **given, **OPTIONS, pretrain_epochs=pretrain, clustering_weight=0.5).fit(x)
    centers, encoder = by_hand(x, pretrain=pretrain, epochs=6, weight=0.5)
    np.testing.assert_allclose(fitted.cluster_centers_, centers, atol=2e-4)
    for name, value in fitted.encoder_.state_dict().items():
        torch.testing.assert_close(value, encoder[name], rtol=1e-3, atol=2e-4)


def test_odd_epochs_leave_centres_and_even_ones_the_clustering_loss_alone() -> None:
    def epochs(weight: float) -> list[np.ndarray]:
        model = TELL(4, **networks(64), **OPTIONS, clustering_weight=weight)
        return [model.layer_.centers.detach().numpy().copy() for _ in model._epochs(DIGITS[:300])]

    centers = epochs(1.0)
    for odd in (1, 3, 5):
        np.testing.assert_array_equal(centers[odd], centers[odd - 1])
        assert odd == 5 or not np.array_equal(centers[odd + 1], centers[odd])
    np.testing.assert_array_equal(epochs(0.0)[0], centers[0])  # λ is not felt in an even epoch
    assert not np.allclose(epochs(0.0)[2], centers[2])


def test_clustering_improves_the_latents_for_clustering() -> None:
    plain, ours = (
        TELL(4, **networks(64), **{**OPTIONS, "max_epochs": 40}, clustering_weight=weight).fit(DIGITS[:300])
        for weight in (0.0, 1.0)
    )
    assert ours.inertia_ < 0.7 * plain.inertia_


def test_steps_on_a_stream_train_the_network_too() -> None:
    model = TELL(4, **networks(1, 8, 8), max_epochs=20, pretrain_epochs=2, clustering_weight=0.1, random_state=0)
    centers = []
    for i in range(6):
        model.partial_fit(IMAGES[50 * i : 50 * (i + 1)])
        centers.append(model.cluster_centers_)
        assert model.labels_.shape == (50,)
    assert model.n_iter_ == 6
    assert not np.array_equal(centers[0], centers[1])  # they start again while the network is young
    assert not np.array_equal(centers[1], centers[2])
    np.testing.assert_array_equal(centers[3], centers[2])  # an odd step
    assert not np.array_equal(centers[4], centers[3])


def test_another_optimizer() -> None:
    fitted = TELL(4, **networks(64), **OPTIONS, optimizer=torch.optim.Adadelta, lr=1.0).fit(DIGITS[:300])
    assert type(fitted._optimizer) is torch.optim.Adadelta
    assert isinstance(pickle.loads(pickle.dumps(fitted)).predict(DIGITS[:3]), np.ndarray)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        (r"normalize must be True with an encoder", {"normalize": False}),
        (r"pretrain_epochs must be in \[0, max_epochs\) with max_epochs=6, got 6", {"pretrain_epochs": 6}),
        (r"encoder must map \(50, 64\) to \(50, L\), got \(50, 1, 64\)", {"encoder": nn.Unflatten(1, (1, 64))}),
        (r"decoder must map latents \(50, 3\) to the shape of X, \(50, 64\), got \(50, 8, 8\)", networks(8, 8)),
    ],
)
def test_names_what_is_wrong_with_the_network(match: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=match):
        TELL(4, **{**networks(64), **OPTIONS, **changes}).fit(DIGITS[:300])


def test_images_of_another_shape_are_refused() -> None:
    fitted = TELL(4, **networks(1, 8, 8), **OPTIONS).fit(IMAGES)
    with pytest.raises(ValueError, match=r"samples of shape \(1, 8, 8\) as in fit, got \(1, 16, 4\)"):
        fitted.predict(IMAGES.reshape(-1, 1, 16, 4))


def test_the_pieces_together_find_the_digits() -> None:
    fitted = TELL(10, random_state=0).fit(DIGITS)
    assert normalized_mutual_info_score(LABELS, fitted.labels_) > 0.65


# ---- inputs as people have them ----


@pytest.mark.parametrize("offset", [0.0, 4e5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_map_coordinates_are_clustered_as_any_others(offset: float, dtype: Any) -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(4, size=400)
    x = (draw.normal(size=(400, 2)) + 12 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[truth] + offset).astype(dtype)
    fitted = TELL(4, normalize=False, random_state=0).fit(x)
    peer = KMeans(4, n_init=1, random_state=0).fit(x)
    assert adjusted_rand_score(fitted.labels_, truth) > 0.99
    assert fitted.inertia_ == pytest.approx(peer.inertia_, rel=1e-3)
    assert fitted.cluster_centers_.dtype == dtype
    means = np.stack([x[fitted.labels_ == j].mean(0, dtype=np.float64) for j in range(4)])
    np.testing.assert_allclose(fitted.cluster_centers_, means, atol=0.05, rtol=0)
    np.testing.assert_allclose(fitted.transform(x).min(1), np.linalg.norm(x - means[fitted.labels_], axis=1), atol=0.05)


def test_running_means_of_float32_rows_do_not_stall() -> None:
    x = np.full((4000, 1), 4e5, np.float32)
    x[2000:] += 1  # far more rows than an increment in float32 has digits for
    model = TELL(1, normalize=False, init=x[:1])
    for rows in x.reshape(40, 100, 1):
        model.partial_fit(rows)
    assert model.layer_.centers.item() == pytest.approx(4e5 + 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "options", "match"),
    [
        (np.repeat(np.eye(3), 10, 0), {}, r"fewer distinct directions \(3\) than n_clusters \(5\)"),
        (np.repeat(np.eye(3), 10, 0), {"normalize": False}, r"fewer distinct points \(3\) than n_clusters \(5\)"),
        (np.arange(1, 30.0)[:, None], {}, r"distinct directions \(1\) .* normalize=False tells lengths apart"),
        (np.arange(1, 30.0)[:, None] * [[1, 2, 0.3]], {}, r"fewer distinct directions \(1\)"),
        (np.repeat(np.eye(3), 10, 0), {"init": "k-means"}, r"distinct clusters \(3\) found smaller"),  # scikit-learn's
    ],
)
def test_too_few_distinct_points_are_warned_of(x: np.ndarray, options: dict[str, Any], match: str) -> None:
    with pytest.warns(ConvergenceWarning, match=match):
        TELL(5, max_epochs=2, random_state=0, **options).fit(x)


def test_lengths_are_points_of_their_own() -> None:
    x = np.arange(1, 30.0)[:, None]
    assert len(np.unique(TELL(3, normalize=False, random_state=0).fit_predict(x))) == 3


def test_starts_from_given_centres() -> None:
    for start in (DIGITS[:4], DIGITS[:4].tolist()):
        fitted = TELL(np.int64(4), init=start, max_epochs=np.int64(1), batch_size=np.int32(2000)).fit(DIGITS)
        turned = (fitted.cluster_centers_ * normalize(DIGITS[:4])).sum(1)
        assert (turned > 0.995).all()  # after the one step of a pass
    moved = TELL(2, normalize=False, init=[[0.0], [10.0]], max_epochs=1).fit([[1.0], [2.0], [9.0]])
    np.testing.assert_allclose(moved.cluster_centers_, [[1.5], [9.0]])
    assert clone(TELL(4, init=DIGITS[:4])).fit(DIGITS[:50]).labels_.shape == (50,)
