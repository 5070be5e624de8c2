"""The rppg claim: what its arms share and where they differ, own videos, and PURE and MMPD in their layouts."""

import json
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from tests.claims.stand_ins import Notes
from torch import Tensor

from throughline.claims.rppg import data, training
from throughline.claims.rppg.claim import ReadsPulseInHardVideos
from throughline.claims.rppg.config import Config
from throughline.claims.shared.pulse_videos import Video, decoded
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab import Within
from throughline.lab.results import Results
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit
from throughline.sensing.pulse import PulseLoss, neg_pearson, synthetic_pulse_video

CLAIM = ReadsPulseInHardVideos()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def run(arm: str, seed: int = 0) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, SMOKE, seed, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_keep_what_is_drawn(arm: str) -> None:
    metrics, notes = run(arm)
    names = {f"{domain}_{m}" for domain in ("same", "cross") for m in ("mae", "rmse", "mape", "r", "snr")}
    assert set(metrics) == names
    assert all(math.isfinite(value) for value in metrics.values())
    assert notes.arrays["cross_rates"].shape == (2, SMOKE.cross)
    true, found = notes.arrays["cross_rates"]
    assert metrics["cross_mae"] == pytest.approx(np.abs(found - true).mean(), rel=1e-5)
    assert notes.arrays["pulse"].shape == notes.arrays["truth"].shape == (SMOKE.frames,)
    assert notes.arrays["motion"].shape == (len(data.STRENGTHS),)
    assert {of for _, of in notes.places} == (set() if arm in training.CLASSICAL else {SMOKE.steps})


def test_arms_share_clips_crops_and_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {}
    batch = training.batch

    for arm in training.NETWORKS:

        def watched(*args: Any, arm: str = arm) -> Any:
            made = batch(*args)
            seen.setdefault(arm, []).append(made[0])
            return made

        monkeypatch.setattr(training, "batch", watched)
        training.fit(arm, CLAIM.domains(SMOKE, 0).train, SMOKE, 0, Notes())
    first = seen["physnet"]
    assert len(first) == SMOKE.steps
    for arm in training.NETWORKS:
        assert all(torch.equal(a, b) for a, b in zip(first, seen[arm], strict=True)), arm
    assert not torch.equal(first[0], first[1])


def test_networks_are_those_of_the_paper() -> None:
    config = replace(SMOKE, channels=(16, 32, 64), steps=0)
    counts = {
        arm: sum(p.numel() for p in training.fit(arm, [], config, 0, Notes()).parameters()) for arm in training.NETWORKS
    }
    assert counts["physnet"] == counts["difference"] == 768_577
    assert counts["physfsunet"] == 824_836
    assert counts["physfsunet"] - counts["fused"] == 3 * 16_769


def test_the_loss_of_each_arm() -> None:
    x, y = torch.randn(2, 4, 96, generator=seeded())
    bpm, criterion = torch.tensor([60.0, 80.0, 100.0, 120.0]), PulseLoss(15.0)
    every = torch.ones(4, dtype=torch.bool)
    pearson = training._loss(criterion, x, y, every, bpm, 0.7, hybrid=False)
    torch.testing.assert_close(pearson, neg_pearson(x, y).mean())
    hybrid = training._loss(criterion, x, y, every, bpm, 0.7, hybrid=True)
    torch.testing.assert_close(hybrid, criterion(x, y, bpm, 0.7))
    none = torch.zeros(4, dtype=torch.bool)
    blind = training._loss(criterion, x, torch.zeros_like(y), none, bpm, 0.7, hybrid=False)
    torch.testing.assert_close(blind, sum(criterion.frequency_terms(x, bpm)))
    half = torch.tensor([True, True, False, False])
    mixed = training._loss(criterion, x, y, half, bpm, 0.7, hybrid=False)
    expected = neg_pearson(x, y)[:2].sum() / 4 + sum(criterion.frequency_terms(x[2:], bpm[2:])) / 2
    torch.testing.assert_close(mixed, expected)


def test_every_network_has_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def watched(self: torch.optim.Optimizer, *args: Any, **options: Any) -> None:
        rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    wanted = {f"{arm}_lr": 10.0**-n for n, arm in enumerate(training.NETWORKS)}
    videos, config = CLAIM.domains(SMOKE, 0).train, replace(SMOKE, steps=1, **wanted)
    for arm in training.NETWORKS:
        training.fit(arm, videos, config, 0, Notes())
    assert rates == [*wanted.values()]


