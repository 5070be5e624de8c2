"""Teachers against deep copies of the model taken at the right moments, and what must be as it was afterwards."""

import copy
import io
from typing import Any

import pytest
import torch
from tests.search.self_distillation.networks import Classifier, Supernet, filled, random
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel

from throughline.search.self_distillation import VotingTeachers, distillation_loss
from throughline.search.supernet import choices

X = random(12, 4)


def moved(model: nn.Module, seed: int) -> None:
    """A step of training: parameters and buffers are written in place."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(random(*p.shape, seed=seed), alpha=0.3)
        for name, b in model.named_buffers():
            if name == "shift":
                b.add_(random(*b.shape, seed=seed))
    model(random(12, 4, seed=seed))


def state_of(model: nn.Module) -> dict[str, Any]:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (id(t), t._version, t.detach().clone()) for name, t in named.items()}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, (place, version, value) in before.items():
        assert (place, version) == after[name][:2], name
        assert torch.equal(value, after[name][2]), name


def said(model: nn.Module, x: Tensor, temperature: float, **options: Any) -> Tensor:
    """softmax(z / τ) of a copy in training mode, but without dropout."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return (model(x, **options) / temperature).softmax(-1).detach()


@pytest.mark.parametrize("kind", [Classifier, Supernet])
def test_teachers_are_the_states_of_the_right_moments(kind: type[nn.Module]) -> None:
    model = filled(kind()).train()
    teachers, copies = VotingTeachers(model, teachers=3, interval=2), []
    for step in range(1, 10):
        moved(model, step)
        assert teachers.update() == (step % 2 == 0)
        if step % 2 == 0:
            copies.append(copy.deepcopy(model))
        assert len(teachers) == min(3, len(copies))
        if copies:
            for temperature in (1.0, 4.0):
                expected = torch.stack([said(c, X, temperature) for c in copies[-3:]]).mean(0)
                torch.testing.assert_close(teachers.predict(X, temperature=temperature), expected)
    assert len(copies) == 4  # the first of them has been forgotten


@pytest.mark.parametrize("training", [True, False])
def test_a_vote_leaves_everything_as_it_was(training: bool) -> None:
    model = filled(Classifier())
    moved(model, 1)
    teachers = VotingTeachers(model)
    teachers.update()
    moved(model, 2)
    model.train(training)
    model.norm.train(not training)
    state, modes = state_of(model), [m.training for m in model.modules()]
    chance = torch.get_rng_state()
    held = [t.clone() for t in teachers.state_dict()["snapshots"][0].values()]
    result = teachers.predict(X, scale=2.0)
    assert not result.requires_grad
    assert torch.equal(torch.get_rng_state(), chance)
    assert_same(state, state_of(model))
    assert [m.training for m in model.modules()] == modes
    assert all(map(torch.equal, held, teachers.state_dict()["snapshots"][0].values()))
    assert model.second.weight is model.first.weight
    with pytest.raises(TypeError):
        teachers.predict(X, nonsense=1)
    assert_same(state, state_of(model))
    assert [m.training for m in model.modules()] == modes


def test_a_vote_may_come_between_forward_and_backward() -> None:
    model = filled(Classifier()).train()
    model.drop.p = 0.0
    teachers = VotingTeachers(model)
    teachers.update()
    gradients = []
    for ask in (False, True):
        loss = model(X).square().mean()
        if ask:
            teachers.predict(X)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_what_is_decided_later_holds_for_teachers_too() -> None:
    model = filled(Supernet()).train()
    teachers = VotingTeachers(model)
    teachers.update()
    old = copy.deepcopy(model)
    moved(model, 1)
    decided = dict(zip(choices(model), ("linear", "skip"), strict=True))
    for network in (model, old):
        for name, option in decided.items():
            choices(network)[name].select(option)
    torch.testing.assert_close(teachers.predict(X), said(old, X, 1.0))


def test_a_teacher_is_no_reference_to_the_student() -> None:
    model = filled(nn.Linear(4, 3))
    teachers = VotingTeachers(model)
    teachers.update()
    before = teachers.predict(X)
    moved(model, 1)
    assert torch.equal(teachers.predict(X), before)


