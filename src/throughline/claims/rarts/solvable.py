"""The model of two numbers whose bilevel solution is known: where each method goes, and where it should."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from throughline.search.darts import DartsSearcher, Searcher
from throughline.search.relaxed import RelaxedSearcher

__all__ = ["SOLUTION", "START", "courses", "limit"]

START, SOLUTION = (2.0, -2.0), (1.0, 1.0)  # α and w
LAM, BETA, RATE = 10.0, 10.0, 0.02


class Scalars(nn.Module):
    """α and w, for L_v = αw − 2α + 1 and L_t = (w − α)²: w*(α) = α, and L_v is least there at α = w = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.w = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in START)

    def forward(self, part: str) -> Tensor:
        return (self.w - self.alpha).square() if part == "train" else self.alpha * self.w - 2 * self.alpha + 1


def courses(arm: str, steps: int) -> Tensor:
    """α, w and, for the relaxed methods, y before each of ``steps`` steps of plain SGD and after the last."""
    net = Scalars()
    searcher = ARMS[arm](net)
    numbers = [net.alpha, net.w]
    if isinstance(searcher, RelaxedSearcher):
        numbers.append(searcher.auxiliary.w)  # type: ignore[arg-type]
    rows = [torch.stack([n.detach() for n in numbers])]
    for _ in range(steps):
        searcher.step("train", "valid")
        rows.append(torch.stack([n.detach() for n in numbers]))
    return torch.stack(rows)


def limit(arm: str) -> tuple[float, ...]:
    """Where the course of an arm ends, in closed form."""
    if arm == "darts_first":  # where L_v no longer changes with α, and L_t with w
        return 2.0, 2.0
    if arm == "darts_second":
        return (2 / (1 + 2 * RATE),) * 2
    alpha = 4 * LAM * BETA / (4 * LAM * BETA - 2 * LAM - BETA)
    return alpha, alpha * (1 - 1 / (2 * LAM)), 2 - alpha


def _darts(unrolled: bool) -> Callable[[Scalars], Searcher]:
    return lambda net: DartsSearcher(
        net, _loss, *_optimizers(net), arch_params=[net.alpha], unrolled=unrolled, grad_clip=None
    )


def _relaxed(sweep: str) -> Callable[[Scalars], Searcher]:
    return lambda net: RelaxedSearcher(
        net,
        _loss,
        *_optimizers(net),
        arch_params=[net.alpha],
        lam=LAM,
        beta=BETA,
        sweep=sweep,  # type: ignore[arg-type]
        grad_clip=None,
    )


def _loss(net: nn.Module, part: str) -> Tensor:
    value: Tensor = net(part)
    return value


def _optimizers(net: Scalars) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD([net.w], RATE), torch.optim.SGD([net.alpha], RATE)


ARMS = {
    "darts_first": _darts(False),
    "darts_second": _darts(True),
    "rarts": _relaxed("fused"),
    "rarts_gauss_seidel": _relaxed("gauss-seidel"),
}
