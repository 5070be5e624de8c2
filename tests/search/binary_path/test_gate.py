"""The gradient of one path against eq. 4 written out, and what it must leave alone."""

import copy
from typing import Any

import pytest
import torch
from tests.search.binary_path.nets import DOUBLE, Scale, choice, mixed, random, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.binary_path import binary_paths
from throughline.search.supernet import Choice, MixedOp


def curved(y: Tensor) -> Tensor:
    return (y.sin() * random(*y.shape, seed=9)).sum() + y.square().mean()


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("active", ["linear", "tanh", "norm"])
def test_alpha_gets_equation_4_and_the_rest_what_the_path_gives(active: str, pairs: bool) -> None:
    net, x = mixed(), random(6, 4, seed=1).requires_grad_()
    twin, y = copy.deepcopy(net), x.detach().clone().requires_grad_()
    other = "tanh" if active != "tanh" else "norm"
    with binary_paths(net, pairs=pairs, paths={"choice": (active, other) if pairs else active}):
        value = curved(net(x))
        value.backward()

    output = twin.ops[active](y)
    plain = curved(output)
    (slope,) = torch.autograd.grad(plain, output, retain_graph=True)
    plain.backward()
    assert value.item() == plain.item()
    assert torch.equal(x.grad, y.grad)  # nothing of the recomputation leaks into the input
    names = list(net.choice.names)
    with torch.no_grad():
        b = torch.stack([(slope * copy.deepcopy(twin).ops[name](y)).sum() for name in names])
        places = [names.index(active), names.index(other)] if pairs else [0, 1, 2]
        expected = torch.zeros(3, dtype=DOUBLE)
        p = net.choice.alpha[places].softmax(0)
        expected[places] = p * (b[places] - p @ b[places])
    torch.testing.assert_close(net.choice.alpha.grad, expected)
    for name in names:
        for ours, theirs in zip(net.ops[name].parameters(), twin.ops[name].parameters(), strict=True):
            if name == active:
                assert torch.equal(ours.grad, theirs.grad)
            else:
                assert ours.grad is None


def test_exact_for_every_draw_where_the_loss_is_linear() -> None:
    net, x, weights = mixed(), random(6, 4, seed=1), random(6, 4, seed=2)
    (net(x) * weights).sum().backward()  # the mixture of all
    wanted, net.choice.alpha.grad = net.choice.alpha.grad, None
    for active in net.choice.names:
        with binary_paths(net, paths={"choice": active}):
            (net(x) * weights).sum().backward()
        torch.testing.assert_close(net.choice.alpha.grad, wanted)
        net.choice.alpha.grad = None


def test_layers_of_one_choice_take_one_path_and_add_up_their_gradients() -> None:
    shared = choice("twice", "part", "minus")
    layers = [MixedOp({"twice": Scale(2.0), "part": Scale(0.5), "minus": Scale(-1.0)}, shared) for _ in range(3)]
    net, x = nn.Sequential(*layers), random(5, seed=1)
    for seed in range(6):
        shared.alpha.grad = None
        for layer in layers:
            for op in layer.ops.values():
                op.calls = 0
        with binary_paths(net, generator=seeded(seed)) as drawn:
            output = net(x)
        (name,) = drawn["0.choice"]
        assert all(layer.ops[name].calls == 1 for layer in layers)
        output.sum().backward()  # after the end of it as well as inside
        assert all(op.calls == 1 for layer in layers for op in layer.ops.values())
        factors = dict(zip(shared.names, (2.0, 0.5, -1.0), strict=True))
        others = x.sum() * factors[name] ** 2  # the two other layers; a layer's b_j is this times the factor of j
        b = torch.tensor([3 * factor * others for factor in factors.values()], dtype=DOUBLE)
        p = shared.probabilities().detach()
        torch.testing.assert_close(shared.alpha.grad, p * (b - p @ b))


@pytest.mark.parametrize("training", [True, False])
def test_candidates_that_did_not_run_normalise_by_the_batch_and_keep_nothing_of_it(training: bool) -> None:
    net, x = mixed(names=("linear", "norm")).train(training), random(6, 4, seed=1)
    before = {name: value.clone() for name, value in net.ops["norm"][1].named_buffers()}
    with binary_paths(net, paths={"choice": "linear"}):
        net(x).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in net.ops["norm"][1].named_buffers())
    assert net.ops["norm"].training == training
    with torch.no_grad():
        output = net.ops["linear"](x)
        norm = F.batch_norm(net.ops["norm"][0](x), None, None, training=True)
        b = torch.stack([(2 * output * output).sum(), (2 * output * norm).sum()])
        p = net.choice.probabilities()
    torch.testing.assert_close(net.choice.alpha.grad, p * (b - p @ b))


def saved_bytes(call: Any) -> int:
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    assert result.requires_grad
    return sum(seen.values())


def bottleneck() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 48), nn.BatchNorm1d(48), nn.ReLU6(), nn.Linear(48, 8), nn.BatchNorm1d(8))


