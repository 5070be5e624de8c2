"""DARTS on a model with known limits, its look ahead written out, resuming, and what a loop of epochs promises."""

import copy
import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from throughline.search.darts import DartsSearcher, search
from throughline.search.supernet import Choice, MixedOp, arch_parameters, weight_parameters

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- a bilevel problem that is solvable by hand ----


class Scalars(nn.Module):
    """α and w of L_val = αw − 2α + 1 and L_train = (w − α)², whose bilevel solution is α = w = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(2.0, dtype=DOUBLE))
        self.w = nn.Parameter(torch.tensor(-2.0, dtype=DOUBLE))

    def forward(self, part: str) -> Tensor:
        return self.alpha * self.w - 2 * self.alpha + 1 if part == "valid" else (self.w - self.alpha).square()


def scalars(lr: float, **options: Any) -> DartsSearcher:
    model = Scalars()
    optimizers = torch.optim.SGD([model.w], lr), torch.optim.SGD([model.alpha], 0.2)
    return DartsSearcher(model, lambda m, part: m(part), *optimizers, arch_params=[model.alpha], **options)


@pytest.mark.parametrize(("unrolled", "lr"), [(False, 0.1), (True, 0.1), (True, 0.5)])
def test_goes_to_the_limit_of_its_order(unrolled: bool, lr: float) -> None:
    searcher = scalars(lr, unrolled=unrolled)
    for _ in range(250):
        searcher.step("train", "valid")
    limit = 2 / (1 + 2 * lr) if unrolled else 2.0
    torch.testing.assert_close(searcher.model.alpha.item(), limit, atol=1e-6, rtol=0)
    torch.testing.assert_close(searcher.model.w.item(), limit, atol=1e-6, rtol=0)


def test_an_iteration_moves_the_architecture_first() -> None:
    searcher = scalars(0.1, grad_clip=None)
    seen = searcher.step("train", "valid")
    alpha = 2 - 0.2 * (-2 - 2)  # ∇_α L_val = w − 2 at the old w
    assert searcher.model.alpha.item() == pytest.approx(alpha)
    assert searcher.model.w.item() == pytest.approx(-2 - 0.1 * 2 * (-2 - alpha))  # at the new α
    assert {name: value.item() for name, value in seen.items()} == pytest.approx(
        {"valid_loss": -7.0, "train_loss": (-2 - alpha) ** 2}
    )
    assert not any(value.requires_grad for value in seen.values())


# ---- a small supernet ----


class Net(nn.Module):
    """Two mixtures of one choice around batch norm, and a second choice."""

    def __init__(self, dtype: torch.dtype = DOUBLE) -> None:
        super().__init__()
        torch.manual_seed(0)
        shared, last = Choice(["a", "b"]), Choice(["linear", "tanh"])
        self.first = MixedOp({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh())}, shared)
        self.norm = nn.BatchNorm1d(4)
        self.second = MixedOp({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh())}, shared)
        self.last = MixedOp({"linear": nn.Linear(4, 3), "tanh": nn.Sequential(nn.Linear(4, 3), nn.Tanh())}, last)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x))))


def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def batches(seed: int, count: int, dtype: torch.dtype = DOUBLE) -> list[tuple[Tensor, Tensor]]:
    draw = seeded(seed)
    return [
        (torch.randn(16, 4, generator=draw, dtype=dtype), torch.randint(3, (16,), generator=draw)) for _ in range(count)
    ]


TRAIN, VALID = batches(1, 4), batches(2, 4)


def made(net: nn.Module | None = None, *, sgd: dict[str, Any] | None = None, **options: Any) -> DartsSearcher:
    net = Net() if net is None else net
    weights = torch.optim.SGD(
        weight_parameters(net), **{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, **(sgd or {})}
    )
    arch = torch.optim.Adam(arch_parameters(net), 0.05, betas=(0.5, 0.999), weight_decay=1e-3)
    return DartsSearcher(net, loss, weights, arch, **options)


def snapshot(module: nn.Module) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in module.state_dict().items()}


def changed(before: dict[str, Any], module: nn.Module) -> set[str]:
    now = module.state_dict()
    return {n for n, old in before.items() if isinstance(old, Tensor) and not torch.equal(old, now[n])}


def test_a_weight_step_is_the_optimizers_own_and_leaves_alpha() -> None:
    searcher, twin = made(grad_clip=None), Net()
    optimizer = torch.optim.SGD(weight_parameters(twin), 0.1, momentum=0.9, weight_decay=0.05)
    for batch in TRAIN:
        before = snapshot(searcher.model)
        value = searcher.weight_step(batch)["train_loss"]
        assert not any("alpha" in name for name in changed(before, searcher.model))
        expected = loss(twin, batch)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        torch.testing.assert_close(value, expected.detach())
    for ours, theirs in zip(searcher.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(alpha.grad is None for alpha in searcher.arch_params)
    torch.testing.assert_close(searcher.model.norm.running_mean, twin.norm.running_mean)  # as a training pass does


@pytest.mark.parametrize("clip", [1e-3, 0.3, 100.0])
def test_the_gradient_of_the_weights_is_clipped_alone(clip: float) -> None:
    searcher, free = made(grad_clip=clip), made(grad_clip=None)
    for one in (searcher, free):
        one.architecture_step(VALID[0], TRAIN[0])
        one.weight_step(TRAIN[0])
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in weight_parameters(free.model)))
    for ours, theirs in zip(weight_parameters(searcher.model), weight_parameters(free.model), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad * min(1.0, clip / norm), rtol=1e-4, atol=1e-9)
    for ours, theirs in zip(searcher.arch_params, free.arch_params, strict=True):
        assert torch.equal(ours.grad, theirs.grad)
        assert torch.equal(ours, theirs)


def test_the_first_order_step_is_one_gradient_and_changes_alpha_alone() -> None:
    searcher, twin = made(), Net()
    before = snapshot(searcher.model)
    value = searcher.architecture_step(VALID[0], None)["valid_loss"]  # what it trains on does not matter
    assert {name.rpartition(".")[2] for name in changed(before, searcher.model)} == {"alpha"}
    assert all(p.grad is None for p in weight_parameters(searcher.model))
    expected = loss(twin, VALID[0])
    slopes = torch.autograd.grad(expected, arch_parameters(twin))
    torch.testing.assert_close(value, expected.detach())
    for alpha, slope in zip(searcher.arch_params, slopes, strict=True):
        torch.testing.assert_close(alpha.grad, slope)


def trained(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in weight_parameters(net) if p.requires_grad]


def written_out(searcher: DartsSearcher, valid: Any, train: Any, *, exact: bool = False) -> tuple[list[Tensor], Tensor]:
    """The second-order gradient and the loss ahead, by copies of the model; the mixed product by hand, or exactly."""
    group = searcher.weight_optimizer.param_groups[0]
    xi, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
    net = searcher.model
    weights, alphas = trained(net), arch_parameters(net)
    value = loss(net, train)
    slopes = torch.autograd.grad(value, weights, create_graph=True)
    buffers = [searcher.weight_optimizer.state[w].get("momentum_buffer") for w in weights]
    ahead = copy.deepcopy(net)
    with torch.no_grad():
        for place, (w, slope) in enumerate(zip(trained(ahead), slopes, strict=True)):
            pull = decay * w + (0 if buffers[place] is None else momentum * buffers[place])
            w -= xi * (slope + pull)
    later = loss(ahead, valid)
    count = len(alphas)
    direct = torch.autograd.grad(later, [*arch_parameters(ahead), *trained(ahead)])
    direct, v = direct[:count], direct[count:]
    if exact:
        along = sum((s * u).sum() for s, u in zip(slopes, v, strict=True))
        mixed = torch.autograd.grad(along, alphas)
    else:
        epsilon = 0.01 / math.sqrt(sum(u.square().sum().item() for u in v))
        ends = []
        for sign in (1, -1):
            moved = copy.deepcopy(net)
            with torch.no_grad():
                for w, u in zip(trained(moved), v, strict=True):
                    w += sign * epsilon * u
            ends.append(torch.autograd.grad(loss(moved, train), arch_parameters(moved)))
        mixed = [(a - b) / (2 * epsilon) for a, b in zip(*ends, strict=True)]
    return [d - xi * m for d, m in zip(direct, mixed, strict=True)], later.detach()


@pytest.mark.parametrize("frozen", [False, True], ids=["all weights", "some frozen"])
@pytest.mark.parametrize("steps", [0, 2], ids=["no momentum yet", "with momentum"])
def test_the_second_order_step_is_its_definition(steps: int, frozen: bool) -> None:
    net = Net()
    net.second.requires_grad_(not frozen)
    net.second.choice.requires_grad_(True)
    searcher = made(net, unrolled=True)
    for place in range(steps):
        searcher.step(TRAIN[place], VALID[place])
    (expected, ahead), (exact, _) = (written_out(searcher, VALID[3], TRAIN[3], exact=e) for e in (False, True))
    before = snapshot(searcher.model)
    value = searcher.architecture_step(VALID[3], TRAIN[3])["valid_loss"]
    torch.testing.assert_close(value, ahead)
    assert not value.requires_grad
    assert {name.rpartition(".")[2] for name in changed(before, searcher.model)} == {"alpha"}
    plain = torch.autograd.grad(loss(searcher.model, VALID[3]), arch_parameters(searcher.model))
    for alpha, wanted, limit, first in zip(searcher.arch_params, expected, exact, plain, strict=True):
        torch.testing.assert_close(alpha.grad, wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alpha.grad, limit, rtol=1e-3, atol=1e-5)
        assert frozen or (alpha.grad - first).abs().max() > 1e-4  # the second order matters here


def test_each_group_has_its_decay() -> None:
    net = Net()
    weights = weight_parameters(net)
    groups = [{"params": weights[:3], "weight_decay": 0.5}, {"params": weights[3:], "weight_decay": 0.0}]
    searcher = DartsSearcher(
        net, loss, torch.optim.SGD(groups, 0.1), torch.optim.SGD(arch_parameters(net), 0.0), unrolled=True
    )
    pulled = searcher._constant(dict(net.named_parameters()))
    named = {id(p): name for name, p in net.named_parameters()}
    assert pulled.keys() == {named[id(p)] for p in weights[:3]}
    for p in weights[:3]:
        assert torch.equal(pulled[named[id(p)]], 0.5 * p)


def test_momentum_and_decay_are_looked_ahead_on() -> None:
    """Without them the gradient is another."""
    found = {}
    for name, sgd in {"both": {}, "no decay": {"weight_decay": 0.0}, "no momentum": {"momentum": 0.0}}.items():
        searcher = made(unrolled=True)
        searcher.weight_step(TRAIN[0])
        searcher.weight_optimizer.param_groups[0].update(sgd)
        searcher.architecture_step(VALID[3], TRAIN[3])
        found[name] = searcher.arch_params[0].grad.clone()
    assert not torch.allclose(found["both"], found["no decay"])
    assert not torch.allclose(found["both"], found["no momentum"])


def test_what_is_decided_takes_no_part() -> None:
    for unrolled in (False, True):
        searcher = made(unrolled=unrolled)
        searcher.step(TRAIN[0], VALID[0])  # Adam has moments now, and its decay would move what has a zero gradient
        searcher.model.first.choice.select("a")
        before = searcher.arch_params[0].clone()
        other = searcher.arch_params[1].clone()
        searcher.step(TRAIN[1], VALID[1])
        assert torch.equal(searcher.arch_params[0], before)
        assert not torch.equal(searcher.arch_params[1], other)
        searcher.model.last.choice.drop()
        other = searcher.arch_params[1].clone()
        assert searcher.architecture_step(VALID[2], TRAIN[2]) == {}
        assert torch.equal(searcher.arch_params[1], other)
        searcher.model.last.choice.select("tanh")
        assert list(searcher.step(TRAIN[2], VALID[2])) == ["train_loss"]


def test_weights_of_discarded_candidates_rest() -> None:
    searcher = made()
    searcher.step(TRAIN[0], VALID[0])
    searcher.model.last.choice.select("tanh")
    discarded = searcher.model.last.ops["linear"].weight
    before = discarded.clone()
    searcher.step(TRAIN[1], VALID[1])
    assert torch.equal(discarded, before)  # neither momentum nor decay moves them


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_search_goes_on_bit_for_bit(unrolled: bool, tmp_path: Path) -> None:
    straight, first = made(unrolled=unrolled), made(unrolled=unrolled)
    for searcher, count in ((straight, 4), (first, 2)):
        for train, valid in zip(TRAIN[:count], VALID[:count], strict=True):
            searcher.step(train, valid)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(5)
    second = made(unrolled=unrolled)
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    for train, valid in zip(TRAIN[2:], VALID[2:], strict=True):
        second.step(train, valid)
    wanted, found = straight.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(v, found[n]) for n, v in wanted.items() if isinstance(v, Tensor))


def test_steps_leave_the_mode_to_the_caller() -> None:
    searcher = made()
    searcher.model.eval()
    searcher.step(TRAIN[0], VALID[0])
    assert not any(module.training for module in searcher.model.modules())


def test_frozen_weights_stay() -> None:
    for unrolled in (False, True):
        net = Net()
        net.norm.requires_grad_(False)
        optimizers = torch.optim.SGD(trained(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
        searcher = DartsSearcher(net, loss, *optimizers, unrolled=unrolled)  # which need not hold what is frozen
        before = snapshot(net.norm)
        searcher.step(TRAIN[0], VALID[0])
        assert not {"weight", "bias"} & changed(before, net.norm)


def test_discretise_takes_the_largest() -> None:
    net = MixedOp({"a": nn.Linear(2, 2), "b": nn.Tanh()})
    with torch.no_grad():
        net.choice.alpha.copy_(torch.tensor([0.0, 1.0]))
    assert isinstance(made(net).discretise(), nn.Tanh)


def test_it_learns_what_there_is_to_choose() -> None:
    """Targets are a linear map of the inputs: the linear candidate must win over the constant one."""
    torch.manual_seed(0)
    x = torch.randn(8, 32, 4)
    data = [(part, (part @ torch.tensor([[1.0], [-1.0], [2.0], [0.0]]))) for part in x]
    ops = {
        "mean": nn.AdaptiveAvgPool1d(1),
        "linear": nn.Linear(4, 1),
        "first": nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
    }
    net = MixedOp(ops)
    searcher = DartsSearcher(
        net,
        lambda net, batch: F.mse_loss(net(batch[0]), batch[1]),
        torch.optim.SGD(weight_parameters(net), 0.05, momentum=0.9),
        torch.optim.Adam(arch_parameters(net), 0.05),
    )
    search(searcher, data[:4], data[4:], epochs=30)
    assert int(net.choice.alpha.argmax()) == 1


# ---- several processes ----


def test_gradients_of_processes_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        average(monkeypatch)
    finally:
        gc.collect()  # a wrapped model that outlives its process group can wait for the threads of it for ever
        distributed.destroy_process_group()


def average(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of each kind in a group that says it has two processes, of four times the gradients together."""
    net = Net(torch.float32)
    wrapped = nn.parallel.DistributedDataParallel(net)
    reduced: list[Tensor] = []
    monkeypatch.setattr(distributed, "all_reduce", lambda t, group=None: reduced.append(t.mul_(4)))
    monkeypatch.setattr(distributed, "get_world_size", lambda group=None: 2)
    plain, parallel = made(Net(torch.float32), grad_clip=None), made(wrapped, grad_clip=None)
    train, valid = batches(1, 1, torch.float32)[0], batches(2, 1, torch.float32)[0]
    for one in (plain, parallel):
        one.architecture_step(valid, train)
        one.weight_step(train)
    assert len(reduced) == len(list(net.parameters()))
    for ours, theirs in zip(net.parameters(), plain.model.parameters(), strict=True):
        if ours.ndim > 1:  # α has moved by another gradient in between
            torch.testing.assert_close(ours.grad, 2 * theirs.grad, rtol=0.2, atol=1e-2)


