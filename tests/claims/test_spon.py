"""The spon claim: what its arms share, its equations against closed forms, and the user's own files."""

import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from tests.claims.stand_ins import Notes

from throughline.claims.shared.equations import beam, diffusion, flow
from throughline.claims.spon import models
from throughline.claims.spon.claim import KeepsItsStructure
from throughline.claims.spon.config import Config
from throughline.claims.spon.data import plate
from throughline.claims.spon.figures import outline
from throughline.claims.spon.tasks import Pairs
from throughline.data import DataError, Source
from throughline.data.simulations import inverted
from throughline.errors import ThroughlineError
from throughline.physics.operators import FunctionSpace

CLAIM = KeepsItsStructure()
SMOKE, LAPTOP = CLAIM.scales["smoke"], CLAIM.scales["laptop"]
ARMS = (*CLAIM.arms, *CLAIM.context)
FLOW = replace(SMOKE, problem="flow", train=4, test=2, horizon=2, updates=2, smoothing_steps=1, hidden=4, batch=2)
BEAM = replace(SMOKE, problem="beam", train=6, test=2, updates=3)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@cache
def run(arm: str, config: Config, seed: int = 0) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, config, seed, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_count_their_updates(arm: str) -> None:
    metrics, notes = run(arm, SMOKE)
    assert all(map(math.isfinite, metrics.values()))
    assert metrics["fine_gap"] == pytest.approx(metrics["relative_l2_fine"] - metrics["relative_l2"])
    assert (metrics["boundary_error"] == 0) == (arm != "unconstrained")
    assert {of for _, of in notes.places} == (set() if arm == "mean" else {SMOKE.updates})
    if arm != "mean":
        course = notes.arrays["course"]
        assert course[-1, 0] == SMOKE.updates
        assert course[-1, 2] == pytest.approx(metrics["relative_l2"], rel=1e-5)
        assert (np.diff(course[:, 1]) > 0).all()
        assert metrics["update_seconds"] == pytest.approx(course[-1, 1] / SMOKE.updates)
    assert notes.arrays["resolution"][-1].tolist() == pytest.approx([784, metrics["relative_l2_fine"]])
    assert len(notes.arrays["truth"]) == len(notes.arrays["nodes"])


def test_a_fair_fight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same samples in the same order, and as many parameters within five percent."""
    seen: dict[str, list[torch.Tensor]] = {}
    forward = models.Scaled.forward
    for arm in CLAIM.arms:
        batches = seen.setdefault(arm, [])

        def watched(self: Any, x: torch.Tensor, batches: Any = batches) -> torch.Tensor:
            batches.append(x.detach().clone())
            return forward(self, x)

        monkeypatch.setattr(models.Scaled, "forward", watched)
        run.__wrapped__(arm, replace(SMOKE, looks=1), 3)
    assert all(map(torch.equal, seen["spon"][:5], seen["spon-mg"][:5]))
    for config in (SMOKE, LAPTOP, replace(LAPTOP, levels=4), replace(BEAM, hidden=32)):
        task = CLAIM.tasks(replace(config, train=4, test=2), 0)[0]
        counts = [sum(p.numel() for p in models.build(arm, config, task).parameters()) for arm in CLAIM.arms]
        assert counts[0] == pytest.approx(counts[1], rel=0.05)


def test_laptop_is_the_geometry_of_the_claim() -> None:
    task = plate(replace(LAPTOP, train=2, test=1), 0)
    assert [space.dim for space in task.spaces] == [64, 216, 784]
    space = task.spaces[-1]
    assert int(space.constrained.sum()) == 128
    x = space.coordinates
    hole = ((x - 0.25).abs().amax(1) - 0.125).abs() < 1e-9
    assert hole.any()
    assert not space.constrained[hole].any()  # natural there
    assert [query.outputs.dim for query in task.queries] == [64, 216, 784, 2976]


def test_unconstrained_predicts_every_unknown() -> None:
    task = CLAIM.tasks(SMOKE, 0)[0]
    assert not models.build("unconstrained", SMOKE, task).output_space.constrained.any()
    assert models.build("spon-mg", SMOKE, task).output_space.constrained.any()


def test_training_reduces_the_error() -> None:
    config = replace(SMOKE, train=32, test=16, updates=60, hidden=16, lr=8e-3)
    learned, mean = (run(arm, config)[0]["relative_l2"] for arm in ("spon-mg", "mean"))
    assert learned < 0.75 * mean


def test_weights_move_to_one_level_more() -> None:
    task = CLAIM.tasks(SMOKE, 0)[0]
    net = models.build("spon-mg", SMOKE, task)
    finest = task.queries[-1]
    more = models.rebuilt("spon-mg", SMOKE, task, net, finest.inputs, finest.outputs)
    assert len(more.processor.processor.down) == len(task.spaces)
    for way in ("down", "up"):
        old, new = (getattr(n.processor.processor, way)[-1].state_dict() for n in (net, more))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert more(finest.pairs.inputs).shape == finest.pairs.outputs.shape


def test_the_outline_is_the_longer_of_two_loops() -> None:
    mesh = diffusion.plate_mesh()
    loop = outline(mesh.t.T)
    assert loop[0] == loop[-1]
    wanted = np.unique(mesh.facets[:, mesh.boundaries["outer"]])
    assert sorted(loop[:-1].tolist()) == wanted.tolist()
    assert np.linalg.norm(np.diff(mesh.p[:, loop]), axis=0).sum() == pytest.approx(4)


# ---- equations ----


def test_the_plate_solves_its_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a = 1 on a square, the series of the torsion problem."""
    space = FunctionSpace(skfem.MeshTri().refined(5), dirichlet="all")
    monkeypatch.setattr(diffusion, "FEATURES", 1)
    monkeypatch.setattr(np, "exp", np.ones_like)
    u = diffusion.solved(space, 1, 0)["outputs"][0]
    middle = space.evaluate(u, torch.tensor([[0.5, 0.5]]))
    assert middle.item() == pytest.approx(0.0736713, abs=2e-4)
    assert (u[space.constrained] == 0).all()


