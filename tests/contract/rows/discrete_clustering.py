"""Rows of `throughline.discrete.clustering`."""

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import nn

from throughline.discrete.clustering import TELL, KMeansLayer

ONES = torch.ones(5, 3, dtype=torch.float64)
LAYER_BAD = (
    Bad(ValueError, r"n_features and n_clusters must be >= 1, got 3 and 0", n_clusters=0),
    Bad(ValueError, r"n_features and n_clusters must be >= 1, got 0 and 4", n_features=0),
    Bad(TypeError, r"n_clusters must be an integer, got 4\.0", n_clusters=4.0),
    Bad(TypeError, r"n_features must be an integer, got '3'", n_features="3"),
    Bad(ValueError, r"alpha must be positive and finite, got 0\.0", alpha=0.0),
    Bad(ValueError, r"alpha must be positive and finite, got inf", alpha=float("inf")),
    Bad(ValueError, r"x must be \(\.\.\., 3\), got shape \(5, 2\)", ONES[:, :2]),
    Bad(TypeError, r"x must be floating point, got torch.int64", ONES.long()),
    Bad(ValueError, r"centers must have shape \(4, 3\), got \(5, 3\)", do=lambda m: m.set_centers_(ONES)),
    Bad(TypeError, r"centers must be a tensor, got list", do=lambda m: m.set_centers_(ONES[:4].tolist())),
    Bad(ValueError, r"x must be finite, got NaN", do=lambda m: m.assign(ONES * torch.nan)),
    Bad(RuntimeError, r"normalize_gradient_ needs .* call loss", do=lambda m: m.normalize_gradient_()),
)
METHODS = {
    "all": lambda layer, x: (layer(x), layer.distances(x), layer.assign(x)),
    "hard loss": lambda layer, x: layer.loss(x),
    "soft loss": lambda layer, x: layer.loss(x, hard=False),
}

PARTS = [
    *(
        Part(
            KMeansLayer,
            lambda g: (normal(g, 5, 3)[4],),  # the first four draws of a seed are the centres
            # α = 0.5 as well: at 1e-3 the soft assignment is all but uniform
            {"n_features": 3, "n_clusters": 4, "normalize": normalize, "alpha": 1e-3 if method == "all" else 0.5},
            variant=f"{method}, {'unit' if normalize else 'Euclidean'}",
            call=call,
            batched=(0,) if method == "all" else (),
            edges={"single": lambda: (ONES[:1],)},
            shortest=torch.float32,
            backend=COMPILER if method == "hard loss" else "aot_eager",
            bad=LAYER_BAD,
            skips={} if method == "all" else {"batch": "one number over all samples"},
        )
        for method, call in METHODS.items()
        for normalize in (True, False)
    ),
    *(
        Part(
            TELL,
            lambda g: (normal(g, 24, 3),),
            {"n_clusters": 3, "max_epochs": 20, "normalize": normalize},
            variant="unit" if normalize else "Euclidean",
            bad=(
                Bad(ValueError, r"n_clusters must be at least 1, got 0", n_clusters=0),
                Bad(ValueError, r"max_epochs must be at least 1, got 0", max_epochs=0),
                Bad(ValueError, r"batch_size must be at least 1, got 0", batch_size=0),
                Bad(ValueError, r"alpha must be positive and finite, got -1", alpha=-1.0),
                Bad(ValueError, r'init must be "k-means\+\+", "k-means" or an array of centres, got 3', init=3),
                Bad(ValueError, r"init must be a name or \(3, 3\) finite centres, got an array \(5, 3\)", init=ONES),
                Bad(TypeError, r"n_clusters must be an integer, got 2\.5", n_clusters=2.5),
                Bad(TypeError, r"max_epochs must be an integer, got 20\.0", max_epochs=20.0),
                Bad(TypeError, r"batch_size must be an integer, got 'auto'", batch_size="auto"),
                Bad(TypeError, r"pretrain_epochs must be an integer, got 0\.5", pretrain_epochs=0.5),
                Bad(ValueError, r"lr must be positive and finite, got 0", lr=0),
                Bad(ValueError, r"tol must be finite and not negative, got -1", tol=-1),
                Bad(ValueError, r"clustering_weight must be .* not negative, got nan", clustering_weight=float("nan")),
                Bad(ValueError, r"encoder and decoder go together, got encoder and no decoder", encoder=nn.Identity()),
                Bad(ValueError, r"encoder and decoder go together, got decoder and no encoder", decoder=nn.Identity()),
                Bad(ValueError, r"at least n_clusters=3 samples, got n_samples=2", ONES[:2]),
                Bad(ValueError, r"NaN", ONES * torch.nan),
                Bad(ValueError, r"infinity", ONES / 0),
                Bad(ValueError, r"expecting 3 features", do=lambda m: m.fit(np.eye(3)).predict(np.ones((2, 4)))),
                Bad(ValueError, r"expecting 3 features", do=lambda m: m.fit(np.eye(3)).transform(np.ones((2, 4)))),
                Bad(NotFittedError, r"not fitted", do=lambda m: m.predict(ONES.numpy())),
                Bad(NotFittedError, r"not fitted", do=lambda m: m.transform(ONES.numpy())),
            ),
        )
        for normalize in (True, False)
    ),
]