def test_the_hard_domain_counts_once_both_have_learned_the_easy_one() -> None:
    learned, hard = [check for check in CLAIM.checks if isinstance(check, Within)], CLAIM.checks[0]
    assert [(check.metric, check.arm) for check in learned] == [("same_mae", arm) for arm in hard.arms]


def test_domains_differ_and_never_overlap() -> None:
    for seed in (0, 1):
        train, same, cross = CLAIM.domains(replace(SMOKE, train=6, same=6, cross=6), seed)
        heads = [video.read(0, 1) for part in (train, same, cross) for video in part]
        assert len({tuple(head.flatten().tolist()) for head in heads}) == 18
        bright = [torch.stack([v.read(0, 96).float().mean() for v in part]).mean() for part in (train, same, cross)]
        assert bright[2] < min(bright[:2])  # darker skin
    again = CLAIM.domains(replace(SMOKE, train=6, same=6, cross=6), 1)
    assert torch.equal(again.cross[0].read(3, 9), cross[0].read(3, 9))


def test_errors_by_hand() -> None:
    t = torch.arange(300) / 15.0
    pulses = [torch.sin(2 * math.pi * b / 60 * t) for b in (60.0, 90.0, 120.0)] + [torch.zeros(300)]
    videos = [Video("", b, None, 300, lambda a, b: torch.empty(0)) for b in (60.0, 100.0, 120.0, 80.0)]
    scores, rates = training.measure(pulses, videos, SMOKE)
    np.testing.assert_allclose(rates[1], [60, 90, 120, 90], atol=0.6)  # no rate at all counts as the middle
    error = rates[1] - rates[0]
    assert scores["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert scores["rmse"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
    assert scores["mape"] == pytest.approx(100 * (np.abs(error) / rates[0]).mean(), rel=1e-5)
    assert scores["r"] == pytest.approx(np.corrcoef(rates)[0, 1], abs=1e-5)


def test_says_that_it_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_loss", lambda *a, **k: torch.tensor(math.nan))
    with pytest.raises(ThroughlineError, match=r"physnet diverged at physnet_lr=0\.001; .* --set physnet_lr=0\.0005"):
        CLAIM.run("physnet", SMOKE, 0, Notes())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"crop": 97}, "crop must be at most frames=96, got 97"),
        (
            {"hard": replace(SMOKE.hard, melanin=(0.9, 0.3))},
            "hard: melanin must be the least and the most, got 0.9 and",
        ),
        ({"frames": 60}, "frames must last 5 s at fs=15, got 60"),
        ({"box": (0.5, 0, 0.6, 1)}, "box must be x, y, width and height in shares of the frame"),
        ({"dataset": "pure-mmpd"}, "root must be the folder of PURE, got ''; --set root=FOLDER"),
    ],
)
def test_names_what_is_wrong(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ThroughlineError, match=match):
        CLAIM.prepare(replace(SMOKE, **changes))


# ---- videos of the user's own ----


def folder(root: Path, count: int = 4, *, frames: int = 200, waveforms: bool = True) -> Source:
    """Generated faces as lossless files, labelled."""
    av = pytest.importorskip("av")
    made = synthetic_pulse_video(count, frames=frames, size=16, fs=15.0, generator=seeded())
    root.mkdir(exist_ok=True)
    rows = ["file,bpm,subject"]
    for n in range(count):
        with av.open(str(root / f"{n}.mkv"), "w") as file:
            stream = file.add_stream("ffv1", rate=15)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
            for image in (made["frames"][n] * 255).round().byte().permute(1, 2, 3, 0).numpy():
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            file.mux(stream.encode())
        rows.append(f"{n}.mkv,{float(made['bpm'][n]):.2f},{n // 2}")
        if waveforms:
            lines = [f"{t / 15},{float(v)}" for t, v in enumerate(made["pulse"][n])]
            (root / f"{n}.mkv.pulse.csv").write_text("\n".join(["time,value", *lines]))
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return Source.of(root)


@pytest.mark.parametrize("waveforms", [True, False])
def test_takes_a_folder_of_videos(tmp_path: Path, waveforms: bool) -> None:
    config = replace(SMOKE, data=folder(tmp_path / "mine", waveforms=waveforms))
    CLAIM.prepare(config)
    domains = CLAIM.domains(config, 0)
    assert [len(part) for part in domains] == [2, 2, 2]
    assert [video.length for video in domains.train] == [200 - 96] * 2  # their ends are held out
    assert not {v.name for v in domains.train} & {v.name for v in domains.cross}
    assert {v.name for v in domains.train} == {v.name for v in domains.same}
    whole = decoded(str(tmp_path / "mine" / domains.same[0].name), data.framing(config), "")
    assert torch.equal(domains.same[0].read(0, 96), whole[:, 104:])
    assert (domains.train[0].pulse is not None) == waveforms
    for arm in ARMS:
        metrics = CLAIM.run(arm, config, 0, Notes())
        assert all(math.isfinite(value) for value in metrics.values())


