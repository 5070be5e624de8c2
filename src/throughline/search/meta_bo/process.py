"""One transformer that reads trials and scores candidates: a distribution of their outcome and an acquisition value."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core._modules import unwrapped
from throughline.core.checks import check_floating, check_tensor
from throughline.search.meta_bo.bars import BarDistribution

__all__ = ["AcquisitionOutput", "NeuralAcquisitionProcess", "plain_policy"]

HIDDEN = 200  # of the acquisition head's three layers


class AcquisitionOutput(NamedTuple):
    """What `NeuralAcquisitionProcess` says of its candidates."""

    acquisition: Tensor  # (B, m), logits of the policy
    bars: Tensor  # (B, m, K), logits of the outcome's density
    value: Tensor  # (B,), of the state


class NeuralAcquisitionProcess(nn.Module):
    """Scores candidates from the trials so far: a surrogate and an acquisition function in one transformer.

    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (NAP, arXiv 2305.15930). Trials are a set:
    there is no positional encoding. A candidate attends to the trials and to itself alone, so its score does not depend
    on who else is offered, and costs O(n) beside n trials, which cost O(n²) themselves, in time and memory. Inputs are
    meant in [0, 1], outcomes scaled to [0, 1] with large ones wanted. A category is given as columns of zeros and ones.

    The parameters are those of ``nn.TransformerEncoder`` and are named as there.

    Args:
        in_features: d, of an input.
        d_model: E, a multiple of ``nhead``.
        num_layers: of the encoder.
        nhead: heads.
        dim_feedforward: of the encoder's layers and of the bars' head.
        num_bars: K.
        y_range: of the bars; outcomes outside count for the nearest.
        temperature: that acquisition values are divided by.
        dropout: inside the encoder.

    Raises:
        ValueError: an argument is out of range.

    >>> policy = NeuralAcquisitionProcess(3, d_model=64, num_layers=2, num_bars=50)
    >>> x, y, candidates = torch.rand(2, 7, 3), torch.rand(2, 7), torch.rand(2, 100, 3)
    >>> out = policy(x, y, candidates, torch.stack([y.amax(1), torch.full((2,), 7 / 15)], -1))
    >>> out.acquisition.shape, out.bars.shape, out.value.shape
    (torch.Size([2, 100]), torch.Size([2, 100, 50]), torch.Size([2]))
    """

    def __init__(
        self,
        in_features: int,
        *,
        d_model: int = 512,
        num_layers: int = 6,
        nhead: int = 4,
        dim_feedforward: int = 1024,
        num_bars: int = 1000,
        y_range: tuple[float, float] = (-0.1, 1.1),
        temperature: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {
            "in_features": in_features,
            "d_model": d_model,
            "num_layers": num_layers,
            "nhead": nhead,
            "dim_feedforward": dim_feedforward,
            "num_bars": num_bars,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if d_model % nhead:
            raise ValueError(f"d_model must be a multiple of nhead, got {d_model} and {nhead}")
        if not -math.inf < y_range[0] < y_range[1] < math.inf:
            raise ValueError(f"y_range must be increasing and finite, got {tuple(y_range)}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.options = {**sizes, "y_range": [*y_range], "temperature": temperature, "dropout": dropout}
        self.temperature = temperature
        layers = [
            nn.TransformerEncoderLayer(d_model, nhead, dim_feedforward, dropout, activation="gelu", batch_first=True)
            for _ in range(num_layers)
        ]
        self.embed_x = nn.Linear(in_features, d_model)
        self.embed_y = nn.Linear(1, d_model)
        self.encoder = nn.TransformerEncoder(layers[0], num_layers, enable_nested_tensor=False)
        self.encoder.layers = nn.ModuleList(layers)  # in the place of copies of the first, so that each starts anew
        self.bars_head = nn.Sequential(
            nn.Linear(d_model, dim_feedforward), nn.GELU(), nn.Linear(dim_feedforward, num_bars)
        )
        self.acquisition_head = nn.Sequential(
            *(nn.Linear(num_bars + d_model + 2, HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, 1),
        )
        self.value_head = nn.Sequential(nn.Linear(2, d_model), nn.Tanh(), nn.Linear(d_model, 1))
        self.bars = BarDistribution(torch.linspace(*y_range, num_bars + 1))

    def forward(
        self,
        context_x: Tensor,
        context_y: Tensor,
        candidates: Tensor,
        state: Tensor,
        *,
        context_mask: Tensor | None = None,
    ) -> AcquisitionOutput:
        """Acquisition values, densities and the value of the state.

        Args:
            context_x: ``(B, n, d)``, inputs of the trials; n may be 0.
            context_y: ``(B, n)``, their outcomes.
            candidates: ``(B, m, d)``.
            state: ``(B, 2)``, the best outcome so far (0 before the first) and the share of the trials that is used up.
            context_mask: ``(B, n)``, bool, True where a trial is real; all if None.

        Raises:
            TypeError: ``context_mask`` is not bool, or another argument no floating point tensor.
            ValueError: a shape does not fit.
        """
        check_floating("candidates", candidates)
        check_floating("state", state)
        if state.shape != (len(candidates), 2):
            raise ValueError(f"state must be ({len(candidates)}, 2), got {tuple(state.shape)}")
        bars = self.predict(context_x, context_y, candidates, context_mask=context_mask)
        return AcquisitionOutput(self._acquire(bars, candidates, state), bars, self.value(state))

    def predict(
        self, context_x: Tensor, context_y: Tensor, candidates: Tensor, *, context_mask: Tensor | None = None
    ) -> Tensor:
        """The surrogate alone: logits ``(B, m, K)`` for `bars`. Arguments and errors are those of `forward`."""
        self._check(context_x, context_y, candidates, context_mask)
        history = self.embed_x(context_x) + self.embed_y(context_y.unsqueeze(-1))
        hidden = self.embed_x(candidates)
        n = context_x.shape[1]
        seen = own = None
        if context_mask is not None:
            seen = context_mask[:, None, None, :]
            own = seen | torch.eye(n, dtype=torch.bool, device=seen.device)  # a token always sees itself
        for layer in self.encoder.layers:
            history, hidden = _layer(layer, history, hidden, seen, own)
        logits: Tensor = self.bars_head(hidden)
        return logits

    def value(self, state: Tensor) -> Tensor:
        """What a run is still worth: ``(..., 2)`` to ``(...)``."""
        worth: Tensor = self.value_head(state).squeeze(-1)
        return worth

    def _acquire(self, bars: Tensor, candidates: Tensor, state: Tensor) -> Tensor:
        # the first layer on [softmax(q), E_x c, state], block by block: nothing is put side by side
        first: Any = self.acquisition_head[0]
        k, e = bars.shape[-1], self.embed_x.out_features
        by_bars, by_input, by_state = first.weight.split([k, e, 2], 1)
        hidden = bars.softmax(-1) @ by_bars.T + F.linear(self.embed_x(candidates), by_input, first.bias)
        hidden = hidden + F.linear(state, by_state).unsqueeze(1)
        scores: Tensor = self.acquisition_head[1:](hidden)
        return scores.squeeze(-1) / self.temperature

    def _check(self, x: Tensor, y: Tensor, candidates: Tensor, mask: Tensor | None) -> None:
        for name, given in (("context_x", x), ("context_y", y), ("candidates", candidates)):
            check_floating(name, given)
        d = self.embed_x.in_features
        for name, points, letter in (("context_x", x, "n"), ("candidates", candidates, "m")):
            if points.ndim != 3 or points.shape[-1] != d:
                raise ValueError(f"{name} must be (B, {letter}, {d}), got {tuple(points.shape)}")
        if len(x) != len(candidates):
            raise ValueError(f"context_x and candidates must have one batch size, got {len(x)} and {len(candidates)}")
        if y.shape != x.shape[:2]:
            raise ValueError(f"context_y must be {tuple(x.shape[:2])} like context_x, got {tuple(y.shape)}")
        if mask is not None:
            check_tensor("context_mask", mask)
        if mask is not None and mask.dtype != torch.bool:
            raise TypeError(f"context_mask must be bool, got {mask.dtype}")
        if mask is not None and mask.shape != y.shape:
            raise ValueError(f"context_mask must be {tuple(y.shape)} like context_y, got {tuple(mask.shape)}")


def plain_policy(policy: Any) -> NeuralAcquisitionProcess:
    """The policy itself, inside of torch.compile, of an average or of data parallelism.

    Raises:
        TypeError: there is none.
    """
    plain = unwrapped(policy) if isinstance(policy, nn.Module) else policy
    if not isinstance(plain, NeuralAcquisitionProcess):
        raise TypeError(f"policy must be a NeuralAcquisitionProcess, got {type(plain).__name__}")
    return plain


def _layer(
    layer: Any, history: Tensor, candidates: Tensor, seen: Tensor | None, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One post-norm encoder layer on both sets of tokens, without the (n + m)² attention of the two together."""
    attention = layer.self_attn
    drop = layer.dropout.p if layer.training else 0.0
    q, k, v = _heads(attention, candidates)
    reached = (q * k).sum(-1, keepdim=True) * q.shape[-1] ** -0.5  # of a candidate to itself, (B, heads, m, 1)
    q_h, k_h, v_h = _heads(attention, history)
    among = F.scaled_dot_product_attention(q_h, k_h, v_h, attn_mask=own, dropout_p=drop)
    to_history = (q * q.shape[-1] ** -0.5) @ k_h.transpose(-2, -1)
    if seen is not None:
        to_history = to_history.masked_fill(~seen, -torch.inf)
    weights = F.dropout(torch.cat([to_history, reached], -1).softmax(-1), drop)
    attended = torch.addcmul(weights[..., :-1] @ v_h, weights[..., -1:], v)
    return _rest(layer, history, among), _rest(layer, candidates, attended)


def _heads(attention: Any, tokens: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, ``(B, heads, tokens, E / heads)`` each."""
    projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    shape = (*tokens.shape[:2], attention.num_heads, attention.head_dim)
    return tuple(part.view(shape).transpose(1, 2) for part in projected.chunk(3, -1))


def _rest(layer: Any, tokens: Tensor, attended: Tensor) -> Tensor:
    attended = layer.self_attn.out_proj(attended.transpose(1, 2).flatten(-2))
    tokens = layer.norm1(tokens + layer.dropout1(attended))
    widened = layer.linear2(layer.dropout(layer.activation(layer.linear1(tokens))))
    normed: Tensor = layer.norm2(tokens + layer.dropout2(widened))
    return normed
