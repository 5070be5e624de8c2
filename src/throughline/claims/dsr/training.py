"""The two stages of the dsr claim, and what is measured of a trained network."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from throughline.claims.dsr.config import Config
from throughline.claims.dsr.data import Crops, Setting, Truth, torso
from throughline.claims.dsr.models import network
from throughline.claims.shared.clocks import clock_of
from throughline.core.camera import Camera, weak_perspective
from throughline.core.raster import interpolate, rasterize, soft_silhouette
from throughline.data.cache import kept
from throughline.errors import ThroughlineError
from throughline.geometry.body import (
    DSR_MC_LABELS,
    BodyModel,
    BodyRegressor,
    DSRLoss,
    joint_error,
    procrustes_error,
    soft_iou_loss,
    vertex_error,
)
from throughline.lab import Log
from throughline.lab.store import code_version

__all__ = ["Estimate", "Scores", "estimate", "first_stage", "measure", "pictures", "second_stage"]

AT_A_TIME = 100  # people that are measured together
MANY = 10_000  # people among whom the slim and the broad are looked for
FINE = 160  # pixels of an outline
MM = 1_000.0

Term = Callable[[Tensor, Camera, Tensor], Tensor]


class Estimate(NamedTuple):
    """What a network says of people."""

    pose: Tensor  # (n, J, 3, 3)
    betas: Tensor  # (n, S)
    vertices: Tensor  # (n, V, 3), from the root
    joints: Tensor  # (n, J, 3), from the root
    camera: Camera  # which sees a body whose root is the origin
    scale: Tensor  # (n,)


class Scores(NamedTuple):
    """What is measured over people."""

    metrics: dict[str, float]
    girth: Tensor  # (2, n): true and estimated outward girth in mm, empty without truth
    cloth: Tensor  # (n,): mean thickness over the torso, metres
    errors: Tensor  # (V,): mean distance of each vertex in mm, empty without truth


def estimate(net: nn.Module, crops: Crops, body: BodyModel, config: Config) -> Estimate:
    """Bodies of people, seen by their own cameras."""
    pose, betas, camera = net(crops.images.to(config.device).float() / 255, crops.keypoints.to(config.device))
    made = body(betas, pose[:, 1:], pose[:, :1], pose2rot=False)
    K = crops.K.to(config.device)
    seen = weak_perspective(camera, (config.size, config.size), focal_length=config.focal)
    farther = torch.stack([torch.ones_like(K[:, 0, 0]), torch.ones_like(K[:, 0, 0]), K[:, 0, 0] / config.focal], -1)
    root = made.joints[:, :1]
    return Estimate(
        pose, betas, made.vertices - root, made.joints - root, replace(seen, K=K, t=seen.t * farther), camera[:, 0]
    )


def keypoint_loss(found: Estimate, crops: Crops, config: Config) -> Tensor:
    """Mean squared distance of projected joints in half images, weighted by confidence."""
    uv, _ = found.camera.project(found.joints)
    keypoints = crops.keypoints.to(uv)
    off = (uv - keypoints[..., :2]) / (config.size / 2)
    return (keypoints[..., 2:] * off.square()).mean()


def known_loss(found: Estimate, crops: Crops, config: Config) -> Tensor:
    """The terms of people whose bodies are known."""
    truth, weights = crops.truth, config.weights
    assert truth is not None
    joints = truth.joints.to(found.joints)
    return (
        weights.joints * (found.joints - (joints - joints[:, :1])).square().mean()
        + weights.pose * (found.pose - truth.pose.to(found.pose)).square().mean()
        + weights.shape * (found.betas - truth.betas.to(found.betas)).square().mean()
        + weights.place * (found.camera.t - joints[:, 0]).square().mean()
    )


def near_loss(found: Estimate, config: Config) -> Tensor:
    """Keeps the camera's scale positive."""
    if not config.weights.near:
        return found.scale.new_zeros(())
    return config.weights.near * torch.exp(-10 * found.scale).square().mean()


def first_stage(setting: Setting, config: Config, seed: int, log: Log) -> BodyRegressor:
    """A network that has learned from the lab alone, alike in all arms of a seed: it is taught once."""
    torch.manual_seed(seed)
    net = network(config, len(setting.body.parents)).to(config.device)
    if config.first_steps:
        fields = {name: value for name, value in asdict(config).items() if name not in LATER}
        key = {
            "seed": seed,
            "config": fields,
            "code": code_version(),
            "machine": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), torch.__version__],
        }
        net.load_state_dict(kept("dsr", key, partial(_taught, net, setting, config, seed, log)))
    return net