def test_random_fields_have_unit_variance_and_their_length() -> None:
    space = FunctionSpace(skfem.MeshTri().refined(4), dirichlet="all")
    g = diffusion.solved(space, 60, 0)["inputs"]
    assert g.var().item() == pytest.approx(1, abs=0.1)
    x = space.coordinates
    middle, off = ((x - torch.tensor(p)).norm(dim=1).argmin() for p in ([0.5, 0.5], [0.5 + 0.1875, 0.5]))
    along = (g[:, middle] * g[:, off]).mean().item()
    assert along == pytest.approx(math.exp(-0.5 * (0.1875 / 0.2) ** 2), abs=0.3)
    assert not torch.equal(diffusion.solved(space, 1, 0)["inputs"], diffusion.solved(space, 1, 1)["inputs"])


def test_coarser_solutions_are_values_at_their_nodes() -> None:
    task = plate(replace(SMOKE, train=1, test=1), 0)
    fine, coarse = task.queries[-1], task.queries[0]
    values = fine.outputs.evaluate(fine.pairs.outputs, coarse.outputs.coordinates)
    torch.testing.assert_close(values, coarse.pairs.outputs, atol=1e-6, rtol=0)


def test_the_channel_gets_rounder() -> None:
    meshes = flow.channel(3)
    assert [m.nelements for m in meshes[1:]] == [4 * m.nelements for m in meshes[:-1]]
    for mesh in meshes:
        assert set(mesh.boundaries) == {"inlet", "outlet", "wall"}
        assert len(inverted(mesh)) == 0
    area = [skfem.Functional(lambda w: 1.0 + 0 * w.x[0]).assemble(skfem.Basis(m, skfem.ElementTriP1())) for m in meshes]
    wanted = 2.2 * 0.41 - math.pi * 0.05**2
    off = [abs(a - wanted) for a in area]
    assert off[2] < off[1] < off[0]


