"""
A motion that is learned from the clip itself
=============================================

A network that has seen generated people reads the joints of another one, loosely. Going on with its training on that
very clip, without labels, fits the body; optimising the body alone fits the joints and not the body.
"""

# %%
# Bodies in a world whose y is up, and a camera that looks at them.
import matplotlib.pyplot as plt
import torch
from torch import nn

from throughline.core.camera import look_at
from throughline.core.raster import rasterize
from throughline.core.rotation import rotation_from_6d, so3_exp
from throughline.geometry.body import BodyPrediction, joint_error, open_body
from throughline.geometry.motion import (
    Clip,
    SelfSupervision,
    adapt,
    fit_body,
    heatmaps,
    sample_flow,
    supervised_loss,
)

draw = torch.Generator().manual_seed(3)
torch.manual_seed(3)
body = open_body(0.07)
camera = look_at((0.0, 0.95, 3.8), (0.0, 0.95, 0.0), focal_length=80.0, image_size=(64, 64))


def people(n, amplitude, yaw, shape):
    """Arms that hang, and random turns of hips, shoulders, knees and elbows."""
    turns = torch.zeros(n, 24, 3)
    turns[:, [1, 2, 16, 17]] = amplitude * torch.randn(n, 4, 3, generator=draw) * torch.tensor([1.0, 0.4, 0.4])
    bent = 2 * amplitude * torch.randn(n, 4, generator=draw).abs()
    turns[:, 4:6, 0], turns[:, 18, 1], turns[:, 19, 1] = bent[:, :2], -bent[:, 2], bent[:, 3]
    turns[:, 16, 2] -= 0.9
    turns[:, 17, 2] += 0.9
    turns[:, 0, 1] = yaw * torch.randn(n, generator=draw)
    return BodyPrediction(
        so3_exp(turns), shape * torch.randn(n, 10, generator=draw), 0.1 * torch.randn(n, 3, generator=draw)
    )


def shown(people):
    return body(people.betas, people.pose[:, 1:], people.pose[:, :1], people.transl, pose2rot=False)


# %%
# A small network that reads joints, and its training on generated people.
class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(48, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 24 * 6 + 13)
        )

    def forward(self, keypoints):
        six, betas, transl = self.layers((keypoints - 31.5).flatten(1) / 32).split((144, 10, 3), 1)
        return BodyPrediction(
            rotation_from_6d(six.unflatten(1, (24, 6)) + torch.tensor([1.0, 0, 0, 0, 1, 0])), betas, transl
        )


source = people(3000, 0.3, 0.4, 0.7)
seen, _ = camera.project(shown(source).joints)
regressor = Regressor()
optimizer = torch.optim.Adam(regressor.parameters(), 1e-3)
for _ in range(600):
    rows = torch.randint(3000, (64,), generator=draw)
    loss = supervised_loss(regressor(seen[rows]), BodyPrediction(*(part[rows] for part in source))).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# A clip of someone who moves more than any of them, turned away and with another shape. Of it there are noisy joints,
# masks and optical flow; the truth is kept for the errors.
first, last = people(2, 0.5, 0.5, 1.5).pose
share = (1 - torch.cos(torch.pi * torch.linspace(0, 1, 6))) / 2
six = torch.lerp(first[..., :2].mT.flatten(-2), last[..., :2].mT.flatten(-2), share[:, None, None])
true = BodyPrediction(rotation_from_6d(six), people(1, 0, 0, 1.5).betas.expand(6, -1), torch.zeros(6, 3))
points = shown(true).vertices
found = rasterize(points, body.faces, camera)
mask = found.face >= 0
corners = body.faces[found.face[:-1].clamp(min=0)]
there = (points[1:][torch.arange(5)[:, None, None, None], corners] * found.barycentric[:-1, ..., None]).sum(-2)
row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
flow = camera.project(there.flatten(1, 2))[0].view(5, 64, 64, 2) - torch.stack((column, row), -1)
flow = torch.where(mask[:-1, ..., None], flow, 0) + 0.25 * torch.randn(5, 64, 64, 2, generator=draw)
keypoints = camera.project(shown(true).joints)[0] + 0.5 * torch.randn(6, 24, 2, generator=draw)
clip = Clip(camera, keypoints, flow=flow, mask=mask)