# ---- what is refused ----


def test_names_what_does_not_fit() -> None:
    net = Net()
    sgd, adam = torch.optim.SGD(weight_parameters(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got str"):
        DartsSearcher("net", loss, sgd, adam)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"loss must be callable, .* got float"):
        DartsSearcher(net, 0.5, sgd, adam)  # type: ignore[arg-type]
    for clip in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"grad_clip must be positive and finite, or None .* got {clip}"):
            DartsSearcher(net, loss, sgd, adam, grad_clip=clip)
    with pytest.raises(ValueError, match=r"arch_params must hold at least one parameter, got none: the model has no"):
        DartsSearcher(nn.Linear(2, 2), loss, sgd, adam)
    with pytest.raises(ValueError, match=r"arch_params must be parameters of the model, and number 1 is not"):
        DartsSearcher(net, loss, sgd, adam, arch_params=[arch_parameters(net)[0], nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match=r"weight_optimizer must not hold \S*alpha, \S*alpha: each parameter has one"):
        DartsSearcher(net, loss, torch.optim.SGD(net.parameters(), 0.1), adam)
    with pytest.raises(ValueError, match=r"arch_optimizer must not hold .*weight"):
        DartsSearcher(net, loss, sgd, torch.optim.SGD(net.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"weight_optimizer must hold every .* lacks .*bias.* and \d+ more$"):
        DartsSearcher(net, loss, torch.optim.SGD(weight_parameters(net)[:2], 0.1), adam)
    with pytest.raises(ValueError, match=r"arch_optimizer must hold every parameter .* lacks \S*alpha$"):
        DartsSearcher(net, loss, sgd, torch.optim.SGD(arch_parameters(net)[:1], 0.1))


@pytest.mark.parametrize("unrolled", [False, True])
def test_refuses_losses_that_cannot_be(unrolled: bool) -> None:
    def with_loss(value: Any) -> DartsSearcher:
        searcher = made(unrolled=unrolled)
        searcher.loss = value
        return searcher

    for call in ("weight_step", "architecture_step"):
        batch = (TRAIN[0],) if call == "weight_step" else (VALID[0], TRAIN[0])
        with pytest.raises(TypeError, match=r"the result of loss must be a tensor, got float"):
            getattr(with_loss(lambda net, batch: 1.0), call)(*batch)
        with pytest.raises(ValueError, match=r"loss must return a scalar, got shape \(16, 3\)"):
            getattr(with_loss(lambda net, batch: net(batch[0])), call)(*batch)
    apart = torch.ones((), dtype=DOUBLE, requires_grad=True)
    for value in (lambda net, batch: torch.ones(()), lambda net, batch: apart * 2):
        with pytest.raises(ValueError, match=r"loss must depend on the weights, got a value that does not"):
            with_loss(value).weight_step(TRAIN[0])
        if not unrolled:
            with pytest.raises(ValueError, match=r"loss must depend on the architecture parameters"):
                with_loss(value).architecture_step(VALID[0], TRAIN[0])


def test_a_look_ahead_wants_one_rate() -> None:
    net = Net()
    weights = weight_parameters(net)
    groups = [{"params": weights[:3], "lr": 0.5}, {"params": weights[3:]}]
    searcher = DartsSearcher(
        net, loss, torch.optim.SGD(groups, 0.1), torch.optim.SGD(arch_parameters(net), 0.1), unrolled=True
    )
    with pytest.raises(ValueError, match=r"unrolled wants one learning rate for all weights, got 0\.1, 0\.5"):
        searcher.architecture_step(VALID[0], TRAIN[0])


def test_refuses_a_state_with_gaps() -> None:
    with pytest.raises(ValueError, match=r"state must be what state_dict returns, got one without model, arch_opt"):
        made().load_state_dict({"weight_optimizer": {}})
