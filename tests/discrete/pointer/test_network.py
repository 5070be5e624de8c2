"""Pointer networks against a loop of LSTM cells, exhaustive enumeration and a beam search over lists; their limits."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from throughline.data.planar import make_planar
from throughline.discrete.pointer import PAD, STOP, PointerAttention, PointerNetwork
from throughline.discrete.pointer.scores import _rows, additive_scores


def network(hidden: int = 8, seed: int = 0, scale: float = 0.8, input_dim: int = 2) -> PointerNetwork:
    net = PointerNetwork(input_dim, hidden, init_range=scale).double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=draw, dtype=torch.float64) * 2 - 1) * scale)
    return net


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cell_of(lstm: nn.LSTM) -> nn.LSTMCell:
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    return cell


def looped(net: PointerNetwork, points: Tensor, target: list[int]) -> Tensor:
    """Logits ``(m, n + 1)`` of one instance, cell by cell and pair by pair."""
    encoder, decoder, pointer = cell_of(net.encoder), cell_of(net.decoder), net.pointer
    h = c = torch.zeros(1, net.encoder.hidden_size, dtype=points.dtype)
    memory = []
    for point in points:
        h, c = encoder(point[None], (h, c))
        memory.append(h[0])
    memory.append(net.end)
    rows = []
    for step in range(len(target)):
        last = net.start if step == 0 else points[max(target[step - 1], 0)]
        h, c = decoder(last[None], (h, c))
        scores = [
            pointer.score.weight[0] @ torch.tanh(pointer.key.weight @ e + pointer.query.weight @ h[0]) for e in memory
        ]
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def ended(sequences: Tensor) -> Tensor:
    """Decoded sequences as targets."""
    wide = torch.cat([sequences, torch.full((len(sequences), 1), PAD)], 1)
    return wide.scatter(1, (sequences != PAD).sum(-1, keepdim=True), STOP)


LENGTHS = torch.tensor([5, 2, 3, 5, 1])
TARGETS = torch.tensor([[4, 2, 0, STOP], [1, 0, STOP, PAD], [2, STOP, PAD, PAD], [0, 0, 3, 4], [STOP, PAD, PAD, PAD]])


def test_is_the_mathematics_step_by_step() -> None:
    net, points = network(), uniform(5, 5, 2)
    logits = net(points, TARGETS, lengths=LENGTHS)
    log_prob = net.log_prob(points, TARGETS, lengths=LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        target = [t for t in TARGETS[row].tolist() if t != PAD]
        expected = looped(net, points[row, :n], target)
        real = logits[row, : len(target)]
        torch.testing.assert_close(real[:, [*range(n), 5]], expected)
        assert (real[:, n:5] == -torch.inf).all()
        each = expected.log_softmax(-1)[range(len(target)), [n if t == STOP else t for t in target]]
        torch.testing.assert_close(log_prob[row], each.sum())


def test_padding_has_no_influence() -> None:
    net, points = network(), uniform(5, 5, 2)
    garbage = points.clone()
    garbage[torch.arange(5) >= LENGTHS[:, None]] = torch.nan
    expected = net.log_prob(points, TARGETS, lengths=LENGTHS)
    torch.testing.assert_close(net.log_prob(garbage, TARGETS, lengths=LENGTHS), expected)
    wider = torch.cat([garbage, garbage[:, :2] * torch.nan], 1)
    longer = torch.cat([TARGETS, torch.full((5, 3), PAD)], 1)
    torch.testing.assert_close(net.log_prob(wider, longer, lengths=LENGTHS), expected)
    plain, padded = (net.decode(x, lengths=LENGTHS, beam_size=3, max_steps=6) for x in (points, wider))
    assert torch.equal(plain.sequences, padded.sequences)
    torch.testing.assert_close(plain.log_prob, padded.log_prob)
    gradients = torch.autograd.grad(net.log_prob(wider, longer, lengths=LENGTHS).sum(), list(net.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_every_instance_alone_gives_what_the_batch_gives() -> None:
    net, points = network(), uniform(5, 5, 2)
    batch = net.decode(points, lengths=LENGTHS, beam_size=2, max_steps=5)
    for row, n in enumerate(LENGTHS.tolist()):
        alone = net.decode(points[row : row + 1, :n], beam_size=2, max_steps=5)
        torch.testing.assert_close(alone.log_prob[0], batch.log_prob[row])
        listed = batch.sequences[row]
        assert alone.sequences[0].tolist() == listed[listed != PAD].tolist()


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


def test_masks_of_both_shapes_and_whole_rows() -> None:
    attention = PointerAttention(3).double()
    queries, keys = uniform(2, 4, 3), uniform(2, 5, 3, seed=1)
    plain = attention(queries, keys)
    by_key = torch.tensor([[True, False, True, True, False], [False] * 5])
    by_pair = uniform(2, 4, 5, seed=2) > 0.5
    assert torch.equal(attention(queries, keys, mask=by_key), plain.masked_fill(~by_key[:, None], -torch.inf))
    assert torch.equal(attention(queries, keys, mask=by_pair), plain.masked_fill(~by_pair, -torch.inf))
    assert (attention(queries, keys, mask=by_key)[1] == -torch.inf).all()


def test_points_into_the_states_of_another_encoder() -> None:
    """Two queries, a span's start and end, over a transformer's states with padding."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    span, queries = PointerAttention(16, 8), nn.Parameter(torch.randn(2, 8))
    states = layer(torch.randn(3, 7, 16))
    there = torch.arange(7) < torch.tensor([[7], [4], [5]])
    log_p = span(queries.expand(3, -1, -1), states, mask=there).log_softmax(-1)
    log_p[:, 0, 1].sum().backward()
    assert log_p.shape == (3, 2, 7)
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


