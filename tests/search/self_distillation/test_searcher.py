"""SD-DARTS against its steps written out with deep copies for teachers, its limits, and resuming."""

import copy
import io
from typing import Any

import pytest
import torch
from tests.search.self_distillation.networks import Supernet, filled, random
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.darts import DartsSearcher, search
from throughline.search.self_distillation import SelfDistillationSearcher
from throughline.search.supernet import arch_parameters, choices, weight_parameters

Batch = tuple[Tensor, Tensor]


def batches(seed: int, count: int) -> list[Batch]:
    return [(random(12, 4, seed=100 * seed + i), (torch.arange(12) + i) % 3) for i in range(count)]


TRAIN, VALID = batches(1, 12), batches(2, 12)


def criterion(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits, batch[1])


def optimizers(net: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    sgd = torch.optim.SGD(weight_parameters(net), 0.1, momentum=0.9, weight_decay=3e-4)
    return sgd, torch.optim.Adam(arch_parameters(net), 0.05, betas=(0.5, 0.999), weight_decay=1e-3)


def made(net: nn.Module | None = None, **options: Any) -> SelfDistillationSearcher:
    net = filled(Supernet()).train() if net is None else net
    return SelfDistillationSearcher(net, criterion, *optimizers(net), **options)


def run(searcher: DartsSearcher, steps: range) -> list[dict[str, float]]:
    return [{k: v.item() for k, v in searcher.step(TRAIN[i], VALID[i]).items()} for i in steps]


def parameters(searcher: DartsSearcher) -> Tensor:
    return torch.cat([p.detach().flatten() for p in searcher.model.parameters()])


# ---- what a step does ----


@pytest.mark.parametrize(
    ("teachers", "interval", "warmup", "strength", "temperature", "clip"),
    [(3, 2, 0, 1.0, 4.0, None), (2, 1, 5, 3.0, 1.0, 0.05), (1, 3, 4, 0.5, 2.0, 5.0)],
)
def test_steps_are_those_of_the_paper(
    teachers: int, interval: int, warmup: int, strength: float, temperature: float, clip: float | None
) -> None:
    net = filled(Supernet()).train()
    sgd, adam = optimizers(net)
    kept: list[nn.Module] = []
    options = {"teachers": teachers, "interval": interval, "warmup": warmup, "strength": strength}
    searcher = made(temperature=temperature, grad_clip=clip, **options)
    distilled = []
    for step in range(10):
        (x, y), (held_x, held_y) = TRAIN[step], VALID[step]
        seen = searcher.step(TRAIN[step], VALID[step])

        twin = copy.deepcopy(net)  # a validation batch leaves no trace in running statistics
        adam.zero_grad()
        slopes = torch.autograd.grad(F.cross_entropy(twin(held_x), held_y), arch_parameters(twin))
        for p, slope in zip(arch_parameters(net), slopes, strict=True):
            p.grad = slope
        adam.step()
        adam.zero_grad()
        logits = net(x)
        loss = task = F.cross_entropy(logits, y)
        if step >= warmup and kept:
            copies = [copy.deepcopy(k) for k in kept[-teachers:]]
            q = torch.stack([(k(x) / temperature).softmax(-1).detach() for k in copies]).mean(0)
            term = temperature**2 * F.kl_div((logits / temperature).log_softmax(-1), q, reduction="batchmean")
            loss = task + strength * term
            assert seen["distillation_loss"].item() == pytest.approx(term.item(), rel=1e-9, abs=1e-12)
            distilled.append(step)
        assert seen["train_loss"].item() == pytest.approx(task.item())
        assert list(seen) == ["valid_loss", "train_loss", "distillation_loss"][: 2 + (step in distilled)]
        assert not any(value.requires_grad for value in seen.values())
        sgd.zero_grad()
        for p, slope in zip(
            weight_parameters(net), torch.autograd.grad(loss, weight_parameters(net), allow_unused=True), strict=True
        ):
            p.grad = slope
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weight_parameters(net), clip)
        sgd.step()
        sgd.zero_grad()
        if (step + 1) % interval == 0:
            kept.append(copy.deepcopy(net))
        for (name, p), q in zip(net.state_dict().items(), searcher.model.state_dict().values(), strict=True):
            if isinstance(p, Tensor):
                torch.testing.assert_close(q, p, msg=lambda m, name=name, step=step: f"{name} at {step}: {m}")
    assert distilled == list(range(max(warmup, interval), 10))


def test_without_strength_it_is_darts() -> None:
    net = filled(Supernet()).train()
    plain = DartsSearcher(net, lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]), *optimizers(net))
    searcher = made(strength=0.0)
    assert run(searcher, range(6)) == run(plain, range(6))
    assert torch.equal(parameters(searcher), parameters(plain))
    assert len(searcher.teachers) == 3
    other = made(teachers=1)
    run(other, range(6))
    assert not torch.equal(parameters(other), parameters(plain))


def test_the_present_state_teaches_nothing() -> None:
    """Right after a snapshot the only teacher is the student itself; one step later it is not."""
    searcher = made(teachers=1, interval=2)
    seen = []
    for i in range(6):
        searcher.weight_step(TRAIN[i])
        probe = copy.deepcopy(searcher)
        seen.append(probe.weight_step(TRAIN[i]).get("distillation_loss"))
    assert seen[0] is None
    assert [value.item() > 1e-9 for value in seen[1:]] == [False, True, False, True, False]


