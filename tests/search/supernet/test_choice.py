"""Choices: the weights in force, and what keeps a decision."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.supernet.networks import choice, seeded

from throughline.search.supernet import Choice

NAMES = ("a", "b", "c", "d")


def test_alpha_starts_small_and_from_its_generator() -> None:
    drawn = torch.randn(4, generator=seeded(3), dtype=torch.float64)
    made = Choice(NAMES, generator=seeded(3), dtype=torch.float64)
    torch.testing.assert_close(made.alpha.detach(), 1e-3 * drawn)
    assert made.alpha.requires_grad
    twice = Choice(NAMES, scale=2.0, generator=seeded(3), dtype=torch.float64)
    torch.testing.assert_close(twice.alpha.detach(), 2 * drawn)
    assert Choice(NAMES).alpha.dtype == torch.float32
    assert Choice(NAMES, device="meta").alpha.is_meta
    assert Choice(NAMES, device="meta", generator=seeded()).alpha.is_meta


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.sets(st.sampled_from(NAMES)))
def test_removed_options_weigh_nothing_and_the_others_as_before(alpha: list[float], gone: set[str]) -> None:
    made = choice(NAMES, alpha)
    exponential = torch.tensor(alpha, dtype=torch.float64).exp()
    wanted = exponential / exponential.sum()
    torch.testing.assert_close(made.probabilities(), wanted)
    torch.testing.assert_close(made.weights(), wanted)
    with made.without(*gone):
        left = torch.tensor([name not in gone and bool(gone) for name in NAMES])
        torch.testing.assert_close(made.weights(), wanted * left)
        assert made.alive == tuple(name for name in NAMES if name not in gone and gone)
        torch.testing.assert_close(made.probabilities(), wanted)
    torch.testing.assert_close(made.weights(), wanted)


def test_gradient_of_the_weights_is_that_of_the_softmax() -> None:
    made = choice(NAMES, (0.3, -1.0, 0.7, 0.1))
    p = made.probabilities().detach()
    with made.without("b"):
        (slope,) = torch.autograd.grad(made.weights()[3], made.alpha)
    wanted = p[3] * (torch.eye(4, dtype=torch.float64)[3] - p)  # b pulls the others down although it is removed
    torch.testing.assert_close(slope, wanted)


def test_removals_nest_and_end_with_errors_too() -> None:
    made = choice(NAMES)
    with made.without("a"):
        with made.without("c"):
            assert made.alive == ("b", "d")
        assert made.alive == ("b", "c", "d")
        with pytest.raises(ZeroDivisionError), made.without():
            1 / len(made.alive)
        assert made.alive == ("b", "c", "d")
    assert made.alive == NAMES


def test_a_decision_is_a_one_hot_without_gradient() -> None:
    made = choice(NAMES)
    made.select("c")
    assert (made.decision, made.dropped, made.alive) == ("c", False, ("c",))
    assert made.weights().tolist() == [0, 0, 1, 0]
    assert not made.weights().requires_grad
    with made.without("a"):
        assert made.weights().tolist() == [0, 0, 1, 0]
    with made.without("c"):
        assert made.weights().tolist() == [0, 0, 0, 0]
    made.drop()
    assert (made.decision, made.dropped, made.alive) == (None, True, ())
    assert made.weights().tolist() == [0, 0, 0, 0]
    made.select("b")
    assert (made.decision, made.dropped) == ("b", False)
    made.drop()
    made.reset()
    assert (made.decision, made.dropped, made.alive) == (None, False, NAMES)
    torch.testing.assert_close(made.weights(), made.alpha.softmax(0))


@pytest.mark.parametrize("do", [lambda c: c.select("c"), lambda c: c.drop(), lambda c: None])
def test_decisions_survive_state_dict_pickle_and_deepcopy(do: object) -> None:
    made = choice(NAMES, (1.0, 2.0, 3.0, 4.0))
    do(made)  # type: ignore[operator]
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    loaded = choice(NAMES)
    loaded.select("a")
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for twin in (loaded, pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert (twin.decision, twin.dropped) == (made.decision, made.dropped)
        assert twin.alpha.tolist() == [1, 2, 3, 4]
        assert twin.names == NAMES
        assert twin.alpha is not made.alpha


def test_a_decision_without_alternatives_has_no_gradient_either() -> None:
    made = choice(("a",))
    assert made.weights().requires_grad
    made.select("a")
    assert made.weights().tolist() == [1]
    assert not made.weights().requires_grad


def test_shows_its_options() -> None:
    made = choice(NAMES)
    assert repr(made) == "Choice(a, b, c, d)"
    made.select("b")
    assert repr(made) == "Choice(a, b, c, d, decision='b')"
    made.drop()
    assert repr(made) == "Choice(a, b, c, d, dropped)"


def test_bad_names() -> None:
    with pytest.raises(ValueError, match=r"names must be at least one, and none of them empty, got \(\)"):
        Choice([])
    with pytest.raises(ValueError, match=r"none of them empty, got \('a', ''\)"):
        Choice(["a", ""])
    with pytest.raises(ValueError, match=r"names must differ from each other, got \('a', 'b', 'a'\)"):
        Choice(["a", "b", "a"])
    with pytest.raises(TypeError, match=r"names must be a sequence of strings, got 'abc'"):
        Choice("abc")
    with pytest.raises(TypeError, match=r"names must be a sequence of strings, got \[1\]"):
        Choice([1])  # type: ignore[list-item]
    made = choice(NAMES)
    for use in (made.select, lambda name: made.without("a", name).__enter__()):
        with pytest.raises(ValueError, match=r"name must be one of the options a, b, c, d, got 'e'"):
            use("e")
    assert made.alive == NAMES
    state = made.state_dict()
    state["_extra_state"] = {"decision": "e", "dropped": False}
    with pytest.raises(ValueError, match=r"one of the options a, b, c, d, got 'e'"):
        made.load_state_dict(state)
