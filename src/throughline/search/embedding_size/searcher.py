"""The search for embedding sizes: α on the validation loss, everything else on the training loss ("Differentiable
Neural Input Search for Recommender Systems", arXiv 2006.04466).
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from throughline.core._modules import check_held
from throughline.core._trees import widened
from throughline.core.bilevel import hypergradient
from throughline.core.checks import check_tensor
from throughline.search.embedding_size.pruning import compress, prune
from throughline.search.embedding_size.searchable import selection_parameters, tables_of

__all__ = ["EmbeddingSizeSearch"]

EPSILON = 1e-8  # beside the mean magnitude of a block's gradient


class EmbeddingSizeSearch:
    """Alternate between α on the validation loss and the weights on the training loss.

    min_α L_val(W*(α), α) subject to W*(α) = argmin_W L_train(W, α) and 0 <= α <= 1, with one step in place of W*
    ("Differentiable Neural Input Search for Recommender Systems", arXiv 2006.04466). A step on α divides the gradient
    of each block by its mean magnitude, since frequent blocks take part in nearly every sample, goes ``alpha_lr`` times
    the quotient downhill, and clips into [0, 1]: in each block g ← g / (mean abs(g) + 1e-8), α ← clip(α − η g, 0, 1).
    A block that is absent from the validation batch stays.

    Validation batches are trained on, by α: judge the result on others.

    Args:
        model: with searchable tables (`make_searchable`), none of them pruned.
        loss: ``(model, batch)`` to a 0-d tensor; it alone knows the task.
        weight_optimizer: over `weight_parameters`, or some of them; what it does not hold stays as it is. It must not
            hold α, whose gradients are normalised here.
        alpha_lr: η, positive.
        order: 1 takes the gradient at the present weights. 2 takes it at the weights after one step of gradient
            descent, and through that step, by a central difference: ξ of that step is the rate of the optimizer's first
            group. Dropout draws the same masks in the three passes over the training batch.

    Attributes:
        model, weight_optimizer, alpha_lr: as given; the rate can be changed between steps.

    Raises:
        TypeError: ``model`` is no module, or the loss no tensor.
        ValueError: a model without tables to search, an optimizer that holds an α or no parameter of the model, a
            number out of range; in a step, a loss that is not 0-d, not finite or does not depend on what it is to
            change, before anything is changed, or a model that was pruned meanwhile.

    >>> from throughline.search.embedding_size import make_searchable, weight_parameters
    >>> model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 1))
    >>> model = make_searchable(model, {"0": torch.arange(6)}, num_blocks=2)
    >>> optimizer = torch.optim.Adam(weight_parameters(model), 1e-3)
    >>> search = EmbeddingSizeSearch(model, lambda model, ids: model(ids).square().mean(), optimizer)
    >>> sorted(search.step(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])))
    ['train_loss', 'valid_loss']
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        weight_optimizer: Optimizer,
        *,
        alpha_lr: float = 0.01,
        order: Literal[1, 2] = 1,
    ) -> None:
        if not tables_of(model):
            raise ValueError("model must hold a SearchableEmbedding, got one without; make_searchable puts them in")
        self._alphas = [alpha for alpha in selection_parameters(model) if alpha.requires_grad]
        if not self._alphas:
            raise ValueError("model must have an alpha to search, got one whose tables are pruned or frozen")
        if not 0 < alpha_lr < math.inf:
            raise ValueError(f"alpha_lr must be positive and finite, got {alpha_lr}")
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order!r}")
        self.model, self.weight_optimizer, self.alpha_lr = model, weight_optimizer, alpha_lr
        self._whole, self._order = _Loss(model, loss), order
        held = set(map(id, self._held()))
        if any(id(table.alpha) in held for table in tables_of(model)):
            raise ValueError("weight_optimizer must not hold an alpha; give it weight_parameters(model)")
        if held.isdisjoint(map(id, model.parameters())):
            raise ValueError("weight_optimizer must hold parameters of the model, got none of them")

    def gradient(self, train_batch: Any, valid_batch: Any) -> list[Tensor]:
        """The raw gradient of each α, before it is normalised; parameters, buffers and ``.grad`` stay as they are."""
        return self._gradient(train_batch, valid_batch)[1]

    def architecture_step(self, valid_batch: Any, train_batch: Any) -> dict[str, Tensor]:
        """One step on α, weights and buffers untouched; at order 1 ``train_batch`` is ignored.

        Returns:
            ``valid_loss``, detached, before α moves: at order 2 that of the weights after their step.
        """
        loss, gradients = self._gradient(train_batch, valid_batch)
        with torch.no_grad():
            for alpha, gradient in zip(self._alphas, gradients, strict=True):
                wide = widened(gradient)  # in half precision the epsilon is 0
                step = wide / (wide.abs().mean(1, keepdim=True) + EPSILON)
                alpha.copy_((alpha - self.alpha_lr * step).clamp_(0, 1))
        return {"valid_loss": loss}

    def weight_step(self, train_batch: Any) -> dict[str, Tensor]:
        """One step of the weight optimizer, α untouched and without ``.grad``.

        Returns:
            ``train_loss``, detached, before the weights move.
        """
        with torch.enable_grad():
            loss = _followed(self._whole(train_batch))
        self.weight_optimizer.zero_grad()
        loss.backward(inputs=[p for p in self._held() if p.requires_grad])  # type: ignore[no-untyped-call]
        self.weight_optimizer.step()
        return {"train_loss": loss.detach()}

    def step(self, train_batch: Any, valid_batch: Any) -> dict[str, Tensor]:
        """One iteration: `architecture_step`, then `weight_step` at the new α; both losses, detached."""
        return {**self.architecture_step(valid_batch, train_batch), **self.weight_step(train_batch)}

    def discretise(self) -> nn.Module:
        """A copy of the model with `MixedDimEmbedding` for its tables: what α has switched off is cut, nothing else.

        Cut it smaller with `prune` and `compress` on a copy of your own.
        """
        model = copy.deepcopy(self.model)
        prune(model, threshold=0.0)
        return compress(model)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the states of the model, α included, and of its optimizer; with the place in the data and the
        state of torch's generator, a search resumes bit for bit."""
        return copy.deepcopy({"model": self.model.state_dict(), "weight_optimizer": self.weight_optimizer.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ValueError: an entry is missing.
        """
        if missing := [name for name in ("model", "weight_optimizer") if name not in state]:
            raise ValueError(f"state must be what state_dict returns, got one without {', '.join(missing)}")
        self.model.load_state_dict(state["model"])
        self.weight_optimizer.load_state_dict(copy.deepcopy(state["weight_optimizer"]))

    def _held(self) -> list[Tensor]:
        return [p for group in self.weight_optimizer.param_groups for p in group["params"]]

    def _gradient(self, train_batch: Any, valid_batch: Any) -> tuple[Tensor, list[Tensor]]:
        """The validation loss and its gradient in each α."""
        if any(table.mask is not None for table in tables_of(self.model)):
            raise ValueError("model was pruned, and its alphas are 1 now: make a new one to search again")
        check_held(self._alphas, [a for a in selection_parameters(self.model) if a.requires_grad], "model")
        if self._order == 1:
            with torch.enable_grad():
                loss = _followed(self._evaluate({}, valid_batch))
            found = torch.autograd.grad(loss, self._alphas, allow_unused=True, materialize_grads=True)
            return loss.detach(), self._finite(list(found))
        named = dict(self._whole.named_parameters())
        held, alphas = set(map(id, self._held())), set(map(id, self._alphas))
        seen: list[Tensor] = []
        gpus = sorted({p.device.index for p in named.values() if p.is_cuda})
        drawn, drawn_there = torch.get_rng_state(), [torch.cuda.get_rng_state(gpu) for gpu in gpus]

        def valid_loss(x: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
            seen.append(self._evaluate({**x, **y}, valid_batch))
            return seen[-1]

        def train_loss(x: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
            with torch.random.fork_rng(gpus):
                torch.set_rng_state(drawn)
                for gpu, state in zip(gpus, drawn_there, strict=True):
                    torch.cuda.set_rng_state(state, gpu)
                return self._evaluate({**x, **y}, train_batch)

        tree = hypergradient(
            valid_loss,
            train_loss,
            {name: p for name, p in named.items() if id(p) in alphas},
            {name: p for name, p in named.items() if id(p) in held and p.requires_grad},
            method="finite_difference",
            lr=float(self.weight_optimizer.param_groups[0]["lr"]),
        )
        by_alpha = {id(named[name]): gradient for name, gradient in tree.items()}
        return seen[-1].detach(), self._finite([by_alpha[id(alpha)] for alpha in self._alphas])

    def _evaluate(self, replaced: dict[str, Tensor], batch: Any) -> Tensor:
        """The loss of a batch with other parameters, and without a trace in the buffers."""
        ours = {id(b) for table in tables_of(self.model) for b in table.buffers()}  # large, and written by nobody
        buffers = {name: b.clone() for name, b in self._whole.named_buffers() if id(b) not in ours}
        if not (replaced or buffers):
            return self._whole(batch)  # type: ignore[no-any-return]
        return functional_call(self._whole, {**replaced, **buffers}, (batch,))  # type: ignore[no-any-return]

    def _finite(self, gradients: list[Tensor]) -> list[Tensor]:
        if not torch.stack([g.isfinite().all().to(gradients[0].device) for g in gradients]).all():
            raise ValueError("loss must have a finite gradient in alpha, got one that is not")
        return gradients


class _Loss(nn.Module):
    """A loss of a model as the call of one module, whose parameters can be replaced."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        value = self.loss(self.model, batch)
        check_tensor("the result of loss", value)
        if value.ndim:
            raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}")
        if not value.isfinite():
            raise ValueError(f"loss must be finite, got {value.item()}")
        return value


def _followed(loss: Tensor) -> Tensor:
    if not loss.requires_grad:
        raise ValueError("loss must depend on the parameters of the model, got a value that does not")
    return loss