def test_own_waveforms_lie_on_their_frames(tmp_path: Path) -> None:
    config = replace(SMOKE, data=folder(tmp_path / "mine"))
    video = CLAIM.domains(config, 0).cross[0]
    pulse = np.loadtxt(tmp_path / "mine" / f"{video.name}.pulse.csv", delimiter=",", skiprows=1)
    assert video.pulse is not None
    stamps = np.arange(200) / 15
    np.testing.assert_allclose(video.pulse, np.interp(stamps, *pulse.T)[: video.length], atol=1e-5)


def test_own_videos_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "mine")
    with pytest.raises(DataError, match=r"no training video is longer than crop \+ frames = 232"):
        CLAIM.prepare(replace(SMOKE, data=source, frames=200))
    with pytest.raises(DataError, match="and 300 or more are wanted"):
        CLAIM.prepare(replace(SMOKE, data=source, crop=300, frames=300))
    (tmp_path / "mine" / "0.mkv.pulse.csv").write_text("time,value\n0,1\n1,2\n")
    with pytest.raises(DataError, match=r"0\.mkv\.pulse\.csv: its times must cover the video's 13\.\d seconds"):
        CLAIM.prepare(replace(SMOKE, data=source))
    (tmp_path / "mine" / "labels.csv").write_text("file,bpm,subject\n0.mkv,70,a\n1.mkv,80,a\n")
    with pytest.raises(DataError, match="videos of two subjects or more are wanted, got 1"):
        CLAIM.prepare(replace(SMOKE, data=source))
    (tmp_path / "mine" / "labels.csv").write_text("file,bpm\n1.mkv,70\nbad.mkv,80\n")
    (tmp_path / "mine" / "bad.mkv").write_text("no video")
    with pytest.raises(DataError, match=r"bad\.mkv: not a video that can be read"):
        CLAIM.prepare(replace(SMOKE, data=source))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ThroughlineError, match=r'pip install "throughline\[video\]"'):
        CLAIM.prepare(replace(SMOKE, data=source))


# ---- the paper's scale ----


def pure(root: Path, *, inside: bool = False) -> Path:
    """Two videos in the layout of PURE, whose pulse is sampled at other times than its frames."""
    for number, bpm in ((1, 66.0), (2, 96.0)):
        place = root / f"0{number}-01"
        images = place / place.name if inside else place
        images.mkdir(parents=True)
        start, beat = 1_392_643_993_642_815_000, 2 * math.pi * bpm / 60
        for n in range(330):
            level = round(120 + 40 * math.sin(beat * n / 30))
            Image.new("RGB", (20, 16), (level, level, level)).save(images / f"Image{start + n * 33_333_333}.png")
        rows = [
            {"Timestamp": start + n * 16_666_667, "Value": {"waveform": 50 + 40 * math.sin(beat * n / 60)}}
            for n in range(660)
        ]
        note = place / f"{place.name}.json" if inside else root / f"{place.name}.json"
        note.write_text(json.dumps({"/FullPackage": rows, "/Image": []}))
    return root


def mmpd(root: Path, *, integers: bool = False) -> Path:
    for subject in (1, 2):
        (root / f"subject{subject}").mkdir(parents=True)
        video = np.random.default_rng(subject).uniform(0, 1, (330, 16, 20, 3))
        pulse = np.sin(2 * math.pi * 1.2 * np.arange(330) / 30)[None]
        content = np.round(video * 255).astype(np.uint8) if integers else video
        savemat(root / f"subject{subject}" / f"p{subject}_0.mat", {"video": content, "GT_ppg": pulse})
    return root


def tiny(tmp_path: Path, **changes: Any) -> Config:
    places = {"root": str(tmp_path / "pure"), "test_root": str(tmp_path / "mmpd")}
    sizes = {"channels": (4, 4, 8), "steps": 2, "size": 16, "batch": 2, "device": "cpu"}
    return replace(CLAIM.scales["paper"], **{**places, **sizes, **changes})


