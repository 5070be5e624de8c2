"""The self-tuner step by step against its definition: schedule, what a step may touch, resuming to the last bit."""

import copy
import gc
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forks import FORKS
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from throughline.search.best_response import Hyperparameter, HyperparameterSpace, SelfTuner, convert

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def space(**changes: Any) -> HyperparameterSpace:
    return HyperparameterSpace(
        [
            Hyperparameter("p", 0.2, low=0.0, high=0.9),
            Hyperparameter("noise", 0.1, low=0.0, high=1.0, **changes),
            Hyperparameter("decay", 0.01, low=0.0),
            Hyperparameter("holes", 1, 0, 4, discrete=True),
        ]
    )


def tuner(*, lr: float = 0.1, momentum: float = 0.9, batch_norm: bool = False, **options: Any) -> SelfTuner:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
    plain = nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    network = convert(plain, options.pop("space", space()), dropout={"3": "p"})
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=momentum)
    return SelfTuner(network, **{"optimizer": optimizer, "loss": F.cross_entropy, "generator": seeded(), **options})


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    draw = seeded(seed)
    while True:
        rows = torch.randint(len(X), (8,), generator=draw)
        yield X[rows], Y[rows]


def snapshot(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.state_dict().values()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


# ---- one step ----


def test_a_training_step_is_the_gradient_of_its_definition() -> None:
    def augment(x: Tensor, values: dict[str, Tensor]) -> Tensor:
        assert all(value.shape == (32,) and not value.requires_grad for value in values.values())
        return x + values["noise"][:, None] * values["holes"][:, None]

    made = tuner(
        momentum=0.0,
        augment=augment,
        weight_decay="decay",
        penalty=lambda out, values: (values["p"] * out.square().sum(1)).mean(),
    )
    twin = copy.deepcopy(made.network)
    loss = made.train_step(X, Y)

    draw = seeded()
    hyper = twin.space.sample(32, generator=draw).detach()
    values = twin.space.constrain(hyper)
    with twin._drawing(draw):
        out = twin(X + (values["noise"] * values["holes"])[:, None], hyper=hyper)
    layers = [m for m in twin.modules() if hasattr(m, "weight_gate")]
    norms = torch.zeros(32)
    for b in range(32):
        for layer in layers:
            gate = layer.weight_gate @ hyper[b]
            norms[b] += (layer.weight + gate[:, None] * layer.response_weight).square().sum()
    expected = (
        F.cross_entropy(out, Y) + (values["p"] * out.square().sum(1)).mean() + 0.5 * (values["decay"] * norms).mean()
    )
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(expected, list(twin.parameters()))
    for new, old, gradient in zip(made.network.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient)


def test_a_training_step_moves_phi_alone() -> None:
    made = tuner(weight_decay="decay")
    before, hyper = snapshot(made.network), snapshot(made.network.space)
    loss = made.train_step(X, Y)
    assert not loss.requires_grad
    assert equal(snapshot(made.network.space), hyper)
    assert made.network.space.location.grad is None
    assert not any(map(torch.equal, snapshot(made.network), before))
    assert made.history == []


def test_a_tuning_step_moves_lambda_and_sigma_alone() -> None:
    made = tuner(batch_norm=True)
    made.train_step(X, Y)
    before, hyper = snapshot(made.network), snapshot(made.network.space)
    gradients = [p.grad.clone() for p in made.network.parameters()]  # type: ignore[union-attr]
    made.tune_step(X, Y)
    assert equal(snapshot(made.network), before)  # statistics of batch norm too
    assert equal([p.grad for p in made.network.parameters()], gradients)  # type: ignore[misc]
    assert not any(map(torch.equal, snapshot(made.network.space), hyper))
    assert made.network.space.location.grad is None
    assert made.network.space.raw_scale.grad is None


@pytest.mark.parametrize("tune_scale", [True, False])
def test_a_tuning_step_is_adam_on_the_plain_validation_loss(tune_scale: bool) -> None:
    def never(*_: Any) -> Tensor:
        raise AssertionError("augmentation and penalties belong to training steps")

    made = tuner(
        augment=never, penalty=never, weight_decay="decay", tune_scale=tune_scale, entropy_weight=0.1, hyper_lr=0.02
    )
    twin = copy.deepcopy(made.network).eval()
    own = twin.space
    optimizer = torch.optim.Adam([{"params": [own.location], "lr": 0.02}, {"params": [own.raw_scale], "lr": 3e-3}])
    draw = seeded()
    for _ in range(3):
        loss = made.tune_step(X, Y)
        hyper = own.sample(32, generator=draw) if tune_scale else own.location
        expected = F.cross_entropy(twin(X, hyper=hyper), Y)
        torch.testing.assert_close(loss, expected.detach())
        optimizer.zero_grad()
        (expected - 0.1 * own.entropy() if tune_scale else expected).backward()
        optimizer.step()
    torch.testing.assert_close(made.network.space.location, own.location)
    torch.testing.assert_close(made.network.space.raw_scale, own.raw_scale)
    assert made.history[-1] == pytest.approx(own.values())


def test_the_entropy_keeps_sigma_up() -> None:
    found = {}
    for weight in (0.0, 0.1):
        made = tuner(entropy_weight=weight, scale_lr=0.05)
        for _ in range(100):
            made.tune_step(X, Y)
        found[weight] = made.network.space.scale.detach()
    assert (found[0.1] > found[0.0]).all()


def test_modes_follow_the_phase() -> None:
    made = tuner()
    made.network.eval()
    made.train_step(X, Y)
    assert made.network.model[3].training  # type: ignore[index]
    made.tune_step(X, Y)
    assert not made.network.model[3].training  # type: ignore[index]


def test_a_shared_hyperparameter_is_one_value_in_a_step() -> None:
    seen: list[int] = []

    def augment(x: Tensor, values: dict[str, Tensor]) -> Tensor:
        seen.extend(values[name].unique().numel() for name in ("noise", "p"))
        return x

    tuner(space=space(shared=True), augment=augment).train_step(X, Y)
    assert seen == [1, 32]


def test_clipping_by_the_optimizers_own_hook() -> None:
    made = tuner(lr=1.0, momentum=0.0)
    before = torch.cat([p.detach().flatten().clone() for p in made.network.parameters()])
    made._optimizer.register_step_pre_hook(
        lambda *_: nn.utils.clip_grad_norm_(made.network.parameters(), 1e-3) and None
    )
    made.train_step(X, Y)
    after = torch.cat([p.detach().flatten() for p in made.network.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


# ---- the schedule ----


@pytest.mark.parametrize(("train", "valid", "warmup"), [(2, 1, 0), (1, 1, 3), (3, 2, 1)])
def test_the_schedule(train: int, valid: int, warmup: int) -> None:
    made = tuner(train_steps=train, valid_steps=valid, warmup_steps=warmup)
    seen = []
    for _ in range(20):
        seen.append(made.phase())
        made.step(batches(0), batches(1))
    expected = ["train"] * warmup + (["train"] * train + ["tune"] * valid) * 20
    assert seen == expected[:20]
    assert len(made.history) == seen.count("tune")


def test_batches_are_drawn_for_the_phase() -> None:
    made = tuner()
    train, valid = iter([(X, Y)] * 4), iter([(X, Y)] * 2)
    for _ in range(6):
        made.step(train, valid)
    assert list(train) == list(valid) == []
    with pytest.raises(StopIteration):
        made.step(train, valid)


def test_history_is_the_schedule_that_was_found() -> None:
    made = tuner()
    for _ in range(9):
        made.step(batches(0), batches(1))
    assert len(made.history) == 3
    assert made.history[-1] == pytest.approx(made.network.space.values())
    assert list(made.history[0]) == ["p", "noise", "decay", "holes"]
    assert made.history[0] != made.history[1]


# ---- resuming ----


def run(made: SelfTuner, steps: int, train: Iterator[Any], valid: Iterator[Any]) -> list[float]:
    return [made.step(train, valid).item() for _ in range(steps)]


def test_a_resumed_run_is_the_same_to_the_last_bit() -> None:
    whole = tuner(weight_decay="decay", warmup_steps=2, batch_norm=True)
    sources = batches(0), batches(1)
    losses = run(whole, 41, *sources)

    first = tuner(weight_decay="decay", warmup_steps=2, batch_norm=True)
    sources = batches(0), batches(1)
    begun = run(first, 19, *sources)
    file = io.BytesIO()
    torch.save(
        {
            "network": first.network.state_dict(),
            "optimizer": first._optimizer.state_dict(),
            "tuner": first.state_dict(),
        },
        file,
    )
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    second = tuner(weight_decay="decay", warmup_steps=2, batch_norm=True, generator=seeded(99))
    run(second, 5, batches(7), batches(8))  # whatever it was before
    second.network.load_state_dict(stored["network"])
    second._optimizer.load_state_dict(stored["optimizer"])
    second.load_state_dict(stored["tuner"])
    torch.manual_seed(12345)  # nothing of ours draws from the global generator
    assert begun + run(second, 22, *sources) == losses
    assert equal(snapshot(second.network), snapshot(whole.network))
    assert equal(snapshot(second.network.space), snapshot(whole.network.space))
    assert second.history == whole.history
    assert torch.equal(second.state_dict()["generator"], whole.state_dict()["generator"])


def test_a_state_before_the_first_step_loads_too() -> None:
    fresh = tuner().state_dict()
    used = tuner()
    run(used, 7, batches(0), batches(1))
    used.load_state_dict(fresh)
    assert used.history == []
    assert used.phase() == "train"
    assert equal(snapshot(used.network.space), snapshot(space()))


def test_refuses_a_foreign_state() -> None:
    state = tuner().state_dict()
    net = convert(nn.Linear(6, 3), HyperparameterSpace([Hyperparameter("q", 0.2)]))
    made = SelfTuner(net, optimizer=torch.optim.SGD(net.parameters(), 0.1), loss=F.cross_entropy)
    with pytest.raises(ValueError, match=r"state must be of the hyperparameters \['q'\], got \['p', 'noise', 'decay'"):
        made.load_state_dict(state)
    with pytest.raises(
        ValueError, match="state must be of a tuner with a generator if this one has: there one, here none"
    ):
        tuner(generator=None).load_state_dict(state)


# ---- the ecosystem ----


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler looks at it
def test_tunes_a_compiled_network() -> None:
    made = tuner(generator=None)
    torch.compiler.reset()
    compiled = torch.compile(made.network, backend="eager")
    faster = SelfTuner(compiled, optimizer=made._optimizer, loss=F.cross_entropy)  # type: ignore[arg-type]
    run(faster, 4, batches(0), batches(1))
    assert len(faster.history) == 1
    assert faster.history[0] == pytest.approx(made.network.space.values())


class Named(nn.Module):
    """A model that takes its batch as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, batch: Any) -> Tensor:
        x = batch["x"] if isinstance(batch, dict) else batch[0]
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [({"x": X, "id": Y}, Y), ({"x": X, "id": Y}, (Y, torch.ones(32))), ((X, Y), Y), ([X, Y], Y)],
    ids=["dict", "dict and pair", "tuple", "list"],
)
def test_batches_of_several_tensors_are_what_one_tensor_is(inputs: Any, targets: Any) -> None:
    found = []
    for batch in (({"x": X}, Y), (inputs, targets)):
        torch.manual_seed(0)
        net = convert(Named(), space())
        made = SelfTuner(
            net,
            optimizer=torch.optim.SGD(net.parameters(), 0.1),
            loss=lambda out, y: F.cross_entropy(out, y if isinstance(y, Tensor) else y[0]),
            generator=seeded(),
        )
        found.append(run(made, 9, *[iter([batch] * 9)] * 2))
    assert found[1] == found[0]


def test_a_list_of_samples_is_a_batch() -> None:
    net = convert(nn.ModuleDict({"stacked": nn.Linear(6, 3)}), space())
    net.model.forward = lambda samples: net.model["stacked"](torch.stack(samples))  # type: ignore[assignment, index]
    made = SelfTuner(net, optimizer=torch.optim.SGD(net.parameters(), 0.1), loss=F.cross_entropy)
    assert made.train_step(list(X), Y).isfinite()


def test_a_wrapped_network_is_tuned_as_the_plain_one() -> None:
    plain, other = tuner(), tuner()
    wrapped = SelfTuner(
        nn.DataParallel(other.network),  # type: ignore[arg-type]
        optimizer=other._optimizer,
        loss=F.cross_entropy,
        generator=seeded(),
    )
    assert run(wrapped, 4, batches(0), batches(1)) == run(plain, 4, batches(0), batches(1))
    assert wrapped.history == plain.history


def share(rank: int, count: int, folder: str) -> None:
    """Seven steps of one of ``count`` processes, on its share of every batch; the rest of λ and φ into a file."""
    torch.manual_seed(0)
    own = space()
    net: Any = convert(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), own)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    if count > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
        with torch.no_grad():
            own.location += rank  # what is not the same everywhere is made so
        net = nn.parallel.DistributedDataParallel(net)
    made = SelfTuner(net, optimizer=sgd, loss=F.cross_entropy, weight_decay="decay", generator=seeded())
    draw, rows = own.sample, slice(rank * 16 // count, (rank + 1) * 16 // count)
    own.sample = lambda size, **options: draw(16, **options)[rows]  # type: ignore[method-assign]
    batches = iter([(X[:16][rows], Y[:16][rows]), (X[16:][rows], Y[16:][rows])] * 4)
    for _ in range(7):
        made.step(batches, batches)
    torch.save([*snapshot(own), *snapshot(made._plain)], f"{folder}/{count}-{rank}.pt")
    if count > 1:
        del net, made
        gc.collect()  # a wrapped model that outlives its process group can wait for the threads of it for ever
        distributed.destroy_process_group()


def test_two_processes_with_half_a_batch_are_one_with_the_whole(tmp_path: Path) -> None:
    share(0, 1, str(tmp_path))
    other = FORKS.Process(target=share, args=(1, 2, str(tmp_path)))
    other.start()
    share(0, 2, str(tmp_path))
    other.join()
    whole, first, second = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert equal(first, second)
    torch.testing.assert_close(first, whole)


def test_draws_from_the_global_generator_by_default() -> None:
    found = []
    for _ in range(2):
        made = tuner(generator=None)
        torch.manual_seed(3)
        found.append(run(made, 6, batches(0), batches(1)))
    assert found[0] == found[1]
    assert made.state_dict()["generator"] is None


def test_one_generator_is_all_the_randomness() -> None:
    made, state = tuner(), torch.get_rng_state()
    run(made, 6, batches(0), batches(1))
    assert torch.equal(torch.get_rng_state(), state)


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_steps": 0}, r"train_steps must be at least 1, got 0"),
        ({"valid_steps": 0}, r"valid_steps must be at least 1, got 0"),
        ({"warmup_steps": -1}, r"warmup_steps must be at least 0, got -1"),
        ({"entropy_weight": -1.0}, r"entropy_weight must be at least 0, got -1\.0"),
        ({"entropy_weight": math.nan}, r"entropy_weight must be at least 0, got nan"),
        ({"hyper_lr": -0.1}, r"hyper_lr must be at least 0, got -0\.1"),
        ({"scale_lr": -0.1}, r"scale_lr must be at least 0, got -0\.1"),
        ({"weight_decay": "wd"}, r"weight_decay must be one of p, noise, decay, holes, got 'wd'"),
    ],
)
def test_names_a_bad_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuner(**options)


def test_refuses_what_cannot_work() -> None:
    net = convert(nn.Linear(6, 3), HyperparameterSpace([Hyperparameter("decay", 0.1)]))
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"weight_decay must not fall below 0, got 'decay' from -inf"):
        SelfTuner(net, optimizer=sgd, loss=F.cross_entropy, weight_decay="decay")
    both = torch.optim.SGD([*net.parameters(), *net.space.parameters()], 0.1)
    with pytest.raises(ValueError, match=r"optimizer must hold the network's parameters alone"):
        SelfTuner(net, optimizer=both, loss=F.cross_entropy)
    with pytest.raises(TypeError, match=r"network must be a SelfTuningNetwork, got Linear"):
        SelfTuner(nn.Linear(6, 3), optimizer=sgd, loss=F.cross_entropy)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"network must be a SelfTuningNetwork, got int"):
        SelfTuner(3, optimizer=sgd, loss=F.cross_entropy)  # type: ignore[arg-type]
    made = SelfTuner(net, optimizer=sgd, loss=lambda out, y: 1.0)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="the result of loss must be a tensor, got float"):
        made.train_step(X, Y)
    made = SelfTuner(net, optimizer=sgd, loss=lambda out, y: F.cross_entropy(out, y, reduction="none"))
    with pytest.raises(ValueError, match=r"loss must return a scalar, got shape \(32,\)"):
        made.train_step(X, Y)
    with pytest.raises(ValueError, match=r"loss must return a scalar, got shape \(32,\)"):
        made.tune_step(X, Y)


def test_an_optimizer_over_the_model_before_conversion_is_refused() -> None:
    plain = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    net = convert(plain, space())
    for optimizer in (torch.optim.SGD(plain.parameters(), 0.1), torch.optim.SGD([torch.zeros(3)], 0.1)):
        with pytest.raises(
            ValueError, match=r"got none of them: convert copies .* the optimizer network\.parameters\(\)"
        ):
            SelfTuner(net, optimizer=optimizer, loss=F.cross_entropy)
    part = torch.optim.SGD(net.model[1].parameters(), 0.1)  # type: ignore[index]
    made = SelfTuner(net, optimizer=part, loss=F.cross_entropy)
    before = snapshot(net.model[1])  # type: ignore[index]
    made.train_step(X, Y)
    assert not equal(snapshot(net.model[1]), before)  # type: ignore[index]
    average = torch.optim.swa_utils.AveragedModel(net)
    with pytest.raises(ValueError, match="got none of them"):
        SelfTuner(average, optimizer=part, loss=F.cross_entropy)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["network", "space"])
def test_parameters_that_were_replaced_are_noticed(part: str) -> None:
    made = tuner()
    made.train_step(X, Y)
    module = made.network if part == "network" else made.network.space
    module.load_state_dict(module.state_dict(), assign=True)
    for step in (made.train_step, made.tune_step):
        with pytest.raises(
            ValueError, match=r"network has other parameters than those .* load_state_dict\(assign=True\)"
        ):
            step(X, Y)


@pytest.mark.parametrize(
    ("error", "batch", "message"),
    [
        (TypeError, (X, Y, Y), r"train_batches must yield pairs \(inputs, targets\), got a tuple of 3; .* weights"),
        (TypeError, {"x": X, "y": Y}, r"train_batches must yield pairs \(inputs, targets\), got a dict of 2; either"),
        (TypeError, X, r"train_batches must yield pairs \(inputs, targets\), got a Tensor of 32; either"),
        (ValueError, (X[:0], Y[:0]), r"inputs must hold at least one sample, got an empty batch"),
        (ValueError, ({"x": X, "y": X[:3]}, Y), r"inputs must hold tensors .* got leading dimensions \[3, 32\]"),
        (ValueError, ({}, Y), r"inputs must hold tensors \(B, \.\.\.\) of one batch, got leading dimensions \[\]"),
    ],
)
def test_names_a_batch_that_is_none(error: type[Exception], batch: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        tuner().step(iter([batch]), iter([]))


def test_wants_iterators() -> None:
    with pytest.raises(TypeError, match=r"train_batches must be an iterator, such as itertools.* got list"):
        tuner().step([(X, Y)], iter([]))  # type: ignore[arg-type]
