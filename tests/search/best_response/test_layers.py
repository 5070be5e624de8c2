"""Best-response layers against weights formed sample by sample, and the rank of their gradients."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from throughline.search.best_response import BestResponseConv2d, BestResponseLinear

N = 3  # hyperparameters
Layer = BestResponseLinear | BestResponseConv2d


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def strong(layer: Layer) -> Layer:
    """Gates that matter, in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight_gate.normal_()
        if layer.bias_gate is not None:
            layer.bias_gate.normal_()
    return layer.double()


def formed(layer: Layer, hyper: Tensor) -> tuple[Tensor, Tensor | None]:
    """Ŵ(λ) and b̂(λ) of one λ, entry by entry as the paper writes them."""
    weight = layer.weight.clone()
    for i in range(len(weight)):
        weight[i] = layer.weight[i] + (layer.weight_gate[i] @ hyper) * layer.response_weight[i]
    if layer.bias is None:
        return weight, None
    return weight, layer.bias + (layer.bias_gate @ hyper) * layer.response_bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("middle", [(), (4,), (4, 2)])
def test_linear_is_a_loop_over_samples(bias: bool, middle: tuple[int, ...]) -> None:
    layer = strong(BestResponseLinear(5, 6, N, bias=bias))
    x, hyper = normal(7, *middle, 5), normal(7, N, seed=1)
    loop = torch.stack([F.linear(x[b], *formed(layer, hyper[b])) for b in range(7)])
    torch.testing.assert_close(layer(x, hyper), loop)
    one = F.linear(x, *formed(layer, hyper[0]))
    torch.testing.assert_close(layer(x, hyper[0]), one)
    torch.testing.assert_close(layer(x, hyper[:1].expand(7, -1)), one)


