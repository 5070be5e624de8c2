"""Measured latency of every candidate, and the expected latency of the whole ("ProxylessNAS: Direct Neural Architecture
Search on Target Task and Hardware", arXiv 1812.00332, section 3.3).
"""

import json
import math
import os
from collections.abc import Hashable, Mapping
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves

from throughline.search.binary_path.paths import Path, binary_paths
from throughline.search.binary_path.timing import check_counts, evaluating, fingerprint, measure_latency, median_ms
from throughline.search.supernet import Choice, MixedOp, choices

__all__ = ["LatencyTable"]


class LatencyTable:
    """Milliseconds that each option of each choice takes, and those of all the rest (section 3.3).

    Args:
        options: a time for each option by name, for each choice by its name in `choices`. Any cost that adds up will
            do, such as FLOPs.
        constant: of what is not searched.

    Attributes:
        options, constant: as given.
        conditions: what `measure` ran on: device, threads, dtype and shapes of the inputs. A table holds for these.

    Raises:
        ValueError: a choice without options, or a time that is negative or not finite.

    >>> table = LatencyTable({"0.choice": {"small": 1.0, "large": 4.0}}, constant=2.0)
    >>> table.latency({"0.choice": "large"})
    6.0
    """

    options: dict[str, dict[str, float]]
    constant: float
    conditions: dict[str, Any]

    def __init__(self, options: Mapping[str, Mapping[str, float]], constant: float = 0.0) -> None:
        self.options = {name: {k: float(v) for k, v in times.items()} for name, times in options.items()}
        self.constant, self.conditions = float(constant), {}
        for name, times in self.options.items():
            if not times:
                raise ValueError(f"options must have a time for each option, got none for {name}")
            for option, value in times.items():
                if not 0 <= value < math.inf:
                    raise ValueError(f"options must be finite and not negative, got {value} for {option!r} of {name}")
        if not 0 <= self.constant < math.inf:
            raise ValueError(f"constant must be finite and not negative, got {constant}")

    @classmethod
    def measure(
        cls, model: nn.Module, inputs: Tensor | tuple[Any, ...], *, warmup: int = 10, repeats: int = 50
    ) -> "LatencyTable":
        """Time every candidate at the inputs that its layer gets, each distinct one once.

        A choice that several layers share has the sum over them. The constant is what a network of the first options
        takes beyond these options, at least 0. A candidate without parameters that gives zeros alone counts as 0: a
        network can leave it out.

        Args:
            model: a supernet; modes and statistics are as before afterwards.
            inputs: as of the network in use: the batch, size, dtype and device that latency is to be known for.
            warmup, repeats: of `measure_latency`.

        Raises:
            ValueError: a model without choices, or with one that a pass does not reach, such as inside a candidate.
        """
        check_counts(warmup, repeats)
        found = choices(model)
        if not found:
            raise ValueError("model must have at least one choice, got none")
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        first = {name: c.alive[0] for name, c in found.items() if c.decision is None and c.alive}
        with binary_paths(model, paths=first, gates=False):
            calls = _record(model, args)
            whole = measure_latency(model, args, warmup=warmup, repeats=repeats)
        times: dict[Hashable, float] = {}
        options = {name: dict.fromkeys(choice.names, 0.0) for name, choice in found.items()}
        names, used = {id(choice): name for name, choice in found.items()}, 0.0
        for op, given, keywords in calls:
            for option, candidate in op.ops.items():
                ms = _cached(times, candidate, given, keywords, warmup, repeats)
                options[names[id(op.choice)]][option] += ms
                used += ms if option in op.choice.alive[:1] else 0.0
        missed = [name for name in found if name not in {names[id(op.choice)] for op, _, _ in calls}]
        if missed:
            raise ValueError(f"model must run every choice in a pass, got one that does not reach {', '.join(missed)}")
        table = cls(options, max(0.0, whole - used))
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        table.conditions = {
            "device": _device(tensors),
            "threads": torch.get_num_threads(),
            "dtype": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors],
            "shapes": [list(tensor.shape) for tensor in tensors],
        }
        return table

    def expected(self, model: nn.Module) -> Tensor:
        """E[latency] = Σ p_j F(o_j) over all choices, plus the constant (eq. 6), differentiable in alpha.

        A choice that is decided counts its decision, a dropped one nothing; what `Choice.without` removes counts 0.
        Inside of ``binary_paths(model, pairs=True)`` the mean of a choice runs over its pair, so that the other options
        get no gradient.

        Raises:
            ValueError: the table lacks a choice or an option of the model.
        """
        found = choices(model)
        self.check(found)
        pairs = {
            id(op.choice): op.mixture.candidates
            for op in model.modules()
            if isinstance(op, MixedOp) and isinstance(op.mixture, Path) and op.mixture.pair
        }
        means: list[Tensor] = []
        used = [pairs.get(id(choice), choice.names) for choice in found.values()]
        times = [self.options[name][option] for name, names in zip(found, used, strict=True) for option in names]
        like = next((choice.alpha for choice in found.values()), torch.zeros(()))
        costs = torch.split(torch.tensor(times).to(like), [len(names) for names in used])
        for choice, names, cost in zip(found.values(), used, costs, strict=True):
            if id(choice) in pairs:
                weights = choice.alpha[[choice.names.index(name) for name in names]].softmax(0)
            else:
                weights = choice.weights()
            means.append((weights.to(cost) * cost).sum())
        return torch.stack([*means, like.new_tensor(self.constant)]).sum()

    def latency(self, decisions: Mapping[str, str | None]) -> float:
        """Of the network with these decisions, None for an edge that is cut; one for each choice of the table.

        Raises:
            ValueError: decisions that miss a choice, or name a choice or option that there is not.
        """
        missing, unknown = [n for n in self.options if n not in decisions], set(decisions) - set(self.options)
        if missing or unknown:
            raise ValueError(
                f"decisions must be one for each of {', '.join(self.options)}, got "
                f"{f'none for {missing}' if missing else f'the unknown {sorted(unknown)}'}"
            )
        total = self.constant
        for name, option in decisions.items():
            if option is not None and option not in self.options[name]:
                raise ValueError(
                    f"decisions must be options, {', '.join(self.options[name])} for {name}, got {option!r}"
                )
            total += 0.0 if option is None else self.options[name][option]
        return total

    def check(self, found: Mapping[str, Choice]) -> None:
        """Raise a ValueError unless all of these choices and their options have a time."""
        for name, choice in found.items():
            if name not in self.options:
                raise ValueError(f"the table must have every choice of the model, and lacks {name}")
            if missing := [option for option in choice.names if option not in self.options[name]]:
                raise ValueError(f"the table must have every option of {name}, and lacks {', '.join(missing)}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table and its conditions as JSON."""
        content = {"options": self.options, "constant": self.constant, "conditions": self.conditions}
        File(path).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatencyTable":
        """Read what `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no table; names the file.
        """
        try:
            content = json.loads(File(path).read_text(encoding="utf-8"))
            table = cls(content["options"], content["constant"])
            table.conditions = dict(content["conditions"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} must be a table as LatencyTable.save writes it: {error}") from None
        return table

    def __repr__(self) -> str:
        return f"LatencyTable({len(self.options)} choices, constant={self.constant:.3g})"


def _record(model: nn.Module, args: tuple[Any, ...]) -> list[tuple[MixedOp, tuple[Any, ...], dict[str, Any]]]:
    """Every call of a `MixedOp` in a pass, with what it was given."""
    calls: list[tuple[MixedOp, tuple[Any, ...], dict[str, Any]]] = []

    def note(op: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        assert isinstance(op, MixedOp)
        calls.append((op, given, keywords))

    hooks = [m.register_forward_pre_hook(note, with_kwargs=True) for m in model.modules() if isinstance(m, MixedOp)]
    try:
        with evaluating(model):
            model(*args)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _cached(
    times: dict[Hashable, float],
    candidate: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    warmup: int,
    repeats: int,
) -> float:
    """The time of a candidate at these inputs, measured if none of its kind has been."""
    leaves, structure = tree_flatten((args, kwargs))
    seen = tuple((leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves)
    key = (fingerprint(candidate), seen, str(structure))
    if key not in times:
        with evaluating(candidate):
            output = candidate(*args, **kwargs)
            absent = isinstance(output, Tensor) and not any(True for _ in candidate.parameters()) and not output.any()
            times[key] = 0.0 if absent else median_ms(lambda: candidate(*args, **kwargs), leaves, warmup, repeats)
    return times[key]


def _device(tensors: list[Tensor]) -> str:
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
