"""Pointer networks against a loop of LSTM cells; padding, parameters, learning and autocast."""

from collections.abc import Callable

import pytest
import torch
from tests.discrete.pointer.models import looped, network, uniform
from torch import Tensor

from throughline.data.planar import make_planar
from throughline.discrete.pointer import PAD, STOP, PointerAttention, PointerNetwork

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


def test_autocast_does_not_reach_inside() -> None:
    net, points = network(), uniform(5, 5, 2)
    net, points = net.float(), points.float()
    expected = net.log_prob(points, TARGETS, lengths=LENGTHS)
    decoded = net.decode(points, lengths=LENGTHS, beam_size=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.log_prob(points, TARGETS, lengths=LENGTHS).equal(expected)
        assert net(points, TARGETS, lengths=LENGTHS).dtype == torch.float32
        assert net.decode(points, lengths=LENGTHS, beam_size=2).log_prob.equal(decoded.log_prob)
        short = net.log_prob(points.bfloat16(), TARGETS, lengths=LENGTHS)  # what a layer before it hands over
    torch.testing.assert_close(short, expected, rtol=0.05, atol=0.05)
    assert short.dtype == torch.float32


@pytest.mark.parametrize(
    ("targets", "place"),
    [
        ([[0, STOP, 1, STOP]], "got 1 at place 2 of row 0"),
        ([[0, 1, STOP, PAD], [0, STOP, STOP, PAD]], "got -1 at place 2 of row 1"),
        ([[0, 1, PAD, STOP]], "got -1 at place 3 of row 0"),
        ([[PAD, 0, 1, STOP]], "got 0 at place 1 of row 0"),
    ],
)
def test_targets_end_where_they_stop(targets: list[list[int]], place: str) -> None:
    wrong = torch.tensor(targets)
    with pytest.raises(ValueError, match=rf"^targets must hold PAD \(-100\) alone behind STOP \(-1\) or PAD, {place}"):
        network().log_prob(uniform(len(wrong), 3, 2), wrong)


def test_no_position_is_read_from_nan() -> None:
    net, points = network(), uniform(5, 5, 2)
    points[1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^inputs must be finite, got \[nan, nan\] at position 1 of row 1"):
        net.decode(points, lengths=LENGTHS)
    assert net.log_prob(points, TARGETS, lengths=LENGTHS).isnan().tolist() == [False, True, False, False, False]
    with torch.no_grad():
        net.end.fill_(torch.nan)  # a network that has diverged
    lost = net.decode(uniform(2, 4, 2), constraint="tour")
    assert lost.log_prob.isnan().all()
    assert (lost.sequences == PAD).all()


def test_lengths_may_be_a_list() -> None:
    net, points = network(), uniform(5, 5, 2)
    expected = net.log_prob(points, TARGETS, lengths=LENGTHS)
    assert net.log_prob(points, TARGETS, lengths=LENGTHS.tolist()).equal(expected)
