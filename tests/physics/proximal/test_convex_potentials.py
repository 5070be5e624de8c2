"""Convex potentials: convexity, closed forms, the official arithmetic."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from throughline.physics.proximal import (
    InputConvexCNN,
    InputConvexMLP,
    LearnedProximalNetwork,
    keep_convex,
)

Make = Callable[..., nn.Module]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(**options: float) -> InputConvexMLP:
    torch.manual_seed(0)
    return InputConvexMLP(3, 8, **{"depth": 2, **options}).double()  # type: ignore[arg-type]


def cnn(**options: float) -> InputConvexCNN:
    torch.manual_seed(0)
    made = InputConvexCNN(2, 8, **{"hidden": 5, "strides": (2, 1), "head": 6, **options}).double()  # type: ignore[arg-type]
    with torch.no_grad():  # weights as a trained network has them: those at the start are all but zero
        for layer in list(made.convex)[1:]:
            layer.weight.copy_(torch.rand(layer.weight.shape, generator=seeded(1)) / 10)  # type: ignore[union-attr]
    return made


BOTH = pytest.mark.parametrize(("make", "shape"), [(mlp, (3,)), (cnn, (2, 8, 8))])


@BOTH
def test_value_is_that_of_plain_loops(make: Make, shape: tuple[int, ...]) -> None:
    """ψ of one sample, with NumPy: products of matrices, convolutions as sums over places, averages of four pixels."""
    psi, x = make(strong_convexity=0.3), torch.randn(shape, dtype=torch.float64, generator=seeded())
    parts = {name: value.numpy() for name, value in psi.state_dict().items()}

    def softplus(t: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, 10 * t) / 10

    def convolved(image: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        side = image.shape[1] // stride
        out = np.zeros((len(weight), side, side))
        for i in range(side):
            for j in range(side):
                out[:, i, j] = np.tensordot(
                    weight, padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3], 3
                )
        return out

    v = x.numpy()
    if make is mlp:
        z = softplus(parts["convex.0.weight"] @ v + parts["convex.0.bias"])
        for k in (1, 2):
            z = softplus(
                parts[f"convex.{k}.weight"] @ z + parts[f"skip.{k - 1}.weight"] @ v + parts[f"skip.{k - 1}.bias"]
            )
        value = parts["convex.3.weight"] @ z + parts["skip.2.weight"] @ v + parts["skip.2.bias"]
    else:
        half = v.reshape(2, 4, 2, 4, 2).mean((2, 4))
        z = softplus(convolved(v, parts["convex.0.weight"], 1) + parts["convex.0.bias"][:, None, None])
        for k, (stride, image) in enumerate([(2, v), (1, half)]):
            skip = convolved(image, parts[f"skip.{k}.weight"], stride) + parts[f"skip.{k}.bias"][:, None, None]
            z = softplus(convolved(z, parts[f"convex.{k + 1}.weight"], stride) + skip)
        z = softplus(
            parts["convex.3.weight"] @ z.ravel() + parts["skip.2.weight"] @ half.ravel() + parts["skip.2.bias"]
        )
        value = parts["convex.4.weight"] @ z
    assert float(psi(x[None]).detach()) == pytest.approx(float(value.item() + 0.15 * (v**2).sum()), rel=1e-7)


@BOTH
@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), share=st.floats(0, 1), scale=st.floats(0.1, 10))
def test_is_convex_and_its_gradient_strongly_monotone(
    make: Make, shape: tuple[int, ...], seed: int, share: float, scale: float
) -> None:
    psi = make(strong_convexity=0.3)
    a, b = scale * torch.randn(2, 1, *shape, dtype=torch.float64, generator=seeded(seed))
    slack = 1e-9 * (1 + scale**2)
    with torch.no_grad():
        chord = share * psi(a) + (1 - share) * psi(b) - 0.15 * share * (1 - share) * (a - b).square().sum()
        assert psi(share * a + (1 - share) * b) <= chord + slack
        f = LearnedProximalNetwork(psi)
        assert ((f(a) - f(b)) * (a - b)).sum() >= 0.3 * (a - b).square().sum() - slack


@BOTH
def test_jacobian_is_symmetric_with_eigenvalues_of_at_least_mu(make: Make, shape: tuple[int, ...]) -> None:
    f, x = LearnedProximalNetwork(make(strong_convexity=0.3)), torch.randn(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(f, x).reshape(x.numel(), -1)
    torch.testing.assert_close(jacobian, jacobian.T)
    assert torch.linalg.eigvalsh(jacobian).min() >= 0.3 - 1e-9


@BOTH
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_step_is_clamped_and_the_free_weights_are_not(make: Make, shape: tuple[int, ...], wrapped: bool) -> None:
    psi = make()
    module = LearnedProximalNetwork(psi) if wrapped else psi
    bound = {
        name for name, _ in psi.named_parameters() if name.startswith("convex.") and not name.startswith("convex.0.")
    }
    assert all((psi.get_parameter(name) >= 0).all() for name in bound)  # before the first step too
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    handle = keep_convex(module, optimizer)
    for parameter in psi.parameters():
        parameter.grad = torch.full_like(parameter, 50.0)
    optimizer.step()
    for name, parameter in psi.named_parameters():
        assert (parameter == 0).all() if name in bound else (parameter < 0).all()
    handle.remove()
    optimizer.step()
    assert all((psi.get_parameter(name) < 0).all() for name in bound)
    assert module.project_() is module
    assert all((psi.get_parameter(name) == 0).all() for name in bound)


def test_starts_as_the_paper_has_it() -> None:
    torch.manual_seed(0)
    psi = InputConvexCNN(1, 28)
    for layer in list(psi.convex)[1:-1]:
        logarithm = layer.weight.detach().log()  # type: ignore[union-attr,operator]
        assert logarithm.mean() == pytest.approx(-10, abs=0.01)
        assert logarithm.std() == pytest.approx(0.1, rel=0.05)
    assert (psi.convex[0].weight < 0).any()
    plain = InputConvexMLP(1)
    share = (plain.convex[1].weight == 0).double().mean()  # half of a symmetric start is clamped
    assert 0.4 < share < 0.6
    assert psi.strong_convexity == 0.02
    assert plain.strong_convexity == 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("strides", [2, (2, 1), (1, 2, 2)])
def test_gradient_is_autograds_with_derivatives_of_two_orders(channels: int, strides: int | tuple[int, ...]) -> None:
    torch.manual_seed(0)
    psi = InputConvexCNN(channels, 8, hidden=5, strides=strides, head=6, strong_convexity=0.3).double()
    with torch.no_grad():
        for layer in list(psi.convex)[1:]:
            layer.weight.copy_(torch.rand(layer.weight.shape, generator=seeded(1)) / 10)  # type: ignore[union-attr]
    x = torch.randn(3, channels, 8, 8, dtype=torch.float64, generator=seeded(2)).requires_grad_()
    (expected,) = torch.autograd.grad(psi(x).sum(), x, create_graph=True)
    found, toward = psi.gradient(x), torch.randn(x.shape, dtype=torch.float64, generator=seeded(3))
    torch.testing.assert_close(found, expected)
    variables = [x, *psi.parameters()]
    for _ in range(2):  # the derivatives of a directional derivative, and the next ones
        found, expected = (
            torch.autograd.grad(
                (f * toward).sum(), variables, create_graph=True, allow_unused=True, materialize_grads=True
            )
            for f in (found, expected)
        )
        torch.testing.assert_close(found, expected)
        found, expected = found[0], expected[0]


def test_training_step_convolves_no_images_with_images() -> None:
    """The kernels of all convolutions in the second derivative are kernels."""
    f, x = LearnedProximalNetwork(cnn()), torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=seeded())
    sides = []

    class Kernels(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.convolution.default:
                sides.append(args[1].shape[-1])
            return func(*args, **(kwargs or {}))

    with Kernels():
        f(x).square().sum().backward()
    assert sides
    assert set(sides) == {3}


class Official(nn.Module):
    """The authors' 28-pixel network, its names and its arithmetic, written anew: α‖x‖², the head's last feature."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d
        self.lin = nn.ModuleList(
            [
                *(conv(1, 4, 3, 1, 1), conv(4, 4, 3, 2, 1, bias=False), conv(4, 4, 3, 1, 1, bias=False)),
                *(conv(4, 4, 3, 2, 1, bias=False), nn.Linear(4 * 49, 64, bias=False), nn.Linear(64, 1, bias=False)),
            ]
        )
        self.res = nn.ModuleList([conv(1, 4, 3, 2, 1), conv(1, 4, 3, 1, 1), conv(1, 4, 3, 2, 1), nn.Linear(49, 64)])

    def forward(self, x: Tensor) -> Tensor:
        y = F.softplus(self.lin[0](x), 10)
        for k, size in enumerate((28, 14, 14)):
            y = F.softplus(self.lin[k + 1](y) + self.res[k](F.interpolate(x, (size, size), mode="bilinear")), 10)
        small = F.interpolate(x, (7, 7), mode="bilinear").flatten(1)
        y = F.softplus(self.lin[4](y.flatten(1)) + self.res[3](small), 10)
        return self.lin[5](y)[:, 0] + 0.01 * x.square().sum((1, 2, 3))


