"""The relaxed searcher against its definition: finite differences, the solvable model in NumPy, what may be shared."""

import copy
import io
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from throughline.search.relaxed import RelaxedSearcher, relaxed_loss
from throughline.search.supernet import MixedOp, Node, arch_parameters, choices, weight_parameters

SWEEPS = ("gauss-seidel", "fused")
Batch = tuple[Tensor, Tensor]


def batch(seed: int, count: int = 12) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    return x, torch.randn(count, 2, generator=draw, dtype=torch.float64)


TRAIN, VALID = batch(0), batch(1)


def supernet(middle: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    torch.manual_seed(0)
    op = MixedOp({"line": nn.Linear(3, 4), "wave": nn.Sequential(nn.Linear(3, 4), nn.Tanh())})
    return nn.Sequential(op, middle(), nn.Linear(4, 2)).double()


def squares(network: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(network(batch[0]), batch[1])


def searcher(
    net: nn.Module | None = None, *, lr: float = 0.05, momentum: float = 0.0, loss: Any = squares, **options: Any
) -> RelaxedSearcher:
    net = supernet() if net is None else net
    weights = torch.optim.SGD(weight_parameters(net), lr, momentum=momentum)
    return RelaxedSearcher(net, loss, weights, torch.optim.SGD(arch_parameters(net), 0.1), **options)


def parted(**options: Any) -> RelaxedSearcher:
    """A searcher whose networks have come apart."""
    made = searcher(**options)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in weight_parameters(made.auxiliary):
            weight += 0.3 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
    return made


def flat(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.parameters_to_vector(parameters).detach().clone()


def place(made: RelaxedSearcher) -> list[Tensor]:
    """w, α and y."""
    nets = made.model, made.auxiliary
    w, y = (flat(weight_parameters(net)) for net in nets)
    return [w, flat(arch_parameters(made.model)), y]


def snapshot(module: nn.Module) -> list[Tensor]:
    return [v.detach().clone() for v in module.state_dict().values() if isinstance(v, Tensor)]


# ---- the solvable model: L_t = (w − α)², L_v = αw − 2α + 1 ----


class Scalars(nn.Module):
    def __init__(self, alpha: float, w: float) -> None:
        super().__init__()
        self.alpha, self.w = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (alpha, w))


def scalars(net: nn.Module, part: str) -> Tensor:
    alpha, w = net.get_parameter("alpha"), net.get_parameter("w")
    return (w - alpha) ** 2 if part == "train" else alpha * w - 2 * alpha + 1


def solvable(alpha: float = 2.0, w: float = -2.0, rate: float = 0.02, **options: Any) -> RelaxedSearcher:
    net = Scalars(alpha, w)
    optimizers = (torch.optim.SGD([parameter], rate) for parameter in (net.w, net.alpha))
    return RelaxedSearcher(net, scalars, *optimizers, arch_params=[net.alpha], grad_clip=None, **options)


def where(made: RelaxedSearcher) -> list[float]:
    return [made.model.alpha.item(), made.model.w.item(), made.auxiliary.w.item()]  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_solvable_model_goes_to_its_closed_form(sweep: Any) -> None:
    made = solvable(lam=10.0, beta=10.0, rate=0.03, sweep=sweep)
    for _ in range(1000):
        seen = made.step("train", "valid")
    np.testing.assert_allclose(where(made), [1.0811, 1.0270, 0.9189], atol=1e-4)
    alpha = 400 / 370
    np.testing.assert_allclose(where(made), [alpha, alpha * (1 - 1 / 20), 2 - alpha], atol=1e-9)
    assert seen["gap"].item() == pytest.approx(abs(2 - alpha - alpha * 0.95))
    assert not any(value.requires_grad for value in seen.values())


@settings(max_examples=30)
@given(st.floats(0.1, 4), st.floats(0, 4), st.tuples(st.floats(-3, 3), st.floats(-3, 3)), st.sampled_from(SWEEPS))
def test_the_iterates_are_those_of_the_hessian(lam: float, beta: float, start: tuple[float, float], sweep: Any) -> None:
    """L is a quadratic of (y, w, α): a sweep goes through the rows of its Hessian, with new or old entries."""
    hessian = np.array([[beta, -beta, 1], [-beta, 2 * lam + beta, -2 * lam], [1, -2 * lam, 2 * lam]])
    slope = np.array([0.0, 0.0, -2.0])
    alpha, w = start
    z = np.array([w, w, alpha])
    made = solvable(alpha, w, lam=lam, beta=beta, sweep=sweep)
    for _ in range(5):
        made.step("train", "valid")
        old = z.copy()
        for row, late in ((1, []), (2, [1] if sweep == "fused" else []), (0, [2] if sweep == "fused" else [])):
            seen = z.copy()
            seen[late] = old[late]  # what this row has not heard of yet
            z[row] -= 0.02 * (hessian[row] @ seen + slope[row])
        np.testing.assert_allclose(where(made), z[[2, 1, 0]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_it_diverges_where_the_hessian_is_not_positive(sweep: Any) -> None:
    made = solvable(lam=0.5, beta=0.5, rate=0.5, sweep=sweep)  # 4 λ β < 2 λ + β
    for _ in range(60):
        made.step("train", "valid")
    assert abs(where(made)[0]) > 1e3
    far = solvable(1e150, -1e150, lam=0.5, beta=0.5, rate=0.5, sweep=sweep)

    def run() -> None:
        for _ in range(99):
            far.step("train", "valid")

    with pytest.raises(FloatingPointError, match=r"the (training|validation) loss is not finite at step [1-9]\d?: "):
        run()


# ---- one step ----


def brackets(made: RelaxedSearcher, w: Tensor, alpha: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient of the relaxed loss there, by central differences of its definition."""
    nets = copy.deepcopy([made.model, made.auxiliary])

    def value(z: Tensor) -> float:
        for net, weights in zip(nets, (z[: len(w)], z[-len(y) :]), strict=True):
            nn.utils.vector_to_parameters(weights, weight_parameters(net))
            nn.utils.vector_to_parameters(z[len(w) : -len(y)], arch_parameters(net))
        both = [weight_parameters(net) for net in nets]
        losses = squares(nets[0], TRAIN), squares(nets[1], VALID)
        return relaxed_loss(*losses, *both, lam=made.lam, beta=made.beta).item()

    z, found = torch.cat([w, alpha, y]), []
    for i in range(len(z)):
        move = torch.zeros_like(z)
        move[i] = 1e-5
        found.append((value(z + move) - value(z - move)) / 2e-5)
    return list(torch.tensor(found, dtype=z.dtype).split([len(w), len(alpha), len(y)]))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_step_is_its_three_lines_by_finite_differences(sweep: Any) -> None:
    made = parted(lam=0.7, beta=1.3, sweep=sweep, grad_clip=None)
    w, alpha, y = place(made)
    here = brackets(made, w, alpha, y)
    seen = made.step(TRAIN, VALID)
    moved = place(made)
    new_w = w - 0.05 * here[0]
    if sweep == "fused":
        new_alpha = alpha - 0.1 * here[1]
        new_y = y - 0.05 * (here[2] - 1.3 * (new_w - w))  # the penalty alone hears of the new w
    else:
        new_alpha = alpha - 0.1 * brackets(made, new_w, alpha, y)[1]
        new_y = y - 0.05 * brackets(made, new_w, new_alpha, y)[2]
    for one, other in zip(moved, (new_w, new_alpha, new_y), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    torch.testing.assert_close(seen["gap"], torch.dist(moved[2], moved[0]))


def test_the_losses_are_those_before_their_networks_move() -> None:
    for sweep in SWEEPS:
        made = parted(sweep=sweep)
        expected = squares(made.model, TRAIN), squares(made.auxiliary, VALID)
        seen = made.step(TRAIN, VALID)
        torch.testing.assert_close((seen["train_loss"], seen["valid_loss"]), tuple(e.detach() for e in expected))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_relaxed_loss_never_rises_under_small_steps(sweep: Any) -> None:
    made, values = parted(lr=0.02, sweep=sweep, beta=0.5), []
    for _ in range(120):
        losses = squares(made.model, TRAIN), squares(made.auxiliary, VALID)
        both = weight_parameters(made.model), weight_parameters(made.auxiliary)
        values.append(relaxed_loss(*losses, *both, beta=0.5).item())
        made.step(TRAIN, VALID)
    assert np.diff(values).max() < 0
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_two_steps_apart(sweep: Any) -> None:
    """The weight step moves w alone, the architecture step α and y alone; together they are the Gauss-Seidel step."""
    made = parted(sweep=sweep)
    w, alpha, y = place(made)
    made.weight_step(TRAIN)
    new_w, same_alpha, same_y = place(made)
    assert torch.equal(same_alpha, alpha)
    assert torch.equal(same_y, y)
    assert not torch.equal(new_w, w)
    seen = made.architecture_step(VALID, TRAIN)
    same_w, new_alpha, new_y = place(made)
    assert torch.equal(same_w, new_w)
    assert set(seen) == {"valid_loss", "gap"}
    whole = parted(sweep="gauss-seidel")
    whole.step(TRAIN, VALID)
    torch.testing.assert_close(new_alpha, place(whole)[1])
    assert torch.equal(new_y, place(whole)[2]) == (sweep == "gauss-seidel")


@pytest.mark.parametrize(("sweep", "sizes"), [("gauss-seidel", [42, 2, 2, 42]), ("fused", [44, 44])])
def test_the_passes_of_a_sweep(sweep: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as promised, for no more gradients than needed, and never two graphs at once."""
    graphs: list[weakref.ref[Tensor]] = []
    asked: list[int] = []
    grad = torch.autograd.grad

    def watched(value: Tensor, leaves: list[Tensor], **options: Any) -> Any:
        asked.append(sum(leaf.numel() for leaf in leaves))
        return grad(value, leaves, **options)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        assert all(ref() is None for ref in graphs)
        assert all(p.grad is None for net in (made.model, made.auxiliary) for p in net.parameters())
        value = squares(network, batch)
        graphs.append(weakref.ref(value))
        return value

    monkeypatch.setattr(torch.autograd, "grad", watched)
    made = searcher(loss=loss, sweep=sweep)
    made.step(TRAIN, VALID)
    assert asked == sizes
    assert all(p.grad is None for net in (made.model, made.auxiliary) for p in net.parameters())
    assert made.iteration == 1


def test_lam_scales_the_rate_of_w() -> None:
    one, other = searcher(lam=1.0, beta=0.0, lr=0.1), searcher(lam=2.0, beta=0.0, lr=0.05)
    for made in (one, other):
        made.weight_step(TRAIN)
    torch.testing.assert_close(place(one)[0], place(other)[0])


def test_without_a_penalty_two_networks_train_apart() -> None:
    """Each as a loop of torch would train it, momentum and clipping included."""
    made = searcher(beta=0.0, momentum=0.9, grad_clip=0.2)
    made.arch_optimizer.param_groups[0]["lr"] = 0.0
    twins = copy.deepcopy([made.model, made.auxiliary])
    for _ in range(6):
        made.step(TRAIN, VALID)
    for twin, data in zip(twins, (TRAIN, VALID), strict=True):
        optimizer = torch.optim.SGD(weight_parameters(twin), 0.05, momentum=0.9)
        for _ in range(6):
            optimizer.zero_grad()
            squares(twin, data).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weight_parameters(twin), 0.2)
            optimizer.step()
    for found, twin in zip(place(made)[::2], twins, strict=True):
        torch.testing.assert_close(found, flat(weight_parameters(twin)))


def test_clipping_acts_on_the_sum_and_on_each_network_apart() -> None:
    for clip in (0.1, 1e9):
        made = parted(lr=1.0, beta=50.0, grad_clip=clip)
        w, _, y = place(made)
        with torch.no_grad():
            pull = 50 * (w - y).norm()
        made.step(TRAIN, VALID)
        new_w, _, new_y = place(made)
        if clip == 0.1:
            assert (new_w - w).norm().item() == pytest.approx(0.1, rel=1e-4)
            assert (new_y - y).norm().item() == pytest.approx(0.1, rel=1e-4)
        else:
            assert (new_w - w).norm() > 0.9 * pull


def test_clipping_meets_a_gradient_once_where_two_parameters_have_the_same() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.arch = (nn.Parameter(torch.ones(2)) for _ in range(3))

    net = Sum()
    made = RelaxedSearcher(
        net,
        lambda network, batch: (network.a + network.b + network.arch).square().sum(),  # type: ignore[operator]
        torch.optim.SGD([net.a, net.b], 1.0),
        torch.optim.SGD([net.arch], 1.0),
        arch_params=[net.arch],
        beta=0.0,
        grad_clip=1.0,
    )
    made.weight_step(None)
    torch.testing.assert_close(net.a.detach(), torch.full((2,), 0.5))
    torch.testing.assert_close(net.b.detach(), torch.full((2,), 0.5))


# ---- what is shared, and what is not ----


def test_the_auxiliary_shares_the_architecture_and_nothing_else() -> None:
    net = supernet(lambda: nn.BatchNorm1d(4))
    made = searcher(net)
    ours, theirs = choices(net), choices(made.auxiliary)
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in ours)
    arch = {id(p) for p in arch_parameters(net)}
    for parts in (nn.Module.named_parameters, nn.Module.named_buffers):
        mine, its = dict(parts(net)), dict(parts(made.auxiliary))
        assert list(mine) == list(its)
        for name in mine:
            assert torch.equal(mine[name], its[name])
            shared = mine[name].data_ptr() == its[name].data_ptr()
            assert shared == (mine[name] is its[name]) == (id(mine[name]) in arch)


def test_statistics_belong_to_each_network() -> None:
    made = searcher(supernet(lambda: nn.BatchNorm1d(4)), sweep="fused")
    twins = copy.deepcopy([made.model, made.auxiliary])
    made.step(TRAIN, VALID)
    for net, twin, data in zip((made.model, made.auxiliary), twins, (TRAIN, VALID), strict=True):
        twin(data[0])
        torch.testing.assert_close(net[1].running_mean, twin[1].running_mean)  # type: ignore[index]
        assert net[1].num_batches_tracked == 1  # type: ignore[index]


def test_tied_weights_stay_tied() -> None:
    net = supernet()
    again = nn.Sequential(net, nn.Linear(2, 2).double(), nn.Linear(2, 2).double())
    again[2].weight = again[1].weight
    made = searcher(again)
    assert made.auxiliary[2].weight is made.auxiliary[1].weight  # type: ignore[index]
    assert made.auxiliary[2].weight is not again[1].weight  # type: ignore[index]
    before = flat([again[1].weight])  # type: ignore[list-item]
    made.step(TRAIN, VALID)
    assert made.auxiliary[2].weight is made.auxiliary[1].weight  # type: ignore[index]
    assert not torch.equal(flat([again[1].weight]), before)  # type: ignore[list-item]


def test_frozen_parameters_stay_and_are_no_weights() -> None:
    net = supernet()
    net[2].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    made, before = searcher(net), net[2].bias.clone()  # type: ignore[index, operator]
    made.step(TRAIN, VALID)
    assert torch.equal(net[2].bias, before)  # type: ignore[index]
    assert torch.equal(made.auxiliary[2].bias, before)  # type: ignore[index]


class Doubled(nn.Module):
    """A node whose two edges see the same."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node([MixedOp({"tanh": nn.Tanh(), "line": nn.Linear(2, 2)}) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.node([x, x])


def test_decisions_hold_in_both_networks_and_their_alphas_rest() -> None:
    net = nn.Sequential(supernet(), Doubled()).double()
    first, second, third = choices(net).values()
    made = searcher(net)
    made.arch_optimizer = torch.optim.Adam(arch_parameters(net), 0.1, weight_decay=0.5)
    first.select("wave")
    second.drop()
    before = [choice.alpha.clone() for choice in (first, second, third)]
    first.alpha.grad = torch.ones(2).double()  # of something else
    made.step(TRAIN, VALID)
    kept = [torch.equal(a, choice.alpha) for a, choice in zip(before, (first, second, third), strict=True)]
    assert kept == [True, True, False]
    theirs = choices(made.auxiliary)
    assert [c.decision for c in theirs.values()] == ["wave", None, None]
    assert theirs["1.node.edges.0.choice"].dropped


def test_scales_of_channels_are_an_architecture_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    scales = [net[1].weight]
    rest = [p for p in net.parameters() if p is not scales[0]]
    made = RelaxedSearcher(
        net,
        lambda network, data: squares(network, data) + 0.5 * network[1].weight.abs().sum(),  # type: ignore[index]
        torch.optim.SGD(rest, 0.05),
        torch.optim.SGD(scales, 0.01),  # type: ignore[arg-type]
        arch_params=scales,  # type: ignore[arg-type]
    )
    assert made.auxiliary[1].weight is scales[0]  # type: ignore[index]
    assert made.auxiliary[1].bias is not net[1].bias  # type: ignore[index]
    before = scales[0].abs().sum().item()
    for _ in range(20):
        made.step(TRAIN, VALID)
    assert scales[0].abs().sum() < before - 0.1


# ---- optimizers ----


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_the_auxiliary_is_optimized_alike(kind: type[torch.optim.Optimizer]) -> None:
    """With the same data in both halves, and without a penalty, the networks never come apart."""
    net = supernet()
    weights = weight_parameters(net)
    groups = [{"params": weights[:3], "lr": 0.02, "weight_decay": 0.1}, {"params": weights[3:]}]
    made = RelaxedSearcher(
        net, squares, kind(groups, lr=0.01), torch.optim.Adam(arch_parameters(net), 0.1), beta=0.0, sweep="fused"
    )
    for _ in range(4):
        seen = made.step(TRAIN, TRAIN)
    assert seen["gap"] < 1e-12
    assert type(made.auxiliary_optimizer) is kind
    assert [g["lr"] for g in made.auxiliary_optimizer.param_groups] == [0.02, 0.01]
    held = [s for o in (made.weight_optimizer, made.auxiliary_optimizer) for s in o.state.values()]
    tensors = [t for state in held for t in state.values() if isinstance(t, Tensor) and t.numel() > 1]
    assert len({t.data_ptr() for t in tensors}) == len(tensors)


def test_a_scheduler_of_the_primary_drives_both() -> None:
    net = supernet()
    optimizer = torch.optim.SGD(weight_parameters(net), 0.1, 0.9)
    made = RelaxedSearcher(net, squares, optimizer, torch.optim.SGD(arch_parameters(net), 0.1))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, 10)  # of the momentum too
    for _ in range(4):
        made.step(TRAIN, VALID)
        scheduler.step()
    made.step(TRAIN, VALID)
    ours, theirs = optimizer.param_groups[0], made.auxiliary_optimizer.param_groups[0]
    assert [ours[k] for k in ("lr", "momentum")] == [theirs[k] for k in ("lr", "momentum")]
    assert ours["lr"] != 0.1
    assert {id(p) for p in theirs["params"]} == {id(p) for p in weight_parameters(made.auxiliary)}


def test_takes_optimizers_over_named_parameters() -> None:
    net = supernet()
    named = [(name, p) for name, p in net.named_parameters() if "alpha" not in name]
    made = RelaxedSearcher(net, squares, torch.optim.SGD(named, 0.1), torch.optim.SGD(arch_parameters(net), 0.1))
    assert made.step(TRAIN, VALID)["gap"] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_precision_is_that_of_the_model(dtype: torch.dtype) -> None:
    coarse, fine = searcher(supernet().to(dtype), sweep="fused"), searcher(sweep="fused")
    for _ in range(3):
        seen = coarse.step(*(tuple(part.to(dtype) for part in data) for data in (TRAIN, VALID)))
        wanted = fine.step(TRAIN, VALID)
    assert {value.dtype for value in (*seen.values(), *place(coarse))} == {dtype}
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-5
    for one, other in zip(place(coarse), place(fine), strict=True):
        torch.testing.assert_close(one.double(), other, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(seen["train_loss"].double(), wanted["train_loss"], atol=tolerance, rtol=tolerance)


# ---- resuming ----


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_resumed_search_is_the_same_to_the_last_bit(sweep: Any) -> None:
    def made() -> RelaxedSearcher:
        net = supernet(lambda: nn.BatchNorm1d(4))
        weights = torch.optim.SGD(weight_parameters(net), 0.05, momentum=0.9)
        return RelaxedSearcher(net, squares, weights, torch.optim.Adam(arch_parameters(net), 0.1), sweep=sweep)

    whole, first, second = made(), made(), made()
    for place_ in range(9):
        whole.step(batch(2 * place_), batch(2 * place_ + 1))
        if place_ < 4:
            first.step(batch(2 * place_), batch(2 * place_ + 1))
    second.step(TRAIN, VALID)  # whatever it was before
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.iteration == 4
    for place_ in range(4, 9):
        second.step(batch(2 * place_), batch(2 * place_ + 1))
    for one, other in ((second.model, whole.model), (second.auxiliary, whole.auxiliary)):
        assert all(map(torch.equal, snapshot(one), snapshot(other)))
    assert arch_parameters(second.auxiliary)[0] is arch_parameters(second.model)[0]


def test_refuses_a_state_of_something_else() -> None:
    made = searcher()
    state = made.state_dict()
    del state["auxiliary"], state["iteration"]
    with pytest.raises(ValueError, match=r"state must be what state_dict returns, .* without auxiliary, iteration"):
        made.load_state_dict(state)


def test_discretises_the_primary_network() -> None:
    made = parted()
    choices(made.model)["0.choice"].select("wave")
    plain = made.discretise()
    assert not any(isinstance(m, MixedOp) for m in plain.modules())
    torch.testing.assert_close(plain(TRAIN[0]), made.model(TRAIN[0]))
    assert not torch.allclose(plain(TRAIN[0]), made.auxiliary(TRAIN[0]))


# ---- the ecosystem ----


def test_compiled_networks_are_searched_alike() -> None:
    torch.compiler.reset()
    plain, inner = searcher(sweep="fused"), supernet()
    compiled = searcher(torch.compile(inner, backend="eager"), sweep="fused")  # type: ignore[arg-type]
    assert choices(compiled.auxiliary)["0.choice"] is choices(inner)["0.choice"]
    for _ in range(2):
        ours, theirs = (made.step(TRAIN, VALID) for made in (compiled, plain))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_processes_average_every_gradient_once(sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of two processes that see the same batches are one of one, with what they exchange written out."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        wrapped: Any = nn.parallel.DistributedDataParallel(supernet())
        plain, parallel = (searcher(net, momentum=0.9, grad_clip=0.3, sweep=sweep) for net in (None, wrapped))
        sent: list[int] = []

        def add(gradient: Tensor, group: Any) -> None:
            assert group is wrapped.process_group
            assert gradient.is_contiguous()
            sent.append(gradient.numel())
            gradient.mul_(2)

        monkeypatch.setattr(distributed, "all_reduce", add)
        monkeypatch.setattr(distributed, "get_world_size", lambda group: 2)
        for _ in range(3):
            ours, theirs = (made.step(TRAIN, VALID) for made in (parallel, plain))
            torch.testing.assert_close(ours, theirs)
        assert sum(sent) == 3 * (42 + 2 + 42)
        assert parallel.discretise()(TRAIN[0]).shape == (12, 2)
    finally:
        distributed.destroy_process_group()


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0.0}, r"lam must be positive and finite, got 0\.0"),
        ({"lam": -1.0}, r"lam must be positive and finite, got -1\.0"),
        ({"lam": math.nan}, r"lam must be positive and finite, got nan"),
        ({"beta": -0.1}, r"beta must be non-negative and finite, got -0\.1"),
        ({"beta": math.inf}, r"beta must be non-negative and finite, got inf"),
        ({"sweep": "jacobi"}, r"sweep must be one of gauss-seidel, fused, got 'jacobi'"),
        ({"grad_clip": 0.0}, r"grad_clip must be positive and finite, or None for no clipping, got 0\.0"),
        ({"arch_params": []}, r"arch_params must hold at least one parameter, got none"),
        ({"arch_params": [nn.Parameter(torch.ones(2))]}, r"must be parameters of the model, and number 0 is not"),
    ],
)
def test_names_a_bad_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        searcher(**options)


def test_names_what_an_optimizer_must_not_hold_or_lacks() -> None:
    net = supernet()
    weights, arch = weight_parameters(net), arch_parameters(net)
    sgd = torch.optim.SGD
    stranger = nn.Parameter(torch.ones(1))
    for weight_held, arch_held, message in (
        ([*weights, *arch], arch, r"weight_optimizer must not hold 0\.choice\.alpha: each parameter has one optimizer"),
        (weights[1:], arch, r"weight_optimizer must hold every .* and lacks 0\.ops\.line\.weight$"),
        (weights[-1:], arch, r"weight_optimizer must hold every .* lacks 0\.ops\.line\.bias, .* and 1 more$"),
        (weights, weights, r"arch_optimizer must not hold 0\.ops\.line\.bias, .* and 2 more"),
        (weights, [stranger], r"arch_optimizer must hold every .* and lacks 0\.choice\.alpha"),
        ([*weights, stranger], arch, r"weight_optimizer must hold parameters of the model alone"),
    ):
        with pytest.raises(ValueError, match=message):
            RelaxedSearcher(net, squares, sgd(weight_held, 0.1), sgd(arch_held, 0.1))
    with pytest.raises(ValueError, match=r"arch_params must hold the alpha of every choice, got none for 0\.choice"):
        RelaxedSearcher(net, squares, sgd([*weights[1:], *arch], 0.1), sgd(weights[:1], 0.1), arch_params=weights[:1])
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got int"):
        RelaxedSearcher(3, squares, sgd(weights, 0.1), sgd(arch, 0.1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"loss must be callable, \(network, batch\) -> scalar, got int"):
        RelaxedSearcher(net, 3, sgd(weights, 0.1), sgd(arch, 0.1))  # type: ignore[arg-type]
    alone = MixedOp({"a": nn.Identity(), "b": nn.Tanh()})
    with pytest.raises(ValueError, match=r"model must have weights beside arch_params, got none"):
        RelaxedSearcher(alone, squares, sgd([stranger], 0.1), sgd(arch_parameters(alone), 0.1))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_frozen_architecture_rests_while_both_networks_learn(sweep: Any) -> None:
    net = supernet()
    made = searcher(net, sweep=sweep)
    net[0].choice.alpha.requires_grad_(False)  # type: ignore[index, union-attr]
    before = place(made)
    made.step(TRAIN, VALID)
    assert [torch.equal(*pair) for pair in zip(place(made), before, strict=True)] == [False, True, False]
    made.architecture_step(VALID, TRAIN)


def test_modes_of_the_auxiliary_are_those_of_the_model() -> None:
    net = supernet(lambda: nn.BatchNorm1d(4)).eval()
    made = searcher(net, sweep="fused")
    net.train()
    net[2].eval()  # type: ignore[index]
    made.step(TRAIN, VALID)
    assert [m.training for m in made.auxiliary.modules()] == [m.training for m in net.modules()]
    assert made.auxiliary[1].num_batches_tracked == 1  # type: ignore[index]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_step_takes_note_of_a_batch_once(sweep: Any) -> None:
    made = searcher(supernet(lambda: nn.BatchNorm1d(4)), sweep=sweep)
    made.step(TRAIN, VALID)
    assert [net[1].num_batches_tracked.item() for net in (made.model, made.auxiliary)] == [1, 1]  # type: ignore[index]


def test_an_optimizer_that_wants_more_is_refused() -> None:
    class Particular(torch.optim.SGD):
        def __init__(self, params: Any, lr: float, wanted: str) -> None:
            super().__init__(params, lr)

    net = supernet()
    with pytest.raises(TypeError, match=r"weight_optimizer must be of a class .* got Particular: .*'wanted'"):
        RelaxedSearcher(
            net, squares, Particular(weight_parameters(net), 0.1, "x"), torch.optim.SGD(arch_parameters(net), 0.1)
        )


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda net, data: 1.0, TypeError, r"the result of loss must be a tensor, got float"),
        (lambda net, data: net(data[0]), ValueError, r"loss must return a scalar, got shape \(12, 2\)"),
        (lambda net, data: data[0].sum(), ValueError, r"loss must depend on the weights .* the training loss does not"),
        (
            lambda net, data: squares(net, data) / 0,
            FloatingPointError,
            r"the training loss is not finite at step 0: inf",
        ),
        (
            lambda net, data: squares(net, data) if data is TRAIN else squares(net, data) * math.nan,
            FloatingPointError,
            r"the validation loss is not finite at step 1: nan",
        ),
    ],
)
def test_names_a_bad_loss(loss: Any, error: type[Exception], message: str) -> None:
    made = searcher(loss=loss)
    _, *rest = place(made)
    with pytest.raises(error, match=message):
        made.step(TRAIN, VALID)
    assert all(map(torch.equal, place(made)[1:], rest))


def test_a_loss_of_one_network_alone_is_noticed() -> None:
    """A loss that closes over the model trains it twice, and the auxiliary never."""
    net = supernet()
    made = searcher(net, loss=lambda network, data: squares(net, data))
    with pytest.raises(ValueError, match=r"loss must depend on the weights .* the validation loss does not"):
        made.step(TRAIN, VALID)


def test_an_architecture_that_no_loss_sees_is_named() -> None:
    net = supernet()
    net.register_module("unused", MixedOp({"a": nn.Linear(1, 1).double(), "b": nn.Tanh()}))
    made = searcher(net, loss=lambda network, data: F.mse_loss(network[2](network[1](network[0](data[0]))), data[1]))
    before = place(made)[1]
    with pytest.raises(
        ValueError, match=r"arch_params must be used .* neither network's depends on unused\.choice\.alpha"
    ):
        made.step(TRAIN, VALID)
    assert torch.equal(place(made)[1], before)


# ---- the relaxed loss ----


def test_the_relaxed_loss_by_hand() -> None:
    w, y = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)], [torch.tensor([1.5, 0.0]), torch.tensor(2.0)]
    found = relaxed_loss(torch.tensor(0.5), torch.tensor(2.0), iter(w), iter(y), lam=4.0, beta=3.0)
    assert found.item() == pytest.approx(2.0 + 4 * 0.5 + 1.5 * (0.25 + 4 + 1))
    assert relaxed_loss(torch.tensor(0.5), torch.tensor(2.0), w, y, beta=0.0).item() == pytest.approx(2.5)
