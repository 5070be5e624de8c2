"""The space of NAS-Bench-201 and the one for signals: published sizes, and the networks written out as functions."""

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.spaces import NAS_BENCH_201_OPS, cells_1d, nas_bench_201
from throughline.search.supernet import Choice, MixedOp, Node, choices, discretise, nodes

EDGES = [(i, j) for i in range(4) for j in range(i)]
NAMES = [f"edge.{i}_{j}" for i, j in EDGES]
SIGNAL_OPS = ("none", "skip_connect", "nor_conv_1", "nor_conv_3", "avg_pool_3")
ALL = {name: dict.fromkeys(NAMES, name) for name in NAS_BENCH_201_OPS}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def norm(x: Tensor) -> Tensor:
    """BatchNorm in training, as it is after its construction."""
    over = [0, *range(2, x.ndim)]
    return (x - x.mean(over, keepdim=True)) / (x.var(over, correction=0, keepdim=True) + 1e-5).sqrt()


def average(x: Tensor) -> Tensor:
    """The mean of each place and its neighbours, as far as there are any: by counting, not by pooling layers."""
    kernel = x.new_ones(x.shape[1], 1, *[3] * (x.ndim - 2))
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    summed = conv(x, kernel, padding=1, groups=x.shape[1])
    return summed / conv(torch.ones_like(x), kernel, padding=1, groups=x.shape[1])


def apply(name: str, op: nn.Module, x: Tensor) -> Tensor:
    if name == "none":
        return torch.zeros_like(x)
    if name == "skip_connect":
        return x
    if name.startswith("avg_pool"):
        return average(x)
    (weight,) = (p for p in op.parameters() if p.ndim > 1)
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    return norm(conv(x.relu(), weight, padding=weight.shape[-1] // 2))


def cell(module: nn.Module, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    states = [x]
    for i in (1, 2, 3):
        total = torch.zeros_like(x)
        for j in range(i):
            op = module.nodes[i - 1].edges[j]  # type: ignore[union-attr,index]
            for k, (name, candidate) in enumerate(op.ops.items()):
                total = total + weights[f"edge.{i}_{j}"][k] * apply(name, candidate, states[j])
        states.append(total)
    return states[3]


def by_hand(net: nn.Module, x: Tensor) -> Tensor:
    weights = {name: c.weights() for name, c in choices(net).items()}
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    x = norm(conv(x, net.stem[0].weight, **({"stride": 2, "padding": 2} if x.ndim == 3 else {"padding": 1})))
    for module in net.cells:
        if hasattr(module, "nodes"):
            x = cell(module, x, weights)
        elif hasattr(module, "shortcut"):
            main = norm(conv(x.relu(), module.body[0][1].weight, stride=2, padding=1))
            main = norm(conv(main.relu(), module.body[1][1].weight, padding=1))
            halved = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            x = main + conv(halved, module.shortcut[1].weight)
        else:
            x = norm(conv(x.relu(), module[1].weight, stride=2, padding=1))
    return net.classifier(norm(x).relu().flatten(2).mean(2))


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nas_bench_201(4, 2, 5, generator=seeded()), (6, 3, 8, 12)),
        (cells_1d(4, 5, in_channels=2, ops=SIGNAL_OPS, generator=seeded()), (6, 2, 13)),
    ],
    ids=["images", "signals"],
)
def test_is_the_network_that_the_paper_writes_out(net: nn.Module, shape: tuple[int, ...]) -> None:
    net = net.double()
    x = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        for i, made in enumerate(choices(net).values()):
            made.alpha.copy_(torch.randn(5, generator=seeded(i)))
    torch.testing.assert_close(net(x), by_hand(net, x))
    options = itertools.cycle(reversed(next(iter(choices(net).values())).names))
    for made, option in zip(choices(net).values(), options, strict=False):
        made.select(option)
        torch.testing.assert_close(net(x), by_hand(net, x))


def test_has_the_published_numbers_of_parameters() -> None:
    millions = {op: size(nas_bench_201(decisions=ALL[op])) / 1e6 for op in NAS_BENCH_201_OPS}
    assert (
        millions["nor_conv_3x3"] == 1.531546
    )  # the largest of NAS-Bench-201 and the smallest, as its tables have them
    assert millions["none"] == millions["skip_connect"] == millions["avg_pool_3x3"] == 0.073306


def test_signals_have_the_parameters_that_their_layers_add_up_to() -> None:
    c, conv = 16, 16 * 16 * 3
    around = 5 * c + 2 * c + conv + 2 * c + 2 * c + 10 * c + 10  # stem, between the cells, norm, classifier
    assert size(cells_1d(decisions=dict.fromkeys(NAMES, "skip_connect"))) == around
    assert size(cells_1d(decisions=dict.fromkeys(NAMES, "nor_conv_3"))) == around + 12 * (conv + 2 * c)
    assert size(cells_1d()) == around + 12 * conv + 6 * 3
    assert cells_1d()(torch.randn(2, 1, 1)).shape == (2, 10)


