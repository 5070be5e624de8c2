"""Plain embeddings of a model turned into searchable ones ("Differentiable Neural Input Search for Recommender
Systems", arXiv 2006.04466).
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from throughline.search.embedding_size.blocks import check_counts, frequency_blocks
from throughline.search.embedding_size.searchable import SearchableEmbedding

__all__ = ["make_searchable", "replace"]


def make_searchable(model: nn.Module, counts: Mapping[str, Tensor], *, num_blocks: int = 10) -> nn.Module:
    """Put a soft selection layer behind the named embeddings of a model ("Differentiable Neural Input Search for
    Recommender Systems", arXiv 2006.04466).

    In place; the model gives what it gave, since every α starts at 1. Each table keeps the very parameter that it had,
    so an optimizer that was made before stays valid, and its device, dtype, padding and mode. An embedding that is used
    in several places stays one table.

    Args:
        model: any module with ``nn.Embedding`` inside.
        counts: by qualified name of an embedding, how often each of its features occurs in the training data, ``(N,)``.
        num_blocks: L of each table, of `frequency_blocks`.

    Returns:
        The model; a new `SearchableEmbedding` if the model is itself the embedding, named "".

    Raises:
        TypeError: ``model`` is no module, or counts are no tensors.
        ValueError: a name that is no ``nn.Embedding`` of the model, or an embedding that has two of the names; counts
            of another length than the table, negative or not 1-d; ``num_blocks`` out of range; an embedding with
            ``max_norm``, ``sparse=True``, ``scale_grad_by_freq=True``, hooks, or a weight that another module has too:
            pruning one would change the other.

    >>> model = nn.ModuleDict({"user": nn.Embedding(6, 4), "out": nn.Linear(4, 1)})
    >>> make_searchable(model, {"user": torch.tensor([9, 1, 4, 0, 7, 2])}, num_blocks=3)["user"]
    SearchableEmbedding(6, 4, num_blocks=3)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if not counts:
        raise ValueError("counts must name at least one embedding, got none")
    known = {name: m for name, m in model.named_modules(remove_duplicate=False) if type(m) is nn.Embedding}
    new: dict[int, nn.Module] = {}
    for name, count in counts.items():
        if name not in known:
            there = ", ".join(map(repr, known)) or "none"
            raise ValueError(f"counts must name nn.Embeddings of the model ({there}), got {name!r}")
        embedding = known[name]
        if id(embedding) in new:
            raise ValueError(f"counts must name each embedding once, and {name!r} is one that was named before")
        _check_embedding(name, embedding, model)
        check_counts(f"counts[{name!r}]", count)
        if len(count) != embedding.num_embeddings:
            raise ValueError(
                f"counts[{name!r}] must have {embedding.num_embeddings} entries, one for each row of the table, "
                f"got {len(count)}"
            )
        new[id(embedding)] = _searchable(embedding, frequency_blocks(count, num_blocks))
    return replace(model, lambda module: new.get(id(module)))


def replace(model: nn.Module, instead: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The model with every sub-module for which there is another one in its place, wherever it is used."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and (made := instead(child)) is not None:
                parent._modules[name] = made
    return instead(model) or model


def _searchable(embedding: nn.Embedding, blocks: Tensor) -> SearchableEmbedding:
    """A table around the weight of an embedding."""
    weight = cast("nn.Parameter", embedding.weight)
    made = SearchableEmbedding(*weight.shape, blocks=blocks, padding_idx=embedding.padding_idx, device="meta")
    made.weight = weight
    made.alpha = nn.Parameter(torch.ones(made.alpha.shape, device=weight.device, dtype=weight.dtype))
    made.blocks = blocks.to(weight.device)
    return made.train(embedding.training)


def _check_embedding(name: str, embedding: nn.Embedding, model: nn.Module) -> None:
    """Raise unless the table can be scaled, and cut, without a change to anything else."""
    for option in ("max_norm", "sparse", "scale_grad_by_freq"):
        if getattr(embedding, option) not in (None, False):
            raise ValueError(
                f"embeddings must be without {option} to be searched, got {name!r} with "
                f"{option}={getattr(embedding, option)}"
            )
    if any((embedding._forward_hooks, embedding._forward_pre_hooks, embedding._backward_hooks)):
        raise ValueError(f"embeddings must be without hooks to be searched, got {name!r} with some; remove them before")
    for path, other in model.named_modules():
        if other is not embedding and any(p is embedding.weight for p in other._parameters.values()):
            raise ValueError(
                f"embeddings must have a weight of their own to be searched, got {name!r}, which shares it with "
                f"{path!r}: pruning one would change the other"
            )
