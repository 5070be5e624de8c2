"""Beam search against exhaustive enumeration and a search over lists; what constraints allow."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.discrete.pointer.models import ended, looped, network, uniform
from torch import Tensor

from throughline.discrete.pointer import PAD, STOP, PointerNetwork


def valid(kind: str | None, n: int, longest: int) -> Iterator[tuple[list[int], bool]]:
    """Every sequence that a constraint allows, and whether it ended before it was cut off after ``longest`` steps."""

    def follow(prefix: list[int]) -> list[int]:
        t = len(prefix)
        if kind == "tour":
            return [0] if t == 0 else [j for j in range(n) if j not in prefix] if t < n else [STOP]
        if kind == "polygon":
            return [j for j in range(n) if j not in prefix] + ([STOP] if t >= 3 else [])
        if kind == "triangles":
            if t % 3 == 0:
                return [*range(n - 2), *([STOP] if t else [])]
            return [j for j in range(prefix[-1] + 1, n) if j + 2 - t % 3 < n]
        return [*range(n), STOP]

    stack: list[list[int]] = [[]]
    while stack:
        prefix = stack.pop()
        if prefix and prefix[-1] == STOP:
            yield prefix[:-1], True
        elif len(prefix) == longest:
            yield prefix, False
        else:
            stack += [[*prefix, j] for j in follow(prefix)]


@pytest.mark.parametrize(
    ("kind", "n", "longest", "beam"),
    [(None, 3, 4, 256), ("tour", 5, 6, 24), ("polygon", 4, 5, 64), ("triangles", 4, 7, 64), ("triangles", 4, 5, 64)],
)
def test_a_beam_as_wide_as_the_tree_finds_the_most_likely_sequence(kind, n: int, longest: int, beam: int) -> None:
    for seed in range(4):
        net, points = network(seed=seed, scale=2.0), uniform(2, n, 2, seed=seed)
        found = net.decode(points, beam_size=beam, max_steps=longest, constraint=kind)
        for row in range(2):
            every = list(valid(kind, n, longest))
            targets = torch.full((len(every), longest + 1), PAD)
            for i, (sequence, ends) in enumerate(every):
                targets[i, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
                targets[i, len(sequence)] = STOP if ends else PAD
            scores = net.log_prob(points[row].expand(len(every), -1, -1), targets).detach()
            best, likely = every[int(scores.argmax())][0], float(scores.max())
            listed = found.sequences[row]
            assert listed[listed != PAD].tolist() == best
            assert float(found.log_prob[row]) == pytest.approx(likely)


def plain_beam(
    net: PointerNetwork, points: Tensor, kind: str | None, longest: int, beam: int
) -> tuple[list[int], float]:
    """Beam search over lists."""
    n = len(points)
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    allowed = {tuple(s) for s, _ in valid(kind, n, longest)}
    ends = {tuple(s) for s, ended in valid(kind, n, longest) if ended}
    prefixes = {s[:k] for s in allowed for k in range(len(s) + 1)}
    for _ in range(longest):
        candidates = []
        for sequence, score in beams:
            if sequence and sequence[-1] == STOP:
                candidates.append((sequence, score))
                continue
            log_p = looped(net, points, [*sequence, STOP])[-1].log_softmax(-1)
            for j in range(n):
                if (*sequence, j) in prefixes:
                    candidates.append(([*sequence, j], score + log_p[j].item()))
            if tuple(sequence) in ends:
                candidates.append(([*sequence, STOP], score + log_p[n].item()))
        beams = sorted(candidates, key=lambda pair: -pair[1])[:beam]
    sequence, score = beams[0]
    return [j for j in sequence if j != STOP], score


@pytest.mark.parametrize("beam", [1, 2, 3])
@pytest.mark.parametrize("kind", [None, "tour", "polygon", "triangles"])
def test_beam_search_is_that_over_lists(kind, beam: int) -> None:
    lengths = torch.tensor([4, 3, 4])
    net, points = network(seed=7, scale=2.0), uniform(3, 4, 2, seed=7)
    found = net.decode(points, lengths=lengths, beam_size=beam, max_steps=5, constraint=kind)
    for row, n in enumerate(lengths.tolist()):
        sequence, score = plain_beam(net, points[row, :n], kind, 5, beam)
        listed = found.sequences[row]
        assert listed[listed != PAD].tolist() == sequence
        assert float(found.log_prob[row]) == pytest.approx(score)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["tour", "polygon", "triangles", None]), st.integers(1, 4))
def test_what_is_decoded_is_valid_and_has_the_models_probability(seed: int, kind, beam: int) -> None:
    lengths = torch.tensor([7, 3, 5, 4])
    net, points = network(seed=seed, scale=1.5), uniform(4, 7, 2, seed=seed)
    found = net.decode(points, lengths=lengths, beam_size=beam, constraint=kind)
    finished = net.log_prob(points, ended(found.sequences), lengths=lengths)
    most = {"tour": 8, "polygon": 8, "triangles": 42, None: 16}[kind]
    for row, n in enumerate(lengths.tolist()):
        listed = [j for j in found.sequences[row].tolist() if j != PAD]
        assert all(0 <= j < n for j in listed)
        if len(listed) < most:
            torch.testing.assert_close(found.log_prob[row], finished[row])
        if kind == "tour":
            assert listed[0] == 0
            assert sorted(listed) == list(range(n))
        if kind == "polygon":
            assert len(set(listed)) == len(listed) >= 3
        if kind == "triangles":
            assert len(listed) % 3 == 0
            assert listed
            assert all(a < b for k in range(0, len(listed), 3) for a, b in pairwise(listed[k : k + 3]))


def test_greedy_follows_the_largest_logit_and_a_cut_has_no_stop() -> None:
    net, points = network(scale=1.5), uniform(3, 6, 2)
    found = net.decode(points, max_steps=2)
    assert found.sequences.shape[1] <= 2
    for row in range(3):
        listed = [j for j in found.sequences[row].tolist() if j != PAD]
        logits = looped(net, points[row], [*listed, STOP])
        assert [int(line.argmax()) for line in logits[:2]] == [*listed, 6][:2]
        score = torch.stack([logits.log_softmax(-1)[i, j] for i, j in enumerate([*listed, 6][:2])]).sum()
        assert float(found.log_prob[row]) == pytest.approx(float(score.detach()))


def test_a_function_can_be_the_constraint() -> None:
    net, points = network(scale=1.5), uniform(3, 4, 2)
    lengths = torch.tensor([4, 3, 4])
    seen = []

    def upwards(prefix: Tensor, given: Tensor) -> Tensor:
        seen.append((tuple(prefix.shape), given.tolist()))
        last = prefix[..., -1:] if prefix.shape[-1] else torch.full((*prefix.shape[:2], 1), -1)
        return (torch.arange(5) > last) & (torch.arange(5) < given[:, None, None]) | (torch.arange(5) == 4)

    found = net.decode(points, lengths=lengths, beam_size=2, constraint=upwards)
    assert seen[:2] == [((3, 2, 0), [4, 3, 4]), ((3, 2, 1), [4, 3, 4])]
    for row in found.sequences.tolist():
        listed = [j for j in row if j != PAD]
        assert listed == sorted(set(listed))


def test_keys_are_projected_once_and_a_step_is_one_of_the_decoder() -> None:
    net, points = network(), uniform(2, 5, 2)
    calls: dict[str, list[tuple[int, ...]]] = {"key": [], "decoder": []}
    net.pointer.key.register_forward_hook(lambda m, args, out: calls["key"].append(tuple(args[0].shape)))
    net.decoder.register_forward_hook(lambda m, args, out: calls["decoder"].append(tuple(args[0].shape)))
    net.decode(points, beam_size=3, constraint="tour")
    assert calls == {"key": [(2, 6, 8)], "decoder": [(6, 1, 2)] * 6}


def test_nothing_allowed_is_probability_zero() -> None:
    nothing = network().decode(uniform(2, 3, 2), constraint=lambda prefix, _: torch.zeros(*prefix.shape[:2], 4) > 0)
    assert (nothing.log_prob == -torch.inf).all()
    assert nothing.sequences.shape == (2, 0)