LATER = {  # settings that the first stage does not depend on
    *("street", "test", "gap", "street_spread", "outfits", "steps", "batch", "lr", "minimal", "silhouette_weight"),
    *("minimal_weight", "clothing_weight", "context_weight", "sigma", "gamma", "min_pixels", "every", "prior", "data"),
}


def _taught(net: BodyRegressor, setting: Setting, config: Config, seed: int, log: Log) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        crops = setting.lab.take(torch.randint(len(setting.lab), (config.first_batch,), generator=draw))
        found = estimate(net, crops, setting.body, config)
        keypoints = config.weights.keypoints * keypoint_loss(found, crops, config)
        return keypoints + known_loss(found, crops, config) + near_loss(found, config)

    for step in optimise(net, loss, config.first_steps, config.first_lr, config):
        log(step, of=config.first_steps)
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def second_stage(
    arm: str,
    net: BodyRegressor,
    setting: Setting,
    config: Config,
    seed: int,
    log: Log,
    look: Callable[[], dict[str, Any]],
) -> float:
    """On with people from the street, the same ones in all arms; ``look`` is logged. Seconds for a step."""
    torch.manual_seed(seed)  # of dropout; whether the first stage was kept makes no difference
    draw, term, weights = torch.Generator().manual_seed(seed + 1), term_of(arm, setting, config), config.weights
    clock, spent = clock_of(config.device), 0.0

    def loss() -> Tensor:
        street, lab = (
            people.take(torch.randint(len(people), (config.batch,), generator=draw))
            for people in (setting.street, setting.lab)
        )
        found = estimate(net, street, setting.body, config)
        total = weights.keypoints * keypoint_loss(found, street, config) + weights.prior * found.betas.square().mean()
        if term is not None:
            total = total + term(found.vertices, found.camera, street.parsing.to(config.device).long())
        known = known_loss(estimate(net, lab, setting.body, config), lab, config)
        return total + known + near_loss(found, config)

    log(0, **look())
    start = clock()
    for step in optimise(net, loss, config.steps, config.lr, config):
        if step % config.every == 0 or step == config.steps:
            spent += clock() - start
            log(step, of=config.steps)
            log(step, **look())
            start = clock()
    return spent / config.steps


