"""The dsr claim: people, what the arms share and where they differ, own pictures, and the paper's layouts."""

import copy
import json
import math
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.claims.stand_ins import Notes
from torch import Tensor, nn

from throughline.claims.dsr import data, models, paper, training
from throughline.claims.dsr.claim import SeesBodiesInClothes
from throughline.claims.dsr.config import Config
from throughline.claims.shared.spin_layout import LSP, vertex_labels
from throughline.core.camera import Camera
from throughline.core.raster import rasterize, soft_silhouette
from throughline.core.rotation import rotation_from_6d
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.geometry.body import BodyRegressor, DSRLoss, open_body, soft_iou_loss
from throughline.geometry.people import random_outfits, synthetic_people

CLAIM = SeesBodiesInClothes()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)
METRICS = {"mpjpe", "pa_mpjpe", "pve", "shape", "girth", "reprojection", "skin_iou", "step_seconds"}


@pytest.fixture(autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache of an earlier version."""
    monkeypatch.setattr("pooch.os_cache", partial(cached, tmp_path_factory.getbasetemp() / "cache"))


def cached(folder: Path, name: str) -> Path:
    return folder / name


@cache
def setting(config: Config = SMOKE, seed: int = 0) -> data.Setting:
    return CLAIM.setting(config, seed)


@cache
def run(arm: str, seed: int = 0) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, SMOKE, seed, notes), notes


# ---- people ----


def test_people_are_as_the_protocol_says() -> None:
    config = replace(SMOKE, lab=150, street=150, test=150)
    people = setting(config)
    for crops, spread, mean, cloth in (
        (people.lab, 0.4, 0.0, (0.001, 0.005)),
        (people.street, 1.2, 0.8, (0.01, 0.06)),
        (people.test, 1.2, 0.8, (0.01, 0.06)),
    ):
        everyone = crops.take(torch.arange(len(crops)))
        truth = everyone.truth
        assert truth is not None
        wider = truth.betas[:, [1, 5, 6, 7, 8]]
        assert wider.mean() == pytest.approx(mean, abs=0.2)
        assert truth.betas[:, [0, 2, 3, 4, 9]].mean() == pytest.approx(0, abs=0.2)
        assert wider.std() == pytest.approx(spread, rel=0.1)
        assert cloth[0] * 0.5 < everyone.cloth.min() < everyone.cloth.max() <= cloth[1]
        assert everyone.images.dtype == everyone.parsing.dtype == torch.uint8
        root = truth.joints[:, 0, 2]
        assert 2.8 <= root.min() <= root.max() <= 3.2
    prior = people.prior
    torch.testing.assert_close(prior.sum(1), torch.ones(len(prior)))
    assert prior[:, 0].max() == 0


def test_every_seed_has_other_people_and_every_part_too() -> None:
    one, other = setting(), setting(SMOKE, 1)
    heads = [crops.take(torch.arange(2)).images.flatten(1) for s in (one, other) for crops in s[2:]]
    rows = torch.cat(heads)
    assert len(rows.unique(dim=0)) == len(rows)
    again = CLAIM.setting(SMOKE, 1)
    assert torch.equal(again.test.take(torch.arange(2)).images, other.test.take(torch.arange(2)).images)


def test_keypoints_lie_on_the_people() -> None:
    crops = setting().test.take(torch.arange(16))
    assert crops.truth is not None
    uv, _ = Camera(crops.K, torch.eye(3), torch.zeros(3), (32, 32)).project(crops.truth.joints)
    off = crops.keypoints[..., :2] - uv
    assert off.std() == pytest.approx(0.4, rel=0.15)
    assert (crops.keypoints[..., 2] == 1).all()
    middle = crops.keypoints[:, [0, 3, 6], :2].round().long().clamp(0, 31)
    hit = crops.parsing[torch.arange(16)[:, None], middle[..., 1], middle[..., 0]] > 0
    assert hit.double().mean() > 0.9


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_keep_what_is_drawn(arm: str) -> None:
    metrics, notes = run(arm)
    assert set(metrics) == METRICS
    assert all(math.isfinite(value) for value in metrics.values())
    arrays = notes.arrays
    assert arrays["girth"].shape == (2, SMOKE.test)
    assert metrics["girth"] == pytest.approx(
        float((arrays["girth"][1] - arrays["girth"][0]).mean()), rel=1e-3, abs=1e-3
    )
    assert arrays["cloth"].shape == (SMOKE.test,)
    assert metrics["pve"] == pytest.approx(float(arrays["errors"].mean()), rel=1e-4)
    assert arrays["images"].shape == (6, 3, 32, 32)
    for name in ("front", "side", "true_front", "true_side"):
        assert arrays[name].shape == (6, training.FINE, training.FINE)
        assert arrays[name].any((1, 2)).all()
    assert (metrics["step_seconds"] > 0) == (arm != "pretrained")
    if arm != "pretrained":
        assert sorted(notes.curve("girth")) == [0, 2, 3]
        assert notes.curve("pve")[3] == pytest.approx(metrics["pve"])
        assert notes.curve("pve")[0] == pytest.approx(run("pretrained")[0]["pve"])  # from the same network


def test_arms_start_alike_and_see_the_same_people(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {}
    starts: dict[str, list[Tensor]] = {}
    estimate = training.estimate
    for arm in ("keypoints", "silhouette", "dsr", "dsr_c"):
        net = training.first_stage(setting(), SMOKE, 0, Notes())
        starts[arm] = [p.detach().clone() for p in net.parameters()]

        def watched(net: nn.Module, crops: data.Crops, *args: Any, arm: str = arm) -> Any:
            seen.setdefault(arm, []).append(crops.images)
            return estimate(net, crops, *args)

        monkeypatch.setattr(training, "estimate", watched)
        training.second_stage(arm, net, setting(), SMOKE, 0, Notes(), dict)
    assert len(seen["dsr"]) == 2 * SMOKE.steps
    for arm in seen:
        assert all(torch.equal(a, b) for a, b in zip(starts[arm], starts["dsr"], strict=True)), arm
        assert all(torch.equal(a, b) for a, b in zip(seen[arm], seen["dsr"], strict=True)), arm
    assert not torch.equal(seen["dsr"][0], seen["dsr"][2])


def test_the_first_stage_is_that_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = training.first_stage(setting(), SMOKE, 0, Notes()).state_dict()
    other = training.first_stage(setting(SMOKE, 1), SMOKE, 1, Notes()).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)
    monkeypatch.setattr(training, "kept", lambda kind, key, make: make())  # and is the same without a cache
    again = training.first_stage(setting(), SMOKE, 0, Notes()).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    later = replace(SMOKE, steps=7, minimal_weight=0.5, gap=0.1, every=3)
    keys: list[Any] = []
    monkeypatch.setattr(training, "kept", lambda kind, key, make: keys.append(key) or make())
    for config in (SMOKE, later, replace(SMOKE, first_lr=1e-4)):
        training.first_stage(setting(), config, 0, Notes())
    json.dumps(keys)
    assert keys[0] == keys[1] != keys[2]


def test_the_term_of_each_arm() -> None:
    people, config = setting(), replace(SMOKE, clothing_weight=0.2, context_weight=0.7)
    crops = people.street.take(torch.arange(4))
    assert crops.truth is not None
    vertices = crops.truth.vertices - crops.truth.joints[:, :1]
    camera = Camera(crops.K, torch.eye(3), crops.truth.joints[:, 0], (32, 32))
    given = (vertices, camera, crops.parsing.long())
    faces = people.body.faces
    assert training.term_of("keypoints", people, config) is None
    silhouette = training.term_of("silhouette", people, config)
    assert silhouette is not None
    covered = soft_silhouette(vertices, faces, camera, sigma=config.sigma)
    expected = config.silhouette_weight * soft_iou_loss(covered, crops.parsing > 0).mean()
    torch.testing.assert_close(silhouette(*given), expected)
    for arm, clothing in (("dsr", 0.2), ("dsr_c", 0.7)):
        term = training.term_of(arm, people, config)
        assert term is not None
        criterion = DSRLoss(
            people.prior, faces, minimal="iou", minimal_weight=3.0, clothing_weight=clothing, sigma=1e-4, min_pixels=1
        )
        torch.testing.assert_close(term(*given), criterion(*given)["total"])


def truthful(crops: data.Crops) -> training.Estimate:
    """What a network that knew the truth would say."""
    truth = crops.truth
    assert truth is not None
    root = truth.joints[:, :1]
    camera = Camera(crops.K, torch.eye(3), root[:, 0], (32, 32))
    return training.Estimate(
        truth.pose, truth.betas, truth.vertices - root, truth.joints - root, camera, torch.ones(len(root))
    )


def test_losses_of_the_truth_are_nothing() -> None:
    crops = setting().lab.take(torch.arange(5))
    exact = truthful(crops)
    assert training.known_loss(exact, crops, SMOKE) < 1e-9
    assert training.keypoint_loss(exact, crops, SMOKE) == pytest.approx((0.4 / 16) ** 2 * 2 / 2, rel=0.3)  # its noise
    weights, none = SMOKE.weights, dict.fromkeys(("joints", "pose", "shape", "place"), 0.0)
    moved = exact._replace(betas=exact.betas + 2, joints=exact.joints + 0.5, pose=exact.pose + 3)
    moved = moved._replace(camera=replace(moved.camera, t=moved.camera.t + 4))
    for name, value in (("joints", 0.25), ("pose", 9.0), ("shape", 4.0), ("place", 16.0)):
        config = replace(SMOKE, weights=replace(weights, **(none | {name: 2.0})))
        assert training.known_loss(moved, crops, config) == pytest.approx(2 * value, rel=1e-4), name
    unsure = replace(crops, keypoints=torch.cat([crops.keypoints[..., :2] + 100, torch.zeros(5, 24, 1)], -1))
    assert training.keypoint_loss(exact, unsure, SMOKE) == 0
    near = replace(SMOKE, weights=replace(weights, near=2.0))
    found = exact._replace(scale=torch.tensor([-0.1, 0.2]))
    assert training.near_loss(found, near) == pytest.approx(math.exp(2) + math.exp(-4))
    assert training.near_loss(found, SMOKE) == 0


def test_errors_of_the_truth_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    people = setting()
    monkeypatch.setattr(training, "estimate", lambda net, crops, *args: truthful(crops))
    scores = training.measure(nn.Identity(), people, SMOKE)
    for name in ("mpjpe", "pa_mpjpe", "pve", "shape", "girth"):
        assert scores.metrics[name] == pytest.approx(0, abs=1e-3), name
    assert scores.metrics["reprojection"] == pytest.approx(0.4 * math.sqrt(math.pi / 2), rel=0.2)
    assert scores.metrics["skin_iou"] > 0.2

    def broader(net: nn.Module, crops: data.Crops, *args: Any) -> training.Estimate:
        exact = truthful(crops)
        betas = exact.betas.clone()
        betas[:, 1] += 1.0
        return exact._replace(betas=betas, vertices=exact.vertices + torch.tensor([0.003, 0.0, 0.004]))

    monkeypatch.setattr(training, "estimate", broader)
    scores = training.measure(nn.Identity(), people, SMOKE)
    assert scores.metrics["girth"] == pytest.approx(30, rel=0.15)  # 3 cm outwards, in mm
    assert scores.metrics["pve"] == pytest.approx(5, rel=1e-3)
    assert scores.metrics["shape"] == pytest.approx(
        1_000 * float(people.body.shape_dirs[..., 1].norm(dim=1).mean()), rel=1e-3
    )


def test_estimates_are_seen_by_their_own_cameras() -> None:
    """A focal length k times as large sees the same picture from k times as far."""
    crops = setting().lab.take(torch.arange(3))
    net = models.network(SMOKE, 24)
    one = training.estimate(net, crops, setting().body, SMOKE)
    longer = crops.K.clone()
    longer[:, 0, 0] *= 2
    longer[:, 1, 1] *= 2
    two = training.estimate(net, replace(crops, K=longer), setting().body, SMOKE)
    torch.testing.assert_close(two.camera.t[:, 2], 2 * one.camera.t[:, 2])
    assert torch.equal(two.camera.K, longer)
    torch.testing.assert_close(one.joints[:, 0], torch.zeros(3, 3))


def test_diverging_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "keypoint_loss", lambda *args: torch.tensor(math.nan))
    monkeypatch.setattr(training, "kept", lambda kind, key, make: make())
    with pytest.raises(ThroughlineError, match=r"training diverged at a rate of 0\.002; .* --set lr=0\.001"):
        CLAIM.run("keypoints", SMOKE, 0, Notes())


def test_the_laptop_starts_at_the_settings_of_the_protocol() -> None:
    config = CLAIM.scales["laptop"]
    assert (config.lab, config.street, config.test, config.size, config.focal) == (2_000, 700, 400, 64, 95.0)
    assert (config.first_steps, config.steps, config.batch) == (450, 300, 16)
    assert (config.silhouette_weight, config.minimal_weight, config.clothing_weight) == (0.3, 3.0, 0.0)
    assert (config.sigma, config.gamma, config.min_pixels, config.minimal) == (1e-4, 1e-2, 5, "iou")


# ---- the user's own pictures ----


def folder(root: Path, count: int = 24, *, bodies: str = "all", side: int = 48, cameras: bool = True) -> Source:
    """Generated people as files."""
    root.mkdir(exist_ok=True)
    body, draw = open_body(SMOKE.voxel), torch.Generator().manual_seed(0)
    K = torch.tensor([[1.5 * side, 0, (side - 1) / 2], [0, 1.5 * side, (side - 1) / 2], [0, 0, 1]])
    made = synthetic_people(
        body,
        torch.randn(count, 10, generator=draw),
        random_outfits(count, body, generator=draw),
        Camera(K, torch.eye(3), torch.zeros(3), (side, side)),
        generator=draw,
    )
    for n in range(count):
        Image.fromarray((made.images[n] * 255).byte().permute(1, 2, 0).numpy()).save(root / f"p{n}.png")
        Image.fromarray(made.parsing[n].byte().numpy()).save(root / f"p{n}_parsing.png")
        keypoints = [[*uv, 1.0] for uv in made.keypoints[n].tolist()]
        notes = {"keypoints": keypoints, **({"K": K.tolist()} if cameras else {})}
        (root / f"p{n}.json").write_text(json.dumps(notes))
        if bodies != "none":
            arrays = {"joints": made.joints[n].numpy()}
            np.savez(
                root / f"p{n}.npz", **(arrays | ({"vertices": made.vertices[n].numpy()} if bodies == "all" else {}))
            )
    return Source.of(root)


def test_takes_a_folder_of_people(tmp_path: Path) -> None:
    config = replace(SMOKE, data=folder(tmp_path / "mine"))
    CLAIM.prepare(config)
    people = CLAIM.setting(config, 0)
    assert len(people.street) + len(people.test) == 24
    assert 0 < len(people.test) < 12
    crops = people.test.take(torch.arange(len(people.test)))
    assert crops.truth is not None
    uv, _ = Camera(crops.K, torch.eye(3), torch.zeros(3), (32, 32)).project(crops.truth.joints)
    assert (crops.keypoints[..., :2] - uv).abs().max() < 2  # keypoints and cameras are resized alike
    face = rasterize(
        crops.truth.vertices, people.body.faces, Camera(crops.K, torch.eye(3), torch.zeros(3), (32, 32))
    ).face
    both = ((face >= 0) & (crops.parsing > 0)).sum()
    assert both > 0.9 * (face >= 0).sum()  # and so are pictures
    for arm in ("silhouette", "dsr"):
        metrics = CLAIM.run(arm, config, 0, Notes())
        assert set(metrics) == METRICS - {"shape", "girth"}
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(("bodies", "lacking"), [("joints", {"pve"}), ("none", {"pve", "mpjpe", "pa_mpjpe"})])
def test_takes_people_whose_bodies_are_not_known(tmp_path: Path, bodies: str, lacking: set[str]) -> None:
    config = replace(SMOKE, data=folder(tmp_path / "mine", bodies=bodies, cameras=False))
    notes = Notes()
    assert set(CLAIM.run("dsr", config, 0, notes)) == METRICS - {"shape", "girth"} - lacking
    assert "true_front" not in notes.arrays
    crops = CLAIM.setting(config, 0).test.take(torch.tensor([0]))
    torch.testing.assert_close(crops.K[0], data.intrinsics(config))


def test_people_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 people fall into .* to train and .* to test on by their names; give more"):
        CLAIM.prepare(replace(SMOKE, data=folder(tmp_path / "few", 1)))
    config = replace(SMOKE, data=folder(tmp_path / "mine"), voxel=0.06)
    with pytest.raises(
        DataError, match=r"p\d+\.png: its body has \d+ vertices, and that of the claim \d+; --set voxel=…"
    ):
        CLAIM.prepare(config)


# ---- the paper's scale ----


def photographs(root: Path) -> Config:
    """Stand-ins of SPIN's files, of people in larger pictures."""
    body, draw = open_body(0.07), torch.Generator().manual_seed(0)
    for part, count in (("lab", 4), ("street", 3), ("test", 7)):
        (root / part).mkdir(parents=True)
        size = 60
        K = torch.tensor([[60.0, 0, 29.5], [0, 60, 29.5], [0, 0, 1]])
        camera = Camera(K, torch.eye(3), torch.zeros(3), (size, size))
        made = synthetic_people(
            body,
            torch.zeros(count, 10),
            random_outfits(count, body, generator=draw),
            camera,
            keypoint_noise=0.0,
            generator=draw,
        )
        for n in range(count):
            for kind in ("images", "parsing"):
                (root / kind / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray((made.images[n] * 255).byte().permute(1, 2, 0).numpy()).save(
                root / "images" / part / f"{n}.jpg"
            )
            if part != "lab":
                Image.fromarray(made.parsing[n].byte().numpy()).save(root / "parsing" / part / f"{n}.png")
        joints = np.concatenate([made.keypoints.numpy(), np.ones((count, 24, 1))], -1)
        known = {} if part == "street" else {"pose": np.full((count, 72), 0.1), "shape": np.ones((count, 10))}
        np.savez(
            root / part / "people.npz",
            imgname=np.array([f"{part}/{n}.jpg" for n in range(count)]),
            center=np.full((count, 2), 30.0),
            scale=np.full(count, 60 / 200),
            part=np.concatenate([joints[:, list(LSP)], np.zeros((count, 12, 3))], 1),
            **known,
        )
    np.save(root / "prior.npy", np.eye(20)[np.full(len(body.faces), 5)])
    return replace(
        CLAIM.scales["paper"],
        root=str(root),
        prior=str(root / "prior.npy"),
        smpl=str(root),
        checkpoint="",
        network="small",
        size=30,
        features=8,
        hidden=8,
        steps=2,
        batch=2,
        every=1,
        device="cpu",
        first_steps=0,
    )


@pytest.fixture
def unlicensed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "smpl", cache(lambda path, gender: open_body(0.07)))


@pytest.mark.usefixtures("unlicensed")
def test_photographs_in_spins_layout(tmp_path: Path) -> None:
    config = photographs(tmp_path / "all")
    people = CLAIM.setting(config, 0)
    assert [len(crops) for crops in people[2:]] == [4, 3, 7]
    crops = people.street.take(torch.tensor([2, 0]))
    assert crops.truth is None
    assert crops.images.shape == (2, 3, 30, 30)
    limbs = crops.keypoints[:, list(LSP)]
    assert (limbs[..., 2] == 1).all()
    assert (crops.keypoints[..., 2].sum(1) == 12).all()
    place = limbs[..., :2].round().long().clamp(0, 29)
    hit = crops.parsing[torch.arange(2)[:, None], place[..., 1], place[..., 0]] > 0
    assert hit.double().mean() > 0.8  # the crop of picture, labels and keypoints is one
    known = people.test.take(torch.tensor([1]))
    assert known.truth is not None
    body = open_body(0.07)
    expected = body(torch.ones(1, 10), torch.full((1, 69), 0.1), torch.full((1, 3), 0.1))
    torch.testing.assert_close(known.truth.vertices, expected.vertices)
    torch.testing.assert_close(known.truth.joints, expected.joints)
    lab = people.lab.take(torch.tensor([0]))
    assert (lab.parsing == 0).all()
    assert torch.equal(people.prior, torch.eye(20)[torch.full((len(body.template),), 5)])
    metrics = CLAIM.run("dsr", config, 0, Notes())
    assert set(metrics) == METRICS
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_prior_by_face_is_the_mean_over_a_vertexs_faces(tmp_path: Path) -> None:
    body = open_body(0.07)
    faces = np.random.default_rng(0).dirichlet(np.ones(20), len(body.faces)).astype(np.float32)
    np.save(tmp_path / "faces.npy", faces)
    found = vertex_labels(str(tmp_path / "faces.npy"), body)
    for v in (0, 17, 100):
        rows = (body.faces == v).any(1).nonzero()[:, 0].numpy()
        np.testing.assert_allclose(found[v].numpy(), faces[rows].mean(0), rtol=1e-4)
    by_vertex = found.numpy()
    np.save(tmp_path / "vertices.npy", by_vertex)
    torch.testing.assert_close(vertex_labels(str(tmp_path / "vertices.npy"), body), found)
    np.save(tmp_path / "wrong.npy", by_vertex[:-1])
    with pytest.raises(DataError, match=r"wrong\.npy: \(\d+, 20\) or \(\d+,?\d*, 20\) numbers are wanted"):
        vertex_labels(str(tmp_path / "wrong.npy"), body)


def test_weights_of_a_spin_like_network(tmp_path: Path) -> None:
    """Their rotations are interleaved; the same features give the same pose here."""
    torch.manual_seed(0)
    net = BodyRegressor(nn.Sequential(), 6, joints=2, num_betas=3, hidden=5, dropout=0.0).double()
    theirs = copy.deepcopy(net)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(theirs.init_pose)
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    torch.save({"model": state}, tmp_path / "spin.pt")
    paper.restore(net, str(tmp_path / "spin.pt"))
    features = torch.randn(4, 6).double()
    pose, betas, camera = net(features)
    # by hand, with their order all along
    numbers, b, c = state["init_pose"], state["init_shape"], state["init_cam"]
    for _ in range(3):
        given = torch.cat([features, numbers.expand(4, -1), b.expand(4, -1), c.expand(4, -1)], 1)
        hidden = theirs.fc2(theirs.fc1(given))
        numbers, b, c = numbers + theirs.decpose(hidden), b + theirs.decshape(hidden), c + theirs.deccam(hidden)
    columns = numbers.view(4, 2, 3, 2)  # as their rot6d_to_rotmat reads them
    expected = rotation_from_6d(torch.cat([columns[..., 0], columns[..., 1]], -1))
    torch.testing.assert_close(pose, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(betas, b)
    torch.testing.assert_close(camera, c)
    torch.save({"conv": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"other\.pt: not of a SPIN-like network"):
        paper.restore(net, str(tmp_path / "other.pt"))
    (tmp_path / "none.pt").write_text("none")
    with pytest.raises(DataError, match=r"none\.pt: not a file of weights alone"):
        paper.restore(net, str(tmp_path / "none.pt"))


def test_the_paper_scale_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "require", lambda *args, **options: None)
    config = CLAIM.scales["paper"]
    for name in ("root", "smpl", "prior", "checkpoint"):
        with pytest.raises(ThroughlineError, match=f"{name} must be there at this scale, got ''; --set {name}=…"):
            CLAIM.prepare(config)
        config = replace(config, **{name: str(tmp_path)})
    monkeypatch.setattr(
        paper, "load_smpl", lambda *args, **options: (_ for _ in ()).throw(FileNotFoundError("no file"))
    )
    paper.smpl.cache_clear()
    with pytest.raises(ThroughlineError, match="no file; --set smpl=FILE"):
        CLAIM.prepare(config)


@pytest.mark.usefixtures("unlicensed")
def test_photographs_that_will_not_do(tmp_path: Path) -> None:
    config = photographs(tmp_path / "all")
    root = tmp_path / "all"
    (root / "parsing" / "street" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: there is no parsing of street/1\.jpg"):
        CLAIM.setting(config, 0).street.take(torch.tensor([1]))
    np.savez(root / "street" / "more.npz", imgname=np.array(["a.jpg"]))
    with pytest.raises(DataError, match=r"more\.npz: no array center in it"):
        CLAIM.setting(config, 0)
    for file in (root / "street").glob("*.npz"):
        file.unlink()
    with pytest.raises(DataError, match=r"street: no \.npz in it; people in SPIN's layout are wanted"):
        CLAIM.setting(config, 0)