@pytest.mark.parametrize("inside", [True, False])
def test_pure_and_mmpd_on_stand_ins(tmp_path: Path, inside: bool) -> None:
    pure(tmp_path / "pure", inside=inside)
    mmpd(tmp_path / "mmpd", integers=inside)
    config = tiny(tmp_path)
    CLAIM.prepare(config)
    train, same, cross = CLAIM.domains(config, 0)
    assert [(v.name, v.length) for v in train] == [("01-01", 170), ("02-01", 170)]
    assert [v.length for v in same] == [160, 160]
    assert [v.bpm for v in same] == pytest.approx([66, 96], abs=1.5)
    assert [(v.name, v.length, round(v.bpm)) for v in cross] == [("subject1/p1_0", 330, 72), ("subject2/p2_0", 330, 72)]
    part, pulse = same[1].read(5, 60), same[1].pulse
    assert part.shape == (3, 55, 16, 16)
    assert pulse is not None
    together = torch.corrcoef(torch.stack([part.float().mean((0, 2, 3)), pulse[5:60]]))[0, 1]
    assert together > 0.99  # the waveform stands at the times of the frames
    for arm in ("physfsunet", "pos"):
        assert math.isfinite(CLAIM.run(arm, config, 0, Notes())["cross_mae"])


def test_a_box_is_cut_out(tmp_path: Path) -> None:
    pure(tmp_path / "pure")
    mmpd(tmp_path / "mmpd", integers=True)
    config = tiny(tmp_path, box=(0.2, 0.0, 0.8, 1.0))
    whole = np.round(np.random.default_rng(1).uniform(0, 1, (330, 16, 20, 3)) * 255)
    expected = torch.from_numpy(whole[7:9, :, 4:]).permute(3, 0, 1, 2).byte()
    assert torch.equal(CLAIM.domains(config, 0).cross[0].read(7, 9), expected)


def test_public_folders_that_are_not(tmp_path: Path) -> None:
    mmpd(tmp_path / "mmpd")
    (tmp_path / "pure").mkdir()
    with pytest.raises(DataError, match="no folders like 01-01 in it"):
        CLAIM.prepare(tiny(tmp_path))
    (tmp_path / "pure" / "01-01").mkdir()
    with pytest.raises(DataError, match=r"01-01: PNG files and 01-01\.json are wanted"):
        CLAIM.prepare(tiny(tmp_path))
    pure(tmp_path / "second")
    config = tiny(tmp_path, root=str(tmp_path / "second"))
    with pytest.raises(DataError, match=r"01-01 has 330 frames, and crop \+ frames = 400 are wanted"):
        CLAIM.prepare(replace(config, frames=240))
    (tmp_path / "second" / "01-01.json").write_text('{"/FullPackage": [{"Timestamp": 1}]}')
    with pytest.raises(DataError, match=r"01-01\.json: not the notes of a PURE video"):
        CLAIM.prepare(config)
    pure(tmp_path / "third")
    config = replace(config, root=str(tmp_path / "third"))
    savemat(tmp_path / "mmpd" / "subject1" / "p1_0.mat", {"video": np.zeros((2, 2))})
    with pytest.raises(DataError, match=r"p1_0\.mat: no variable GT_ppg in it; is it of MMPD"):
        CLAIM.prepare(config)
    (tmp_path / "mmpd" / "subject1" / "p1_0.mat").write_bytes(b"no MATLAB file" * 20)
    with pytest.raises(DataError, match=r"p1_0\.mat: cannot be read as a MATLAB file"):
        CLAIM.prepare(config)
    with pytest.raises(DataError, match="test_root must be the folder of MMPD"):
        CLAIM.prepare(replace(config, test_root=str(tmp_path / "nowhere")))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"no files like subject1/p1_0\.mat in it"):
        CLAIM.prepare(replace(config, test_root=str(tmp_path / "void")))


# ---- pictures ----


def test_pictures_show_what_was_kept(tmp_path: Path) -> None:
    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0,), threads=1, command="throughline run rppg")
    store, _ = open_run(tmp_path, manifest)
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 1  # dots without a dot
    for arm in ARMS:
        metrics, notes = run(arm)
        store.write(Unit(arm, 0), {"metrics": metrics, "measured": {}, "curves": {}}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    _, scatter, agreement, difficulty, clip = CLAIM.figures(results).values()
    assert len(scatter.axes) == len(agreement.axes) == 2 * len(ARMS)
    true, found = run("physfsunet")[1].arrays["cross_rates"]
    dots = scatter.axes[len(ARMS) + 1].lines[-1]
    np.testing.assert_allclose(dots.get_xydata(), np.stack([true, found], 1))
    bias = agreement.axes[len(ARMS) + 1].lines[1]
    np.testing.assert_allclose(bias.get_ydata(), float((found - true).mean()), rtol=1e-5)
    assert len(clip.axes) == 2 * len(ARMS)
    assert [len(axis.lines) for axis in difficulty.axes] == [len(ARMS)] * 2
