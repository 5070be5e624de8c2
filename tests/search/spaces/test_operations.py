"""Candidates by their names: sizes, kernels and strides, for signals and for images."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from throughline.search.spaces.operations import FactorizedReduce, candidate, known

NAMES = {
    1: "none noise skip_connect avg_pool_3 max_pool_3 nor_conv_1 nor_conv_3 nor_conv_5 nor_conv_7 sep_conv_3 "
    "sep_conv_5 sep_conv_7 dil_conv_3 dil_conv_5",
    2: "none noise skip_connect avg_pool_3x3 max_pool_3x3 nor_conv_1x1 nor_conv_3x3 nor_conv_5x5 nor_conv_7x7 "
    "sep_conv_3x3 sep_conv_5x5 sep_conv_7x7 dil_conv_3x3 dil_conv_5x5",
}


@pytest.mark.parametrize("dims", [1, 2])
def test_every_operation_keeps_the_shape(dims: int) -> None:
    assert list(known(dims)) == NAMES[dims].split()
    x = torch.randn(3, 4, *[9, 6][:dims])
    for name in known(dims):
        for affine in (False, True):
            op = candidate(name, 4, dims=dims, affine=affine, normed_pools=not affine)
            assert op(x).shape == x.shape, name
            convs = [m for m in op.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
            kernels = {k for m in convs for k in m.kernel_size} - {1 if len(convs) > 1 else 0}
            assert kernels == ({int(name[-1])} if "conv" in name else set()), name
            assert {d for m in convs for d in m.dilation} - {1} == ({2} if "dil" in name else set()), name
            assert all(m.bias is None for m in convs)
            affines = {m.affine for m in op.modules() if hasattr(m, "affine")}
            wanted = {affine} if "conv" in name else {False} if "pool" in name and not affine else set()
            assert affines == wanted, name
    if dims == 2:
        for name in known(2):
            for stride, shape in ((1, (9, 6)), (2, (5, 3))):
                assert candidate(name, 4, stride)(x).shape == (3, 4, *shape), name


@pytest.mark.parametrize("sides", [(4, 6), (5, 6), (4, 7), (5, 7)])
def test_a_reduction_sees_all_four_corners_of_a_square(sides: tuple[int, int]) -> None:
    op = FactorizedReduce(3, 5, affine=False).double()
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    even = F.conv2d(x.relu()[..., ::2, ::2], op.even.weight)
    beyond = F.pad(x.relu(), (0, 1, 0, 1))[..., 1::2, 1::2][..., : even.shape[2], : even.shape[3]]  # zeros outside
    out = torch.cat([even, F.conv2d(beyond, op.odd.weight)], 1)
    assert out.shape[1] == 5
    mean, var = out.mean((0, 2, 3), keepdim=True), out.var((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(op(x), (out - mean) / (var + 1e-5).sqrt())