@pytest.mark.parametrize("space", ["images", "signals"])
def test_a_fixed_network_is_the_discrete_supernet_with_affine_norms(space: str) -> None:
    images = space == "images"
    build = nas_bench_201 if images else cells_1d
    names = NAS_BENCH_201_OPS if images else ("skip_connect", "avg_pool_3", "nor_conv_3")
    kinds = {"channels": 4, **({"cells": 1} if images else {})}
    decisions: dict[str, str | None] = dict(zip(NAMES, itertools.cycle(reversed(names)), strict=False))
    decisions["edge.3_1"] = None
    fixed = build(**kinds, decisions=decisions)  # type: ignore[arg-type,operator]
    plain = discretise(build(**kinds), decisions)  # type: ignore[arg-type,operator]
    assert not any(isinstance(m, Choice | MixedOp | Node) for m in fixed.modules())
    assert all(m.affine for m in fixed.modules() if hasattr(m, "affine"))
    inside = [m for m in plain.cells.modules() if hasattr(m, "affine")]  # type: ignore[union-attr]
    assert sum(not m.affine for m in inside) == sum(d is not None and "conv" in d for d in decisions.values()) * (
        3 if images else 2
    )
    missing, unexpected = fixed.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.endswith(("weight", "bias")) for name in missing)
    x = torch.randn((3, 3, 8, 8) if images else (3, 1, 20), generator=seeded())
    torch.testing.assert_close(fixed(x), plain(x))


def test_all_cells_share_six_choices() -> None:
    net = nas_bench_201(4, 2)
    assert list(choices(net)) == NAMES
    assert all(made.names == NAS_BENCH_201_OPS for made in choices(net).values())
    for module in net.modules():
        if hasattr(module, "nodes"):
            found = [edge.choice for each in module.nodes for edge in each.edges]
            assert all(one is other for one, other in zip(found, choices(net).values(), strict=True))
    assert [keep for _, keep in nodes(net).values()] == [None] * 3
    assert sum(hasattr(m, "nodes") for m in net.modules()) == 6
    assert list(choices(cells_1d())) == NAMES
    assert [len(edges) for edges, _ in nodes(cells_1d()).values()] == [1, 2, 3]


@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (6, 9)])
def test_odd_images_fit(sides: tuple[int, int]) -> None:
    assert nas_bench_201(4, 1)(torch.randn(2, 3, *sides)).shape == (2, 10)


@pytest.mark.parametrize("grad", [True, False])
def test_a_compiled_cell_gives_the_same(grad: bool) -> None:
    cell = nas_bench_201(4, 1, generator=seeded()).double().cells[0]  # type: ignore[union-attr,index]
    x = torch.randn(2, 4, 6, 6, generator=seeded(), dtype=torch.float64)
    parameters = list(cell.parameters())
    torch.compiler.reset()
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(grad):
        out, wanted = compiled(x), cell(x)
    torch.testing.assert_close(out, wanted)
    if grad:
        got = torch.autograd.grad(out.pow(3).sum(), parameters)
        torch.testing.assert_close(got, torch.autograd.grad(wanted.pow(3).sum(), parameters))


def test_one_generator_says_everything() -> None:
    for build in (lambda g: nas_bench_201(4, 1, generator=g), lambda g: cells_1d(4, generator=g)):
        before = torch.get_rng_state()
        one, same, other = (build(seeded(s)).state_dict() for s in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        tensors = [name for name, value in one.items() if isinstance(value, Tensor)]
        assert all(torch.equal(one[name], same[name]) for name in tensors)
        assert not torch.equal(one["edge.1_0.alpha"], other["edge.1_0.alpha"])
        assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
        assert one["edge.1_0.alpha"].abs().max() < 0.01
        generator = seeded(0)
        build(generator)
        assert not torch.equal(build(generator).state_dict()["stem.0.weight"], one["stem.0.weight"])
        torch.manual_seed(5)
        first = build(None).state_dict()["classifier.weight"]
        assert not torch.equal(first, build(None).state_dict()["classifier.weight"])


def test_bad_input() -> None:
    for name in ("channels", "cells", "num_classes", "in_channels"):
        with pytest.raises(ValueError, match=rf"{name} must be at least 1, got 0"):
            nas_bench_201(**{name: 0})
        with pytest.raises(TypeError, match=rf"{name} must be an integer, got 1\.5"):
            nas_bench_201(**{name: 1.5})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ops must be among none, noise, .* got 'nor_conv_9x9'"):
        nas_bench_201(ops=["nor_conv_9x9"])
    with pytest.raises(ValueError, match=r"ops must be among .*avg_pool_3, .* got 'avg_pool_3x3'"):
        cells_1d(ops=["avg_pool_3x3"])
    with pytest.raises(ValueError, match=r"ops must be at least one, got none"):
        cells_1d(ops=[])
    with pytest.raises(TypeError, match=r"ops must be a sequence of names, got 'none'"):
        cells_1d(ops="none")
    with pytest.raises(ValueError, match=r"one for each of edge.1_0, .*, got none for \['edge.2_0', .*'edge.3_2'\]"):
        cells_1d(decisions={"edge.1_0": "skip_connect"})
    with pytest.raises(ValueError, match=r"got the unknown \['edge.4_0'\]"):
        cells_1d(decisions={**ALL["skip_connect"], "edge.4_0": "skip_connect"})
    with pytest.raises(ValueError, match=r"decisions must be among skip_connect, .* for edge.1_0, got 'none'"):
        cells_1d(decisions=ALL["none"])
    net = nas_bench_201(4, 1)
    with pytest.raises(ValueError, match=r"x must have a height and width of at least 4, got shape \(2, 3, 3, 8\)"):
        net(torch.randn(2, 3, 3, 8))
    with pytest.raises(ValueError, match=r"x must be \(N, 3, height, width\), got shape \(2, 1, 8, 8\)"):
        net(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"x must be \(N, 1, length\), got shape \(2, 40\)"):
        cells_1d()(torch.randn(2, 40))
    with pytest.raises(TypeError, match=r"x must be a tensor, got list"):
        cells_1d()([[[1.0]]])
