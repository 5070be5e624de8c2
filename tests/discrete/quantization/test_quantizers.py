"""What a model sees inside the block, what is back after it, and what its gradients are; on every kind of module."""

import copy
import gc
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from throughline.discrete.quantization import (
    CompressedSize,
    PointQuantizer,
    WeightQuantizer,
    huffman_lengths,
    nonuniform_quantize,
    uniform_quantize,
)

BOTH = pytest.mark.parametrize("kind", [WeightQuantizer, PointQuantizer])
Kind = Callable[..., Any]


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def images(number: int = 16) -> Tensor:
    return torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@BOTH
def test_values_are_quantised_inside_and_back_after(kind: Kind) -> None:
    model = net()
    before, identities = copies(model), [id(p) for p in model.parameters()]
    quantizer = kind(model, 2)
    with quantizer as entered:
        assert entered is quantizer
        inside = copies(model)
    for place, name in enumerate(("0.weight", "4.weight")):
        expected = (
            uniform_quantize(before[name], 4)
            if kind is WeightQuantizer
            else nonuniform_quantize(before[name], quantizer.points[place])
        )
        assert torch.equal(inside[name], expected)
        assert not torch.equal(inside[name], before[name])
    for name in ("0.bias", "1.weight", "4.bias"):
        assert torch.equal(inside[name], before[name])
    assert same(before, copies(model))
    assert identities == [id(p) for p in model.parameters()]


@BOTH
def test_values_are_back_after_an_exception(kind: Kind) -> None:
    model = net()
    before, quantizer = copies(model), kind(model, 1)
    with pytest.raises(ZeroDivisionError), quantizer:
        1 / 0  # noqa: B018
    assert same(before, copies(model))
    with quantizer:  # and it can be entered again
        assert not same(before, copies(model))


def test_gradients_are_those_at_the_quantised_weights() -> None:
    model, twin = net(), net()
    with WeightQuantizer(model, 2):
        model(images()).square().sum().backward()
    for p in twin.parameters():
        if p.ndim >= 2:
            p.data = uniform_quantize(p.data, 4)
    twin(images()).square().sum().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradients_of_points_by_autograd() -> None:
    model = net().double()
    model[1] = nn.Identity()
    quantizer = PointQuantizer(model, 3, levels={"4.weight": 5})
    assert [len(p) for p in quantizer.parameters()] == [8, 5]
    assert list(quantizer.state_dict()) == ["points.0", "points.1"]
    for _ in range(2):  # gradients add up
        with quantizer:
            model(images().double()).square().sum().backward()
    points = [p.detach().clone().requires_grad_() for p in quantizer.points]
    state = dict(model.named_parameters())
    quantized = {
        name: nonuniform_quantize(state[name].detach(), p) for name, p in zip(quantizer.weights, points, strict=True)
    }
    out = torch.func.functional_call(model, {**state, **quantized}, (images().double(),))
    for ours, theirs in zip(quantizer.points, torch.autograd.grad(2 * out.square().sum(), points), strict=True):
        torch.testing.assert_close(ours.grad, theirs)
    assert state["0.weight"].grad is None
    assert state["4.weight"].grad is None
    assert state["4.bias"].grad is not None


def test_points_are_learned_and_unsorted_ones_do_no_harm() -> None:
    model = net().eval()
    target, before = model(images()).detach(), copies(model)
    quantizer = PointQuantizer(model, 2, init="uniform")
    assert torch.equal(quantizer.points[0].detach(), torch.linspace(0, 1, 4))
    with torch.no_grad():
        for points in quantizer.points:
            points.copy_(points.flip(0))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        with quantizer:
            loss = F.mse_loss(model(images()), target)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert same(before, copies(model))  # the weights have not moved


def test_frozen_weights_still_give_gradients_to_points() -> None:
    model = net().requires_grad_(False)
    quantizer = PointQuantizer(model, 2)
    with quantizer:
        model(images()).sum().backward()
    assert all(p.grad is not None for p in quantizer.points)
    assert not any(p.requires_grad for p in model.parameters())


def test_gradients_from_elsewhere_do_not_reach_the_points() -> None:
    model = net()
    quantizer = PointQuantizer(model, 2)
    model(images()).sum().backward()
    with torch.no_grad(), quantizer:
        model(images())
    assert all(p.grad is None for p in quantizer.points)


def train(model: nn.Module, around: Any) -> float:
    """The loss inside of ``around`` after training there."""
    x, y = images(64), images(64).flatten(1)[:, :10]
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    for _ in range(80):
        with around:
            F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad(), around:
        return F.mse_loss(model(x), y).item()


