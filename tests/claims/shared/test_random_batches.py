"""Random batches: every row once a pass, in another order each time."""

import torch

from throughline.claims.shared.random_batches import by_task, epochs, shuffled


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_pass_holds_every_row_once() -> None:
    batches = list(epochs(2, 5, 2, seeded()))
    assert [len(rows) for rows in batches] == [2, 2, 1] * 2
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == [0, 1, 2, 3, 4]
    assert first.tolist() != second.tolist()


def test_what_is_left_of_a_pass_can_be_dropped() -> None:
    batches = shuffled(torch.arange(7), 3, seeded(), drop_last=True)
    for _ in range(5):
        rows = torch.cat([next(batches), next(batches)])
        assert len(rows.unique()) == 6


def test_batches_never_end() -> None:
    batches = shuffled(torch.tensor([3, 5, 7]), 2, seeded())
    assert [len(next(batches)) for _ in range(6)] == [2, 1] * 3


def test_mixed_classes_take_as_many_steps() -> None:
    stream = [torch.arange(0, 100), torch.arange(100, 130)]
    ordered, mixed = ([list(each) for each in by_task(stream, 32, 3, seeded(), mixed=mixed)] for mixed in (False, True))
    assert [len(task) for task in ordered] == [len(task) for task in mixed] == [12, 3]
    for rows, batches in zip(stream, ordered, strict=True):
        per_epoch = len(batches) // 3
        for epoch in range(3):
            seen = torch.cat(batches[epoch * per_epoch : (epoch + 1) * per_epoch])
            assert seen.sort().values.equal(rows)
        assert not torch.cat(batches[:per_epoch]).equal(torch.cat(batches[per_epoch : 2 * per_epoch]))
    flat = [rows for task in mixed for rows in task]
    for first in (0, 5, 10):  # five batches are a pass over all 130 rows
        assert torch.cat(flat[first : first + 5]).sort().values.equal(torch.arange(130))