def test_the_architecture_follows_the_criterion_alone() -> None:
    plain, searcher = made(strength=0.0), made(strength=50.0)
    for s in (plain, searcher):
        run(s, range(3))
    for name in ("model", "arch_optimizer"):
        state = copy.deepcopy(getattr(plain, name).state_dict())  # an optimizer would share its moments otherwise
        getattr(searcher, name).load_state_dict(state)
    for s in (plain, searcher):
        s.architecture_step(VALID[3], TRAIN[3])
    for p, q in zip(arch_parameters(plain.model), arch_parameters(searcher.model), strict=True):
        assert torch.equal(p, q)


def test_a_step_runs_the_student_once_and_each_teacher_once() -> None:
    calls: list[bool] = []

    def forward(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return net(batch["x"]).unflatten(0, (4, 3))  # type: ignore[no-any-return]

    net = filled(Supernet()).train()
    searcher = SelfDistillationSearcher(
        net,
        lambda logits, batch: F.cross_entropy(logits.flatten(0, 1), batch["y"]),
        *optimizers(net),
        forward=forward,
        teachers=2,
    )
    batch = {"x": TRAIN[0][0], "y": TRAIN[0][1]}
    found = []
    for _ in range(4):
        calls.clear()
        searcher.weight_step(batch)
        found.append(calls.copy())
    assert found == [[True], [False, True], [False, False, True], [False, False, True]]
    assert net.norm.num_batches_tracked == 4
    calls.clear()
    searcher.architecture_step(batch, batch)
    assert calls == [True]


def test_second_order_and_the_loop() -> None:
    searcher, first = made(unrolled=True, interval=3), made(interval=3)
    means: list[dict[str, float]] = []
    for s in (searcher, first):
        search(s, TRAIN[:3], VALID[:3], epochs=6, on_epoch=lambda epoch, values: means.append(values))
    assert not torch.equal(parameters(searcher), parameters(first))
    for course in (means[:6], means[6:]):
        assert course[-1]["train_loss"] < course[0]["train_loss"]
        assert "distillation_loss" not in course[0]
        assert course[1]["distillation_loss"] > 0
    choices(first.model)["last.choice"].select("linear")
    search(first, TRAIN[:3], None, epochs=1)
    assert "MixedOp" not in repr(first.discretise())


def test_a_resumed_search_gives_the_same_numbers() -> None:
    searcher = made(interval=2, warmup=3)
    run(searcher, range(5))
    file = io.BytesIO()
    torch.save(searcher.state_dict(), file)
    file.seek(0)
    ahead = run(searcher, range(5, 12))
    other = made(filled(Supernet(), seed=9).train(), interval=2, warmup=3)
    run(other, range(2))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert run(other, range(5, 12)) == ahead
    assert torch.equal(parameters(other), parameters(searcher))
    state = searcher.state_dict()
    del state["teachers"]
    with pytest.raises(ValueError, match=r"state must be what state_dict returns, got one without teachers"):
        other.load_state_dict(state)


def test_teachers_that_do_not_fit_are_refused_before_anything_is_loaded() -> None:
    searcher, other = made(), made(filled(Supernet(), seed=9).train())
    run(searcher, range(2))
    state, before = searcher.state_dict(), parameters(other).clone()
    name = next(iter(state["teachers"]["snapshots"][0]))
    state["teachers"]["snapshots"][0][name] = torch.zeros(7)
    with pytest.raises(RuntimeError, match=r"a shape of \(7,\) in the snapshot"):
        other.load_state_dict(state)
    assert torch.equal(parameters(other), before)
    assert len(other.teachers) == 0


# ---- bad input ----


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"teachers": 0}, r"teachers must be at least 1, got 0"),
        (ValueError, {"interval": 0}, r"interval must be at least 1, got 0"),
        (ValueError, {"warmup": -1}, r"warmup must not be negative, got -1"),
        (TypeError, {"warmup": 1.5}, r"warmup must be an integer, got 1.5"),
        (ValueError, {"strength": -0.1}, r"strength must be not negative and finite, got -0.1"),
        (ValueError, {"strength": float("nan")}, r"strength must be not negative and finite, got nan"),
        (ValueError, {"temperature": 0.0}, r"temperature must be positive and finite, got 0.0"),
        (ValueError, {"grad_clip": 0.0}, r"grad_clip must be positive"),
        (TypeError, {"forward": 3}, r"forward must be callable, got int"),
    ],
)
def test_names_the_bad_argument(error: type[Exception], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        made(**options)


def test_says_what_a_forward_must_give() -> None:
    for output, got in ((lambda net, b: {"logits": net(b[0])}, "dict"), (lambda net, b: b[1], "torch.int64")):
        with pytest.raises(TypeError, match=rf"forward must return the logits, .* got {got}"):
            made(forward=output).weight_step(TRAIN[0])
    net = filled(Supernet())
    with pytest.raises(TypeError, match=r"criterion must be callable, got NoneType"):
        SelfDistillationSearcher(net, None, *optimizers(net))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["weight_step", "architecture_step"])
def test_says_what_a_criterion_must_give(step: str) -> None:
    arguments = (TRAIN[0],) if step == "weight_step" else (VALID[0], TRAIN[0])
    for value, error, message in (
        (lambda z, b: F.cross_entropy(z, b[1], reduction="none"), ValueError, r"return a scalar, got shape \(12,\)"),
        (lambda z, b: 1.0, TypeError, r"the result of criterion must be a tensor, got float"),
    ):
        net = filled(Supernet()).train()
        searcher = SelfDistillationSearcher(net, value, *optimizers(net))
        with pytest.raises(error, match=message):
            getattr(searcher, step)(*arguments)