def test_published_checkpoints_load_by_renaming() -> None:
    torch.manual_seed(0)
    official, ours = Official(), InputConvexCNN(1, 28, hidden=4)
    state = official.state_dict()
    renamed = {name.replace("lin", "convex").replace("res", "skip"): value for name, value in state.items()}
    ours.load_state_dict(renamed)
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(ours(x), official(x))


def test_large_checkpoints_load_by_reshaping() -> None:
    """128 pixels: the head is a 16 × 16 convolution, a 1 × 1 one with a bias follows, and the first has no bias."""
    torch.manual_seed(0)
    ours = InputConvexCNN(3, 128, hidden=2, strides=(2, 1, 2, 1, 2), beta=100.0, strong_convexity=2e-6)
    state = ours.state_dict()
    head, last, skip = nn.Conv2d(2, 64, 16, bias=False), nn.Conv2d(64, 1, 1), nn.Conv2d(3, 64, 16)
    state |= {
        "convex.0.bias": torch.zeros(2),
        "convex.6.weight": head.weight.detach().flatten(1),
        "convex.7.weight": last.weight.detach().flatten(1),
        "skip.5.weight": skip.weight.detach().flatten(1),
        "skip.5.bias": skip.bias.detach(),  # type: ignore[union-attr]
    }
    ours.load_state_dict(state)
    x = torch.rand(1, 3, 128, 128)
    z = F.softplus(ours.convex[0](x), 100)
    for k, (side, layer) in enumerate(zip((128, 64, 64, 32, 32), list(ours.convex)[1:6], strict=True)):
        z = F.softplus(layer(z) + ours.skip[k](F.interpolate(x, (side, side), mode="bilinear")), 100)
    value = last(F.softplus(head(z) + skip(F.interpolate(x, (16, 16), mode="bilinear")), 100)).flatten()
    torch.testing.assert_close(ours(x), value - last.bias + 1e-6 * x.square().sum(), rtol=1e-4, atol=1e-4)


