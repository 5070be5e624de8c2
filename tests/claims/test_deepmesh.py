"""The deepmesh claim: its shapes in closed form, what its arms share and where they differ, what is refused."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.claims.stand_ins import Notes

from throughline.claims.deepmesh import FollowsTheSilhouette, data, paper, training
from throughline.claims.deepmesh.config import Config
from throughline.claims.deepmesh.data import Shape, bases, camera_at, deformed, families, rendered
from throughline.claims.deepmesh.models import Encoder
from throughline.claims.deepmesh.refining import Refined, euler_number, refined, scores
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.geometry.isosurface import DeepSDF, signed_distance

CLAIM = FollowsTheSilhouette()
SMOKE, LAPTOP = CLAIM.scales["smoke"], CLAIM.scales["laptop"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@cache
def run(arm: str, config: Config = SMOKE, seed: int = 0) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, config, seed, notes), notes


@cache
def balls() -> tuple[DeepSDF, Shape, data.View]:
    """A decoder of balls whose radius is the first number of the code, and a larger ball to be found."""
    decoder = DeepSDF(2, (4,))

    def forward(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=-1) - z[..., 0]

    decoder.forward = forward  # type: ignore[method-assign, assignment]
    ball = bases(SMOKE)[0]
    shape = Shape("ball", ball.vertices, ball.faces)  # of radius 0.6
    return decoder, shape, data.view_of(shape, SMOKE, torch.Generator().manual_seed(0))


# ---- arms ----


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_units_measure_and_keep(arm: str) -> None:
    metrics, notes = run(arm)
    assert all(map(math.isfinite, metrics.values()))
    assert set(metrics) == {"chamfer", "iou", "euler", "euler_error", "step_seconds"}
    assert 0 <= metrics["iou"] <= 1
    total = SMOKE.fit_steps + SMOKE.encoder_steps + 2 * SMOKE.steps
    assert {of for _, of in notes.places} == {total}
    assert notes.places[-1][0] == total
    assert notes.arrays["chamfers"].mean() == pytest.approx(metrics["chamfer"])
    assert notes.arrays["pictures"].shape == notes.arrays["truth"].shape == (2, 2, 96, 96)
    assert notes.arrays["pictures"].mean() > 0.02  # there is something to be seen
    assert ("strip" in notes.arrays) == (arm == "deepmesh")
    assert len(notes.curve("silhouette_error")) == (0 if arm == "raw" else SMOKE.steps)
    assert (metrics["step_seconds"] > 0) == (arm != "raw")


def test_every_arm_starts_from_the_same_prediction() -> None:
    starts = [
        refined(arm, *start()[:2], start()[2], replace(SMOKE, steps=1, mesh_lr=1e-9, deepmesh_lr=1e-9))
        for arm in CLAIM.arms
    ]
    for made in starts[1:]:
        torch.testing.assert_close(made.vertices, starts[0].vertices, atol=1e-5, rtol=0)
        assert torch.equal(made.faces, starts[0].faces)


def start() -> tuple[DeepSDF, torch.Tensor, data.View]:
    decoder, _, view = balls()
    return decoder, torch.tensor([0.4, 0.0]), view


@pytest.mark.parametrize("arm", ["mesh", "deepmesh"])
def test_refinement_grows_a_ball_to_its_silhouette(arm: str) -> None:
    decoder, shape, view = balls()
    config = replace(SMOKE, steps=40, deepmesh_lr=2e-2, mesh_lr=2e-2, sigma=1e-4)
    made = refined(arm, decoder, torch.tensor([0.4, 0.0]), view, config)
    raw = refined("raw", decoder, torch.tensor([0.4, 0.0]), view, config)
    assert len(made.losses) == 40
    assert made.losses[-1] < 0.3 * made.losses[0]
    before, after = (scores(m, shape, view, config, 0) for m in (raw, made))
    assert after["chamfer"] < 0.5 * before["chamfer"]
    assert after["iou"] > 0.85 > before["iou"]
    if arm == "deepmesh":
        radii = made.vertices.norm(dim=1)
        assert radii.mean().item() == pytest.approx(0.6, abs=0.03)
        assert made.inflow is not None
        assert made.inflow.sum() > 0  # it is to grow
        assert [step for step, _, _ in made.strip][:2] == [0, 8]
        assert made.strip[-1][0] == 40


def test_the_field_may_change_its_topology_and_the_mesh_may_not() -> None:
    decoder = DeepSDF(1, (4,))

    def forward(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        ends = [(x + s * torch.tensor([0.45, 0.0, 0.0])).norm(dim=-1) for s in (1, -1)]
        return torch.minimum(*ends) - z[..., 0]

    decoder.forward = forward  # type: ignore[method-assign, assignment]
    shape = Shape("two", *data_of(lambda x: forward(x, torch.tensor([0.52]))))
    view = data.view_of(shape, SMOKE, torch.Generator().manual_seed(3))
    config = replace(SMOKE, steps=25, deepmesh_lr=2e-2, sigma=1e-3)
    eulers = {arm: euler_number(refined(arm, decoder, torch.tensor([0.35]), view, config).faces) for arm in CLAIM.arms}
    assert eulers == {"mesh": 4, "raw": 4, "deepmesh": 2}


def data_of(field: object) -> tuple[torch.Tensor, torch.Tensor]:
    from throughline.geometry.isosurface import extract_surface

    return extract_surface(field, resolution=24)  # type: ignore[arg-type]


def test_offsets_are_held_together_by_their_laplacian() -> None:
    """Without smoothness vertices on the rim run away from their neighbours; all of an equal offset costs nothing."""
    decoder, _, view = balls()
    rough = {}
    for weight in (0.0, 1e3):
        made = refined(
            "mesh", decoder, torch.tensor([0.4, 0.0]), view, replace(SMOKE, steps=20, smoothness=weight, mesh_lr=1e-2)
        )
        offsets = made.vertices - refined("raw", *start(), SMOKE).vertices
        a, b = made.faces.flatten(), made.faces.roll(-1, 1).flatten()
        rough[weight] = (offsets[a] - offsets[b]).square().sum(1).mean().item()
    assert rough[1e3] < 0.2 * rough[0.0]


def test_codes_are_kept_small() -> None:
    decoder, _, view = balls()
    radii = {
        weight: refined(
            "deepmesh",
            decoder,
            torch.tensor([0.4, 0.0]),
            view,
            replace(SMOKE, steps=8, deepmesh_lr=2e-2, code_weight=weight),
        )
        .vertices.norm(dim=1)
        .mean()
        .item()
        for weight in (0.0, 10.0)
    }
    assert radii[10.0] < 0.4 < radii[0.0]


def test_a_surface_that_vanishes_is_scored() -> None:
    decoder, shape, view = balls()
    made = refined("deepmesh", decoder, torch.tensor([-1.0, 0.0]), view, SMOKE)
    assert made.vertices.shape == (0, 3)
    found = scores(made, shape, view, SMOKE, 0)
    assert found["iou"] == 0
    assert found["chamfer"] == pytest.approx(2 * 1e3 * 0.36, rel=0.02)  # each way 0.6 ² from the middle
    assert found["euler"] == 0


def test_scores_of_the_truth_itself() -> None:
    _, shape, view = balls()
    found = scores(Refined(shape.vertices, shape.faces, 0.0, [], [], None), shape, view, replace(SMOKE, scored=2000), 0)
    assert found["iou"] == 1
    assert found["chamfer"] == pytest.approx(1e3 * 2 * 4 * math.pi * 0.36 / (math.pi * 2000), rel=0.2)
    assert found["euler"] == 2
    assert found["euler_error"] == 0


# ---- shapes ----


def test_laptop_learns_relatives_of_the_six_closed_meshes() -> None:
    meshes = bases(LAPTOP)
    assert [mesh.name for mesh in meshes] == ["cheburashka", "cow", "fandisk", "homer", "rocker-arm", "spot"]
    assert [euler_number(mesh.faces) for mesh in meshes] == [2, 1, 2, 2, 0, 2]  # the cow is pinched somewhere
    found = data.relatives(meshes, 2, 0)
    assert [shape.name for shape in found[::2]] == [mesh.name for mesh in meshes]
    for shape in found:
        assert 0.4 < shape.vertices.abs().amax() <= 0.95 + 1e-6
    assert not torch.equal(found[0].vertices, found[1].vertices)
    assert torch.equal(data.relatives(meshes, 2, 0)[3].vertices, found[3].vertices)


def test_a_relative_is_centred_scaled_twisted_and_stretched() -> None:
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)]).float() * torch.tensor([1.0, 2.0, 1.0]) + 5
    plain = deformed(corners, torch.tensor(0.0), torch.ones(3))
    torch.testing.assert_close(plain.amax(0), torch.tensor([0.325, 0.65, 0.325]))
    torch.testing.assert_close(plain.amin(0), -plain.amax(0))
    turned = deformed(corners, torch.tensor(math.pi / 4 / 0.65), torch.ones(3))
    top = turned[corners[:, 1] > 6]
    torch.testing.assert_close(top[:, 1], torch.full((4,), 0.65))
    assert sorted(top[:, 0].abs().tolist()) == pytest.approx([0, 0, 0.325 * 2**0.5, 0.325 * 2**0.5], abs=1e-6)
    stretched = deformed(corners, torch.tensor(0.0), torch.tensor([1.2, 0.8, 1.0]))
    torch.testing.assert_close(stretched, plain * torch.tensor([1.2, 0.8, 1.0]))
    huge = deformed(corners, torch.tensor(0.0), torch.tensor([1.0, 1.5, 1.0]))
    torch.testing.assert_close(huge, plain * torch.tensor([1.0, 1.5, 1.0]) * 0.95 / 0.975)


def test_distances_and_images_are_those_of_the_shapes() -> None:
    task = families(SMOKE, 0)
    train = data.relatives(bases(SMOKE), 2, data.TRAIN)
    assert task.names == ["ball", "ball", "ring", "ring"]
    for row in range(4):
        wanted = signed_distance(task.points[row], train[row].vertices, train[row].faces)
        torch.testing.assert_close(task.distances[row], wanted, atol=1e-6, rtol=0)
    images = task.images(torch.tensor([0, 3]), torch.Generator().manual_seed(0))
    assert images.shape == (2, 4, 32, 32)
    for image in (*images, task.views[0].image):
        lengths = image[1:].norm(dim=0)
        torch.testing.assert_close(lengths, image[0], atol=1e-5, rtol=0)  # unit normals on the shape, zero beside it
        assert image[3][image[0] > 0].mean() < 0  # they face the camera
    assert len({shape.vertices.sum().item() for shape in (*train, *task.test)}) == 6  # tests are of their own


def test_the_camera_sees_all_of_the_grid_it_needs() -> None:
    for azimuth in (0.0, 1.0, 4.0):
        camera = camera_at(azimuth, 64)
        uv, depth = camera.project(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
        torch.testing.assert_close(uv[0], torch.tensor([31.5, 31.5]), atol=1e-4, rtol=0)
        assert depth[0].item() == pytest.approx(3, abs=1e-5)
        assert uv[1, 1] < 31.5  # up is up
    mask = rendered(*bases(SMOKE)[0][1:], camera_at(0.3, 64))[0]
    radius = 1.5 * 64 * 0.6 / math.sqrt(9 - 0.36)  # of the ball's outline
    assert mask.sum().item() == pytest.approx(math.pi * radius**2, rel=0.03)
    assert rendered(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), camera_at(0.0, 8)).shape == (4, 8, 8)


# ---- networks ----


def test_decoder_and_codes_learn_the_distances() -> None:
    config = replace(SMOKE, fit_steps=200, decoder_lr=5e-3, code_lr=1e-2)
    task, notes = families(config, 0), Notes()
    torch.manual_seed(0)
    decoder, codes = training.fit_decoder(task, config, 0, notes, config.fit_steps)
    assert codes.shape == (4, 4)
    assert not any(p.requires_grad for p in decoder.parameters())
    errors = notes.curve("distance_error")
    assert errors[199] < 0.5 * errors[0]
    encoder = training.fit_encoder(task, codes, replace(config, encoder_steps=60, encoder_lr=1e-2), 0, notes, 300)
    guesses = encoder(task.images(torch.arange(4), torch.Generator().manual_seed(1)))
    assert (guesses - codes).square().mean() < 0.5 * codes.var(0).mean()


def test_distances_count_up_to_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return self.out + 0 * (x.sum(-1) + z.sum(-1))

    monkeypatch.setattr(training, "decoder_of", lambda config: Far())
    task = families(SMOKE, 0)
    for distance, error in ((5.0, 0.0), (0.04, 0.06), (-7.0, 0.2)):
        notes = Notes()
        training.fit_decoder(
            task._replace(distances=torch.full_like(task.distances, distance)),
            replace(SMOKE, fit_steps=1),
            0,
            notes,
            1,
        )
        assert notes.curve("distance_error")[0] == pytest.approx(error, abs=1e-6)


def test_the_encoder_sees_an_image_of_any_size() -> None:
    encoder = Encoder(SMOKE)
    for side in (8, 32, 65):
        assert encoder(torch.zeros(2, 4, side, side)).shape == (2, 4)


def test_euler_numbers() -> None:
    ball, ring = bases(SMOKE)
    assert (euler_number(ball.faces), euler_number(ring.faces)) == (2, 0)
    assert euler_number(torch.cat([ball.faces, ring.faces + len(ball.vertices)])) == 2
    assert euler_number(ball.faces[:0]) == 0


# ---- data of the user's own ----


def mesh_folder(folder: Path) -> Source:
    for mesh in bases(SMOKE):
        lines = [f"v {x} {y} {z}" for x, y, z in (10 * mesh.vertices + 3).tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
        (folder / f"{mesh.name}.obj").write_text("\n".join(lines))
    return Source.of(folder)


def test_takes_a_folder_of_meshes(tmp_path: Path) -> None:
    config = replace(SMOKE, data=mesh_folder(tmp_path), dataset="meshes")
    CLAIM.prepare(config)
    task = families(config, 1)
    assert task.names == ["ball", "ball", "ring", "ring"]
    metrics, _ = run.__wrapped__("deepmesh", config)
    assert all(map(math.isfinite, metrics.values()))


def test_a_mesh_with_holes_is_refused(tmp_path: Path) -> None:
    source = mesh_folder(tmp_path)
    text = (tmp_path / "ring.obj").read_text()
    (tmp_path / "ring.obj").write_text(text.rsplit("\n", 1)[0])
    with pytest.raises(DataError, match=r"ring\.obj: 3 edges are not passed once"):
        CLAIM.prepare(replace(SMOKE, data=source))


def test_a_shape_without_an_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = bases(SMOKE)[0]
    thin = thin._replace(name="sheet", vertices=thin.vertices * torch.tensor([1.0, 1.0, 1e-6]))
    monkeypatch.setattr(data, "bases", lambda config: [thin])
    with pytest.raises(DataError, match="sheet: no point of 200 is inside"):
        families(replace(SMOKE, dataset="meshes"), 0)


# ---- the paper's objects ----


def shapenet(root: Path, config: Config) -> Config:
    """Two boxes to learn from and one to find, in the layout of ShapeNet and DISN."""
    trimesh = pytest.importorskip("trimesh")
    names = {"train": ["a", "b"], "test": ["c"]}
    for part, ids in names.items():
        lists = root / "filelists" / f"02958343_{part}.lst"
        lists.parent.mkdir(exist_ok=True)
        lists.write_text("\n".join(ids))
        for name in ids:
            place = root / "meshes" / "02958343" / name
            place.mkdir(parents=True)
            trimesh.creation.box((0.4, 0.3, 0.7)).export(place / "model.obj")
            views = root / "image" / "02958343" / name / "easy"
            views.mkdir(parents=True)
            for view in range(2):
                Image.fromarray(np.full((20, 20, 4), 255, dtype=np.uint8)).save(views / f"{view:02d}.png")
            (views / "rendering_metadata.txt").write_text("0 0 0 0.8 25\n90 30 0 0.7 25\n")
    return replace(config, dataset="shapenet", root=str(root), views=2, tests=1)


def test_the_papers_objects(tmp_path: Path) -> None:
    config = shapenet(tmp_path, SMOKE)
    CLAIM.prepare(config)
    task = paper.objects(config, 0)
    assert task.names == ["a", "b"]
    assert task.points.shape == (2, 200, 3)
    half = torch.tensor([0.4, 0.3, 0.7]) * 0.9
    inside = (task.points.abs() < half).all(-1)
    assert torch.equal(task.distances < 0, inside)
    camera = paper.camera(config, "c", 0)
    torch.testing.assert_close(camera.center, torch.tensor([1.8 * 1.75 * 0.8, 0.0, 0.0]), atol=1e-5, rtol=0)
    raised = paper.camera(config, "c", 1).center / (1.8 * 1.75 * 0.7)
    torch.testing.assert_close(raised, torch.tensor([0.0, 0.5, 0.75**0.5]), atol=1e-5, rtol=0)
    assert task.images(torch.tensor([1]), torch.Generator()).shape == (1, 4, 32, 32)
    metrics, _ = run.__wrapped__("mesh", config)
    assert all(map(math.isfinite, metrics.values()))


def test_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ThroughlineError, match=r"root='': no 02958343_train\.lst .* --set root=FOLDER"):
        CLAIM.prepare(CLAIM.scales["paper"])
    (tmp_path / "filelists").mkdir()
    for part in ("train", "test"):
        (tmp_path / "filelists" / f"02958343_{part}.lst").write_text("\n")
    with pytest.raises(ThroughlineError, match=r"02958343_train\.lst: no object is listed"):
        CLAIM.prepare(replace(CLAIM.scales["paper"], root=str(tmp_path)))
    with pytest.raises(ThroughlineError, match="skip=3: the decoder has 2 hidden layers"):
        CLAIM.prepare(replace(SMOKE, skip=3))
