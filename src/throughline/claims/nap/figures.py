"""Pictures of the claim about learned search: regret over trials, acquisition surfaces, training curves."""

from typing import TYPE_CHECKING

from throughline.lab import Results
from throughline.lab.plots import draw_bands, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["regrets", "surfaces", "training"]

ARMS = ("nap", "nap_no_rl")
LABELS = ("log10 C", "log10 gamma")
RANGES = ((-2.0, 3.0), (-4.0, 1.0))  # of C and gamma, as the tables of support vector machines have them
AFTER = (0, 3, 8)


def regrets(results: Results) -> "Figure":
    figure, axis = subplots()
    draw_bands(axis, results, "regret")
    axis.set(xlabel="trials", ylabel="regret")
    if axis.lines:
        axis.set_ylim(bottom=0)
        axis.legend()
    return figure


def surfaces(results: Results) -> "Figure | None":
    """A row for each arm with a policy: what it would try next after 0, 3 and 8 trials, and what was there to find."""
    found = {arm: first_kept(results, "surfaces", [arm]) for arm in ARMS if arm in results.arms}
    kept = [(arm, first[1][arm]) for arm, first in found.items() if first is not None]
    if not kept:
        return None
    (c_low, c_high), (g_low, g_high) = RANGES
    figure, axes = subplots(len(kept), 4, size=(10.4, 2.7 * len(kept) + 0.3), squeeze=False, sharex=True, sharey=True)
    for row, (arm, arrays) in zip(axes, kept, strict=True):
        places = arrays["x"][:, :2] * (c_high - c_low, g_high - g_low) + (c_low, g_low)
        trials = arrays["tried"][:, :2] * (c_high - c_low, g_high - g_low) + (c_low, g_low)
        for axis, surface, after in zip(row, arrays["surfaces"], AFTER, strict=False):
            axis.imshow(surface, origin="lower", extent=(c_low, c_high, g_low, g_high), aspect="auto", cmap="viridis")
            axis.scatter(*trials[:after].T, c="white", edgecolors="black", linewidths=0.6, s=26)
            axis.scatter(*trials[after], marker="*", c="#e0692f", edgecolors="black", linewidths=0.6, s=110)
            axis.set_title(f"{arm.replace('_', ' ')}: after {after} trials")
        dots = row[-1].scatter(*places.T, c=arrays["y"], cmap="viridis", s=12)
        best = arrays["y"].argmax()
        row[-1].scatter(*places[best], marker="o", facecolors="none", edgecolors="#e0692f", s=90, linewidths=1.6)
        row[-1].set_title("all; the best in a ring")
        figure.colorbar(dots, ax=row[-1], label="balanced accuracy")
        row[0].set_ylabel(LABELS[1])
    for axis in axes[-1]:
        axis.set_xlabel(LABELS[0])
    return figure


def training(results: Results) -> "Figure | None":
    arms = [arm for arm in ARMS if arm in results.arms]
    if not any(results.curve("likelihood_loss", arm) for arm in arms):
        return None
    figure, (left, right) = subplots(1, 2, size=(8.6, 3.2))
    draw_bands(left, results, "likelihood_loss", arms)
    left.set(xlabel="gradient steps", ylabel="negative log-likelihood")
    left.legend()
    draw_bands(right, results, "run_return", ["nap"])
    right.set(xlabel="iterations", ylabel="discounted return of a run")
    return figure
