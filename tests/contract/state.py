"""State: what a part keeps, restores and copies, and what it leaves alone."""

import copy
import io
import pickle
import random
from typing import Any

import numpy as np
import torch
from tests.contract.part import Part
from tests.contract.tensors import floating, gradients, is_floating, needs_gradient, parameters, same, tensors
from torch import Tensor


def check_state(part: Part) -> None:
    """A state_dict through a file and pickle both restore it."""
    if not part.is_module:
        assert pickle.loads(pickle.dumps(part.subject)) is part.subject
        return
    made, args = part.build(), part.draw()
    expected = part.run(made, *args)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    restored = part.create(seed=1).double()  # other random draws, nothing learned
    restored.load_state_dict(torch.load(file, weights_only=True))
    for label, twin in {"state_dict": restored, "pickle": pickle.loads(pickle.dumps(made))}.items():
        same(part.run(twin, *args), expected, what=label)


def check_deepcopy(part: Part) -> None:
    """A deep copy gives the same, shares no memory, and may learn without a trace in the original."""
    args = part.draw()
    held = part.holder(*args, **part.options) if part.holder is not None else part.build()
    expected = None if part.holder is not None else part.run(held, *args)
    before = values(held)
    twin = copy.deepcopy(held)
    same(values(twin), before, what="state of the copy")
    shared = addresses(held) & addresses(twin)
    assert not shared, f"{len(shared)} tensors are shared with the copy"
    if part.holder is None:
        same(part.run(twin, *args), expected)
    with torch.no_grad():
        for leaf in arrays(twin):
            if is_floating(leaf):
                (leaf if leaf.layout == torch.strided else leaf.values()).add_(1)
    same(values(held), before, what="state of the original")


def check_seed(part: Part) -> None:
    """The same seed gives the same result, and another seed another where there is chance."""
    first, again = (part.run(part.build(), *part.draw()) for _ in range(2))
    same(again, first)
    if part.is_random:
        try:
            same(part.run(part.build(seed=1), *part.draw()), first)
        except AssertionError:
            return
        raise AssertionError("the result does not depend on generator")


def check_untouched(part: Part) -> None:
    """The caller's tensors and the global state of Python, NumPy and torch are as they were."""
    args = part.draw()
    before, state = copy.deepcopy(args), global_state()
    versions = [a._version for a in tensors(args)]
    made = part.build()
    results = floating(part.run(made, *args))
    gradients(results, parameters(made))
    assert global_state() == state, "the global random state, default dtype or gradient mode has changed"
    same(args, before, what="arguments")
    assert [a._version for a in tensors(args)] == versions, "an argument was written to"
    assert not any(needs_gradient(a) for a in args), "an argument now requires a gradient"


def global_state() -> tuple[Any, ...]:
    return (
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the legacy state is the one that leaks
        torch.get_rng_state().numpy().tobytes(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


def arrays(held: Any) -> list[Any]:
    """All tensors and arrays that an object holds, wherever in it."""
    found: list[Any] = []

    class Finder(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, Tensor | np.ndarray):
                return None
            if not any(value is other for other in found):
                found.append(value)
            return len(found)

    Finder(io.BytesIO()).dump(held)
    return found


def values(held: Any) -> list[Tensor]:
    """Copies of all tensors and arrays of numbers that an object holds."""
    found = arrays(held)
    numbers = [v for v in found if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"]
    return [v.detach().clone() for v in found if isinstance(v, Tensor)] + [torch.tensor(v.tolist()) for v in numbers]


def addresses(held: Any) -> set[int]:
    """Where in memory the tensors and arrays of an object lie."""
    places = set()
    for value in arrays(held):
        if isinstance(value, Tensor) and value.layout != torch.strided:
            value = value.values()
        if isinstance(value, Tensor) and value.numel():
            places.add(value.untyped_storage().data_ptr())
        elif isinstance(value, np.ndarray) and value.size:
            places.add(value.ctypes.data)
    return places