@pytest.mark.parametrize(("m", "rows"), [(1, 1), (7, 3), (8, 8), (9, 1)])
def test_scores_in_slices_are_those_in_one_piece(monkeypatch: pytest.MonkeyPatch, m: int, rows: int) -> None:
    monkeypatch.setattr("throughline.discrete.pointer.scores._rows", lambda query, key, limit: rows)
    inputs = [uniform(2, m, 4, seed=m).requires_grad_(), uniform(2, 5, 4).requires_grad_(), uniform(4).requires_grad_()]
    weight = uniform(2, m, 5, seed=3)
    ours = additive_scores(*inputs)
    plain = torch.tanh(inputs[0][:, :, None] + inputs[1][:, None]) @ inputs[2]
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weight).sum(), inputs), torch.autograd.grad((plain * weight).sum(), inputs)
    )
    with torch.no_grad():
        torch.testing.assert_close(additive_scores(*inputs), plain)
    if m < 8:
        assert torch.autograd.gradgradcheck(additive_scores, inputs)


def test_slices_keep_within_their_bytes() -> None:
    query, key = torch.empty(128, 50, 512), torch.empty(128, 50, 512)
    assert _rows(query, key, 2**28) == 2**28 // (128 * 50 * 512 * 4) == 20
    assert _rows(query[:1], key[:1], 2**28) == 50
    assert _rows(query, key, 1) == 1


MEASURE = """
import torch
from benchmarks.harness import one_thread, peak_bytes
from throughline.discrete.pointer.scores import additive_scores
B, m, n, H = 16, 64, 64, 128
def plain(q, k, v):
    return torch.tanh(q[:, :, None] + k[:, None]) @ v
def step(scores):
    inputs = [torch.rand(*shape).requires_grad_() for shape in ((B, m, H), (B, n, H), (H,))]
    scores(*inputs).sum().backward()
with one_thread():
    for scores in (additive_scores, plain):
        step(scores)
        print(peak_bytes(lambda: step(scores)) / (4 * B * m * n * H))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_activation_is_held_once() -> None:
    # freed memory goes back to the system at once, so that the peak is that of what is held
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    ran = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment)
    ours, plain = map(float, ran.stdout.split())
    assert ours < 1.25 < 1.9 < plain


def test_starts_uniform_everywhere_and_keeps_its_names() -> None:
    net = PointerNetwork(3, 32, init_range=0.3)
    names = {
        *(
            f"{part}.{kind}_{side}_l0"
            for part in ("encoder", "decoder")
            for kind in ("weight", "bias")
            for side in ("ih", "hh")
        ),
        *(f"pointer.{part}.weight" for part in ("key", "query", "score")),
        *("start", "end"),
    }
    assert set(net.state_dict()) == names
    assert net.start.shape == (3,)
    assert net.end.shape == (32,)
    every = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert every.abs().max() <= 0.3
    assert every.abs().max() > 0.299
    assert abs(float(every.std()) - 0.3 / 3**0.5) < 0.01
    assert PointerNetwork(hidden_size=4).end.abs().max() <= 0.08


def test_leaves_arguments_and_the_global_generator_alone() -> None:
    net, points, before = network(), uniform(5, 5, 2), torch.get_rng_state()
    copies = points.clone(), TARGETS.clone(), LENGTHS.clone()
    net.log_prob(points, TARGETS, lengths=LENGTHS).sum().backward()
    net.decode(points, lengths=LENGTHS, beam_size=2)
    PointerAttention.forward(net.pointer, points @ torch.zeros(2, 8).double(), points @ torch.ones(2, 8).double())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(copies, (points, TARGETS, LENGTHS), strict=True))


def learn(loss: Callable[[PointerNetwork], Tensor], steps: int) -> PointerNetwork:
    torch.manual_seed(0)
    net = PointerNetwork(hidden_size=32, init_range=0.3)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net).backward()
        optimizer.step()
    return net


def test_learns_a_few_hulls_by_heart() -> None:
    few = make_planar("hull", 16, (4, 7), generator=torch.Generator().manual_seed(0))
    net = learn(lambda net: -net.log_prob(few.points, few.targets, lengths=few.lengths).mean(), 200)
    for beam in (1, 3):
        found = net.decode(few.points, lengths=few.lengths, beam_size=beam, constraint="polygon").sequences
        assert torch.equal(
            found, few.targets[:, : found.shape[1]].masked_fill(few.targets[:, : found.shape[1]] < 0, PAD)
        )


def test_works_under_autocast() -> None:
    net, points = PointerNetwork(hidden_size=8), torch.rand(2, 5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = -net.log_prob(points, TARGETS[[0, 3]]).mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
