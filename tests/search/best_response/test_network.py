"""Networks as best responses: how λ reaches the layers, and that nothing is left over."""

import copy
import io
import pickle
import threading
from typing import Any

import pytest
import torch
from tests.search.best_response.networks import HYPER, X, loud, mlp, network, seeded, space
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.best_response import (
    BestResponseLinear,
    Hyperparameter,
    HyperparameterSpace,
    SelfTuningNetwork,
    convert,
)


def by_hand(net: SelfTuningNetwork, x: Tensor, hyper: Tensor) -> Tensor:
    """Evaluation mode, layer by layer, sample by sample."""
    first, last = net.model[0], net.model[3]  # type: ignore[index]
    rows = []
    for i in range(len(x)):
        at = hyper[i : i + 1]
        rows.append(last.forward(first.forward(x[i : i + 1], at).relu(), at))
    return torch.cat(rows)


def test_every_layer_gets_the_lambda_of_its_sample() -> None:
    net = network().eval()
    torch.testing.assert_close(net(X, hyper=HYPER), by_hand(net, X, HYPER))
    torch.testing.assert_close(net(X, hyper=HYPER[0]), by_hand(net, X, HYPER[:1].expand(5, -1)))
    torch.testing.assert_close(net(X), net(X, hyper=net.space.location))


def test_the_model_is_copied_and_starts_from_its_weights() -> None:
    plain = mlp()
    before = copy.deepcopy(plain.state_dict())
    net = convert(plain, space(), dropout={"2": "h0"})
    assert torch.equal(net.model[0].weight, plain[0].weight)  # type: ignore[index]
    assert net.model[0].weight is not plain[0].weight  # type: ignore[index]
    assert [type(m) for m in plain] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in before.items())


def test_parameters_are_those_of_the_network_alone() -> None:
    net = network()
    names = dict(net.named_parameters())
    assert len(names) == 12
    assert not {id(p) for p in names.values()} & {id(net.space.location), id(net.space.raw_scale)}
    assert not any("location" in key for key in net.state_dict())
    assert "model.0.response_weight" in net.state_dict()


def test_norms_are_added_up() -> None:
    net = network()
    first, last = net.model[0], net.model[3]  # type: ignore[index]
    torch.testing.assert_close(net.squared_norm(HYPER), first.squared_norm(HYPER) + last.squared_norm(HYPER))
    assert net.squared_norm(HYPER[0]).shape == ()


# ---- dropout ----


def test_dropout_has_the_rates_that_lambda_stands_for() -> None:
    made = HyperparameterSpace([Hyperparameter("p", 0.2, low=0.0, high=0.9)])
    net = convert(nn.Sequential(nn.Linear(1, 20_000), nn.Dropout(0.99)), made, dropout={"1": "p"})
    x, hyper = torch.ones(2, 1), torch.tensor([[-2.0], [1.0]])
    gone = (net(x, hyper=hyper) == 0).double().mean(1)
    torch.testing.assert_close(gone, made.constrain(hyper)["p"].double().detach(), atol=0.02, rtol=0)
    assert (net.eval()(x, hyper=hyper) != 0).all()
    assert (net.train()(x) == 0).double().mean() == pytest.approx(0.2, abs=0.02)  # λ itself by default


def test_a_module_in_evaluation_mode_drops_nothing() -> None:
    net = network()
    net.model[2].eval()  # type: ignore[index]
    torch.testing.assert_close(net(X, hyper=HYPER), by_hand(net, X, HYPER))
    net.eval()
    net.model[2].train()  # type: ignore[index]
    drawn = [net(X, hyper=HYPER) for _ in range(2)]  # Monte Carlo dropout, as people do it
    assert not torch.equal(*drawn)


def test_training_gives_lambda_a_gradient_through_the_weights_alone() -> None:
    net = network()
    hyper = HYPER.clone().requires_grad_()
    with net._drawing(seeded()):
        (first,) = torch.autograd.grad(net(X, hyper=hyper).sum(), hyper)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, BestResponseLinear):
                m.weight_gate.zero_()
                m.bias_gate.zero_()
    with net._drawing(seeded()):
        (second,) = torch.autograd.grad(net(X, hyper=hyper).sum(), hyper)
    assert first.abs().sum() > 0
    assert second.abs().sum() == 0


