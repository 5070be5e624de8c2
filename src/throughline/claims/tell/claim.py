"""The claim about clustering: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.tell.config import Config
from throughline.lab import Arm, Beats, Claim, Log, OnAverage, Quote, Results
from throughline.lab.plots import paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class InterpretableClustering(Claim):
    """A clustering layer that is k-means, in front of it an encoder that learns to be clustered, groups images better
    than k-means on pixels or after an autoencoder."""

    paper = "tell"
    arms = (
        Arm("kmeans", "Runs k-means from ten starts on the pixels, or the columns of a table, without a network."),
        Arm(
            "autoencoder_kmeans",
            "Trains an autoencoder for reconstruction alone, as long as tell, and clusters what it encodes by k-means.",
        ),
        Arm(
            "minibatch_kmeans",
            "Runs scikit-learn's mini-batch k-means on samples scaled to length one, from the start of tell_layer.",
        ),
        Arm(
            "tell_layer",
            "Trains the clustering layer alone, whose weights are the centres, on samples scaled to length one.",
        ),
        Arm(
            "tell",
            "Trains an autoencoder to reconstruct, then a clustering layer along with it, so that the encoder learns "
            "to be clustered too.",
        ),
    )
    checks = (
        Beats("nmi", "tell", over="autoencoder_kmeans"),
        Beats("nmi", "tell", over="kmeans"),
        OnAverage("inertia_ratio", "tell_layer", at_most=1.01),
    )
    scales = {
        "smoke": Config(samples=300, hidden=(16,), epochs=4, pretrain=1, passes=4),
        "laptop": Config(),
        "paper": Config(
            "mnist",
            network="convolutional",
            epochs=3_000,
            pretrain=0,
            optimizer="Adadelta",
            lr=1.0,
            clustering_weight=0.001,
            device="cuda",
        ),
    }
    seeds = {**Claim.seeds, "laptop": 30}  # the margin over the autoencoder is small
    accepts = ("table", "images")
    quotes = (
        Quote(
            "NMI, ARI and accuracy on MNIST, CIFAR-10 and CIFAR-100, TELL",
            "superior to fourteen clustering methods",
            "the paper's abstract",
        ),
    )
    notes = (
        "autoencoder_kmeans is the very training of tell with a clustering weight of zero: the same network, batches, "
        "epochs and optimizer. Both find their clusters by ten starts of k-means, one at its end, the other after "
        "reconstruction: after pilot runs this start was fixed for both, before any seed of the verdict (1000 and up) "
        "had been run. The clustering weight was chosen on seeds 100 to 104: 0.005, 0.025, 0.1 and 0.4 give a mean NMI "
        "of 0.797, 0.804, 0.816 and 0.749, beside 0.791 of autoencoder_kmeans. Not tuned: the length of pretraining, "
        "fixed in pilot runs. What did not work in them: clustering from epoch 100 (one seed of five fell to 0.73: "
        "early centres are locked in), centres from the first epoch on with weights of 0.001 to 0.005 (0.65 to 0.80), "
        "Adadelta for the network in so few epochs (less than k-means on pixels), and 10,000 images of MNIST with 15 "
        "to 60 epochs (below autoencoder_kmeans): the paper trains for 3,000 epochs. Accuracy and ARI are reported and "
        "not checked. tell_layer and minibatch_kmeans cluster the directions of the pixels, and their inertia is that "
        "of unit centres; the reference is Lloyd's algorithm on the sphere from the same k-means++ start. About one "
        "seed in forty leaves the layer above the bound, which is therefore one on the mean. At paper scale centres "
        "start from k-means on the untrained encoder, where the authors draw them at random."
    )

    def prepare(self, config: Config) -> None:
        from throughline.claims.tell.data import check

        check(config)

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.tell.data import load
        from throughline.claims.tell.training import run_kmeans, run_layer, run_network

        samples = load(config, seed)
        if arm == "kmeans":
            return run_kmeans(samples, seed, log)
        if arm in ("minibatch_kmeans", "tell_layer"):
            return run_layer(arm, samples, config, seed, log)
        return run_network(arm, samples, config, seed, log)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.tell import figures as draw

        drawn = {
            "Agreement with the classes (normalised mutual information), one line per seed": paired_dots(
                results, "nmi", label="NMI"
            ),
            "What the clusters are: every centre through the decoder, the sample nearest to it, and the mean images of "
            "k-means; the majority's class and its share below": draw.centers(results),
            "Latents of some samples by class, and the centres (crosses), while the clustering loss is at work (t-SNE, "
            "each panel started from the one before)": draw.latents(results),
            "Inertia on the unit sphere over that of Lloyd's algorithm at its end, from the same start": draw.inertia(
                results
            ),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
