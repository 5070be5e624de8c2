"""What a method of architecture search consists of, and the epochs around it (arXiv 1806.09055)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from throughline.core.checks import integer

__all__ = ["Batch", "Searcher", "search"]

Batch = Any  # whatever a loader yields and the loss takes
END = object()


class Searcher(Protocol):
    """A method of architecture search: what `search` calls, and all that a loop of your own needs.

    Returned tensors are detached and stay on the device. The state holds the model, both optimizers and whatever else
    the method keeps, by reference as torch's own: a search that loads it goes on with the same numbers.
    """

    model: nn.Module

    def weight_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One update of the weights."""

    def architecture_step(self, valid_batch: Batch, train_batch: Batch) -> dict[str, Tensor]:
        """One update of the architecture parameters."""

    def step(self, train_batch: Batch, valid_batch: Batch) -> dict[str, Tensor]:
        """One iteration, in the order of the method's paper."""

    def discretise(self) -> nn.Module:
        """The network that was found: a copy without mixtures."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken."""


def search(
    searcher: Searcher,
    train_loader: Iterable[Batch],
    valid_loader: Iterable[Batch] | None,
    *,
    epochs: int,
    schedulers: Sequence[Any] = (),
    on_epoch: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> None:
    """Run a search for some epochs, the loop of DARTS (arXiv 1806.09055) around any `Searcher`.

    An epoch ends with the longer loader; the shorter one starts again as often as it takes.

    Args:
        searcher: its model is put in train mode at the start of each epoch.
        train_loader: yields training batches; anything that can be iterated over again and again.
        valid_loader: the same for validation; None for steps on the weights alone, with the architecture as it is.
        epochs: not negative.
        schedulers: of learning rates, each stepped after every epoch without arguments.
        on_epoch: called after that with the number of the epoch, from 0, and the mean over the epoch of every value
            that the steps returned.

    Raises:
        ValueError: ``epochs`` is negative, or a loader yields nothing.

    >>> from throughline.search.darts import DartsSearcher
    >>> from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters
    >>> net = MixedOp({"linear": nn.Linear(3, 1), "mean": nn.AdaptiveAvgPool1d(1)})
    >>> sgd, adam = torch.optim.SGD(weight_parameters(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
    >>> searcher = DartsSearcher(net, lambda net, x: (net(x) - x[:, :1]).square().mean(), sgd, adam)
    >>> search(searcher, torch.randn(6, 32, 3), torch.randn(4, 32, 3), epochs=20)
    >>> searcher.discretise()
    Linear(in_features=3, out_features=1, bias=True)
    """
    if integer("epochs", epochs) < 0:
        raise ValueError(f"epochs must not be negative, got {epochs}")
    for epoch in range(epochs):
        searcher.model.train()
        seen: dict[str, list[Tensor]] = {}
        for train_batch, *rest in _together(train_loader, *(() if valid_loader is None else (valid_loader,))):
            values = searcher.step(train_batch, *rest) if rest else searcher.weight_step(train_batch)
            if on_epoch is not None:
                for name, value in values.items():
                    seen.setdefault(name, []).append(value)
        for scheduler in schedulers:
            scheduler.step()
        if on_epoch is not None:
            on_epoch(epoch, {name: torch.stack(values).mean() for name, values in seen.items()})


def _together(*loaders: Iterable[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Batches of all loaders side by side until the last of them has ended once."""
    running, ended = [iter(loader) for loader in loaders], [False] * len(loaders)
    while True:
        batches = [next(iterator, END) for iterator in running]
        ended = [over or batch is END for over, batch in zip(ended, batches, strict=True)]
        if all(ended):
            return
        for place, loader in enumerate(loaders):
            if batches[place] is END:
                running[place] = iter(loader)
                batches[place] = next(running[place], END)
                if batches[place] is END:
                    raise ValueError(f"{('train_loader', 'valid_loader')[place]} must yield a batch in every epoch")
        yield tuple(batches)
