"""Speed bars of TELL: steps on mini-batches beside scikit-learn's MiniBatchKMeans, and a whole fit of the digits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sklearn
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize as on_sphere

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.discrete.clustering import TELL

BATCHES, ROWS, WIDTH, CLUSTERS = 20, 1_024, 64, 64
PEER = f"MiniBatchKMeans.partial_fit of scikit-learn {sklearn.__version__}"


def steps(normalize: bool) -> dict[str, Callable[[], Any]]:
    draw = np.random.default_rng(0)
    places = 4 * draw.standard_normal((CLUSTERS, WIDTH))
    batches = [
        (places[draw.integers(CLUSTERS, size=ROWS)] + draw.standard_normal((ROWS, WIDTH))).astype(np.float32)
        for _ in range(BATCHES)
    ]

    def run(model: Any) -> Any:
        for batch in batches:
            model.partial_fit(batch)
        return model

    def ours() -> TELL:
        fitted: TELL = run(TELL(CLUSTERS, normalize=normalize, random_state=0))
        return fitted

    def peer(**options: Any) -> MiniBatchKMeans:
        return run(MiniBatchKMeans(CLUSTERS, random_state=0, **options))

    def agree() -> None:
        if not normalize:  # the same algorithm from the same start, once the peer moves no deserted centre
            expected = peer(reassignment_ratio=0.0)
            np.testing.assert_allclose(ours().cluster_centers_, expected.cluster_centers_, atol=1e-4)
            return
        rows = on_sphere(np.concatenate(batches))  # another algorithm: as good a clustering of the directions
        centers = on_sphere(run(MiniBatchKMeans(CLUSTERS, random_state=0)).cluster_centers_)
        found, wanted = ((rows @ c.T).max(1).mean() for c in (ours().cluster_centers_, centers))
        assert found > wanted - 0.02, (found, wanted)

    return {"ours": ours, "peer": peer, "agree": agree}


def fit() -> dict[str, Callable[[], Any]]:
    x = load_digits().data / 16

    def ours() -> TELL:
        return TELL(10, tol=0.0, random_state=0).fit(x)

    def agree() -> None:
        assert ours().inertia_ < 320  # of k-means with unit centres: 311 to 320

    return {"ours": ours, "agree": agree}


STEPS = {
    "peer": PEER,
    "flops": BATCHES * 2 * 2.0 * ROWS * CLUSTERS * WIDTH,  # one product to assign, one for the labels after the step
    "bytes": BATCHES * 4.0 * ROWS * WIDTH,
}
CASES = [
    Case("partial_fit, 20 × (1024 × 64), K = 64, normalize=False", partial(steps, False), 1.25, **STEPS),
    Case("partial_fit, 20 × (1024 × 64), K = 64, normalize=True", partial(steps, True), 1.6, work="other", **STEPS),
    Case("TELL(10).fit of the digits, 100 epochs", fit, bar_seconds=1.0),
]


def clustering(rows: int) -> Callable[[], Any]:
    x = np.random.default_rng(0).standard_normal((rows, 16)).astype(np.float32)
    return lambda: TELL(8, max_epochs=2, random_state=0).fit(x)


def telling_apart(clusters: int) -> Callable[[], Any]:
    x = np.random.default_rng(0).standard_normal((clusters, 16)).astype(np.float32)
    return lambda: TELL(clusters, random_state=0).partial_fit(x)


GROWTH = [
    Growth("TELL.fit, two epochs", "rows", 2**12, clustering, time=1, memory=1),
    Growth("partial_fit of as many rows", "clusters K", 256, telling_apart, time=2, memory=2, step=2),
]
