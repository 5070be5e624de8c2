"""The contract, check by check; each raises when a part breaks it. PyTorch's OpInfo and scikit-learn's check_estimator
are the models."""

import copy
import io
import pickle
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tests.contract.part import Arguments, Part
from torch import Tensor
from torch.utils._pytree import tree_leaves

LARGE, TINY = 1e8, 1e-30


def check_reference(part: Part) -> None:
    """Agrees with arithmetic from elsewhere."""
    assert part.reference is not None
    for seed in range(3):
        args = part.draw(seed)
        same(part.run(part.build(), *args), part.reference(*args), rtol=1e-9, atol=1e-9)


def check_gradcheck(part: Part) -> None:
    """Derivatives are those of finite differences in float64, by every floating point argument and parameter."""
    made = part.build()
    args = with_gradient(part.draw(), part)
    leaves = (*(a for a in args if needs_gradient(a)), *parameters(made))
    # the leaves are the very tensors that the call reads, so gradcheck's perturbations of them in place reach it
    torch.autograd.gradcheck(lambda *_: tuple(floating(part.run(made, *args))), leaves)


def check_extremes(part: Part) -> None:
    """Large, tiny, tied, zero and single inputs give finite values and gradients, in float64 and float32."""
    for dtype in (torch.float64, torch.float32):
        for label, args in extremes(part):
            made = to_dtype(part, part.build(), dtype)
            args = with_gradient(cast(args, dtype), part)
            results = floating(part.run(made, *args))
            where = f"{label} input in {dtype}"
            assert all(r.isfinite().all() for r in results), f"{where}: {results}"
            for gradient in gradients(results, (*args, *parameters(made))):
                assert gradient.isfinite().all(), f"{where}: gradient {gradient}"


def check_batch(part: Part) -> None:
    """Leading dimensions give what a loop over them gives, also when memory is not contiguous."""
    assert part.batched, "no argument takes leading dimensions"
    drawn = [part.draw(seed) for seed in range(6)]
    drawn = [tuple(a if i in part.batched else drawn[0][i] for i, a in enumerate(args)) for args in drawn]
    stacked = list(drawn[0])
    for i in part.batched:
        stacked[i] = torch.stack([args[i] for args in drawn], -1).unflatten(-1, (2, 3)).movedim((-2, -1), (0, 1))
    whole = tree_leaves(part.run(part.build(), *stacked))
    loop = [tree_leaves(part.run(part.build(), *args)) for args in drawn]
    for one, *rows in zip(whole, *loop, strict=True):
        same(one, torch.stack(rows).unflatten(0, (2, 3)), rtol=1e-9, atol=1e-9)


def check_dtype(part: Part) -> None:
    """Results have the dtype of the input, whatever the default dtype is, and are close to those of float64."""
    for dtype, other in (
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float32),
    ):
        args = cast(part.draw(), dtype)
        made = to_dtype(part, part.build(), dtype)
        with default_dtype(other):
            result = part.run(made, *args)
        assert floating(result), "no result is floating point"
        expected = part.run(to_dtype(part, made, torch.float64), *cast(args, torch.float64))
        tolerance = {torch.float64: 1e-9, torch.float32: part.tolerance[0], torch.bfloat16: part.tolerance[1]}[dtype]
        for got, want in zip(floating(result), floating(expected), strict=True):
            assert got.dtype == torch.promote_types(dtype, part.shortest), f"{dtype} in, {got.dtype} out"
            same(got.double(), want, rtol=tolerance, atol=tolerance)


def check_device(part: Part) -> None:
    """Nothing is created on another device than the input's: here the default device is one that cannot compute."""
    args = part.draw()
    expected = part.run(part.build(), *args)
    made = part.build()
    with torch.device("meta"):
        result = part.run(made, *args)
    same(result, expected)
    if torch.cuda.is_available():
        made = part.build().to("cuda") if part.is_module else part.build()
        result = part.run(made, *(a.to("cuda") if isinstance(a, Tensor) else a for a in args))
        assert all(leaf.is_cuda for leaf in tree_leaves(result))
        same([leaf.cpu() for leaf in tree_leaves(result)], tree_leaves(expected), rtol=1e-9, atol=1e-9)


def check_state(part: Part) -> None:
    """A state_dict through a file, pickle and deepcopy all restore it."""
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
    for label, twin in {
        "state_dict": restored,
        "pickle": pickle.loads(pickle.dumps(made)),
        "deepcopy": copy.deepcopy(made),
    }.items():
        same(part.run(twin, *args), expected, what=label)


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


def check_compile(part: Part) -> None:
    """torch.compile gives the same values and gradients."""
    compiled(part, fullgraph=False)


