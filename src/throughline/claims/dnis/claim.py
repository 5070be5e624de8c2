"""The dnis claim: its arms, scales and checks, and what one arm does on one seed."""

from typing import TYPE_CHECKING

from throughline.claims.dnis.config import Config
from throughline.claims.shared.checks import WhereKnown
from throughline.lab import Arm, Beats, Claim, Log, Matches, Quote, Results
from throughline.lab.plots import paired_differences, paired_dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from throughline.claims.dnis.tasks import Task


def beats(metric: str, over: str) -> WhereKnown:
    """Where rows are ranked, and not rated, the error of the ranking stands in for the squared one."""
    squared, ranked = (Beats(name, "dnis", over=over, lower=True) for name in names(metric))
    return WhereKnown(squared, ranked)


def names(metric: str) -> tuple[str, str]:
    return metric, metric.replace("mse", "ranking_error")


class SearchedSizes(Claim):
    """A table with searched sizes predicts ratings better than the best uniform table, with half the parameters."""

    paper = "dnis"
    arms = (
        Arm("uniform", "Gives every user and item the same number of dimensions, the best of a few on validation."),
        Arm("magnitude", "Trains the largest uniform table and keeps the half of its entries that are largest."),
        Arm(
            "dnis",
            "Learns on validation data how much each dimension counts for users and items of like popularity, and "
            "keeps the half of the scaled entries that are largest.",
        ),
    )
    context = (
        Arm("mixed", "Gives frequent users and items more dimensions by a rule from their share of all ratings."),
        Arm("dnis_full", "Learns as dnis does, and cuts nothing."),
        Arm("dnis_16", "Learns as dnis does, and keeps a quarter of the entries."),
        Arm("dnis_second_order", "Learns as dnis does, with a gradient that looks one training step ahead."),
    )
    checks = (
        beats("mse", "uniform"),
        WhereKnown(*(Matches(name, "dnis", to="uniform", margin=0.003) for name in names("mse"))),
        beats("mse", "magnitude"),
        beats("mse_without_decay", "uniform"),
    )
    scales = {
        "smoke": Config(
            rows=2_000, sizes=(4, 8), batch=256, epochs=2, search_epochs=2, decays=(1e-5,), temperatures=(0.3,)
        ),
        "laptop": Config(),
        "paper": Config("movielens-20m", batch=4_096, epochs=20, lr=1e-3, lr_without_decay=1e-3, device="cuda"),
    }
    accepts = ("ratings",)
    quotes = (
        Quote("fewer embedding parameters, collaborative filtering", "2 ×", "abstract of the first version"),
        Quote("fewer embedding parameters, click-through rates", "20 ×", "abstract of the first version"),
        Quote("the paper's tables", "not quoted", "they were not read; the abstract ranks it first"),
    )
    notes = (
        "MovieLens-100k, split 70/20/10 at random by the seed (the authors' shares; they leave out items with fewer "
        "than five ratings), users and items in one table, under a factorisation machine as the authors': mean over "
        "dimensions, Xavier normal. Test error moves by 0.03 with the split: differences within a seed are what "
        "counts. Every arm trains for as many epochs: a warm start until two epochs bring nothing on validation, then "
        "15 epochs at a tenth of the rate, with the search or without; the best epoch of both by validation. Nothing "
        "is retrained behind the cut. mse takes weight decay from {3e-6, 1e-5}, by validation for each arm, seed and "
        "size; mse_without_decay has none, as in the authors' scripts. uniform chooses among 16, 32 and 64 dimensions, "
        "all others train 64. mixed has a mean of 32 and chooses its temperature from {0.1, 0.2, 0.3, 0.5}, by "
        "validation too. dnis chooses by the validation error of the table after the cut. Its 640 numbers have learned "
        "from the validation part, so that error is never reported. magnitude tells whether the search or the cut did "
        "the work. The rates were fixed beforehand and are the same in all arms; with a decay of 1e-4 the interaction "
        "of a factorisation machine never wakes up. What differs from the authors' script: there only tables and "
        "biases learn during the search, the rate is cut on a plateau, weights move before α, and α has a penalty of "
        "1e-5, which a normalised and clipped gradient hardly feels. parameters and kilobytes are of the tables in the "
        "regime with weight decay, compressed but for uniform. The user's ratings are mapped onto the scale from 1 to "
        "5. At paper scale --set root=FOLDER names the folder of the data: ratings.csv of MovieLens-20M (--set "
        "model=fm, mlp or neumf), train.txt of Criteo with --set dataset=criteo (--set model=fm, wide-deep or deepfm), "
        "or ratings.dat of MovieLens-1M with --set dataset=movielens-1m, for lists of ten items. These two have "
        "ranking_error in place of mse: 1 less the area under the curve, or 1 less the discounted gain (NDCG) of the "
        "ten. Criteo's categories are hashed by column; those with fewer than ten rows are one."
    )

    def prepare(self, config: Config) -> None:
        self.task(config, 0)  # what the units will need is fetched and read: a fault is one line before anything runs

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        from throughline.claims.dnis.training import Trainer, plan_of

        return Trainer(self.task(config, seed), plan_of(arm, config), config, seed, log).metrics()

    def task(self, config: Config, seed: int) -> "Task":
        """The task of a seed, alike in every arm."""
        from throughline.claims.dnis import paper, tasks

        if config.data is None and config.dataset != "movielens-100k":
            return paper.load(config, seed)
        return tasks.load(config, seed)

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.claims.dnis import figures as draw

        metric, label = draw.metric_of(results)
        plain = f"{metric}_without_decay"
        drawn = {
            f"{label}, a line for each seed": paired_dots(results, metric, label=label),
            f"{label} above that of uniform, with weight decay": paired_differences(results, metric, "uniform"),
            f"{label} above that of uniform, without weight decay": paired_differences(results, plain, "uniform"),
            f"{label} against entries of the table, above the seed's own largest uniform table": draw.tradeoff(results),
            "Mean size that is kept, block by block, against how often its users and items occur": draw.sizes(results),
            "α at the start, in the middle and at the end of a search, dimensions sorted": draw.alphas(results),
        }
        return {caption: figure for caption, figure in drawn.items() if figure is not None}
