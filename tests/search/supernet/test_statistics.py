"""Batch statistics: what BatchNorm gives, and that nothing of it is left over."""

import copy

import pytest
import torch
from tests.search.supernet.networks import randn
from torch import Tensor, nn

from throughline.search.supernet import batch_statistics

X = randn(6, 3, 5)


def net(kind: type[nn.Module] = nn.BatchNorm1d) -> nn.Sequential:
    made = nn.Sequential(kind(3), nn.Sequential(kind(3), nn.Dropout(0.5))).double()
    for module in made.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.fill_(3.0)
            module.running_var.fill_(2.0)
    return made


def by_hand(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2), keepdim=True)) / (x.var((0, 2), correction=0, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("training", [True, False])
def test_normalises_by_the_batch_and_keeps_nothing(training: bool) -> None:
    model = net().train(training)
    held, buffers = dict(model.named_buffers()), copy.deepcopy(dict(model.named_buffers()))
    with batch_statistics(model):
        got = model[0](X)
        assert not model[0].track_running_stats  # or SyncBatchNorm would look for its buffers
        assert [m.training for m in model.modules()] == [training] * 5
        assert (model[1][1](torch.ones(1000)) == 0).any() == training  # type: ignore[index]
    torch.testing.assert_close(got, by_hand(X))
    assert all(value is held[name] for name, value in model.named_buffers())  # the very tensors
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert list(model.state_dict()) == list(net().state_dict())
    if not training:
        torch.testing.assert_close(model[0](X), (X - 3) / (2 + 1e-5) ** 0.5)
    else:
        model[0](X)
        assert not torch.equal(model[0].running_mean, buffers["0.running_mean"])


def test_modes_are_as_before_whatever_happens_inside() -> None:
    model = net().train()
    model[1].eval()
    with batch_statistics(model):
        model.eval()
        model[1][0].train()  # type: ignore[index,union-attr]
    assert [m.training for m in model.modules()] == [True, True, False, False, False]


def test_a_backward_pass_may_come_after() -> None:
    model = net().eval()
    x = X.clone().requires_grad_()
    plain = model(x)  # saves the running statistics for its backward pass
    with batch_statistics(model):
        inside = model(x)
    (plain.sum() + inside.sum()).backward()
    assert x.grad is not None


def test_nests_and_ends_with_errors_too() -> None:
    model = net()
    with batch_statistics(model):
        with batch_statistics(model[1]):
            model(X)
        model(X)
    with pytest.raises(ValueError, match="expected"), batch_statistics(model):
        model(X[0, 0])
    assert all(torch.equal(m.running_mean, torch.full((3,), 3.0).double()) for m in (model[0], model[1][0]))  # type: ignore[index,union-attr]
    assert model[0].track_running_stats


def test_modules_without_statistics_stay_as_they_are() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(5)).double()
    with batch_statistics(model):
        torch.testing.assert_close(model[0](X), by_hand(X))
    assert not model[0].track_running_stats
    assert model[0].running_mean is None


def test_instance_norm_keeps_nothing_either() -> None:
    model = nn.InstanceNorm1d(3, track_running_stats=True).double()
    with batch_statistics(model):
        got = model(X)
    torch.testing.assert_close(got, nn.InstanceNorm1d(3).double()(X))
    assert model.running_mean is not None
    assert not model.running_mean.any()


def test_inside_of_torch_func() -> None:
    model = net().eval()
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        with batch_statistics(model):
            return torch.func.functional_call(model, parameters, (X,)).pow(3).sum()

    got = torch.func.grad(loss)(parameters)
    with batch_statistics(model):
        wanted = torch.autograd.grad(model(X).pow(3).sum(), list(parameters.values()))
    for one, other in zip(got.values(), wanted, strict=True):
        torch.testing.assert_close(one, other)