figure, axes = plt.subplots(1, 4, figsize=(10, 2.7), layout="constrained")
axes[0].imshow(heatmaps(clip.keypoints[2], (64, 64)).amax(0), cmap="magma")
axes[1].imshow(clip.mask[2], cmap="gray")
axes[2].imshow(clip.flow[2].norm(dim=-1), cmap="viridis")
uv, _ = camera.project(points[2, ::4])
axes[3].imshow(clip.mask[2], cmap="gray", alpha=0.3)
axes[3].quiver(*uv.T, *sample_flow(clip.flow[2], uv).T, angles="xy", scale_units="xy", scale=0.5, color="tab:blue")
for axis, title in zip(
    axes, ("joints, as heatmaps", "mask", "flow, its length", "flow, read at vertices"), strict=True
):
    axis.set(xticks=[], yticks=[], title=title)

# %%
# Three ways to the motion. The loss of the optimised body falls the most, and its error does not follow; the network
# starts near the truth, and stays near it.
losses = SelfSupervision(body)
course = {"adapted": [], "optimised": []}


def total(out):
    value = losses(out, clip)["total"]
    with torch.no_grad():
        course["adapted"].append(
            (value.item(), 1000 * joint_error(shown(out).joints, shown(true).joints).mean().item())
        )
    return value


def watched(out, clip):
    values = losses(out, clip)
    with torch.no_grad():
        best = BodyPrediction(*(part[values["total"].argmin()] for part in out))
        error = 1000 * joint_error(shown(best).joints, shown(true).joints).mean().item()
        course["optimised"].append((values["total"].min().item(), error))
    return values


with torch.no_grad():
    motions = {"pretrained": regressor(clip.keypoints)}
    motions["adapted"] = adapt(regressor, (clip.keypoints,), total, steps=80, lr=3e-4)(clip.keypoints)
motions["optimised"] = fit_body(body, clip, watched, steps=60, lr=0.05)

figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for name, color in (("adapted", "tab:blue"), ("optimised", "0.5")):
    values, errors = zip(*course[name], strict=True)
    axes[0].semilogy(values, color=color, label=name)
    axes[1].plot(errors, color=color, label=name)
axes[0].set(xlabel="step", ylabel="loss in the image")
axes[1].set(xlabel="step", ylabel="joint error in mm", ylim=(0, None))
axes[0].legend()

# %%
# The skeletons over the mask, and the same ones from the side, where the truth (grey) shows what the image does not.
colors = {"pretrained": "tab:orange", "adapted": "tab:blue", "optimised": "tab:red"}
figure, axes = plt.subplots(2, 3, figsize=(8, 5.4), layout="constrained")
for column, (name, motion) in enumerate(motions.items()):
    joints, truth = shown(motion).joints[3], shown(true).joints[3]
    pixels = camera.project(joints)[0]
    axes[0, column].imshow(clip.mask[3], cmap="gray", alpha=0.3)
    for joint, parent in enumerate(body.parents[1:], 1):
        pair = [joint, parent]
        axes[0, column].plot(*pixels[pair].T, color=colors[name], linewidth=2)
        for body_joints, color in ((truth, "0.6"), (joints, colors[name])):
            side = (body_joints - body_joints[0])[pair]
            axes[1, column].plot(side[:, 2], side[:, 1], color=color, linewidth=2)
    error = 1000 * joint_error(shown(motion).joints, shown(true).joints).mean()
    axes[0, column].set(xticks=[], yticks=[], title=f"{name}, {error:.0f} mm")
    axes[1, column].set(xticks=[], yticks=[], aspect="equal")
axes[0, 0].set_ylabel("image")
axes[1, 0].set_ylabel("from the side")
plt.show()
