"""The mean over neighbours against PyTorch's own, with derivatives of both kinds."""

import pytest
import torch
from torch import nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from throughline.search.spaces import averaging
from throughline.search.spaces.averaging import Average2d

POOL = Average2d(3, 1, 1, count_include_pad=False)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sides", [(1, 1), (1, 5), (2, 1), (2, 3), (6, 7)])
def test_agrees_with_torch(sides: tuple[int, int]) -> None:
    x = images(2, 3, *sides).requires_grad_()
    wanted = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    found = POOL(x)
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(POOL(x.contiguous(memory_format=torch.channels_last)), wanted)
    weight = images(2, 3, *sides)
    (ours,), (theirs,) = (torch.autograd.grad((y * weight).sum(), x) for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_has_all_derivatives() -> None:
    x = images(2, 1, 3, 4).requires_grad_()
    torch.autograd.gradcheck(POOL, x, check_forward_ad=True)
    torch.autograd.gradgradcheck(lambda x: POOL(x).square(), x)
    many = images(5, 2, 1, 3, 4)
    torch.testing.assert_close(vmap(POOL)(many), torch.stack([POOL(one) for one in many]))
    _, slope = jvp(POOL, (many[0],), (many[1],))
    torch.testing.assert_close(slope, POOL(many[1]))


def test_leaves_other_cases_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("shifts")

    x = images(2, 4, 6, 6)
    with monkeypatch.context() as patch:
        patch.setattr(averaging._Neighbours, "apply", unwanted)
        with pytest.raises(AssertionError, match="shifts"):
            POOL(x)
        for other, input in (
            (Average2d(3, 2, 1, count_include_pad=False), x),
            (Average2d(3, 1, 1), x),
            (Average2d(5, 1, 2, count_include_pad=False), x),
            (POOL, x.bfloat16()),
            (POOL, x[0]),
        ):
            plain = nn.AvgPool2d(other.kernel_size, other.stride, other.padding, False, other.count_include_pad)
            assert torch.equal(other(input), plain(input))
