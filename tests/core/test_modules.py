"""What is inside of wrappers, and parameters that are no longer those that were held."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from throughline.core._modules import check_held, shells, unwrapped


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