def optimise(net: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float, config: Config) -> Iterator[int]:
    """Adam with a cosine schedule; gives the number of steps done after each.

    Raises:
        ThroughlineError: the loss is not finite.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        net.train()
        value = loss()
        if not bool(value.isfinite()):
            raise ThroughlineError(f"training diverged at a rate of {lr:g}; take a lower one: --set lr={lr / 2:g}")
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if config.clip:
            nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        yield step + 1


def term_of(arm: str, setting: Setting, config: Config) -> Term | None:
    """What an arm adds: of vertices, their camera, and the parsing."""
    faces = setting.body.faces
    if arm == "silhouette":

        def outline(vertices: Tensor, camera: Camera, parsing: Tensor) -> Tensor:
            covered = soft_silhouette(vertices, faces, camera, sigma=config.sigma)
            return config.silhouette_weight * soft_iou_loss(covered, parsing > 0).mean()

        return outline
    if not arm.startswith("dsr"):
        return None
    criterion = DSRLoss(
        setting.prior,
        faces,
        minimal=config.minimal,
        minimal_weight=config.minimal_weight,
        clothing_weight=config.context_weight if arm == "dsr_c" else config.clothing_weight,
        sigma=config.sigma,
        gamma=config.gamma,
        min_pixels=config.min_pixels,
    ).to(config.device)
    return lambda vertices, camera, parsing: criterion(vertices, camera, parsing)["total"]


@torch.no_grad()
def measure(net: BodyRegressor, setting: Setting, config: Config) -> Scores:
    """Mean errors over the test people, in mm and pixels; those of the body only where it is known."""
    net.eval()
    body, parts, girths, cloths, errors = setting.body, [], [], [], []
    normal, rows = outward_normals(body), torso(body)
    skin = setting.prior[:, list(DSR_MC_LABELS)].sum(-1, keepdim=True).to(config.device)
    tight = torch.tensor(DSR_MC_LABELS, device=config.device)
    for start in range(0, len(setting.test), AT_A_TIME):
        crops = setting.test.take(torch.arange(start, min(start + AT_A_TIME, len(setting.test))))
        found = estimate(net, crops, body, config)
        keypoints = crops.keypoints.to(config.device)
        uv, _ = found.camera.project(found.joints)
        sure = keypoints[..., 2] > 0
        far = torch.linalg.vector_norm(uv - keypoints[..., :2], dim=-1) * sure
        drawn = interpolate(rasterize(found.vertices, body.faces, found.camera), body.faces, skin)[..., 0]
        seen = torch.isin(crops.parsing.to(config.device).long(), tight)
        each = {
            "reprojection": far.sum(1) / sure.sum(1).clamp_min(1),
            "skin_iou": 1 - soft_iou_loss((drawn > 0.5).to(drawn.dtype), seen),
        }
        if crops.truth is not None:
            truth = Truth(*(field.to(config.device) for field in crops.truth))
            root = truth.joints[:, 0]
            each["mpjpe"] = MM * joint_error(found.joints, truth.joints)
            each["pa_mpjpe"] = MM * procrustes_error(found.joints, truth.joints)
            if truth.vertices.numel():
                each["pve"] = MM * vertex_error(found.vertices, truth.vertices, true_root=root)
                errors.append(MM * torch.linalg.vector_norm(found.vertices - truth.vertices + root[:, None], dim=-1))
            if truth.betas.numel():
                off = (found.betas - truth.betas) @ body.shape_dirs.flatten(0, 1).mT
                each["shape"] = MM * torch.linalg.vector_norm(off.view(len(off), -1, 3), dim=-1).mean(1)
                amount = (normal.unsqueeze(-1) * body.shape_dirs).sum(1)[rows].mean(0)  # of girth for each β
                girth = MM * torch.stack([truth.betas @ amount, found.betas @ amount])
                each["girth"] = girth[1] - girth[0]
                girths.append(girth)
        cloths.append(crops.cloth)
        parts.append({name: value.double().cpu() for name, value in each.items()})
    metrics = {name: float(torch.cat([part[name] for part in parts]).mean()) for name in parts[0]}
    girth = torch.cat(girths, 1).cpu() if girths else torch.zeros(0)
    return Scores(metrics, girth, torch.cat(cloths), torch.cat(errors).mean(0).cpu() if errors else torch.zeros(0))


def outward_normals(body: BodyModel) -> Tensor:
    """Unit normals of the template's vertices, ``(V, 3)``."""
    a, b, c = body.template[body.faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a).repeat_interleave(3, 0)
    total = torch.zeros_like(body.template).index_add(0, body.faces.flatten(), normal)
    return nn.functional.normalize(total, dim=1)


@torch.no_grad()
def pictures(net: BodyRegressor, setting: Setting, config: Config) -> dict[str, Tensor]:
    """Six people, slim to broad where that is known: image, parsing, where body and truth are, from front and side."""
    net.eval()
    everyone = setting.test.take(torch.arange(len(setting.test))) if len(setting.test) <= MANY else None
    order = torch.arange(len(setting.test))
    if everyone is not None and everyone.truth is not None and everyone.truth.betas.numel():
        order = everyone.truth.betas[:, 1].argsort(stable=True)
    places = [0, 1, (len(order) - 1) // 2, len(order) // 2, len(order) - 2, len(order) - 1]
    chosen = order[sorted({max(0, place) for place in places})]
    crops = setting.test.take(chosen)
    found = estimate(net, crops, setting.body, config)
    kept = {"images": crops.images, "parsing": crops.parsing}
    kept |= outlines("", found.vertices, found.camera, setting.body)
    if crops.truth is not None and crops.truth.vertices.numel():
        true = (crops.truth.vertices - crops.truth.joints[:, :1]).to(found.vertices)
        root = crops.truth.joints[:, 0].to(true)
        place = replace(found.camera, t=torch.where(root[:, 2:] > 0, root, found.camera.t))  # 0 where it is not known
        kept |= outlines("true_", true, place, setting.body)
    return kept


def outlines(name: str, vertices: Tensor, camera: Camera, body: BodyModel) -> dict[str, Tensor]:
    """What a body covers, from the front and from its side, in fine pixels."""
    camera = camera.resize((FINE, FINE))
    turned = torch.stack([vertices[..., 2], vertices[..., 1], -vertices[..., 0]], -1)
    views = {"front": vertices, "side": turned}
    return {f"{name}{view}": rasterize(v, body.faces, camera).face >= 0 for view, v in views.items()}
