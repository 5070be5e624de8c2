"""What is inside of wrappers, and parameters that are no longer those that were held."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from throughline.core._modules import call_with, check_held, shells, unwrapped


def test_every_wrapper_is_looked_through_in_any_order() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    assert unwrapped(plain) is plain
    assert unwrapped(nn.DataParallel(torch.compile(plain))) is plain
    assert unwrapped(torch.compile(nn.DataParallel(torch.compile(plain)))) is plain
    average = AveragedModel(nn.DataParallel(plain))
    names = [name for name, _ in unwrapped(average).named_parameters()]
    assert names == ["0.weight", "0.bias"]
    assert [type(shell) for shell in shells(average)] == [AveragedModel, nn.DataParallel, nn.Sequential]


def test_a_module_that_merely_has_a_part_named_module_is_none() -> None:
    plain = nn.ModuleDict({"module": nn.Linear(2, 2)})
    assert unwrapped(plain) is plain


def test_replaced_parameters_are_named() -> None:
    layer = nn.Linear(2, 2)
    held = [*layer.parameters()]
    check_held(held, layer.double().parameters(), "layer")
    layer.load_state_dict(layer.state_dict(), assign=True)
    for now in (layer.parameters(), held[:1], [*held, held[0]]):
        with pytest.raises(ValueError, match=r"^layer has other parameters .* with assign=False$"):
            check_held(held, now, "layer")


class Tied(nn.Module):
    """A layer of two names, a weight of two layers, and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3)
        self.last.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        return self.norm(self.last(self.again(self.first(x)))) * scale


def test_a_call_with_other_tensors_is_that_of_a_module_that_has_them() -> None:
    torch.manual_seed(0)
    model, other, x = Tied().eval(), Tied().eval(), torch.randn(4, 3)
    held = dict([*model.named_parameters(), *model.named_buffers()])
    other.norm.running_mean += 1
    lent = {name: tensor.detach().clone() for name, tensor in (*other.named_parameters(), *other.named_buffers())}
    torch.testing.assert_close(call_with(model, lent, x, scale=3.0), 3 * other(x))
    assert all(tensor is held[name] for name, tensor in (*model.named_parameters(), *model.named_buffers()))
    part = call_with(model, {name: lent[name] for name in ("first.weight", "norm.running_mean")}, x)
    assert all(tensor is held[name] for name, tensor in (*model.named_parameters(), *model.named_buffers()))
    with torch.no_grad():
        model.first.weight.copy_(lent["first.weight"])
        model.norm.running_mean.copy_(lent["norm.running_mean"])
    torch.testing.assert_close(part, model(x))


def test_only_what_there_is_can_be_lent() -> None:
    with pytest.raises(KeyError, match=r"last\.weight"):  # which is first.weight
        call_with(Tied(), {"last.weight": torch.ones(3, 3)}, torch.ones(4, 3))


def test_a_lent_tensor_is_given_back_after_an_error_too() -> None:
    model = Tied()
    held = list(model.parameters())
    with pytest.raises(RuntimeError):
        call_with(model, {"first.weight": torch.ones(3, 3)}, torch.ones(4, 2))
    assert all(map(lambda a, b: a is b, held, model.parameters()))
