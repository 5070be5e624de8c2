"""Which paths are drawn, how often, and what is put back."""

import copy
import itertools
import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.binary_path.nets import DOUBLE, Scale, choice, mixed, random, seeded
from torch import nn
from torch._dynamo.testing import CompileCounter

from throughline.search.binary_path import binary_paths
from throughline.search.supernet import Choice, MixedOp, choices

ALPHA = torch.tensor([0.3, -1.2, 1.0, 0.0], dtype=DOUBLE)


def many(count: int) -> nn.ModuleList:
    """As many choices with the same alpha, so that one use draws them all."""
    made = [Choice(["a", "b", "c", "d"], dtype=DOUBLE) for _ in range(count)]
    for one in made:
        one.alpha.data.copy_(ALPHA)
    return nn.ModuleList(made)


def frequencies(pairs: bool, uses: int = 20) -> tuple[dict[tuple[str, ...], float], int]:
    net, draw, counts = many(500), seeded(3), {}
    for _ in range(uses):
        with binary_paths(net, pairs=pairs, generator=draw) as drawn:
            for path in drawn.values():
                counts[path] = counts.get(path, 0) + 1
    total = sum(counts.values())
    return {path: count / total for path, count in counts.items()}, total


def test_options_are_drawn_by_their_probabilities() -> None:
    found, total = frequencies(pairs=False)
    for name, p in zip("abcd", ALPHA.softmax(0).tolist(), strict=True):
        assert abs(found[name,] - p) < 5 * math.sqrt(p * (1 - p) / total)


def test_pairs_are_drawn_without_replacement_and_one_of_them_by_the_two_alone() -> None:
    found, total = frequencies(pairs=True)
    p = dict(zip("abcd", ALPHA.softmax(0).tolist(), strict=True))
    for active, other in itertools.permutations("abcd", 2):
        both = p[active] * p[other] * (1 / (1 - p[active]) + 1 / (1 - p[other]))
        wanted = both * p[active] / (p[active] + p[other])
        assert abs(found[active, other] - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / total)


def test_probabilities_that_vanish_still_make_a_pair() -> None:
    net = nn.ModuleList([Choice(["a", "b", "c"])])
    net[0].alpha.data.copy_(torch.tensor([-5000.0, 3000.0, -1000.0]))
    for seed in range(5):
        with binary_paths(net, pairs=True, generator=seeded(seed)) as drawn:
            assert drawn == {"0": ("b", "c")}


def test_the_generator_decides() -> None:
    net = many(30)
    paths = []
    for seed in (1, 1, 2):
        state = torch.get_rng_state()
        with binary_paths(net, generator=seeded(seed)) as drawn:
            paths.append(drawn)
        assert torch.equal(torch.get_rng_state(), state)
    assert paths[0] == paths[1] != paths[2]
    for _ in range(2):
        torch.manual_seed(5)
        with binary_paths(net) as drawn:
            paths.append(drawn)
    assert paths[3] == paths[4]


def test_what_is_decided_dropped_or_removed_is_not_drawn() -> None:
    net = nn.Sequential(*(mixed(seed) for seed in range(4)))
    found = list(choices(net).values())
    found[0].select("tanh")
    found[1].drop()
    with found[2].without("linear"):
        for seed in range(8):
            with binary_paths(net, pairs=True, generator=seeded(seed)) as drawn:
                assert list(drawn) == ["2.choice", "3.choice"]
                assert set(drawn["2.choice"]) == {"tanh", "norm"}
        with binary_paths(net, paths={"2.choice": "norm", "3.choice": "norm"}):
            net[2](random(3, 4)).sum().backward()
    assert found[2].alpha.grad[0] == 0  # takes no part
    assert found[2].alpha.grad.abs().max() > 0
    alone = nn.Sequential(MixedOp({"only": Scale(2.0)}, choice("only")))
    with binary_paths(alone, pairs=True) as drawn:
        assert drawn == {"0.choice": ("only",)}
        alone(random(3)).sum().backward()
    assert alone[0].choice.alpha.grad.tolist() == [0.0]
    with binary_paths(nn.Linear(1, 1)) as drawn:
        assert drawn == {}