class Products(TorchDispatchMode):
    """The shapes of what matrix products give."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.shapes.append(tuple(result.shape))
        return result


def test_gradients_of_the_gates_are_products_of_few_rows() -> None:
    """One of as few columns costs many times as much."""
    layer = BestResponseLinear(5, 6, N)
    with Products() as products:
        layer(normal(7, 5).float(), normal(7, N).float()).sum().backward()
    assert products.shapes.count((N, 6)) == 2  # of V and of C
    assert (6, N) not in products.shapes
    assert products.shapes.count((7, 6)) == 4  # Wx, W_h x, Vλ and Cλ


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "stride": 2},
        {"padding": 1, "groups": 2},
        {"padding": "same", "dilation": 2},
        {"padding": (2, 1), "padding_mode": "circular"},
    ],
)
def test_convolution_is_a_loop_over_samples(options: dict[str, object]) -> None:
    layer = strong(BestResponseConv2d(4, 6, 3, N, **options))  # type: ignore[arg-type]
    plain = nn.Conv2d(4, 6, 3, **options).double()  # type: ignore[arg-type]
    x, hyper = normal(5, 4, 8, 7), normal(5, N, seed=1)

    def alone(image: Tensor, at: Tensor) -> Tensor:
        weight, bias = formed(layer, at)
        parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
        return torch.func.functional_call(plain, parameters, (image,))

    torch.testing.assert_close(layer(x, hyper), torch.stack([alone(x[b], hyper[b]) for b in range(5)]))
    torch.testing.assert_close(layer(x, hyper[1]), alone(x, hyper[1]))
    torch.testing.assert_close(layer(x[0], hyper[1]), alone(x[0], hyper[1]))  # without a batch


@pytest.mark.parametrize(
    "make", [lambda: BestResponseLinear(5, 6, N), lambda: BestResponseConv2d(4, 6, 3, N, groups=2)]
)
def test_norm_is_that_of_the_formed_weight(make: object) -> None:
    layer = strong(make())  # type: ignore[operator]
    hyper = normal(7, N) * 3
    expected = torch.stack([formed(layer, at)[0].square().sum() for at in hyper])
    torch.testing.assert_close(layer.squared_norm(hyper), expected)
    torch.testing.assert_close(layer.squared_norm(hyper[2]), expected[2])
    weights = [layer.weight, layer.response_weight, layer.weight_gate]
    got = torch.autograd.grad(layer.squared_norm(hyper).sum(), weights)
    for one, other in zip(got, torch.autograd.grad(expected.sum(), weights), strict=True):
        torch.testing.assert_close(one, other)


def test_exact_response_of_a_linear_network_is_met_to_first_order() -> None:
    """Q*(λ) = σ(c − λ) ⊙ Q₀ row by row, and its linearisation at λ₀ is what the gate holds: the error is quadratic."""
    d = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    directions = torch.linalg.qr(normal(3, 3)).Q
    layer, at = BestResponseLinear(3, 3, 1, bias=False).double(), 0.4

    def exact(hyper: float) -> Tensor:
        return (d.log() - hyper).sigmoid()[:, None] * directions

    slope = (d.log() - at).sigmoid() * (at - d.log()).sigmoid()
    with torch.no_grad():
        layer.weight.copy_(exact(at) + at * slope[:, None] * directions)
        layer.response_weight.copy_(directions)
        layer.weight_gate.copy_(-slope[:, None])
    inputs = torch.eye(3, dtype=torch.float64)
    errors = [
        (layer(inputs, torch.tensor([at + step], dtype=torch.float64)) - inputs @ exact(at + step).mT).abs().max()
        for step in (0.0, 0.1, 0.01)
    ]
    assert errors[0] < 1e-12
    assert errors[1] < 1e-3
    assert errors[2] < errors[1] / 90


def test_a_lambda_for_each_sample_teaches_the_gate_more_than_one_for_all() -> None:
    layer = strong(BestResponseLinear(5, 6, N))
    x, hyper, out = normal(7, 5), normal(7, N, seed=1), normal(7, 6, seed=2)
    (each,) = torch.autograd.grad(layer(x, hyper), layer.weight_gate, out)
    (same,) = torch.autograd.grad(layer(x, hyper[:1].expand(7, -1)), layer.weight_gate, out)
    assert torch.linalg.matrix_rank(each) == N
    assert torch.linalg.matrix_rank(same) == 1


def test_starts_from_a_plain_layer() -> None:
    x, image, hyper = normal(7, 5), normal(7, 4, 8, 8), normal(7, N, seed=1)
    linear = nn.Linear(5, 6, dtype=torch.float64)
    plain = nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", groups=2, bias=False, dtype=torch.float64)
    for module, inputs in ((linear, x), (plain, image)):
        made = (
            BestResponseLinear.from_linear(module, N)
            if isinstance(module, nn.Linear)
            else BestResponseConv2d.from_conv2d(module, N)
        )
        assert made.weight is not module.weight
        with torch.no_grad():
            made.weight_gate.zero_()
            if made.bias_gate is not None:
                made.bias_gate.zero_()
        torch.testing.assert_close(made(inputs, hyper), module(inputs))
        torch.testing.assert_close(made(inputs, hyper[0]), module(inputs))


def test_start_values() -> None:
    torch.manual_seed(0)
    linear, convolution = BestResponseLinear(100, 400, N), BestResponseConv2d(10, 400, 3, N)
    for layer, fan in ((linear, 100), (convolution, 90)):
        for name in ("weight", "response_weight", "bias", "response_bias"):
            value = getattr(layer, name).detach()
            assert value.abs().max() <= fan**-0.5
            assert value.std() == pytest.approx(fan**-0.5 / 3**0.5, rel=0.1)
        for name in ("weight_gate", "bias_gate"):
            assert getattr(layer, name).detach().std() == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(linear.weight, linear.response_weight)


def test_parameters_are_counted() -> None:
    layer = BestResponseLinear(20, 30, N)
    assert sum(p.numel() for p in layer.parameters()) == 2 * (20 * 30 + 30) + 2 * N * 30
    assert "num_hyperparameters=3" in repr(layer)
    assert "num_hyperparameters=3" in repr(BestResponseConv2d(2, 3, 1, N))


def test_layers_keep_to_autocast() -> None:
    hyper = torch.randn(4, N)
    with torch.autocast("cpu", torch.bfloat16):
        assert BestResponseLinear(5, 6, N)(torch.randn(4, 5), hyper).dtype == torch.bfloat16
        assert BestResponseConv2d(3, 6, 3, N)(torch.randn(4, 3, 8, 8), hyper).dtype == torch.bfloat16


def activations(call: Callable[[], Tensor], layer: nn.Module) -> int:
    """Bytes that a forward pass holds for the backward one, with its result; parameters apart."""
    own = {t.untyped_storage().data_ptr() for t in layer.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = call()
    keep(out)
    return sum(held.values())


@pytest.mark.parametrize("kind", ["linear", "sequence", "convolution"])
def test_activations_take_twice_those_of_a_plain_layer(kind: str) -> None:
    """Input, result, W_h x and gates are held; never a weight for each sample."""
    if kind == "convolution":
        plain: nn.Module = nn.Conv2d(16, 16, 3, padding=1)
        layer: Layer = BestResponseConv2d(16, 16, 3, N, padding=1)
        x = torch.randn(8, 16, 16, 16)
    else:
        plain, layer = nn.Linear(64, 64), BestResponseLinear(64, 64, N)
        x = torch.randn(32, *((50,) if kind == "sequence" else ()), 64)
    hyper = torch.randn(len(x), N)
    ours = activations(lambda: layer(x, hyper), layer)
    assert ours <= 2.1 * activations(lambda: plain(x), plain)


def test_layers_are_copied_whole() -> None:
    layer = strong(BestResponseLinear(5, 6, N))
    twin = copy.deepcopy(layer)
    assert twin.num_hyperparameters == N
    assert torch.equal(twin(normal(2, 5), normal(2, N)), layer(normal(2, 5), normal(2, N)))
