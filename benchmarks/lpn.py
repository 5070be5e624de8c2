"""Speed bars of learned proximal networks: deepinv's input-convex network, the arithmetic of the official network
(github.com/ZhenghanFang/learned-proximal-networks at cbc3cfa), written anew, SciPy's conjugate gradients for the
inverse, and the memory of an evaluation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import scipy
import torch
from scipy.optimize import fmin_cg
from sklearn.datasets import load_digits
from tests.physics.proximal.deepinv_alone import deepinv_alone
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.physics.proximal import InputConvexCNN, LearnedProximalNetwork, keep_convex

Calls = dict[str, Callable[[], Any]]
with deepinv_alone() as deepinv:
    DEEPINV = f"deepinv {deepinv.__version__}"
OFFICIAL = "official network, written anew"


class Official(nn.Module):
    """The authors' 28-pixel network and its gradient: it clones its input, whose flag it sets, and builds a graph."""

    def __init__(self, potential: InputConvexCNN) -> None:
        super().__init__()
        self.lin, self.res = potential.convex, potential.skip
        self.alpha = potential.strong_convexity / 2

    def scalar(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        y = F.softplus(self.lin[0](x), 10)
        for layer, skip, side in zip(self.lin[1:4], self.res[:3], (size, size // 2, size // 2), strict=True):
            y = F.softplus(layer(y) + skip(F.interpolate(x, (side, side), mode="bilinear")), 10)
        small = F.interpolate(x, (size // 4, size // 4), mode="bilinear").reshape(len(x), -1)
        y = F.softplus(self.lin[4](y.reshape(len(x), -1)) + self.res[3](small), 10)
        return self.lin[5](y).reshape(len(x), -1) + self.alpha * x.reshape(len(x), -1).square().sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.clone()
            x.requires_grad_(True)
            return torch.autograd.grad(self.scalar(x).sum(), x, retain_graph=True, create_graph=True)[0]


def network() -> LearnedProximalNetwork:
    """Weights of a size that training ends with."""
    torch.manual_seed(0)
    psi = InputConvexCNN(1, 28)
    with torch.no_grad():
        for layer in list(psi.convex)[1:-2]:
            layer.weight.copy_(torch.rand_like(layer.weight) / 300)  # type: ignore[union-attr,arg-type]
    return LearnedProximalNetwork(psi)


def training() -> Calls:
    """Forward and backward of a batch of 16 digits, to all weights."""
    f, x = network(), torch.rand(16, 1, 28, 28)
    theirs: nn.Module = Official(f.potential)  # type: ignore[arg-type]

    def step(call: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad((call(x) - x).square().mean(), list(f.parameters()), allow_unused=True)

    def agree() -> None:
        torch.testing.assert_close(f(x), theirs(x), rtol=1e-4, atol=1e-5)
        for one, other in zip(step(f), step(theirs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 + 1e-4 * float(other.abs().max()))

    return {"ours": lambda: step(f), "peer": lambda: step(theirs), "agree": agree}


class Summed(nn.Module):
    """deepinv's potential, which has a value for each channel, as a scalar for each sample."""

    def __init__(self, icnn: nn.Module) -> None:
        super().__init__()
        self.icnn = icnn

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.icnn(x).sum(1)
        return value


def equal_widths(own: bool) -> Calls:
    """Three stages of 64 channels at full size; ours on our potential, or on deepinv's own."""
    torch.manual_seed(0)
    icnn = deepinv.models.ICNN(in_channels=1, num_filters=64, kernel_dim=3, num_layers=3)
    wrapped = LearnedProximalNetwork(Summed(icnn))
    f = LearnedProximalNetwork(InputConvexCNN(1, 28, strides=(1, 1, 1))) if own else wrapped
    x = torch.rand(8, 1, 28, 28)

    def step(call: Callable[[Tensor], Tensor], module: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad((call(x) - x).square().mean(), list(module.parameters()), allow_unused=True)

    def agree() -> None:
        theirs = icnn.grad(x.clone())
        torch.testing.assert_close(wrapped(x), theirs, rtol=1e-4, atol=1e-5)
        for module, found in ((wrapped.potential, theirs), (f.potential, f(x))):  # both are the slopes of their own ψ
            toward = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
            wide = module.double()
            rise = (wide((x + 1e-4 * toward).double()) - wide((x - 1e-4 * toward).double())) / 2e-4
            torch.testing.assert_close((found * toward).sum(), rise.sum().float(), rtol=1e-2, atol=1e-2)
            module.float()

    return {"ours": lambda: step(f, f), "peer": lambda: step(lambda x: icnn.grad(x.clone()), icnn), "agree": agree}


def digits(count: int) -> Tensor:
    pixels = torch.as_tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 16
    return F.interpolate(pixels, (28, 28), mode="bilinear")


def inversion() -> Calls:
    """32 images to a relative residual of 1e-4, by a network that has learned to denoise a little."""
    torch.manual_seed(0)
    f, x = LearnedProximalNetwork(InputConvexCNN(1, 28, hidden=32)), digits(128)
    optimizer = torch.optim.Adam(f.parameters(), 3e-3)
    handle = keep_convex(f, optimizer)
    for _ in range(60):
        clean = x[torch.randint(128, (16,))]
        optimizer.zero_grad()
        (f(clean + 0.1 * torch.randn_like(clean)) - clean).abs().mean().backward()
        optimizer.step()
    handle.remove()
    f.requires_grad_(False)
    target = x[:32]

    def one(image: Tensor) -> Tensor:
        def at(flat: Any) -> Tensor:
            return torch.from_numpy(flat).float().view(1, *image.shape)

        def objective(flat: Any) -> float:
            with torch.no_grad():
                return float(f.potential(at(flat)) - (at(flat) * image).sum())

        def slope(flat: Any) -> Any:
            return (f(at(flat))[0] - image).flatten().double().numpy()

        start, enough = image.flatten().double().numpy(), 1e-4 * float(image.norm())
        return at(fmin_cg(objective, start, slope, gtol=enough, norm=2, maxiter=2000, disp=False))[0]

    def theirs(images: Tensor = target) -> Tensor:
        return torch.stack([one(image) for image in images])

    def agree() -> None:
        some = target[:4]  # SciPy takes most of a second for each
        ours, peer = f.inverse(target, tol=1e-4), theirs(some)
        for y, of, most in ((ours, target, 1.05e-4), (peer, some, 5e-3)):  # SciPy gives up earlier in float32
            residual = (f(y) - of).flatten(1).norm(dim=1) / of.flatten(1).norm(dim=1)
            assert residual.max() < most, residual.max()
        values = [f.potential(y) - (y * some).sum((1, 2, 3)) for y in (ours[:4], peer)]
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)

    return {"ours": lambda: f.inverse(target, tol=1e-4), "peer": theirs, "agree": agree}


def evaluation() -> Calls:
    """f without gradients against ψ with its graph: what both keep is the activations."""
    f, x = network(), torch.rand(64, 1, 28, 28)
    kept = x.clone().requires_grad_()

    def ours() -> Tensor:
        with torch.no_grad():
            return f(x)

    def agree() -> None:
        (slope,) = torch.autograd.grad(f.potential(kept).sum(), kept)
        torch.testing.assert_close(ours(), slope)

    return {"ours": ours, "peer": lambda: f.potential(kept), "agree": agree}


def multiply_adds(hidden: int, strides: tuple[int, ...], x_layers: int, head: int = 64, side: int = 28) -> float:
    """Of ψ of one 28-pixel digit."""
    total, places = 0.0, side**2
    total += 9 * hidden * places  # the first layer
    for stride in strides:
        places //= stride**2
        total += 9 * hidden * (hidden + x_layers) * places
    return total + hidden * places * head


OURS, DIGITS = multiply_adds(64, (1, 1, 1), 1), multiply_adds(64, (2, 1, 2), 1)
THEIRS = multiply_adds(64, (1, 1, 1), 2, head=9) + 9 * 64 * 28**2  # two layers of x for each one
STEP = 4 * 2.0  # passes of ψ, two operations each
CASES = [
    Case(
        "training step, 16 digits of 28 × 28",
        training,
        bar=0.85,
        peer=OFFICIAL,
        flops=STEP * 16 * DIGITS,
    ),
    Case(
        f"training step, equal widths, per multiply-add ({OURS / THEIRS:.3f} times theirs)",
        partial(equal_widths, True),
        bar=1.1 * OURS / THEIRS,
        peer=DEEPINV,
        work="other",
        flops=STEP * 8 * OURS,
    ),
    Case("training step on deepinv's potential", partial(equal_widths, False), bar=1.1, peer=DEEPINV),
    Case(
        "inverse of 32 images of 28 × 28 to 1e-4",
        inversion,
        bar=0.2,
        peer=f"scipy {scipy.__version__}, fmin_cg image by image",
    ),
    Case("evaluation of 64 digits, memory", evaluation, bar_memory=2.5, peer="ψ with its graph", work="less"),
]


def denoising(size: int) -> Callable[[], Any]:
    f, x = LearnedProximalNetwork(InputConvexCNN(1, size, hidden=8, head=8)), torch.rand(1, 1, size, size)
    weights = list(f.parameters())
    return lambda: torch.autograd.grad(f(x).square().sum(), weights, allow_unused=True)


GROWTH = [
    Growth(
        "LearnedProximalNetwork on an InputConvexCNN of 8 channels, forward and backward",
        "pixels a side",
        64,
        denoising,
        time=2,
        memory=2,
        step=2,
    )
]