def test_a_student_is_drawn_to_its_teachers() -> None:
    model = filled(Classifier()).train()
    teachers = VotingTeachers(model, teachers=1)
    teachers.update()
    moved(model, 1)
    model.drop.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(60):
        loss = distillation_loss(model(X), teachers.predict(X, temperature=2.0), temperature=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ---- state ----


def test_a_stored_state_goes_on() -> None:
    def trained(model: nn.Module, teachers: VotingTeachers, steps: range) -> None:
        for step in steps:
            moved(model, step)
            teachers.update()

    model = filled(Classifier())
    teachers = VotingTeachers(model, teachers=2, interval=3)
    trained(model, teachers, range(10))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "teachers": teachers.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = filled(Classifier(), seed=5)
    again = VotingTeachers(other, teachers=2, interval=3)
    other.load_state_dict(state["model"])
    other.shift.copy_(model.shift)  # which is not stored with the model
    again.load_state_dict(state["teachers"])
    assert torch.equal(again.predict(X), teachers.predict(X))
    for network, its in ((model, teachers), (other, again)):
        trained(network, its, range(10, 15))
    assert torch.equal(again.predict(X), teachers.predict(X))
    with torch.no_grad():
        for tensor in state["teachers"]["snapshots"][0].values():
            tensor.fill_(7)
    assert torch.equal(again.predict(X), teachers.predict(X))  # copies
    few = VotingTeachers(other, teachers=1)
    few.load_state_dict(teachers.state_dict())
    assert len(few) == 1
    assert torch.equal(few.state_dict()["snapshots"][0]["head.weight"], teachers._snapshots[-1]["head.weight"])


def test_a_state_of_something_else_is_refused_as_torch_does_it() -> None:
    teachers = VotingTeachers(nn.Linear(4, 3))
    teachers.update()
    state = teachers.state_dict()
    for model, message in (
        (nn.Sequential(nn.Linear(4, 3)), r"for Sequential:\s+Missing key\(s\) in snapshot: '0.weight', '0.bias'"),
        (nn.Linear(4, 3, bias=False), r"Unexpected key\(s\) in snapshot: 'bias'"),
        (nn.Linear(4, 2), r"size mismatch for weight: a shape of \(3, 4\) in the snapshot, and \(2, 4\) in the model"),
    ):
        other = VotingTeachers(model)
        other.update()
        before = other.predict(X[:, :4].float())
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(state)
        assert torch.equal(other.predict(X.float()), before)
    with pytest.raises(ValueError, match=r"state must be what state_dict returns, got one without steps"):
        teachers.load_state_dict({"snapshots": []})


# ---- what it works on ----


def test_sees_through_wrappers() -> None:
    model = filled(Classifier())
    plain = VotingTeachers(model)
    plain.update()
    teachers = VotingTeachers(DataParallel(model))
    teachers.update()
    assert torch.equal(teachers.predict(X), plain.predict(X))
    teachers.load_state_dict(plain.state_dict())


class Tokens(nn.Module):
    """A head over several inputs, given by name, of half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 5)

    def forward(self, *, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.table(tokens) * mask.unsqueeze(-1)).bfloat16()  # type: ignore[no-any-return]


def test_tokens_and_names() -> None:
    model = filled(Tokens())
    teachers = VotingTeachers(model)
    teachers.update()
    result = teachers.predict(tokens=torch.arange(6).view(2, 3), mask=torch.ones(2, 3))
    assert result.shape == (2, 3, 5)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.sum(-1), torch.ones(2, 3))


def test_follows_autocast_and_gives_float32() -> None:
    model = filled(nn.Linear(4, 3)).float()
    teachers = VotingTeachers(model)
    teachers.update()
    with torch.autocast("cpu", torch.bfloat16):
        result = teachers.predict(X.float())
    assert result.dtype == torch.float32
    assert not torch.equal(result, teachers.predict(X.float()))
    torch.testing.assert_close(result, teachers.predict(X.float()), atol=1e-2, rtol=0)


# ---- bad input ----


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"teachers": 0}, r"teachers must be at least 1, got 0"),
        (ValueError, {"interval": 0}, r"interval must be at least 1, got 0"),
        (TypeError, {"teachers": 1.5}, r"teachers must be an integer, got 1.5"),
        (TypeError, {"interval": 2.0}, r"interval must be an integer, got 2.0"),
    ],
)
def test_names_the_bad_number(error: type[Exception], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        VotingTeachers(nn.Linear(4, 3), **options)


class Wrong(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output


def test_names_what_is_missing_or_wrong() -> None:
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got function"):
        VotingTeachers(F.relu)  # type: ignore[arg-type]
    teachers = VotingTeachers(nn.Linear(4, 3), interval=5)
    teachers.update()
    with pytest.raises(RuntimeError, match=r"no teacher yet: update\(\) records one every 5 steps, and 1 were taken"):
        teachers.predict(X)
    for output, got in (({"logits": X}, "dict"), (torch.arange(3), "torch.int64")):
        teachers = VotingTeachers(Wrong(output))
        teachers.update()
        with pytest.raises(TypeError, match=rf"forward must return the logits, .* got {got}"):
            teachers.predict(X)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"temperature must be positive and finite, got {temperature}"):
            teachers.predict(X, temperature=temperature)
