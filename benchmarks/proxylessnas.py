"""Speed bars of steps along one path.

The peer is the mixed edge of the authors' search code (github.com/mit-han-lab/proxylessnas, mode "full_v2"), which is
no package. Its calls are written anew over our candidates, so that both sides run the same convolutions on the same
weights.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.binary_path import binary_paths
from throughline.search.spaces import mobile_space
from throughline.search.supernet import MixedOp, arch_parameters, choices, discretise, weight_parameters

LAYERS, CHANNELS, SIDE = 6, 24, 16
PATH = ("k5e6", "k3e3", "k7e3", "k3e6", "k5e3", "k7e6")  # what runs in each layer


class EdgeGradient(torch.autograd.Function):
    """As the authors have it: the active candidate on a detached input, its graph kept inside; in the backward pass the
    gradient of the input, and for each gate the sum of the candidate's output times that of the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, ops: list[nn.Module], active: int) -> Tensor:
        inner = x.detach().requires_grad_()
        with torch.enable_grad():
            output = ops[active](inner)
        ctx.save_for_backward(inner, output)
        ctx.ops, ctx.active = ops, active
        return output.data

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inner, output = ctx.saved_tensors
        (slope,) = torch.autograd.grad(output, inner, grad)
        products = []
        with torch.no_grad():
            for k, op in enumerate(ctx.ops):
                other = output.data if k == ctx.active else op(inner.data)
                products.append((other * grad).sum())
        return slope, torch.stack(products), None, None


def supernet() -> nn.Sequential:
    """Six layers of six inverted bottlenecks, taken out of the space of the paper."""
    torch.manual_seed(0)
    space: Any = mobile_space(10)
    layers = [copy.deepcopy(block.op) for block in space.blocks[1:4]]  # 24 channels, stride 1
    layers += [copy.deepcopy(layer) for layer in layers]
    made = []
    for layer in layers:
        ops = {name: op for name, op in layer.ops.items() if name != "zero"}
        made.append(MixedOp(ops))
    return nn.Sequential(*made)


def paths(net: nn.Module) -> dict[str, str]:
    return dict(zip(choices(net), PATH, strict=True))


def inputs(batch: int, side: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shape = (batch, CHANNELS, side, side)
    return torch.randn(shape, generator=draw).to(dtype), torch.randn(shape, generator=draw).to(dtype)


def architecture_step(batch: int) -> dict[str, Callable[[], Any]]:
    """The gradient of every alpha, along one path."""
    net = supernet()
    x, target = inputs(batch, SIDE)

    def ours(net: nn.Module = net, x: Tensor = x, target: Tensor = target) -> list[Tensor]:
        with binary_paths(net, paths=paths(net)):
            return list(torch.autograd.grad(F.mse_loss(net(x), target), arch_parameters(net)))

    def peer(net: Any = net, x: Tensor = x, target: Tensor = target) -> list[Tensor]:
        gates = []
        for layer, name in zip(net, PATH, strict=True):
            active = layer.choice.names.index(name)
            gates.append(torch.zeros_like(layer.choice.alpha).index_fill_(0, torch.tensor(active), 1).requires_grad_())
            x = EdgeGradient.apply(x, gates[-1], list(layer.ops.values()), active)  # type: ignore[no-untyped-call]
        F.mse_loss(x, target).backward()  # type: ignore[no-untyped-call]
        found = []
        for layer, gate in zip(net, gates, strict=True):
            p, slope = layer.choice.alpha.detach().softmax(0), torch.zeros_like(gate)
            assert gate.grad is not None
            for i in range(len(p)):  # the authors' two loops
                for j in range(len(p)):
                    slope[i] += gate.grad[j] * p[j] * (float(i == j) - p[i])
            found.append(slope)
        return found

    def agree() -> None:
        twin, few = copy.deepcopy(net).double(), inputs(3, 6, torch.float64)
        for one, other in zip(ours(twin, *few), peer(twin, *few), strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-8)

    return {"ours": ours, "peer": peer, "agree": agree}


def weight_step(batch: int, against: str) -> dict[str, Callable[[], Any]]:
    """Gradients of the weights of one path, drawn by ours and by the authors' code."""
    net = supernet()
    plain = discretise(net, dict(paths(net)))
    x, target = inputs(batch, SIDE)

    def ours(net: nn.Module = net, x: Tensor = x, target: Tensor = target) -> list[Tensor]:
        weights = weight_parameters(net)
        with binary_paths(net, paths=paths(net), gates=False):
            slopes = torch.autograd.grad(F.mse_loss(net(x), target), weights, allow_unused=True)
        return [slope for slope in slopes if slope is not None]

    def authors(net: Any = net, x: Tensor = x, target: Tensor = target) -> list[Tensor]:
        """Draws gates for every layer, takes the candidates out that are not in use, and puts them back."""
        held = []
        for layer, name in zip(net, PATH, strict=True):
            torch.multinomial(layer.choice.alpha.detach().softmax(0), 1)
            held.append({other: layer.ops._modules[other] for other in layer.ops if other != name})
            for other in held[-1]:
                layer.ops._modules[other] = None
            x = layer.ops[name](x)
        slopes = torch.autograd.grad(F.mse_loss(x, target), [p for p in net.parameters() if p.numel() > 6])
        for layer, removed in zip(net, held, strict=True):
            layer.ops._modules.update(removed)
        return list(slopes)

    def alone(net: nn.Module = plain, x: Tensor = x, target: Tensor = target) -> list[Tensor]:
        return list(torch.autograd.grad(F.mse_loss(net(x), target), list(net.parameters())))

    def agree() -> None:
        twin, few = copy.deepcopy(net).double(), inputs(3, 6, torch.float64)
        wanted = alone(discretise(twin, dict(paths(twin))), *few)
        for slopes in (ours(twin, *few), authors(twin, *few)):
            for one, other in zip(slopes, wanted, strict=True):
                torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-8)

    return {"ours": ours, "peer": authors if against == "authors" else alone, "agree": agree}


SIZES = f"{LAYERS} layers of 6 bottlenecks, {CHANNELS} channels, {SIDE} × {SIDE}, batch 64"
CASES = [
    Case(f"architecture step, {SIZES}", partial(architecture_step, 64), 1.0, "the authors' mixed edge, full_v2"),
    Case(f"weight step, {SIZES}", partial(weight_step, 64, "authors"), 1.0, "the authors' mixed edge"),
    Case(
        f"weight step, {SIZES}, and the plain network",
        partial(weight_step, 64, "plain"),
        1.1,
        "the network of the path alone",
        bar_memory=1.1,
    ),
]


def gated(candidates: int) -> Callable[[], Any]:
    op = MixedOp({f"c{k}": nn.Tanh() for k in range(candidates)})
    x = torch.randn(64, 4096, requires_grad=True)

    def call() -> Any:
        with binary_paths(op):
            return torch.autograd.grad(op(x).sum(), [x, op.choice.alpha])

    return call


GROWTH = [
    Growth("one path of K candidates, forward and backward", "candidates K", 8, gated, time=1, memory=0, step=2),
]
