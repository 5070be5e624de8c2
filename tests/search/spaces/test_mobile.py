"""The mobile spaces: layers and sizes of the paper, depth by ``zero``, and fixed networks."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from throughline.search.spaces import mobile_space, mobile_space_1d
from throughline.search.supernet import batch_statistics, choices, discretise

SIX = tuple(f"k{k}e{e}" for k in (3, 5, 7) for e in (3, 6))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block(inputs: int, outputs: int, kernel: int, expansion: int, dims: int = 2) -> int:
    """Parameters of an inverted bottleneck, by hand: three convolutions, and two numbers a channel for each norm."""
    wide = inputs * expansion
    first = inputs * wide + 2 * wide if expansion > 1 else 0
    return first + wide * kernel**dims + 2 * wide + wide * outputs + 2 * outputs


def test_the_image_space_is_the_papers() -> None:
    with torch.device("meta"):
        net = mobile_space()
    found = {name: c.names for name, c in choices(net).items()}
    wanted = [SIX if i % 4 == 0 else (*SIX, "zero") for i in range(21)]
    assert list(found.items()) == [(f"block.{i}", names) for i, names in enumerate(wanted)]
    widths = [16] + [w for w in (24, 40, 80, 96, 192) for _ in range(4)] + [320]
    for kernel, expansion in ((3, 3), (7, 6)):
        with torch.device("meta"):
            fixed = mobile_space(decisions=dict.fromkeys(found, f"k{kernel}e{expansion}"))
        blocks = sum(block(a, b, kernel, expansion) for a, b in itertools.pairwise(widths))
        ends = 3 * 32 * 9 + 2 * 32 + block(32, 16, 3, 1) + 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
        assert sum(p.numel() for p in fixed.parameters()) == blocks + ends
    strides = [m.stride[0] for m in fixed.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert strides == [2, 1] + [2, 1, 1, 1] * 3 + [1, 1, 1, 1] + [2, 1, 1, 1] + [1]
    norms = [m for m in fixed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum, m.affine) for m in norms} == {(1e-3, 0.1, True)}
    assert not any(m.bias is not None for m in fixed.modules() if isinstance(m, nn.Conv2d))
    assert fixed(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize(
    ("width", "channels"),
    [(0.5, [16, 8, 16, 24, 40, 48, 96, 160, 1280]), (1.4, [48, 24, 32, 56, 112, 136, 272, 448, 1792])],
)
def test_widths_are_multiples_of_eight(width: float, channels: list[int]) -> None:
    with torch.device("meta"):
        net = mobile_space(10, width=width, decisions={f"block.{i}": "k3e3" for i in range(21)})
    stem = net.front[0].out_channels
    outs = [net.front[-2].out_channels, *(b[-2].out_channels for b in net.blocks if isinstance(b, nn.Sequential))]
    assert [stem, *outs, net.back[0].out_channels] == channels


def test_options_are_what_is_asked_for() -> None:
    with torch.device("meta"):
        net = mobile_space(10, kernels=(5,), expansions=(1, 4), in_channels=1)
    assert choices(net)["block.1"].names == ("k5e1", "k5e4", "zero")
    assert net(torch.empty(2, 1, 32, 32, device="meta")).shape == (2, 10)


def test_the_space_of_signals_has_86436_networks() -> None:
    net = mobile_space_1d(generator=seeded())
    found = {name: c.names for name, c in choices(net).items()}
    assert math.prod(map(len, found.values())) == 86_436
    assert [n for n, names in found.items() if "zero" in names] == ["block.1", "block.2", "block.4", "block.5"]
    assert net(torch.randn(3, 1, 40)).shape == (3, 10)
    pairs = [(16, 16), (16, 16), (16, 16), (16, 24), (24, 24), (24, 24)]
    fixed = mobile_space_1d(decisions=dict.fromkeys(found, "k5e6"))
    wanted = 16 * 3 + 32 + sum(block(a, b, 5, 6, dims=1) for a, b in pairs) + 24 * 10 + 10
    assert sum(p.numel() for p in fixed.parameters()) == wanted
    assert [m.stride[0] for m in fixed.modules() if isinstance(m, nn.Conv1d) and m.kernel_size[0] > 1] == [
        *(1, 2, 1, 1, 2, 1, 1)
    ]
    assert fixed.eval()(torch.randn(1, 1, 1)).shape == (1, 10)


def test_zero_leaves_a_block_out() -> None:
    decisions = {f"block.{i}": "zero" if i in (1, 2, 4, 5) else "k3e3" for i in range(6)}
    net = mobile_space_1d(decisions=decisions)
    calls: list[nn.Module] = []
    for module in net.modules():
        if type(module).__name__ == "Zero":
            module.register_forward_hook(lambda module, *_: calls.append(module))
    x = torch.randn(4, 1, 40)
    y = net.blocks[3](net.blocks[0](net.front(x)))
    torch.testing.assert_close(net.eval()(x), net.classifier(net.blocks[3](net.blocks[0](net.front(x))).mean(2)))
    assert y.shape == (4, 24, 10)
    assert calls == []
    supernet = mobile_space_1d()  # while it is open, and when it is decided in place, it gives zeros
    for name, option in decisions.items():
        choices(supernet)[name].select(option)
    with batch_statistics(supernet):
        torch.testing.assert_close(supernet(x), discretise(supernet)(x))


def test_a_residual_is_where_the_size_stays() -> None:
    net = mobile_space_1d(decisions={f"block.{i}": "k7e3" for i in range(6)}).eval()
    x = torch.randn(2, 16, 20)
    torch.testing.assert_close(net.blocks[1](x), x + net.blocks[1].op(x))
    assert isinstance(net.blocks[0], nn.Sequential)
    assert isinstance(net.blocks[3], nn.Sequential)


@pytest.mark.parametrize("make", [mobile_space_1d, lambda **options: mobile_space(10, width=0.25, **options)])
def test_a_generator_draws_all_initial_values(make: Any) -> None:
    state = torch.get_rng_state()
    first, again, other = (make(generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


BAD: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"num_classes": 0}, ValueError, r"num_classes must be at least 1, got 0"),
    ({"in_channels": 1.5}, TypeError, r"in_channels must be an integer, got 1\.5"),
    ({"width": 0.0}, ValueError, r"width must be positive and finite, got 0\.0"),
    ({"width": math.inf}, ValueError, r"width must be positive and finite, got inf"),
    ({"kernels": ()}, ValueError, r"kernels must be at least one, each of them once, got \(\)"),
    ({"kernels": (3, 3)}, ValueError, r"kernels must be at least one, each of them once, got \(3, 3\)"),
    ({"kernels": (4,)}, ValueError, r"kernels must be odd, got \(4,\)"),
    ({"kernels": (-1,)}, ValueError, r"kernels must be at least 1, got -1"),
    ({"expansions": (0, 3)}, ValueError, r"expansions must be at least 1, got 0"),
    ({"decisions": {}}, ValueError, r"decisions must be one for each of block\.0, .* got none for"),
    ({"decisions": {f"block.{i}": "zero" for i in range(21)}}, ValueError, r"decisions must be among k3e3, .* 'zero'"),
    ({"decisions": {f"block.{i}": None for i in range(21)}}, ValueError, r"left out by 'zero', got None"),
)


@pytest.mark.parametrize(("options", "error", "match"), BAD)
def test_names_what_cannot_be_built(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        mobile_space(**{"num_classes": 10, **options})
    if options.keys() <= {"num_classes", "in_channels"}:
        with pytest.raises(error, match=match):
            mobile_space_1d(**options)


def test_names_what_is_no_image_or_signal() -> None:
    with pytest.raises(ValueError, match=r"x must be \(N, 1, length\), got shape \(2, 3, 40\)"):
        mobile_space_1d()(torch.randn(2, 3, 40))
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"x must be \(N, 3, height, width\), got shape \(3, 8, 8\)"),
    ):
        mobile_space(10)(torch.empty(3, 8, 8))
