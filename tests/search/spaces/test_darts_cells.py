"""The space of DARTS: published sizes, cells written out, and what belongs to the training of a final network."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.spaces import DARTS_OPS, darts
from throughline.search.supernet import Choice, MixedOp, Node, choices, discretise, nodes

EDGES = [(i, j) for i in range(2, 6) for j in range(i)]
NAMES = [f"{kind}.{i}_{j}" for kind in ("normal", "reduce") for i, j in EDGES]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def genotype(normal: list[tuple[str, int]], reduce: list[tuple[str, int]]) -> dict[str, str | None]:
    """Two incoming edges for each node in turn, as the papers print architectures."""
    found: dict[str, str | None] = dict.fromkeys(NAMES)
    for kind, edges in (("normal", normal), ("reduce", reduce)):
        for n, (name, j) in enumerate(edges):
            found[f"{kind}.{n // 2 + 2}_{j}"] = name
    return found


SEP, DIL, MAX, SKIP = "sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect"
DARTS_V2 = genotype(  # figures 4 and 5 of the DARTS paper
    [(SEP, 0), (SEP, 1), (SEP, 0), (SEP, 1), (SEP, 1), (SKIP, 0), (SKIP, 0), (DIL, 2)],
    [(MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 1), (MAX, 0), (SKIP, 2), (SKIP, 2), (MAX, 1)],
)


def size(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "auxiliary" not in name and "alpha" not in name)


def test_has_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        assert size(darts(36, 20, decisions=DARTS_V2, auxiliary=True)) == 3_349_342
        assert size(darts(primitives=("none", *DARTS_OPS))) == 1_930_618


def norm(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


def weights(op: nn.Module) -> list[Tensor]:
    return [p for p in op.parameters() if p.ndim == 4]


def reduce(x: Tensor, op: nn.Module) -> Tensor:
    even, odd = weights(op)
    x = x.relu()
    return norm(torch.cat([F.conv2d(x[..., ::2, ::2], even), F.conv2d(x[..., 1::2, 1::2], odd)], 1))


def apply(name: str, op: nn.Module, x: Tensor, stride: int, normed_pools: bool) -> Tensor:
    if name == "skip_connect":
        return x if stride == 1 else reduce(x, op)
    kind, kernel = name.rsplit("_", 1)
    k = int(kernel[0])
    if "pool" in kind:
        low = x.new_full((), -torch.inf if kind == "max_pool" else torch.nan)
        around = F.pad(x, (1, 1, 1, 1), value=float(low)).unfold(2, 3, stride).unfold(3, 3, stride).flatten(-2)
        pooled = around.amax(-1) if kind == "max_pool" else around.nanmean(-1)
        return norm(pooled) if normed_pools else pooled
    w, c, dilation = weights(op), x.shape[1], 2 if kind == "dil_conv" else 1
    for i in range(0, len(w), 2):
        x = F.conv2d(x.relu(), w[i], stride=stride, padding=dilation * (k // 2), dilation=dilation, groups=c)
        x, stride = norm(F.conv2d(x, w[i + 1])), 1
    return x


def by_hand(net: nn.Module, x: Tensor) -> Tensor:
    before = last = norm(F.conv2d(x, net.stem[0].weight, padding=1))
    halved = False
    for i, cell in enumerate(net.cells):
        reduces = i in (len(net.cells) // 3, 2 * len(net.cells) // 3)
        older, newer = cell.preprocess
        states = [reduce(before, older) if halved else norm(F.conv2d(before.relu(), *weights(older)))]
        states += [norm(F.conv2d(last.relu(), *weights(newer)))]
        for each in cell.nodes:
            total = torch.zeros(())
            for j, edge in enumerate(each.edges):
                stride = 2 if reduces and j < 2 else 1
                for (name, op), p in zip(edge.ops.items(), edge.choice.weights(), strict=True):
                    total = total + p * apply(name, op, states[j], stride, normed_pools=True)
            states.append(total)
        before, last, halved = last, torch.cat(states[2:], 1), reduces
    return net.classifier(last.mean((2, 3)))


def test_is_the_network_that_the_paper_writes_out() -> None:
    net = darts(2, 5, 4, in_channels=1, generator=seeded()).double()
    x = torch.randn(5, 1, 8, 12, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        for i, made in enumerate(choices(net).values()):
            made.alpha.copy_(torch.randn(7, generator=seeded(i)))
        torch.testing.assert_close(net(x), by_hand(net, x))
        choices(net)["normal.3_2"].select("dil_conv_5x5")
        choices(net)["reduce.3_0"].select("skip_connect")
        torch.testing.assert_close(net(x), by_hand(net, x))


def test_normal_and_reduction_cells_share_their_choices() -> None:
    net = darts(2, 6)
    assert list(choices(net)) == NAMES
    wanted = [f"cells.{c}.nodes.{i}" for c in (0, 2) for i in range(4)]
    assert {name: keep for name, (_, keep) in nodes(net).items()} == dict.fromkeys(wanted, 2)
    first = choices(net)
    for i, cell in enumerate(net.cells):  # type: ignore[arg-type]
        kind = "reduce" if i in (2, 4) else "normal"
        found = [edge.choice for each in cell.nodes for edge in each.edges]  # type: ignore[union-attr]
        assert all(made is first[f"{kind}.{a}_{b}"] for made, (a, b) in zip(found, EDGES, strict=True))


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_fixed_network_is_the_discrete_supernet_with_affine_norms(auxiliary: bool) -> None:
    decisions = {name: SEP if option == MAX else option for name, option in DARTS_V2.items()}
    fixed = darts(2, 3, decisions=decisions, auxiliary=auxiliary)
    plain = discretise(darts(2, 3, auxiliary=auxiliary), decisions)
    assert not any(isinstance(m, Choice | MixedOp | Node) for m in fixed.modules())
    assert all(m.affine for m in fixed.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(m.affine for m in plain.modules() if isinstance(m, nn.BatchNorm2d)) == 1 + 2 * auxiliary
    missing, unexpected = fixed.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.endswith(("weight", "bias")) for name in missing)
    x = torch.randn(3, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(fixed(x), plain(x))
    pools = darts(2, 3, decisions=DARTS_V2)
    assert sum(isinstance(m, nn.MaxPool2d) for m in pools.modules()) == 10
    assert all(m.affine for m in pools.modules() if isinstance(m, nn.BatchNorm2d))  # none follows a pool


def test_options_by_edge_and_by_kind_of_cell() -> None:
    s1 = [("skip_connect", SEP) if i % 2 else (DIL, SEP, "none") for i in range(14)]
    found = [made.names for made in choices(darts(2, 3, primitives=s1)).values()]
    assert found == s1 + s1
    pair = (s1, [("noise", SEP)] * 14)
    found = [made.names for made in choices(darts(2, 3, primitives=pair)).values()]
    assert found == s1 + [("noise", SEP)] * 14
    assert darts(2, 3, primitives=pair)(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_noise_is_new_in_each_call_and_comes_from_its_generator() -> None:
    def noisy(generator: torch.Generator | None) -> nn.Module:
        net = darts(2, 3, primitives=("noise", SEP), generator=generator)
        for made in choices(net).values():
            made.select("noise")
        return net.eval()

    x = torch.randn(2, 3, 8, 8, generator=seeded())
    before = torch.get_rng_state()
    net, same = noisy(seeded()), noisy(seeded())
    first, second = net(x), net(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(same(x), first)
    assert torch.equal(copy.deepcopy(same)(x), second)
    assert torch.equal(pickle.loads(pickle.dumps(same))(x), second)
    torch.manual_seed(0)
    free = noisy(None)
    torch.manual_seed(1)
    one = free(x)
    torch.manual_seed(1)
    assert torch.equal(free(x), one)
    op = next(m for m in net.modules() if type(m).__name__ == "Noise" and m.stride == 2)
    drawn = op(torch.zeros(50, 20, 9, 9))
    assert drawn.shape == (50, 20, 5, 5)
    assert drawn.mean().abs() < 5 / drawn.numel() ** 0.5
    assert (drawn.var() - 1).abs() < 5 * (2 / drawn.numel()) ** 0.5


def test_none_gives_zeros_of_the_size_that_others_give() -> None:
    net = darts(2, 3, primitives=("none", SEP))
    for made in choices(net).values():
        made.select("none")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(net(x), net.classifier.bias.expand(2, -1))  # type: ignore[operator,union-attr]


@pytest.mark.parametrize("sides", [(5, 7), (9, 6), (1, 1)])
def test_odd_images_fit(sides: tuple[int, int]) -> None:
    assert darts(2, 3)(torch.randn(2, 3, *sides)).shape == (2, 10)


def test_the_auxiliary_classifier_speaks_in_training_alone() -> None:
    net = darts(2, 6, 7, decisions=DARTS_V2, auxiliary=True, generator=seeded()).double()
    x = torch.randn(3, 3, 32, 32, generator=seeded(), dtype=torch.float64)
    features: list[Tensor] = []
    net.cells[4].register_forward_hook(lambda m, args, out: features.append(out))  # type: ignore[union-attr,operator,index]
    logits, extra = net(x)
    assert (logits.shape, extra.shape) == ((3, 7), (3, 7))
    h = features[0].relu()
    h = torch.stack(
        [torch.stack([h[..., r : r + 5, c : c + 5].mean((2, 3)) for c in (0, 3)], -1) for r in (0, 3)], -2
    )  # means over two by two windows
    first, second = weights(net.auxiliary)  # type: ignore[arg-type]
    h = norm(F.conv2d(norm(F.conv2d(h, first)).relu(), second)).relu().flatten(1)
    torch.testing.assert_close(extra, net.auxiliary.classifier(h))  # type: ignore[operator,union-attr]
    assert net.eval()(x).shape == (3, 7)
    assert net.train()(torch.randn(2, 3, 48, 48).double())[1].shape == (2, 7)
    with pytest.raises(ValueError, match=r"x must have a height and width of at least 32, got shape \(3, 3, 16, 16\)"):
        net(x[..., :16, :16])


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    net = darts(2, 3, decisions=DARTS_V2, drop_path=0.25)
    assert net.drop_path == 0.25
    drops = [m for m in net.modules() if type(m).__name__ == "DropPath"]
    identities = sum(isinstance(m, nn.Identity) for m in net.modules())
    assert (len(drops), identities) == (6 + 2 * 8 - 3 * 2, 2 + 3 * 2)
    x = torch.ones(20_000, 2, 1, 2)
    out = drops[0](x)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(out, out[:, :1, :, :1].expand_as(out))  # whole samples
    assert (out.mean() - 1).abs() < 5 * (0.25 / 0.75 / 20_000) ** 0.5
    net.drop_path = 0.0  # type: ignore[assignment]
    assert all(m.rate == 0 for m in drops)
    assert drops[0](x) is x
    net.drop_path = 0.5  # type: ignore[assignment]
    assert drops[0].eval()(x) is x
    assert "rate=0.5" in repr(drops[0])


def test_bad_input() -> None:
    for name in ("channels", "layers", "num_classes", "in_channels"):
        with pytest.raises(ValueError, match=rf"{name} must be at least 1, got -1"):
            darts(**{name: -1})
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\), got"):
            darts(2, 2, drop_path=rate)
    with pytest.raises(ValueError, match=r"primitives must be among none, .* got 'conv'"):
        darts(primitives=["conv"])
    with pytest.raises(TypeError, match=r"primitives must be a sequence, got 'none'"):
        darts(primitives="none")
    with pytest.raises(ValueError, match=r"primitives must be at least one, got none"):
        darts(primitives=[])
    with pytest.raises(
        ValueError, match=r"one sequence of names, 14 of them, or a pair of 14, got 2 of lengths \[1, 1\]"
    ):
        darts(primitives=[["none"], ["none"]])
    with pytest.raises(ValueError, match=r"got 2 of lengths \[14, 14\]"):
        darts(primitives=[["none"] * 14, ["none"] * 14])
    with pytest.raises(ValueError, match=r"decisions must be one for each of normal.2_0, .* got none for"):
        darts(decisions={})
    with pytest.raises(ValueError, match=r"x must be \(N, 3, height, width\), got shape \(3, 8, 8\)"):
        darts(2, 2)(torch.randn(3, 8, 8))
