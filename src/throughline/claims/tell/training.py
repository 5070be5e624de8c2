"""The arms of TELL's claim: the layer behind an encoder, the layer alone, k-means, and what they keep."""

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.shared.clusterings import agreement, on_sphere, sphere_inertia, spherical_lloyd
from throughline.claims.tell.config import Config
from throughline.claims.tell.data import Samples
from throughline.claims.tell.models import networks
from throughline.discrete.clustering import TELL
from throughline.lab import Log

__all__ = ["run_kmeans", "run_layer", "run_network"]

SHOWN = 500  # samples in the picture of the latents
EVERY = 2  # epochs between two points of the curves


def run_kmeans(samples: Samples, seed: int, log: Log) -> dict[str, float]:
    """k-means on the samples as they are."""
    x = samples.flat.numpy()
    found = KMeans(samples.clusters, n_init=10, random_state=seed).fit(x)
    keep_pictures(found.cluster_centers_, found.transform(x), samples, log)
    return agreement(samples.labels, found.labels_)


def run_network(arm: str, samples: Samples, config: Config, seed: int, log: Log) -> dict[str, float]:
    """TELL end to end; with a clustering weight of zero the very same training is that of a plain autoencoder."""
    encoder, decoder = networks(config, samples.shape)
    model = TELL(
        samples.clusters,
        encoder=encoder,
        decoder=decoder,
        clustering_weight=config.clustering_weight if arm == "tell" else 0.0,
        pretrain_epochs=config.pretrain,
        max_epochs=config.epochs,
        batch_size=config.batch,
        lr=config.lr,
        tol=0.0,  # both arms use all of their epochs
        optimizer=getattr(torch.optim, config.optimizer),
        init="k-means",  # ten starts, as k-means after the autoencoder has
        random_state=seed,
    )
    x = samples.x.numpy()
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SHOWN]
    shown = [config.pretrain, (config.pretrain + config.epochs - 1) // 2, config.epochs - 1]
    stages = []
    for epoch in model._epochs(x):
        log(epoch, of=config.epochs)
        if epoch < config.pretrain or arm != "tell":
            continue
        if epoch in shown:
            stages.append(torch.cat([unit_latents(model, samples.x[some]), model.layer_.centers.detach().cpu()]))
        if epoch % EVERY == 0:
            log(epoch, nmi=normalized_mutual_info_score(samples.labels, model.predict(x)))
    if arm != "tell":
        found = KMeans(samples.clusters, n_init=10, random_state=seed).fit(unit_latents(model, samples.x).numpy())
        return agreement(samples.labels, found.labels_)
    assert model.decoder_ is not None
    with torch.no_grad():
        decoded = model.decoder_(model.layer_.centers).cpu().numpy()
    keep_pictures(decoded, model.transform(x), samples, log)
    log.keep(latents=torch.stack(stages), latent_labels=samples.labels[some.numpy()], latent_epochs=np.array(shown))
    return agreement(samples.labels, model.labels_)


def run_layer(arm: str, samples: Samples, config: Config, seed: int, log: Log) -> dict[str, float]:
    """The layer alone or mini-batch k-means, beside Lloyd's algorithm on the sphere from the same k-means++ start."""
    x = F.normalize(samples.flat.double(), dim=-1).numpy()
    start, _ = kmeans_plusplus(x[x.any(1)], samples.clusters, random_state=seed)
    course = spherical_lloyd(x, start)
    if arm == "tell_layer":
        model = TELL(samples.clusters, max_epochs=config.passes, batch_size=config.batch, tol=0.0, random_state=seed)
        for epoch in model._epochs(x):
            log(epoch, of=config.passes, inertia=sphere_inertia(x, model.layer_.centers.detach().numpy()) / course[-1])
        log.keep(lloyd=np.array(course) / course[-1])
        return {**agreement(samples.labels, model.labels_), "inertia_ratio": model.inertia_ / course[-1]}
    peer = MiniBatchKMeans(samples.clusters, init=start, n_init=1, batch_size=config.batch, random_state=seed)
    draw = np.random.default_rng(seed)
    ratio = np.inf
    for epoch in range(config.passes):
        for rows in np.array_split(draw.permutation(len(x)), max(1, len(x) // config.batch)):
            peer.partial_fit(x[rows])
        ratio = sphere_inertia(x, on_sphere(peer.cluster_centers_)) / course[-1]
        log(epoch, of=config.passes, inertia=ratio)
    return {**agreement(samples.labels, peer.predict(x)), "inertia_ratio": ratio}


@torch.no_grad()
def unit_latents(model: TELL, x: Tensor) -> Tensor:
    """The encoder's output in evaluation mode, of length one: what is clustered."""
    return F.normalize(torch.cat([z.cpu() for z in model._latents(x.numpy())]), dim=-1)


def keep_pictures(pictures: np.ndarray, distances: np.ndarray, samples: Samples, log: Log) -> None:
    """Centres as samples, the sample nearest to each, and the class that most of a cluster's samples have."""
    counts = np.zeros((samples.clusters, samples.clusters), np.int64)  # of a cluster's samples by class
    np.add.at(counts, (distances.argmin(1), samples.labels), 1)
    log.keep(
        pictures=pictures.reshape(samples.clusters, *samples.shape),
        typical=samples.flat.numpy()[distances.argmin(0)].reshape(samples.clusters, *samples.shape),
        majority=counts.argmax(1),
        share=counts.max(1) / np.maximum(counts.sum(1), 1),
        size=counts.sum(1),
    )
