"""Pictures of TELL's claim, from stored results."""

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.manifold import TSNE

from throughline.lab import Results
from throughline.lab.plots import BASELINE, PALETTE, arm_color, bare, draw_band, draw_image, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["centers", "inertia", "latents"]

MOST = 20  # clusters in a picture


def centers(results: Results) -> "Figure | None":
    """Decoded centres, their nearest samples, and the means of k-means below, ordered by class."""
    rows: list[tuple[str, np.ndarray, list[str]]] = []
    for arm in ("tell", "kmeans"):
        first = first_kept(results, "pictures", (arm,))
        if first is None:
            continue
        kept = first[1][arm]
        order = np.lexsort((-kept["share"], kept["majority"]))[:MOST]
        names = [f"{kept['majority'][j]}: {kept['share'][j]:.0%}" if kept["size"][j] else "empty" for j in order]
        if arm == "tell":
            rows += [("centre,\ndecoded", kept["pictures"][order], [""] * len(order))]
            rows += [("nearest\nsample", kept["typical"][order], names)]
        else:
            rows += [("k-means", kept["pictures"][order], names)]
    if not rows:
        return None
    if rows[0][1].ndim == 2:
        return _profiles(rows)
    columns = len(rows[0][1])
    figure, axes = subplots(len(rows), columns, size=(0.72 * columns + 0.9, 0.95 * len(rows)), squeeze=False)
    for line, (title, pictures, names) in zip(axes, rows, strict=True):
        for axis, picture, name in zip(line, pictures, names, strict=True):
            draw_image(axis, picture.transpose(1, 2, 0).clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
            axis.set_xlabel(name, fontsize=7)
            bare(axis)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return figure


def _profiles(rows: list[tuple[str, np.ndarray, list[str]]]) -> "Figure":
    """Centres of a table: a row for each, a column for each of its (scaled) columns."""
    figure, axes = subplots(1, len(rows), size=(2.6 * len(rows) + 1, 0.22 * len(rows[0][1]) + 1.2), squeeze=False)
    for axis, (title, pictures, names) in zip(axes[0], rows, strict=True):
        drawn = axis.imshow(pictures, aspect="auto", interpolation="nearest", vmin=0, vmax=1, cmap="viridis")
        axis.set(title=title.replace("\n", " "), xlabel="column")
        axis.set_yticks(range(len(names)), names)
    figure.colorbar(drawn, ax=axes, label="least … greatest", shrink=0.8)
    return figure


def latents(results: Results) -> "Figure | None":
    """Latents and centres at three epochs, flattened by t-SNE."""
    first = first_kept(results, "latents", ("tell",))
    if first is None:
        return None
    kept = first[1]["tell"]
    stages, labels = kept["latents"], kept["latent_labels"]
    figure, axes = subplots(1, len(stages), size=(3.0 * len(stages), 3.2), squeeze=False)
    place: Any = "pca"
    for axis, points, epoch in zip(axes[0], stages, kept["latent_epochs"], strict=True):
        perplexity = min(30.0, (len(points) - 1) / 3)
        place = TSNE(perplexity=perplexity, init=place, max_iter=500, random_state=0).fit_transform(points)
        n = len(labels)
        colors = [(*PALETTE, BASELINE, "#6b4f3a", "#8ac926")[c % 10] for c in labels]
        axis.scatter(*place[:n].T, s=5, c=colors, alpha=0.7, linewidths=0)
        axis.scatter(*place[n:].T, s=70, c="white", marker="X", edgecolors="black", linewidths=0.9)
        axis.set_title(f"after epoch {epoch + 1}")
        bare(axis)
        place = (place / place[:, 0].std() * 1e-4).astype(np.float32)  # the scale that t-SNE wants to start from
    return figure


def inertia(results: Results) -> "Figure | None":
    """Inertia by passes over the data: the layer, mini-batch k-means, and Lloyd's algorithm."""
    figure, axis = subplots()
    for arm in ("minibatch_kmeans", "tell_layer"):
        curves = np.array([values for _, values in results.curve("inertia", arm).values()])
        if len(curves):
            passes = np.arange(1, curves.shape[1] + 1)
            draw_band(axis, passes, curves, arm_color(results, arm), arm.replace("_", " "))
    if not axis.lines:
        return None
    for number, seed in enumerate(results.seeds):
        course = results.kept("tell_layer", seed).get("lloyd")
        if course is not None:
            label = "Lloyd, each seed" if not number else None
            axis.plot(range(1, len(course)), course[1:], color=BASELINE, linewidth=0.9, alpha=0.7, label=label)
    axis.axhline(1.01, color=arm_color(results, "tell_layer"), linewidth=0.8, linestyle=":", label="bound of the claim")
    axis.set(xscale="log", xlabel="passes over the data", ylabel="inertia / Lloyd's last")
    axis.legend()
    return figure
