"""The epochs of a search: which batches go together, when rates are stepped, and who is told."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughline.search.darts import search


class Recorder:
    """A searcher that writes down what it is asked to do."""

    def __init__(self) -> None:
        self.model, self.calls = nn.Linear(1, 1), []

    def weight_step(self, train: Any) -> dict[str, Tensor]:
        self.calls.append(train)
        return {"loss": torch.tensor(float(train))}

    def step(self, train: Any, valid: Any) -> dict[str, Tensor]:
        assert self.model.training
        self.calls.append((train, valid))
        return {"loss": torch.tensor(float(train)), "other": torch.tensor(float(valid))}


def test_the_longer_loader_makes_the_epoch() -> None:
    for train, valid in (([1, 2, 3], [7, 8]), ([7, 8], [1, 2, 3]), ([1, 2], [3, 4]), ([1, 2, 3, 4, 5], [9])):
        recorder = Recorder()
        search(recorder, train, valid, epochs=2)
        count = max(len(train), len(valid))
        wanted = list(itertools.islice(zip(itertools.cycle(train), itertools.cycle(valid), strict=False), count))
        assert recorder.calls == wanted * 2


def test_a_loader_is_asked_anew_and_no_more_often_than_needed() -> None:
    class Loader:
        drawn = 0

        def __iter__(self) -> Iterator[int]:
            for _ in range(3):
                self.drawn += 1
                yield self.drawn

    train, valid, recorder = Loader(), Loader(), Recorder()
    search(recorder, train, valid, epochs=2)
    assert recorder.calls == [(i, i) for i in range(1, 7)]
    assert train.drawn == valid.drawn == 6


def test_without_validation_data_only_weights_are_trained() -> None:
    recorder = Recorder()
    search(recorder, [1, 2], None, epochs=2)
    assert recorder.calls == [1, 2, 1, 2]


def test_epochs_end_with_schedulers_and_a_report() -> None:
    seen, recorder = [], Recorder()
    optimizer = torch.optim.SGD(recorder.model.parameters(), 1.0)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step()

    def told(epoch: int, means: dict[str, Tensor]) -> None:
        seen.append((epoch, {n: v.item() for n, v in means.items()}, optimizer.param_groups[0]["lr"]))
        recorder.model.eval()  # as an evaluation would leave it: the next epoch trains all the same

    search(recorder, [1, 2, 3], [10], epochs=2, schedulers=[halving], on_epoch=told)
    assert seen == [(0, {"loss": 2.0, "other": 10.0}, 0.5), (1, {"loss": 2.0, "other": 10.0}, 0.25)]
    search(recorder, [1], [1], epochs=0, on_epoch=told)
    assert len(seen) == 2


def test_the_loop_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"epochs must not be negative, got -1"):
        search(Recorder(), [1], [1], epochs=-1)
    with pytest.raises(TypeError, match=r"epochs must be an integer, got 1\.5"):
        search(Recorder(), [1], [1], epochs=1.5)  # type: ignore[arg-type]
    for name, loaders in (("train_loader", ([], [1])), ("valid_loader", ([1], []))):
        with pytest.raises(ValueError, match=rf"{name} must yield a batch in every epoch"):
            search(Recorder(), *loaders, epochs=1)
    once = iter([1, 2])
    with pytest.raises(ValueError, match=r"valid_loader must yield a batch in every epoch"):
        search(Recorder(), [1, 2, 3], once, epochs=1)
