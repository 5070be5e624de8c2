"""
A pose found by its outline
===========================

A z-buffer says which face each pixel shows, and its image does not change while a face moves by less than a pixel:
there is no gradient to follow. A soft silhouette counts every face that is near a pixel, so that an outline pulls. We
turn an object of three bars until its outline is that of a photograph.
"""

import matplotlib.pyplot as plt
import torch

from throughline.core.camera import look_at
from throughline.core.raster import interpolate, rasterize, soft_silhouette
from throughline.core.rotation import geodesic_distance, so3_exp

# %%
# Three bars of different lengths, each a box of twelve triangles, and a camera in front of them.

box = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
triangles = torch.tensor([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)])
bars = [((1.6, 0.3, 0.3), (0.0, 0.0, 0.0)), ((0.3, 1.0, 0.3), (0.65, 0.5, 0.0)), ((0.3, 0.3, 0.7), (-0.65, 0.0, 0.4))]
vertices = torch.cat([box * torch.tensor(size) + torch.tensor(place) for size, place in bars])
faces = torch.cat([triangles + 8 * number for number in range(len(bars))])
camera = look_at((0.0, 0.4, -4.0), focal_length=110.0, image_size=(64, 64))

truth = so3_exp(torch.tensor([0.3, 0.7, -0.2]))
photograph = soft_silhouette(vertices @ truth.mT, faces, camera, sigma=1e-5)

# %%
# A wide edge (σ) sees far and a narrow one sees precisely, so it is narrowed on the way.

turn = torch.tensor([0.9, 0.1, 0.2], requires_grad=True)
optimizer = torch.optim.Adam([turn], lr=0.03)
errors, seen = [], [turn.detach().clone()]
for step in range(120):
    sigma = 3e-3 * 0.95**step
    outline = soft_silhouette(vertices @ so3_exp(turn).mT, faces, camera, sigma=sigma)
    loss = (outline - photograph).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    errors.append(geodesic_distance(so3_exp(turn.detach()), truth).rad2deg())
seen.append(turn.detach().clone())

# %%
# Drawn hard and lit from the camera, over the outline of the photograph.


def picture(turn):
    points = vertices @ so3_exp(turn).mT
    corners = points[faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    shade = 0.35 + 0.6 * (torch.nn.functional.normalize(normal, dim=-1) @ camera.R[2]).abs()
    alone, numbers = corners.flatten(0, 1), torch.arange(3 * len(faces)).view(-1, 3)  # a face has a colour of its own
    image = interpolate(rasterize(alone, numbers, camera), numbers, shade.repeat_interleave(3)[:, None], background=1.0)
    return image[..., 0]


fig, (start, end, course) = plt.subplots(1, 3, figsize=(9.5, 3.2), width_ratios=(1, 1, 1.3), layout="constrained")
for ax, turn, title in ((start, seen[0], "where it starts"), (end, seen[1], "120 steps later")):
    ax.imshow(picture(turn), cmap="gray", vmin=0, vmax=1)
    ax.contour(photograph, [0.5], colors="tab:red")
    ax.set(title=title, xticks=[], yticks=[])
course.semilogy(torch.stack(errors))
course.set(xlabel="step", ylabel="degrees from the truth", title="the outline in red is the photograph's")
plt.show()

# %%
# The outline alone leads close to the truth here. It cannot tell an object from its mirror image along the view, and
# it is blind to what lies inside: that is what attributes in `soft_rasterize` are for.

print(f"{errors[0]:.1f} degrees at first, {errors[-1]:.2f} at last")