def test_training_keeps_what_quantising_afterwards_loses() -> None:
    x, y = images(64), images(64).flatten(1)[:, :10]
    plain, quantised = net(), net()
    train(plain, nullcontext())
    WeightQuantizer(plain, 1).finalize()
    quantizer = WeightQuantizer(quantised, 1)
    loss = train(quantised, quantizer)
    assert loss < 0.8 * F.mse_loss(plain(x), y).item()
    assert F.mse_loss(quantizer.finalize()(x), y).item() == loss


@BOTH
def test_finalize_writes_for_good(kind: Kind) -> None:
    model = net()
    quantizer = kind(model, 2, bucket_size=100)
    with torch.no_grad(), quantizer:
        expected = copies(model)
    assert quantizer.finalize() is model
    assert quantizer.finalize() is model
    assert same(expected, copies(model))
    for bucket in model[4].weight.detach().flatten().split(100):
        assert len(bucket.unique()) <= 4
    with pytest.raises(RuntimeError, match="quantised for good"), quantizer:
        pass


def test_finalize_takes_the_nearest_level_after_stochastic_training() -> None:
    model = net()
    before = copies(model)
    quantizer = WeightQuantizer(model, 2, stochastic=True, generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(2):
        with quantizer:
            seen.append(copies(model))
    assert not same(*seen)
    assert same(before, copies(model))
    quantizer.finalize()
    assert torch.equal(model[4].weight.detach(), uniform_quantize(before["4.weight"], 4))


@BOTH
def test_blocks_do_not_nest(kind: Kind) -> None:
    model = net()
    before, quantizer = copies(model), kind(model, 2)
    with quantizer:
        with pytest.raises(RuntimeError, match="entered already"), quantizer:
            pass
        with pytest.raises(RuntimeError, match="after the block"):
            quantizer.finalize()
    assert same(before, copies(model))


def test_a_step_inside_the_block_is_refused() -> None:
    """It would be lost, and training stand still."""
    model = net()
    before = copies(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def wrong() -> None:
        with WeightQuantizer(model, 2):
            model(images()).sum().backward()
            optimizer.step()

    with pytest.raises(RuntimeError, match=r"0\.weight was changed inside the block"):
        wrong()
    assert torch.equal(model[0].weight.detach(), before["0.weight"])


def test_backward_after_the_block_is_refused() -> None:
    model = net()
    with WeightQuantizer(model, 2):
        loss = model(images()).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_checkpoints_are_full_precision_and_optimizers_stay() -> None:
    model = net()
    quantizer, optimizer = WeightQuantizer(model, 2), torch.optim.Adam(model.parameters())
    average = torch.optim.swa_utils.AveragedModel(model)
    with quantizer:
        model(images()).sum().backward()
    optimizer.step()
    average.update_parameters(model)
    assert len(optimizer.state) == 6
    assert len(model[4].weight.detach().unique()) > 1000
    assert len(average.module[4].weight.detach().unique()) > 1000


def brute_size(model: nn.Module, names: set[str], levels: int, size: int) -> CompressedSize:
    symbols, buckets, rest, full = [], 0, 0, 0
    for name, p in model.named_parameters():
        full += 4 * p.numel()
        if name not in names:
            rest += 4 * p.numel()
            continue
        for bucket in p.detach().flatten().split(size):
            buckets += 1
            u = (bucket - bucket.min()) / (bucket.max() - bucket.min())
            symbols += (u * (levels - 1)).round().int().tolist()
    counts = torch.bincount(torch.tensor(symbols))
    bits = (counts * huffman_lengths(counts)).sum().item()
    total = bits / 8 + 8 * buckets + rest
    return CompressedSize(total, bits / len(symbols), full, full / total)


def test_size_counts_everything() -> None:
    model = net()
    quantizer = WeightQuantizer(model, 2, bucket_size=100)
    expected = brute_size(model, {"0.weight", "4.weight"}, 4, 100)
    assert quantizer.size() == pytest.approx(expected)
    with quantizer:
        assert quantizer.size() == pytest.approx(expected)
    quantizer.finalize()
    assert quantizer.size() == pytest.approx(expected)  # not that of codes of the quantised weights
    points = PointQuantizer(net(), 2, bucket_size=100, init="uniform")
    assert points.size().bytes == pytest.approx(expected.bytes + 2 * 4 * 4)  # the learned points are stored as well


def test_symbols_are_those_of_the_full_precision_weights() -> None:
    """Points need not reach the ends of a bucket: the quantised weights would be scaled by extremes of their own."""
    quantizer = PointQuantizer(net(), 2)
    with torch.no_grad():
        for points in quantizer.points:
            points.copy_(torch.tensor([0.2, 0.45, 0.5, 0.7]))
    before, size = quantizer.codes(), quantizer.size()
    quantizer.finalize()
    assert quantizer.size() == size
    for name, codes in quantizer.codes().items():
        assert torch.equal(codes.symbols, before[name].symbols)
        assert torch.equal(codes.scale, before[name].scale)


def test_size_without_huffman_is_the_formula_of_the_paper() -> None:
    """k F / (k bits + 2 F), where every level is used alike."""
    for bits, ratio in ((2, 14.2), (4, 7.53)):
        layer = nn.Linear(256, 64, bias=False)
        layer.weight.data = torch.linspace(-1, 1, 256).repeat(64, 1)
        size = WeightQuantizer(layer, bits).size()
        found = 256 * 32 / (256 * size.bits_per_weight + 64)
        assert size.ratio == pytest.approx(found)
        assert size.ratio >= ratio - 0.04
    flat = nn.Linear(256, 64, bias=False)
    flat.weight.data.fill_(0.3)
    assert WeightQuantizer(flat, 4).size().bits_per_weight == 0


@BOTH
def test_recurrent_weights_and_their_aliases(kind: Kind) -> None:
    """`nn.LSTM` computes with `_flat_weights`: were parameters replaced, it would go on with the old values."""
    torch.manual_seed(0)
    model, x = nn.LSTM(5, 7, num_layers=2, bidirectional=True), torch.randn(3, 2, 5)
    before, full = copies(model), model(x)[0].detach()
    quantizer = kind(model, 2)
    with quantizer:
        inside, _ = model(x)
        inside.sum().backward()
    assert torch.equal(model(x)[0], full)
    assert same(before, copies(model))
    quantizer.finalize()
    assert torch.equal(model(x)[0], inside)
    assert not torch.equal(inside, full)


@BOTH
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), [(2, 3, 8)] * 3),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), [(2, 3, 8)]),
        (lambda: nn.GRU(8, 4), [(3, 2, 8)]),
    ],
)
def test_other_modules(kind: Kind, make: Callable[[], nn.Module], shapes: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    model, inputs = make(), [torch.randn(*shape) for shape in shapes]
    before, quantizer = copies(model), kind(model, 2)
    with quantizer:
        inside = first(model(*inputs))
        inside.sum().backward()
    assert same(before, copies(model))
    quantizer.finalize()
    torch.testing.assert_close(first(model(*inputs)), inside)


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class Tied(nn.Module):
    """An embedding whose weights are those of the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.head = nn.Linear(6, 20)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


@BOTH
def test_shared_parameters_are_quantised_once(kind: Kind) -> None:
    torch.manual_seed(0)
    model = Tied()
    quantizer = kind(model, 3)
    assert list(quantizer.weights) == ["embedding.weight"]
    before = copies(model)
    with quantizer:
        model(torch.arange(20)).sum().backward()
    assert same(before, copies(model))
    assert quantizer.size().full_bytes == 4 * (120 + 20)
    quantizer.finalize()
    assert model.head.weight is model.embedding.weight
    assert len(model.head.weight.detach().unique()) <= 8


@BOTH
def test_sparse_gradients(kind: Kind) -> None:
    model = nn.Embedding(20, 6, sparse=True)
    quantizer = kind(model, 2)
    with quantizer:
        model(torch.tensor([1, 1, 3])).sum().backward()
    gradient = model.weight.grad if kind is WeightQuantizer else quantizer.points[0].grad
    assert gradient.to_dense().abs().sum() > 0


@BOTH
def test_compiled_models(kind: Kind) -> None:
    torch.compiler.reset()
    model = net().eval()
    compiled = torch.compile(model, backend="eager")
    quantizer = kind(compiled, 2)
    assert list(quantizer.weights) == ["0.weight", "4.weight"]
    full = compiled(images())
    with torch.no_grad(), quantizer:
        inside = compiled(images())
        torch.testing.assert_close(inside, model(images()))
    torch.testing.assert_close(compiled(images()), full)
    assert quantizer.finalize() is compiled
    torch.testing.assert_close(compiled(images()), inside)


def in_parallel(kind: Kind) -> None:
    model, alone = net(), net()
    wrapped = nn.parallel.DistributedDataParallel(model)
    quantizers = kind(wrapped, 2), kind(alone, 2)
    assert list(quantizers[0].weights) == ["0.weight", "4.weight"]
    for _ in range(2):
        for quantizer, one in zip(quantizers, (wrapped, alone), strict=True):
            with quantizer:
                one(images()).square().sum().backward()
    of = [q.parameters() if kind is PointQuantizer else q.model.parameters() for q in quantizers]
    for ours, theirs in zip(*of, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@BOTH
def test_distributed_data_parallel(kind: Kind, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        in_parallel(kind)
    finally:
        gc.collect()  # a wrapped model that outlives its group can wait for the group's threads for ever
        dist.destroy_process_group()


def test_select_and_levels_by_name() -> None:
    model = net()
    quantizer = WeightQuantizer(model, 2, select=lambda name, p: name.startswith("4."))
    assert list(quantizer.weights) == ["4.weight", "4.bias"]
    every = WeightQuantizer(model, 2, select=lambda name, p: True)
    assert len(every.weights) == 6


def test_other_dtypes_and_memory_formats() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        model = net().to(dtype).to(memory_format=torch.channels_last)
        before = copies(model)
        quantizer = PointQuantizer(model, 2)
        with quantizer:
            model(images().to(dtype)).sum().backward()
        assert same(before, copies(model))
        assert quantizer.points[0].dtype == torch.promote_types(dtype, torch.float32)
        assert quantizer.points[0].grad is not None
        quantizer.finalize()
        assert torch.equal(model[0].weight, nonuniform_quantize(before["0.weight"], quantizer.points[0]))


@BOTH
def test_quantiser_and_model_are_copied_together(kind: Kind) -> None:
    quantizer = kind(net(), 2)
    for twin in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert twin.weights["4.weight"] is twin.model[4].weight
        with twin:
            assert not same(copies(quantizer.model), copies(twin.model))
    assert "4.weight: 4" in repr(PointQuantizer(net(), 2))


@BOTH
def test_bad_weights_are_named(kind: Kind) -> None:
    model = net()
    quantizer = kind(model, 2)
    model[4].weight.data[0, 0] = torch.nan
    for use in (quantizer.finalize, quantizer.size):
        with pytest.raises(ValueError, match=r"4\.weight must be finite"):
            use()
    empty = nn.ParameterDict({"e": nn.Parameter(torch.zeros(0, 3)), "w": nn.Parameter(torch.zeros(2, 3))})
    with pytest.raises(ValueError, match=r"e must not be empty, got shape \(0, 3\)"):
        kind(empty, 2)
    whole = nn.ParameterDict({"w": nn.Parameter(torch.zeros(2, 3, dtype=torch.int64), requires_grad=False)})
    with pytest.raises(TypeError, match=r"w must be floating point, got torch.int64"):
        kind(whole, 2)


def test_a_failure_on_entering_leaves_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    before, quantizer = copies(model), WeightQuantizer(model, 2)
    real = quantizer._quantized

    def fail(place: int, weight: Tensor) -> Tensor:
        if place == 1:
            raise MemoryError
        return real(place, weight)

    monkeypatch.setattr(quantizer, "_quantized", fail)
    with pytest.raises(MemoryError), quantizer:
        pass
    assert same(before, copies(model))


# ---- wrappers, and parameters that are replaced ----


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(nn.DataParallel(model))


@BOTH
@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile, averaged])
def test_wrappers_change_no_name(kind: Kind, wrap: Callable[[nn.Module], nn.Module]) -> None:
    inside = net()
    inside[4] = wrap(inside[4])
    for model in (wrap(net()), inside):
        assert list(kind(model, 2).weights) == ["0.weight", "4.weight"]
    names: list[str] = []
    WeightQuantizer(inside, 2, select=lambda name, p: names.append(name) is None)
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]


@BOTH
def test_a_replaced_parameter_is_noticed(kind: Kind) -> None:
    model = nn.Linear(20, 20)
    quantizer = kind(model, 2)
    model.load_state_dict(nn.Linear(20, 20).state_dict())  # in place: the parameters are the same
    quantizer.size()
    model.load_state_dict(nn.Linear(20, 20).state_dict(), assign=True)
    for use in (quantizer.finalize, quantizer.size, quantizer.codes, quantizer.__enter__):
        with pytest.raises(RuntimeError, match=r"^weight is another parameter than when the quantiser was made"):
            use()
    assert len(kind(model, 2).finalize().weight.detach().unique()) > 1


@BOTH
def test_a_parameter_replaced_inside_the_block_is_noticed(kind: Kind) -> None:
    model = nn.Linear(20, 20)
    with pytest.raises(RuntimeError, match="weight is another parameter"), kind(model, 2):
        model.load_state_dict(nn.Linear(20, 20).state_dict(), assign=True)


def test_bits_are_integers() -> None:
    assert WeightQuantizer(net(), np.int64(3)).bits == 3
    assert PointQuantizer(net(), np.int64(3)).points[0].shape == (8,)
    for bits in (1.5, 2.0):
        with pytest.raises(TypeError, match=rf"bits must be an integer, got {bits}"):
            WeightQuantizer(net(), bits)