def test_forced_paths_are_taken_and_the_rest_is_drawn() -> None:
    net = many(40)
    with binary_paths(net, paths={"3": "b"}, generator=seeded()) as single:
        assert single["3"] == ("b",)
        assert len(set(single.values())) > 1
    with binary_paths(net, pairs=True, paths=dict.fromkeys(map(str, range(20)), "b"), generator=seeded()) as pairs:
        assert {pairs[str(i)][0] for i in range(20)} == {"b"}
        assert {pairs[str(i)][1] for i in range(20)} <= {"a", "c", "d"}
        assert len({pairs[str(i)][1] for i in range(20)}) > 1
    with binary_paths(net, pairs=True, paths=pairs) as again:  # the active one stays the first
        assert again == pairs
    with binary_paths(net, paths=single) as again:
        assert again == single


@given(st.integers(0, 10**6), st.booleans())
def test_a_path_has_options_of_its_choice_once(seed: int, pairs: bool) -> None:
    net = nn.ModuleList([choice(*(f"o{i}" for i in range(n)), seed=n) for n in range(1, 5)])
    with binary_paths(net, pairs=pairs, generator=seeded(seed)) as drawn:
        for name, path in drawn.items():
            assert len(path) == len(set(path)) == (min(2, len(net[int(name)].names)) if pairs else 1)
            assert set(path) <= set(net[int(name)].names)


def test_mixtures_are_put_back_also_after_an_error() -> None:
    net = nn.Sequential(mixed(0), mixed(1))
    net[1].mixture = custom = lambda op, args, kwargs: args[0]
    before = net[0].mixture
    with pytest.raises(ZeroDivisionError), binary_paths(net):
        1 / 0  # noqa: B018
    with binary_paths(net):
        assert net[0].mixture is not before
        copied = copy.deepcopy(net)  # within, a copy takes the path too
        assert copied[0].mixture == net[0].mixture
    assert net[0].mixture is before
    assert net[1].mixture is custom
    with binary_paths(net), pytest.raises(RuntimeError, match="inside of itself"), binary_paths(net[1]):
        pass
    with binary_paths(net):
        pass


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"paths": {"choices": "tanh"}}, r"paths must name undecided choices \(choice\), got 'choices'"),
    ({"paths": {"choice": "conv"}}, r"paths must be options, linear, tanh, norm for choice, got 'conv'"),
    ({"paths": {"choice": ()}}, r"paths must be options, linear, tanh, norm for choice, got \(\)"),
    ({"paths": {"choice": ("tanh", "norm")}}, r"paths must be single options, got \('tanh', 'norm'\) for choice"),
    ({"paths": {"choice": ("tanh", "tanh")}, "pairs": True}, r"different options of linear, tanh, norm, got"),
    ({"paths": {"choice": ("tanh", "norm", "linear")}, "pairs": True}, r"paths must be pairs, got"),
)


@pytest.mark.parametrize(("options", "match"), BAD)
def test_names_what_cannot_be_taken(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match), binary_paths(mixed(), **options):
        pass


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("lost", [[0.0, math.nan, 0.0], [math.inf, 0.0, math.inf], [-math.inf] * 3])
def test_names_alpha_that_is_lost(lost: list[float], pairs: bool) -> None:
    net = mixed()
    net.choice.alpha.data.copy_(torch.tensor(lost))
    with pytest.raises(ValueError, match=r"alpha of choice must have a finite maximum and no NaN, got"):
        binary_paths(net, pairs=pairs).__enter__()


def test_an_alpha_of_minus_infinity_is_never_run() -> None:
    net = mixed()
    net.choice.alpha.data.copy_(torch.tensor([-math.inf, 0.0, -math.inf]))
    for seed in range(5):
        with binary_paths(net, pairs=True, generator=seeded(seed)) as drawn:
            net(random(6, 4)).sum().backward()
        assert drawn["choice"][0] == net.choice.names[1]
    assert net.choice.alpha.grad.tolist() == [0.0] * 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_new_path_compiles_nothing_new(whole: bool) -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    ops = [{name: nn.Linear(4, 4) for name in "abc"} for _ in range(2)]
    if not whole:
        for layer in ops:
            for name, op in layer.items():
                layer[name] = torch.compile(op, backend=counter)
    net: Any = nn.Sequential(*map(MixedOp, ops), nn.Tanh())
    called = torch.compile(net, backend=counter) if whole else net
    x = torch.randn(3, 4)
    frames = []
    for names in ("aa", "bb", "cc", "ab", "ca", "bc"):
        with binary_paths(net, paths=dict(zip(choices(net), names, strict=True))), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own
            value = called(x)
            value.sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(value, net[1].ops[names[1]](net[0].ops[names[0]](x)).tanh())
        frames.append(counter.frame_count)
    assert frames[-1] == frames[2]  # once every candidate has been seen
    torch.compiler.reset()