def test_flow_keeps_its_volume_and_boundary() -> None:
    tasks = CLAIM.tasks(FLOW, 0)
    assert [task.name for task in tasks] == ["velocity", "pressure"]
    velocity, space = tasks[0], tasks[0].spaces[-1]
    u = velocity.trajectories
    assert u is not None
    assert u.shape == (1, 3, space.dim)
    torch.testing.assert_close(velocity.test.inputs[1], u[0, 1])
    torch.testing.assert_close(velocity.test.outputs[0], u[0, 1])
    torch.testing.assert_close(tasks[1].test.inputs, velocity.test.inputs)
    lift = space.interpolate(flow.inflow).float()
    torch.testing.assert_close(u[0, -1][space.constrained], lift[space.constrained])
    state = space.basis.interpolate(u[0, -1].double().numpy())
    weak = skfem.LinearForm(lambda q, w: (w["u"].grad[0, 0] + w["u"].grad[1, 1]) * q)
    basis = space.basis.with_element(skfem.ElementTriP1())
    assert np.abs(weak.assemble(basis, u=state)).max() < 1e-6


def test_stokes_flow_in_a_plain_channel_is_a_parabola() -> None:
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 2.2, 9), np.linspace(0, 0.41, 5)).with_boundaries(
        {"inlet": lambda x: x[0] < 1e-9, "wall": lambda x: (x[1] < 1e-9) | (x[1] > 0.41 - 1e-9)}
    )
    velocity = FunctionSpace(mesh, skfem.ElementVector(skfem.ElementTriP2()), dirichlet=["inlet", "wall"])
    pressure = FunctionSpace(mesh)
    lift = velocity.interpolate(flow.inflow).numpy()
    u, p = flow.advance(velocity, pressure, lift, lift, step=np.inf, convect=False)
    wanted = velocity.interpolate(
        lambda x: torch.stack([6 * x[:, 1] * (0.41 - x[:, 1]) / 0.41**2, torch.zeros(len(x), dtype=x.dtype)], 1)
    )
    np.testing.assert_allclose(u, wanted.numpy(), atol=1e-9)
    drop = 2 * 6 * flow.VISCOSITY / 0.41**2 * 2.2  # −Δp / L = 8 ν U / H²
    assert p.max() - p.min() == pytest.approx(drop, rel=1e-6)
    v, _ = flow.advance(velocity, pressure, u, lift, step=0.01)  # and stays, when it is convected
    np.testing.assert_allclose(v, u, atol=1e-8)


def test_the_beam_is_in_equilibrium() -> None:
    """The energy is at a minimum: its finite differences vanish at the solution; under a small load it is linear."""
    space = beam.beam_space(skfem.MeshTri.init_tensor(np.linspace(0, 1, 5), np.linspace(0, 0.2, 2)))
    load = space.interpolate(lambda x: torch.stack([0 * x[:, 0], -0.02 * (1 + 0 * x[:, 0])], 1)).numpy()
    u = beam.deformed(space, load)

    def energy(u: np.ndarray) -> float:
        form = skfem.Functional(
            lambda w: _stored(np.asarray(w["u"].grad)) - (np.asarray(w["u"]) * np.asarray(w["f"])).sum(0)
        )
        return float(form.assemble(space.basis, u=space.basis.interpolate(u), f=space.basis.interpolate(load)))

    free = np.flatnonzero(~space.constrained.numpy())
    draw = np.random.default_rng(0)
    for _ in range(4):
        way = np.zeros(space.dim)
        way[free] = draw.standard_normal(len(free))
        slope = (energy(u + 1e-5 * way) - energy(u - 1e-5 * way)) / 2e-5
        assert abs(slope) < 1e-7
        assert energy(u + 1e-2 * way) > energy(u)
    small = [beam.deformed(space, s * load) for s in (1e-4, 2e-4)]
    np.testing.assert_allclose(small[1], 2 * small[0], rtol=1e-3, atol=1e-9)
    tip = space.evaluate(torch.from_numpy(u), torch.tensor([[1.0, 0.1]]))[0, 1]
    assert tip < -0.01
    with pytest.raises(ArithmeticError, match="no equilibrium"):
        beam.deformed(space, 1e3 * load)


def _stored(gradient: np.ndarray) -> np.ndarray:
    f = gradient + np.eye(2)[:, :, None, None]
    j = f[0, 0] * f[1, 1] - f[0, 1] * f[1, 0]
    made: np.ndarray = beam.MU / 2 * ((f**2).sum((0, 1)) - 2 - 2 * np.log(j)) + beam.LAMBDA / 2 * np.log(j) ** 2
    return made