@pytest.mark.parametrize("n", [2, 12])
def test_memory_is_that_of_the_path_however_many_candidates(n: int) -> None:
    layers = [MixedOp({f"o{i}": bottleneck() for i in range(n)}) for _ in range(3)]
    net, x = nn.Sequential(*layers), torch.randn(256, 8)
    plain = nn.Sequential(*(layer.ops["o0"] for layer in layers))
    with binary_paths(net, paths=dict.fromkeys((f"{i}.choice" for i in range(3)), "o0")):
        ours = saved_bytes(lambda: net(x))
    theirs = saved_bytes(lambda: plain(x))
    assert theirs < ours < 1.1 * theirs
    assert saved_bytes(lambda: net(x)) > 0.9 * n * theirs
    with binary_paths(net, paths=dict.fromkeys((f"{i}.choice" for i in range(3)), "o0"), gates=False):
        assert saved_bytes(lambda: net(x)) == theirs


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_on_weights_runs_one_candidate_once(frozen: bool) -> None:
    net = MixedOp({"a": Scale(2.0), "b": Scale(3.0)}, choice("a", "b"))
    net.choice.alpha.requires_grad_(not frozen)
    with binary_paths(net, paths={"choice": "b"}, gates=frozen):
        net(random(3)).sum().backward()
    assert net.choice.alpha.grad is None
    assert [op.calls for op in net.ops.values()] == [0, 1]


def test_what_comes_next_may_write_to_the_output() -> None:
    net, x = mixed(), random(6, 4, seed=1)
    slopes = []
    for inplace in (False, True):
        with binary_paths(net, paths={"choice": "linear"}):
            F.relu(net(x), inplace=inplace).square().sum().backward()
        slopes.append(net.choice.alpha.grad)
        net.choice.alpha.grad = None
    assert torch.equal(*slopes)


def test_an_identity_hands_on_its_input_without_touching_its_gradient() -> None:
    net = MixedOp({"skip": nn.Identity(), "twice": Scale(2.0)}, choice("skip", "twice"))
    x = random(4).requires_grad_()
    with binary_paths(net, paths={"choice": "skip"}):
        (x * 3 + net(x)).sum().backward()
    assert x.grad.tolist() == [4.0] * 4


class Attend(nn.Module):
    """Takes a tensor, a pair and keywords, as layers of other libraries do."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, pair: tuple[Tensor, str], *, mask: Tensor | None = None, power: int = 1) -> Tensor:
        assert pair[1] == "label"
        result = self.factor * x * pair[0] ** power
        return result if mask is None else result * mask


def test_arguments_of_every_kind_reach_the_candidates_that_run_later() -> None:
    net = MixedOp({"a": Attend(2.0), "b": Attend(5.0)}, choice("a", "b"))
    x, y, mask = random(3), random(3, seed=1), torch.tensor([1.0, 0.0, 1.0], dtype=DOUBLE)
    with binary_paths(net, paths={"choice": "a"}):
        net(x, (y, "label"), mask=mask, power=2).sum().backward()
    base, p = (x * y**2 * mask).sum(), net.choice.probabilities().detach()
    b = torch.stack([2 * base, 5 * base])
    torch.testing.assert_close(net.choice.alpha.grad, p * (b - p @ b))


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear(x)
        self.dtypes.append(output.dtype)
        return output


@pytest.mark.parametrize("enabled", [True, False])
def test_candidates_run_later_under_the_same_autocast(enabled: bool) -> None:
    net = MixedOp({"a": Seen(), "b": Seen()}, Choice(["a", "b"]))
    with binary_paths(net, paths={"choice": "a"}):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = net(torch.randn(2, 4)).float().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=not enabled):
            value.backward()
    assert net.ops["a"].dtypes == net.ops["b"].dtypes == [torch.bfloat16 if enabled else torch.float32]
    assert net.choice.alpha.grad.dtype == torch.float32


def test_refuses_what_is_no_tensor_and_other_shapes() -> None:
    pair: Any = MixedOp({"a": nn.Identity(), "b": nn.LSTM(4, 4)}, Choice(["a", "b"]))
    with binary_paths(pair, paths={"choice": "b"}), pytest.raises(TypeError, match=r"'b' must give a tensor, got tup"):
        pair(torch.randn(2, 4))
    short = MixedOp({"a": nn.Identity(), "b": nn.Linear(4, 1)}, Choice(["a", "b"]))
    with binary_paths(short, paths={"choice": "a"}):
        value = short(torch.randn(2, 4)).sum()
        with pytest.raises(ValueError, match=r"outputs of one shape, got a \(2, 4\), b \(2, 1\)"):
            value.backward()


def test_has_no_second_derivative_and_says_so() -> None:
    net, x = mixed(), random(6, 4).requires_grad_()
    with binary_paths(net, paths={"choice": "linear"}):
        (slope,) = torch.autograd.grad(curved(net(x)), net.choice.alpha, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()
