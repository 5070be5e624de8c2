"""
Bodies and their clothes
========================

A body that anyone may use, what its ten numbers do, which label is usually seen where on it, and what two losses on a
picture's labels say about its girth.
"""

# %%
# The body is a smooth union of capsules along 24 bones, with SMPL's tree of joints. Each number of shape by itself, at
# 3.
import matplotlib.pyplot as plt
import torch

from throughline.core.camera import look_at
from throughline.core.raster import interpolate, rasterize, soft_silhouette
from throughline.geometry.body import PARSING_LABELS, DSRLoss, open_body, semantic_prior, soft_iou_loss
from throughline.geometry.people import a_pose, random_outfits, random_poses, synthetic_people

body = open_body(0.04)
camera = look_at((0.0, 0.0, -3.4), up=(0.0, -1.0, 0.0), focal_length=210.0, image_size=(128, 96))
pose = a_pose()[None]


def made(betas, pose=pose):
    """Vertices from the root."""
    pose = pose.expand(len(betas), -1, -1, -1)
    out = body(betas, pose[:, 1:], pose[:, :1], pose2rot=False)
    return out.vertices - out.joints[:, :1]


def shaded(vertices, colours=None):
    """Pictures lit from the camera, grey or with colours at the vertices."""
    a, b, c = vertices[:, body.faces].unbind(2)
    light = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)[..., 2].abs()
    fragments = rasterize(vertices, body.faces, camera)
    grey = torch.full((len(body.template), 3), 0.85)
    image = interpolate(fragments, body.faces, grey if colours is None else colours, background=1.0)
    seen = fragments.face >= 0
    lit = light.gather(1, fragments.face.clamp_min(0).flatten(1)).view(seen.shape)
    return image * torch.where(seen, 0.35 + 0.65 * lit, 1.0).unsqueeze(-1)


names = ["stature", "girth", "legs", "shoulders", "arms' length", "belly", "hips", "thighs", "arms' girth", "head"]
pictures = shaded(made(torch.cat([torch.zeros(1, 10), 3 * torch.eye(10)])))
figure, axes = plt.subplots(1, 11, figsize=(11, 1.9), layout="constrained")
for axis, picture, name in zip(axes, pictures, ["mean", *names], strict=True):
    axis.imshow(picture)
    axis.set_title(name, fontsize=8)
    axis.axis("off")

# %%
# Random poses: knees and elbows bend one way only.
draw = torch.Generator().manual_seed(3)
pictures = shaded(made(torch.zeros(8, 10), random_poses(8, generator=draw)))
figure, axes = plt.subplots(1, 8, figsize=(9, 1.9), layout="constrained")
for axis, picture in zip(axes, pictures, strict=True):
    axis.imshow(picture)
    axis.axis("off")

# %%
# The prior: how often each label is seen at each vertex, counted over 300 outfits. It is sharp at hands and face, and
# undecided where sleeves and trousers end.
prior = semantic_prior(random_outfits(300, body, generator=draw).labels, 20)
figure, axes = plt.subplots(1, 6, figsize=(9, 2.4), layout="constrained")
for axis, name in zip(axes, ("hair", "face", "upper clothes", "pants", "left arm", "right leg"), strict=True):
    share = prior[:, PARSING_LABELS.index(name)]
    colours = torch.tensor(plt.get_cmap("viridis")(share.numpy())[:, :3], dtype=torch.float32)
    axis.imshow(shaded(made(torch.zeros(1, 10)), colours)[0])
    axis.set_title(name, fontsize=9)
    axis.axis("off")

# %%
# Dressed: clothes are the body's own vertices, moved outwards. What a camera and a parser see of them.
ahead = look_at((0, 0, 0.0), (0, 0, 1.0), up=(0, -1.0, 0), focal_length=180.0, image_size=(128, 96))
people = synthetic_people(body, torch.zeros(6, 10), random_outfits(6, body, generator=draw), ahead, generator=draw)
figure, axes = plt.subplots(2, 6, figsize=(8, 3.8), layout="constrained")
for column in range(6):
    axes[0, column].imshow(people.images[column].permute(1, 2, 0))
    axes[1, column].imshow(people.parsing[column], cmap="tab20", vmin=0, vmax=19)
for axis in axes.flat:
    axis.axis("off")

# %%
# Eight people in thick clothes, whose bodies are known, and bodies of the same poses from lean to broad. The silhouette
# is best when the body fills the clothes. Skin is where the body is, whatever is worn elsewhere; but a renderer that is
# too soft shows a label beyond the body's edge, and then asks for a leaner one.
outfits = random_outfits(8, body, upper=(0.05, 0.05), lower=(0.02, 0.02), generator=draw)
people = synthetic_people(body, torch.zeros(8, 10), outfits, ahead, noise=0.0, generator=draw)
soft = {"skin, σ = 1e-5": 1e-5, "skin, σ = 1e-4": 1e-4}
girth = torch.linspace(-2.5, 3.0, 12)
found = {name: [] for name in ("silhouette", *soft)}
for number in girth:
    betas = torch.zeros(8, 10)
    betas[:, 1] = number
    out = body(betas, people.pose[:, 1:], people.pose[:, :1], pose2rot=False)
    vertices = out.vertices - out.joints[:, :1] + people.joints[:, :1]
    covered = soft_silhouette(vertices, body.faces, ahead)
    found["silhouette"].append(soft_iou_loss(covered, people.parsing > 0).mean())
    for name, sigma in soft.items():
        criterion = DSRLoss(prior, body.faces, minimal="iou", clothing_weight=0.0, sigma=sigma, min_pixels=15)
        found[name].append(criterion(vertices, ahead, people.parsing)["minimal"].mean())
figure, axis = plt.subplots(figsize=(7, 2.9), layout="constrained")
for name, losses in found.items():
    losses = torch.stack(losses)
    axis.plot(girth, losses - losses.min(), label=name)
axis.axvline(0, color="0.6", linewidth=0.8)
axis.set(xlabel="number of girth; the true one is 0", ylabel="loss above its least")
axis.legend()
plt.show()