def test_state_names_are_the_contract() -> None:
    names = {name: tuple(value.shape) for name, value in InputConvexMLP(2, 5, depth=2).state_dict().items()}
    assert names == {
        "convex.0.weight": (5, 2),
        "convex.0.bias": (5,),
        "convex.1.weight": (5, 5),
        "convex.2.weight": (5, 5),
        "convex.3.weight": (1, 5),
        "skip.0.weight": (5, 2),
        "skip.0.bias": (5,),
        "skip.1.weight": (5, 2),
        "skip.1.bias": (5,),
        "skip.2.weight": (1, 2),
        "skip.2.bias": (1,),
    }


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        *(
            (
                ValueError,
                f"{name} must be at least 1, got 0",
                lambda name=name: InputConvexMLP(**{"in_features": 2, name: 0}),
            )
            for name in ("in_features", "hidden", "depth")
        ),
        *(
            (
                ValueError,
                f"{name} must be at least 1, got 0",
                lambda name=name: InputConvexCNN(**{"in_channels": 1, "image_size": 8, name: 0}),
            )
            for name in ("in_channels", "image_size", "hidden", "head")
        ),
        (ValueError, r"beta must be positive and finite, got 0\.0", lambda: InputConvexMLP(2, beta=0.0)),
        (ValueError, r"beta must be positive and finite, got -1\.0", lambda: InputConvexCNN(1, 8, beta=-1.0)),
        (ValueError, r"strong_convexity must be .*, got -0\.1", lambda: InputConvexMLP(2, strong_convexity=-0.1)),
        (ValueError, r"strong_convexity must be .*, got -0\.1", lambda: InputConvexCNN(1, 8, strong_convexity=-0.1)),
        (ValueError, r"multiple of the product of strides, 4, got 30", lambda: InputConvexCNN(1, 30)),
        (ValueError, r"strides must be at least one.* got \(\)", lambda: InputConvexCNN(1, 8, strides=())),
        (ValueError, r"strides must be .*, got \(2, 0\)", lambda: InputConvexCNN(1, 8, strides=(2, 0))),
        (ValueError, r"x must be \(\.\.\., 3\), got shape \(5, 2\)", lambda: mlp()(torch.ones(5, 2))),
        (ValueError, r"x must be \(B, 2, 8, 8\), got shape \(1, 3, 8, 8\)", lambda: cnn()(torch.ones(1, 3, 8, 8))),
        (ValueError, r"x must be \(B, 2, 8, 8\), got shape \(1, 2, 8, 12\)", lambda: cnn()(torch.ones(1, 2, 8, 12))),
        (ValueError, r"x must be \(B, 2, 8, 8\), got shape \(2, 8, 8\)", lambda: cnn()(torch.ones(2, 8, 8))),
        (TypeError, r"x must be floating point, got torch\.int64", lambda: mlp()(torch.ones(5, 3).long())),
        (TypeError, r"x must be floating point, got torch\.uint8", lambda: cnn()(torch.ones(1, 2, 8, 8).byte())),
        (
            TypeError,
            "module must have a method project_, got Linear",
            lambda: keep_convex(nn.Linear(1, 1), torch.optim.SGD([torch.ones(1)], 1.0)),
        ),
    ],
)  # fmt: skip
def test_refuses(error: type[Exception], match: str, make: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        make()


def test_one_number_is_one_stage() -> None:
    one = InputConvexCNN(1, 8, strides=2)
    assert {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in InputConvexCNN(1, 8, strides=(2,)).state_dict().items()
    }
