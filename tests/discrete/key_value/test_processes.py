"""Two processes find the keys that one process finds from the batches of both, and refuse together."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from throughline.discrete.key_value import KeyValueBottleneck

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without torch.distributed")
Found = tuple[dict[str, Tensor], list[str], bool, Tensor]  # the state, what was refused, whether it is kept, the usage
X = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def made() -> KeyValueBottleneck:
    draw = torch.Generator().manual_seed(1)
    sizes = {
        "num_codebooks": 4,
        "num_pairs": 8,
        "dim_key": 2,
        "dead_threshold": 0.5,
    }  # so that many keys are drawn anew
    return KeyValueBottleneck(6, 3, **sizes, generator=draw).double()


def share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    own = [part[:13] if rank == 0 else part[13:] for part in X.split(20)][: 5 - rank]  # the second has fewer batches
    bottleneck = made().fit_keys(own, epochs=3, generator=torch.Generator().manual_seed(5 + rank))
    found = {name: value.clone() for name, value in bottleneck.state_dict().items()}
    refused = []
    for bad in (torch.full((2, 6), torch.nan), torch.ones(2, 5), torch.ones(2, 6).long()):
        try:
            bottleneck.update_keys(bad if rank else X[:5])
        except (TypeError, ValueError) as error:
            refused.append(f"{type(error).__name__}: {error}")
    kept = all(value.equal(found[name]) for name, value in bottleneck.state_dict().items())
    wrapped = nn.parallel.DistributedDataParallel(bottleneck)
    for part in own[:2]:
        wrapped(part).sum().backward()
    torch.save((found, refused, kept, bottleneck.usage), Path(folder) / f"{rank}.pt")
    del wrapped
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(share, (str(folder),), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_keys_are_those_of_one_process_with_all_rows(
    both: list[Found],
) -> None:
    (first, *_), (second, *_) = both
    assert all(value.equal(second[name]) for name, value in first.items())
    batches = [*X[:80].split(20), X[80:93]]
    alone = made().fit_keys(batches, epochs=3, generator=torch.Generator().manual_seed(5))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value)


def test_what_one_refuses_all_refuse(both: list[Found]) -> None:
    (_, told, *_), (_, own, *_) = both
    assert told == ["ValueError: x must be good in every process, but process 1 refused its own"] * 3
    assert [text.split(",")[0] for text in own] == [
        "ValueError: x must be finite",
        "ValueError: x must be (...",
        "TypeError: x must be floating point",
    ]
    assert both[0][2]
    assert both[1][2]  # the keys are as they were


def test_usage_is_that_of_all_replicas(both: list[Found]) -> None:
    (*_, first), (*_, second) = both
    alone = made().fit_keys([*X[:80].split(20), X[80:93]], epochs=3, generator=torch.Generator().manual_seed(5))
    alone(X[:40])
    assert first.equal(second)
    assert first.equal(alone.usage)