def test_a_shared_rate_serves_any_shape() -> None:
    class Embedded(nn.Module):
        """Drops whole words of its vocabulary, for all samples alike."""

        def __init__(self) -> None:
            super().__init__()
            self.words, self.drop, self.out = nn.Embedding(50, 4), nn.Dropout(), nn.Linear(4, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(F.embedding(tokens, self.words.weight * self.drop(torch.ones(50, 1))))  # type: ignore[no-any-return]

    made = HyperparameterSpace([Hyperparameter("p", 0.4, low=0.0, high=0.9, shared=True)])
    net = convert(Embedded(), made, dropout={"drop": "p"})
    assert net(torch.zeros(3, 7, dtype=torch.int64), hyper=made.sample(3)).shape == (3, 7, 2)


# ---- nothing stays behind ----


def test_outside_of_a_call_a_layer_says_what_is_wrong() -> None:
    net = network()
    with pytest.raises(RuntimeError, match=r"BestResponseLinear is a part of a SelfTuningNetwork .* call the network"):
        net.model(X)
    net(X, hyper=HYPER)
    with pytest.raises(RuntimeError, match="call the network itself"):
        net.model[0](X)  # type: ignore[index]


class Fragile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.fail = nn.Linear(6, 6), False

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        out: Tensor = self.layer(x) * scale
        if self.fail:
            raise ArithmeticError("midway")
        return out


def test_an_exception_leaves_nothing_behind() -> None:
    net = convert(Fragile(), space())
    expected = net(X, hyper=HYPER, scale=2.0)
    net.model.fail = True  # type: ignore[assignment]
    with pytest.raises(ArithmeticError):
        net(X, hyper=HYPER * 3)
    assert net._link.hyper is None
    net.model.fail = False  # type: ignore[assignment]
    assert torch.equal(net(X, 2.0, hyper=HYPER), expected)
    with pytest.raises(RuntimeError, match="runs only inside of its call"):
        net.model(X)


def test_calls_may_be_nested() -> None:
    """A model that calls its own network at another λ halfway, and one network inside of another."""

    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.inner = nn.Linear(6, 6), nn.Linear(6, 6), []

        def forward(self, x: Tensor, deeper: bool = False) -> Tensor:
            x = self.first(x)
            if deeper:
                self.inner[0](x, hyper=-HYPER)
            return self.second(x)  # type: ignore[no-any-return]

    net = loud(convert(Again(), space()))
    net.model.inner.append(net)  # type: ignore[union-attr]
    assert torch.equal(net(X, True, hyper=HYPER), net(X, hyper=HYPER))

    inner = loud(convert(nn.Linear(6, 6), space()))
    outer = loud(convert(nn.Sequential(nn.Linear(6, 6), inner), space(), exclude=["1"]))
    hidden = outer.model[0].forward(X, HYPER)  # type: ignore[index]
    torch.testing.assert_close(outer(X, hyper=HYPER), outer.model[1](hidden))  # type: ignore[index]


def test_two_networks_share_nothing() -> None:
    one, other = network(), network()
    alone = one.eval()(X, hyper=HYPER)
    other.eval()(X, hyper=-HYPER)
    assert torch.equal(one(X, hyper=HYPER), alone)
    assert one._link is not other._link
    hooks = [next(iter(n.model[0]._forward_pre_hooks.values())) for n in (one, other)]  # type: ignore[index]
    assert hooks[0].link is one._link
    assert hooks[1].link is other._link


def test_threads_do_not_meet() -> None:
    net = network().eval()
    wanted = [net(X, hyper=HYPER * k).detach() for k in range(8)]
    wrong: list[int] = []
    barrier = threading.Barrier(8)

    def work(k: int) -> None:
        barrier.wait()
        with torch.no_grad():
            if any(not torch.equal(net(X, hyper=HYPER * k), wanted[k]) for _ in range(100)):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_work_and_are_independent(copied: Any) -> None:
    net = network().eval()
    twin = copied(net)
    assert torch.equal(twin(X, hyper=HYPER), net(X, hyper=HYPER))
    with torch.no_grad():
        twin.space.location.add_(1)
        twin.model[0].weight.add_(1)
    assert not torch.equal(twin(X), net(X))
    assert torch.equal(net.space.location, space().location)
    with pytest.raises(RuntimeError, match="call the network"):
        twin.model(X)


def test_weights_go_through_a_file() -> None:
    net, file = network().eval(), io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = convert(mlp(), space(), dropout={"2": "h0"}).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(X, hyper=HYPER), net(X, hyper=HYPER))


def test_compiles_as_a_single_graph() -> None:
    net = network().eval()
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for hyper in (HYPER, HYPER[0], None):
        torch.testing.assert_close(compiled(X, hyper=hyper), net(X, hyper=hyper))
    hyper = HYPER.clone().requires_grad_()
    by_graph, plain = (torch.autograd.grad(f(X, hyper=hyper).square().sum(), hyper)[0] for f in (compiled, net))
    torch.testing.assert_close(by_graph, plain)
    assert compiled.train()(X, hyper=HYPER).shape == (5, 3)  # dropout in the graph too
    assert net._link.hyper is None


def test_no_grad_and_inference_mode() -> None:
    net = network().eval()
    expected = net(X, hyper=HYPER)
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            out = net(X, hyper=HYPER)
        assert torch.equal(out, expected)
        assert not out.requires_grad


def test_functional_calls_work() -> None:
    net = network().eval()
    parameters = {name: p.detach() * 2 for name, p in net.named_parameters()}
    twice = copy.deepcopy(net)
    twice.load_state_dict(parameters)
    assert torch.equal(torch.func.functional_call(net, parameters, (X,), {"hyper": HYPER}), twice(X, hyper=HYPER))


# ---- dtypes and devices ----


def test_the_space_moves_with_the_network() -> None:
    net = network().eval()
    location = net.space.location
    net.double()
    assert net.space.location.dtype == torch.float64
    assert net.space.location is location  # what optimizers hold
    assert net(X.double()).dtype == torch.float64
    net.to("meta")
    assert net.space.location.is_meta
    assert net.space.raw_scale.is_meta
    assert net.space.sample(3).is_meta


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_space_keeps_its_digits_in_half_precision(dtype: torch.dtype) -> None:
    net = network().eval()
    before = net.space.location.detach().clone()
    net.to(dtype)
    assert net.model[0].weight_gate.dtype == dtype  # type: ignore[index]
    assert net.space.location.dtype == torch.float32
    assert torch.equal(net.space.location, before)
    assert net(X.to(dtype), hyper=net.space.sample(5)).dtype == dtype