def test_the_processor_works_in_units_of_the_training_data() -> None:
    draw = torch.Generator().manual_seed(0)
    train = Pairs(3 + 5 * torch.randn(40, 30, generator=draw), 0.02 * torch.randn(40, 30, generator=draw))
    seen: list[torch.Tensor] = []

    class Watched(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.ones_like(x)

    made = models.Scaled(Watched(), train)(train.inputs[..., None])
    assert float(seen[0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(seen[0].std()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(made, train.outputs.std().expand_as(made))


@pytest.mark.parametrize("arm", ARMS)
def test_the_problems_of_the_paper_run(arm: str) -> None:
    metrics, notes = run(arm, FLOW)
    assert all(map(math.isfinite, metrics.values()))
    assert "rollout_l2" in metrics
    if arm != "mean":
        assert {of for _, of in notes.places} == {4}  # two networks
    if arm != "mean":  # whose own sums round
        assert (metrics["boundary_error"] == 0) == (arm != "unconstrained")
    metrics, _ = run(arm, BEAM)
    assert all(map(math.isfinite, metrics.values()))
    assert "rollout_l2" not in metrics


# ---- data of the user's own ----

SQUARE = skfem.MeshTri.init_sqsymmetric().with_boundaries({"left": lambda x: x[0] == 0, "rest": lambda x: x[0] > 0})


def simulation(folder: Path, *, levels: int = 2, count: int = 12, suffix: str = "msh", **changes: Any) -> Path:
    """Meshes of a square, and functions that are 2 on its left side."""
    folder.mkdir(exist_ok=True)
    meshes = [SQUARE.refined(level) if level else SQUARE for level in range(levels)]
    for level, mesh in enumerate(meshes):
        mesh.save(folder / f"level{level}.{suffix}")
    x, y = meshes[-1].p
    a = np.random.default_rng(0).uniform(0.5, 1, (count, 1))
    arrays = {"inputs": np.sin(3 * a * x) + a * y, "outputs": 2 + a * x * (1 + y)} | changes
    np.savez(folder / "values.npz", **{name: value for name, value in arrays.items() if value is not None})
    return folder


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("levels", [1, 2])
def test_takes_simulations(arm: str, levels: int, tmp_path: Path) -> None:
    source = Source.of(simulation(tmp_path, levels=levels))
    assert "simulation" in source.kinds
    config = replace(SMOKE, data=source)
    CLAIM.prepare(config)
    task = CLAIM.tasks(config, 0)[0]
    space = task.spaces[-1]
    assert torch.equal(space.constrained, space.coordinates[:, 0] == 0)  # where all solutions agree
    assert len(task.train.inputs) == 9
    assert len(task.test.inputs) == 3
    metrics, _ = run.__wrapped__(arm, config)
    assert (metrics["boundary_error"] == 0) == (arm != "unconstrained")
    assert metrics["fine_gap"] == pytest.approx(0, abs=1e-4)
    if arm == "spon-mg":
        assert (models.build(arm, config, task)(task.test.inputs)[:, space.constrained] == 2).all()


def test_simulations_without_agreement_have_no_condition(tmp_path: Path) -> None:
    outputs = np.random.default_rng(0).standard_normal((12, 25))
    config = replace(SMOKE, data=Source.of(simulation(tmp_path, outputs=outputs, inputs=outputs)))
    assert not CLAIM.tasks(config, 0)[0].spaces[-1].constrained.any()
    assert run.__wrapped__("spon-mg", config)[0]["boundary_error"] == 0


def test_a_mesh_must_name_what_the_finest_does(tmp_path: Path) -> None:
    simulation(tmp_path)
    skfem.MeshTri.init_sqsymmetric().save(tmp_path / "level0.msh")
    with pytest.raises(DataError, match=r"every mesh must name the boundary left, .* the one of 9 nodes does not"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(tmp_path)))


def test_solutions_must_not_be_zero(tmp_path: Path) -> None:
    simulation(tmp_path, outputs=np.zeros((12, 25)))
    with pytest.raises(DataError, match=r"outputs must not be zero everywhere in a row"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(tmp_path)))


def test_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ThroughlineError, match="levels must be at least 2, got 1"):
        CLAIM.prepare(replace(SMOKE, levels=1))
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(ThroughlineError, match=r'pip install "throughline\[physics\]"'):
        CLAIM.prepare(SMOKE)
