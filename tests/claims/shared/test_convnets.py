"""Networks for small pictures: shapes at every side, and where they pool."""

import pytest
import torch
from torch import nn

from throughline.claims.shared.convnets import convnet, grouped_convnet, strided
from throughline.claims.shared.wide_resnet import WideResNet


@pytest.mark.parametrize("side", [7, 8, 28])
def test_odd_sides_fit_too(side: int) -> None:
    x = torch.zeros(2, 3, side, side + 1)
    assert convnet((3, side, side + 1), (4, 5, 6), 7)(x).shape == (2, 7)
    assert convnet((3, side, side + 1), (6,), 7)(x).shape == (2, 7)
    half = [-(-extent // 2) for extent in (side, side + 1)]
    assert strided((3, 4))(x).shape == (2, 4, *half)


def test_the_first_kernel_is_another() -> None:
    kernels = [layer.kernel_size for layer in strided((1, 2, 3), first=5).modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [(5, 5), (3, 3)]


@pytest.mark.parametrize(("pool_last", "pools"), [(True, 2), (False, 1)])
def test_groups_are_pooled(pool_last: bool, pools: int) -> None:
    network = grouped_convnet((3, 12, 8), ((4, 4), (5,)), (9, 6), 7, kernel=3, pool_last=pool_last)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in network) == pools
    assert network(torch.zeros(2, 3, 12, 8)).shape == (2, 7)
    wide = [layer.in_features for layer in network if isinstance(layer, nn.Linear)]
    assert wide == [5 * (12 >> pools) * (8 >> pools), 9, 6]


def test_residual_networks_have_their_depth() -> None:
    network = WideResNet(16, 2, 7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    kernels = [layer.kernel_size for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels.count((3, 3)) == 1 + 3 * 2 * 2  # three stages of two blocks
    assert kernels.count((1, 1)) == 3  # where the width changes