def check_fullgraph(part: Part) -> None:
    """torch.compile gives the same values and gradients from a single graph."""
    compiled(part, fullgraph=True)


def check_errors(part: Part) -> None:
    """What is promised to be refused is refused, naming the argument."""
    assert part.bad, "nothing is promised to be refused"
    for number, bad in enumerate(part.bad):
        try:
            made = part.build(**bad.options)
            result = bad.do(made) if bad.do else part.run(made, *(bad.args or part.draw()))
        except Exception as error:
            if type(error) is bad.error and re.search(bad.match, str(error)):
                continue
            raise AssertionError(f"bad[{number}]: wanted {bad.error.__name__} {bad.match!r}") from error
        raise AssertionError(f"bad[{number}]: wanted {bad.error.__name__} {bad.match!r}, got the result {result}")


Check = Callable[[Part], None]
ESTIMATOR_CHECKS: dict[str, Check] = {"seed": check_seed, "untouched": check_untouched, "errors": check_errors}
CHECKS: dict[str, Check] = ESTIMATOR_CHECKS | {
    "gradcheck": check_gradcheck,
    "extremes": check_extremes,
    "batch": check_batch,
    "dtype": check_dtype,
    "device": check_device,
    "state": check_state,
    "fullgraph": check_fullgraph,
}


def checks(part: Part) -> dict[str, Check]:
    """The checks that a part is put through, by name."""
    if part.is_estimator:
        return ESTIMATOR_CHECKS
    reference = {"reference": check_reference} if part.reference is not None else {}
    # a single graph with the same answers says all that compile would
    return CHECKS | reference | ({"compile": check_compile} if "fullgraph" in part.skips else {})


def compiled(part: Part, *, fullgraph: bool) -> None:
    args = with_gradient(part.draw(), part)
    plain, made = part.build(), part.build()
    expected = part.run(plain, *args)
    torch.compiler.reset()
    compiled_call = torch.compile(lambda *a: part.run(made, *a), fullgraph=fullgraph, backend=part.backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own; those of the part have been raised by the call above
        result = compiled_call(*args)
    same(result, expected, rtol=1e-9, atol=1e-9)
    wanted = gradients(floating(expected), (*args, *parameters(plain)))
    got = gradients(floating(result), (*args, *parameters(made)))
    same(got, wanted, rtol=1e-9, atol=1e-9, what="gradients")


def extremes(part: Part) -> Iterator[tuple[str, Arguments]]:
    sample = part.draw()
    at = part.stretched if part.stretched is not None else [i for i, a in enumerate(sample) if is_floating(a)]
    derived = {
        "large": lambda x: x * LARGE,
        "tiny": lambda x: x * TINY,
        "zero": torch.zeros_like,
        "tied": lambda x: torch.full_like(x, x.flatten()[0].item()),
    }
    if at:
        for label, change in derived.items():
            yield label, tuple(change(a) if i in at else a for i, a in enumerate(sample))
    if "single" not in part.edges:
        yield "single", tuple(a[(slice(1),) * a.ndim] if isinstance(a, Tensor) else a for a in sample)
    for label, args in part.edges.items():
        yield label, args()


def same(result: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, what: str = "result") -> None:
    got, want = tree_leaves(result), tree_leaves(expected)
    assert len(got) == len(want), f"{what}: {len(want)} leaves became {len(got)}"
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(
            one,
            other,
            rtol=rtol,
            atol=atol,
            equal_nan=True,
            msg=lambda m: f"{what} differs: {m}",
        )


def gradients(results: list[Tensor], leaves: Arguments) -> list[Tensor]:
    by = [leaf for leaf in leaves if needs_gradient(leaf)]
    total = [r.sum() for r in results if r.requires_grad]
    if not by or not total:
        return []
    return list(torch.autograd.grad(torch.stack(total).sum(), by, allow_unused=True, materialize_grads=True))


def cast(args: Arguments, dtype: torch.dtype) -> Arguments:
    return tuple(a.to(dtype) if is_floating(a) else a for a in args)


def to_dtype(part: Part, made: Any, dtype: torch.dtype) -> Any:
    return copy.deepcopy(made).to(dtype) if part.is_module and not part.own_precision else made


def with_gradient(args: Arguments, part: Part) -> Arguments:
    return tuple(
        a.detach().clone().requires_grad_(i not in part.constant) if is_floating(a) else a for i, a in enumerate(args)
    )


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def floating(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tensors(tree) if is_floating(leaf)]


def parameters(made: Any) -> tuple[Tensor, ...]:
    return tuple(made.parameters()) if isinstance(made, torch.nn.Module) else ()


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
