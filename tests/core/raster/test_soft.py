"""The soft renderers against the dense sum over faces and pixels, closed forms, hard limits and their promises."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.allocation import allocated
from tests.core.raster.meshes import centred, outside, plain, random, soup, sphere
from torch import Tensor

from throughline.core.camera import Camera
from throughline.core.raster import interpolate, rasterize, soft_rasterize, soft_silhouette

CUT = math.log(1 / 1e-4 - 1)
Image = tuple[Tensor, Tensor | None, Tensor]


def dense(
    vertices: Tensor,
    faces: Tensor,
    camera: Camera,
    attributes: Tensor | None = None,
    *,
    sigma: float,
    gamma: float = 1e-2,
    depth_range: tuple[float, float] | None = None,
    background: float | Tensor = 0.0,
    near: float = 1e-3,
) -> Image:
    """Every face at every pixel, by the formulas of the paper and autograd."""
    height, width = camera.image_size
    shorter = min(height, width)
    uv, depth = camera.project(vertices)
    units = torch.stack([2 * uv[:, 0] + 1 - width, 2 * uv[:, 1] + 1 - height], -1) / shorter
    i, j = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    pixel = torch.stack([2 * j + 1 - width, 2 * i + 1 - height], -1).view(-1, 1, 2) / shorter
    a, b, c = units[faces].unbind(1)
    area = _cross(b - a, c - a)
    drawn = (depth[faces] >= near).all(1) & (area.abs() * shorter**2 / 8 >= 1e-10)
    a, b, c, z = a[drawn], b[drawn], c[drawn], depth[faces][drawn]
    square = torch.stack([_segment(pixel, *ends) for ends in ((a, b), (b, c), (c, a))]).amin(0)  # (P, F)
    weights = torch.stack(
        [_cross(b - pixel, c - pixel), _cross(c - pixel, a - pixel), _cross(a - pixel, b - pixel)], -1
    )
    weights = weights / area[drawn].unsqueeze(-1)
    x = torch.where((weights >= 0).all(-1), square, -square) / sigma
    kept = x > -CUT
    one_minus = torch.where(kept, (-x).sigmoid(), 1.0)
    silhouette = 1 - one_minus.prod(1)
    cover = torch.where(kept, x.sigmoid(), 0.0)
    inner = weights.clamp(0, 1)
    inner = inner / inner.sum(-1, keepdim=True)
    at = 1 / (inner / z).sum(-1)
    seen = depth.detach()[depth >= near]
    if depth_range is None:
        margin = max(0.1 * (seen.max() - seen.min()).item(), 1e-6)
        depth_range = (seen.min().item() - margin, seen.max().item() + margin)
    zhat = (depth_range[1] - at) / (depth_range[1] - depth_range[0])
    bright = cover * (zhat / gamma).exp()
    total = bright.sum(1)
    mean_depth = torch.where(total > 0, (bright * at).sum(1) / torch.where(total > 0, total, 1), torch.inf)
    image = None
    if attributes is not None:
        values = ((inner * at.unsqueeze(-1) / z).unsqueeze(-1) * attributes[faces][drawn]).sum(-2)  # (P, F, C)
        behind = math.exp(1e-3 / gamma)
        image = ((bright.unsqueeze(-1) * values).sum(1) + behind * torch.as_tensor(background)) / (
            bright.sum(1) + behind
        ).unsqueeze(-1)
        image = image.view(height, width, -1)
    return silhouette.view(height, width), image, mean_depth.view(height, width)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _segment(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    t = (((p - a) * (b - a)).sum(-1) / (b - a).square().sum(-1)).clamp(0, 1)
    return (p - a - t.unsqueeze(-1) * (b - a)).square().sum(-1)


def scenes() -> list[tuple[Tensor, Tensor, Camera]]:
    small = Camera(centred(13, 10, 8.0).K, torch.eye(3).double(), torch.tensor([0.1, 0.0, 0.3]).double(), (13, 10))
    return [
        (*soup(8, seed=1, size=0.6), centred(9, 14, 10.0)),
        (*soup(20, seed=5, size=0.15), small),
        (*sphere(3), outside(12)),
    ]


@pytest.mark.parametrize("sigma", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("number", range(3))
def test_the_silhouette_is_the_product_over_all_faces(number: int, sigma: float) -> None:
    vertices, faces, camera = scenes()[number]
    leaves = [x.clone().requires_grad_() for x in (vertices, camera.K, camera.R, camera.t)]
    seen = Camera(*leaves[1:], camera.image_size)
    ours = soft_silhouette(leaves[0], faces, seen, sigma=sigma)
    theirs = dense(leaves[0], faces, seen, sigma=sigma)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weight = random(*ours.shape, seed=3)
    got, want = (torch.autograd.grad((x * weight).sum(), leaves) for x in (ours, theirs))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
    assert got[0].abs().max() > 0.01


@pytest.mark.parametrize("gamma", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("number", range(3))
def test_attributes_and_depth_are_the_weighted_means(number: int, gamma: float) -> None:
    vertices, faces, camera = scenes()[number]
    values, behind = random(len(vertices), 2, seed=7), random(2, seed=8)
    leaves = [x.clone().requires_grad_() for x in (vertices, values, behind, camera.K, camera.R, camera.t)]
    seen = Camera(*leaves[3:], camera.image_size)
    options = {"sigma": 0.02, "gamma": gamma, "background": leaves[2]}
    ours = soft_rasterize(leaves[0], faces, seen, leaves[1], **options)
    theirs = dense(leaves[0], faces, seen, leaves[1], **options)
    reached = theirs[2].isfinite()
    assert torch.equal(ours.depth[~reached], torch.full_like(ours.depth[~reached], math.inf))
    totals = []
    for silhouette, image, depth in (ours, theirs):
        weights = [random(*x.shape, seed=k) for k, x in enumerate((silhouette, image, depth))]
        parts = (silhouette, image, torch.where(reached, depth, 0))
        totals.append(sum((w * x).sum() for w, x in zip(weights, parts, strict=True)))
    torch.testing.assert_close(ours.silhouette, theirs[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.attributes, theirs[1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.depth[reached], theirs[2][reached], rtol=1e-8, atol=1e-8)
    got = torch.autograd.grad(totals[0], leaves)
    theirs_total = totals[1]
    want = torch.autograd.grad(theirs_total, leaves)
    for one, other in zip(got, want, strict=True):
        scale = float(other.nan_to_num().abs().max())
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7 * scale)


def test_each_of_three_results_has_its_own_gradient() -> None:
    vertices, faces, camera = scenes()[0]
    values = random(len(vertices), 2, seed=7)
    for part in range(3):
        grads = []
        for render in (soft_rasterize, dense):
            x = vertices.clone().requires_grad_()
            results = render(x, faces, camera, values, sigma=0.02, gamma=0.1)
            total = results[part][results[part].isfinite()].square().sum()
            grads.append(torch.autograd.grad(total, x)[0])
        torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_the_silhouette_alone_is_the_cheap_path_to_the_same() -> None:
    vertices, faces, camera = scenes()[1]
    cheap = soft_silhouette(vertices, faces, camera, sigma=1e-2)
    full = soft_rasterize(vertices, faces, camera, sigma=1e-2)
    assert torch.equal(cheap, full.silhouette)
    assert full.attributes is None


def test_across_a_straight_edge_it_is_a_sigmoid() -> None:
    """A half plane that ends at u = 7.3 in an image 20 high: d = |u - 7.3| · 2/20."""
    corners = torch.tensor([[-900.0, -900, 1], [7.3, -900, 1], [7.3, 900, 1], [-900, 900, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    u = torch.arange(24).double()
    signed = (7.3 - u).sign() * ((7.3 - u) / 10).square()
    for sigma in (0.03, 0.3):
        expected = (signed / sigma).sigmoid()
        expected[signed / sigma <= -CUT] = 0
        found = soft_silhouette(corners, faces, plain(20, 24), sigma=sigma)
        torch.testing.assert_close(found, expected.expand(20, 24))
        assert (found[0] == 0).any() == (sigma == 0.03)


def test_the_hard_image_is_the_limit() -> None:
    vertices, faces = sphere(8)
    vertices = torch.cat([vertices, 0.6 * vertices + torch.tensor([0.5, 0.3, -0.4])])
    faces = torch.cat([faces, faces + len(vertices) // 2])
    camera, values = outside(40), random(len(vertices), 3)
    hard = rasterize(vertices, faces, camera)
    image = interpolate(hard, faces, values, background=0.25)
    for sigma, gamma, slack in ((1e-5, 1e-3, 0.05), (1e-8, 1e-5, 1e-3)):
        soft = soft_rasterize(vertices, faces, camera, values, sigma=sigma, gamma=gamma, background=0.25)
        silhouette, covered = soft_silhouette(vertices, faces, camera, sigma=sigma), hard.face >= 0
        far = (silhouette - covered.double()).abs() > slack
        assert far.double().mean() < 4 * slack
        off = (soft.attributes - image).abs().amax(-1) > slack
        assert off.double().mean() < 4 * slack
        both = covered & soft.depth.isfinite()
        assert both.sum() > 300
        assert ((soft.depth - hard.depth)[both].abs() > slack).double().mean() < 4 * slack


@pytest.mark.parametrize("max_pairs", [1, 7, 100, 2000])
def test_tiles_are_invisible(max_pairs: int) -> None:
    vertices, faces, camera = scenes()[2]
    values, results = random(len(vertices), 2), []
    for limit in (2**20, max_pairs):
        leaves = [vertices.clone().requires_grad_(), values.clone().requires_grad_()]
        found = soft_rasterize(leaves[0], faces, camera, leaves[1], sigma=1e-2, gamma=0.1, max_pairs=limit)
        alone = soft_silhouette(leaves[0], faces, camera, sigma=1e-2, max_pairs=limit)
        total = found.attributes.square().sum() + found.silhouette.sum() + alone.square().sum()
        results.append((*found, alone, *torch.autograd.grad(total, leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_batch_is_what_its_images_are() -> None:
    vertices, faces, camera = scenes()[0]
    batch = torch.stack([vertices, vertices + 0.2, 0.9 * vertices])
    values = random(3, len(vertices), 2)
    for max_pairs in (2**20, 13):
        leaves = [batch.clone().requires_grad_(), values.clone().requires_grad_()]
        whole = soft_rasterize(leaves[0], faces, camera, leaves[1], sigma=1e-2, gamma=0.1, max_pairs=max_pairs)
        grads = torch.autograd.grad(whole.attributes.square().sum() + whole.silhouette.square().sum(), leaves)
        for b in range(3):
            own = [batch[b].clone().requires_grad_(), values[b].clone().requires_grad_()]
            one = soft_rasterize(own[0], faces, camera, own[1], sigma=1e-2, gamma=0.1)
            alone = torch.autograd.grad(one.attributes.square().sum() + one.silhouette.square().sum(), own)
            for got, want in zip((*[x[b] for x in whole], *[g[b] for g in grads]), (*one, *alone), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_attributes_of_the_whole_batch_may_be_shared() -> None:
    vertices, faces, camera = scenes()[0]
    batch, values = torch.stack([vertices, vertices + 0.2]), random(len(vertices), 2).requires_grad_()
    shared = soft_rasterize(batch, faces, camera, values, sigma=1e-2).attributes
    own = soft_rasterize(batch, faces, camera, values.expand(2, -1, -1), sigma=1e-2).attributes
    assert torch.equal(shared, own)
    assert values.grad is None
    shared.sum().backward()
    assert values.grad.shape == values.shape


def test_outside_of_the_cut_there_is_nothing_at_all() -> None:
    corners = torch.tensor([[4.0, 4, 1], [8, 4, 1], [4, 8, 1]], dtype=torch.float64).requires_grad_()
    found = soft_rasterize(corners, torch.tensor([[0, 1, 2]]), plain(20, 20), torch.ones(3, 1).double(), sigma=0.01)
    reach = math.sqrt(CUT * 0.01) * 10  # pixels
    i, j = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    beyond = (j < 4 - reach) | (i < 4 - reach) | (j > 8 + reach) | (i > 8 + reach)
    assert not found.silhouette[beyond].any()
    assert not found.attributes[beyond].any()
    assert found.depth[beyond].isinf().all()
    assert found.silhouette[(i - 4).abs() + (j - 4).abs() < 1].all()
    assert torch.autograd.grad(found.silhouette[beyond].sum(), corners)[0].eq(0).all()


def test_flat_faces_and_faces_that_are_too_near_are_skipped() -> None:
    good = torch.tensor([[4.0, 4, 2], [16, 4, 2], [4, 16, 2]], dtype=torch.float64)
    near = torch.tensor([[0.0, 0, 5e-4], [9, 0, 2], [0, 9, 2]], dtype=torch.float64)
    flat = torch.tensor([[0.0, 0, 2], [6, 6, 2], [12, 12, 2]], dtype=torch.float64)
    vertices = torch.cat([good, near, flat]).requires_grad_()
    faces, values = torch.arange(9).view(3, 3), random(9, 2)
    options = {"sigma": 1e-2, "gamma": 0.1, "depth_range": (1.0, 3.0)}
    found = soft_rasterize(vertices, faces, plain(10, 10), values, **options)
    alone = soft_rasterize(good, faces[:1], plain(10, 10), values[:3], **options)
    for got, want in zip(found, alone, strict=True):
        torch.testing.assert_close(got, want)
    silhouette = soft_silhouette(vertices, faces, plain(10, 10), sigma=1e-2)
    total = found.attributes.sum() + found.silhouette.sum() + found.depth[found.depth.isfinite()].sum()
    for value in (total, silhouette.sum()):
        (grad,) = torch.autograd.grad(value, vertices)
        assert grad[:3].any()
        assert not grad[3:].any()


def test_nothing_to_draw_is_the_background() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    for vertices, faces in (
        (random(4, 3), none),
        (random(0, 3), none),
        (-random(3, 3).abs(), torch.tensor([[0, 1, 2]])),
    ):
        vertices = vertices.requires_grad_()
        found = soft_rasterize(vertices, faces, plain(3, 4), torch.ones(len(vertices), 2), background=torch.arange(2.0))
        assert not found.silhouette.any()
        assert torch.equal(found.attributes, torch.arange(2.0).double().expand(3, 4, 2))
        assert found.depth.isinf().all()
        (found.silhouette.sum() + found.attributes.sum()).backward()
        assert not vertices.grad.any()


def test_depths_are_ranged_by_what_is_in_front() -> None:
    """By default the range is that of the vertices, widened by a tenth; far away it is as sharp as close by."""
    vertices, faces, camera = scenes()[0]
    values = random(len(vertices), 1)
    behind = torch.cat([vertices, torch.tensor([[0.0, 0.0, -50.0]]).double()])  # no face has it
    z = vertices[:, 2]
    margin = 0.1 * float(z.max() - z.min())
    explicit = (float(z.min()) - margin, float(z.max()) + margin)
    want = soft_rasterize(vertices, faces, camera, values, sigma=1e-2, depth_range=explicit).attributes
    got = soft_rasterize(behind, faces, camera, torch.cat([values, values[:1]]), sigma=1e-2).attributes
    torch.testing.assert_close(got, want)
    stretched = soft_rasterize(vertices, faces, camera, values, sigma=1e-2, depth_range=(1.0, 100.0)).attributes
    assert (stretched - want).abs().max() > 0.1


@pytest.mark.parametrize("depth_range", [(1.0, 2.0), (0.01, 0.02), (50.0, 60.0), (1e3, 1e4)])
def test_depths_outside_of_the_range_are_finite(depth_range: tuple[float, float]) -> None:
    vertices, faces, camera = scenes()[0]
    for gamma in (1.0, 1e-2, 1e-5):
        for dtype in (torch.float32, torch.float64):
            x = vertices.to(dtype, copy=True).requires_grad_()
            found = soft_rasterize(x, faces, camera, x, sigma=1e-2, gamma=gamma, depth_range=depth_range)
            reached = found.depth.isfinite()
            assert torch.equal(reached, found.silhouette > 0)
            assert found.attributes.isfinite().all()
            total = found.attributes.sum() + found.depth[reached].sum() + found.silhouette.sum()
            assert torch.autograd.grad(total, x)[0].isfinite().all()
            if depth_range == (50.0, 60.0):  # nearer than the range: the background cannot compete
                inside = found.silhouette > 0.999
                torch.testing.assert_close(found.attributes[inside][:, 2], found.depth[inside])


def test_faint_faces_change_nothing() -> None:
    """Rows that are left out, against a dense sum that leaves out none."""
    vertices, faces = sphere(6)
    camera, values = outside(24), random(len(vertices), 2)
    for gamma in (0.02, 0.005):
        ours = soft_rasterize(vertices, faces, camera, values, sigma=1e-3, gamma=gamma)
        theirs = dense(vertices, faces, camera, values, sigma=1e-3, gamma=gamma)
        torch.testing.assert_close(ours.attributes, theirs[1], rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**16))
def test_silhouettes_are_probabilities_and_grow_with_faces(seed: int) -> None:
    vertices, faces = soup(5, seed=seed, size=0.5)
    camera = centred(7, 8, 6.0)
    some, every = (soft_silhouette(vertices, f, camera, sigma=1e-2) for f in (faces[:3], faces))
    assert ((some >= 0) & (every <= 1)).all()
    assert (every >= some - 1e-12).all()


def test_the_order_of_faces_and_corners_does_not_matter() -> None:
    vertices, faces, camera = scenes()[0]
    values = random(len(vertices), 2)
    want = soft_rasterize(vertices, faces, camera, values, sigma=1e-2)
    for other in (faces.flip(0), faces.roll(1, 1), faces.flip(1)):
        for got, expected in zip(soft_rasterize(vertices, other, camera, values, sigma=1e-2), want, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_many_small_faces_are_all_counted() -> None:
    """Truncation to the nearest faces would bias a pixel that sees more than a hundred of them."""
    count = 150
    corner = torch.tensor([[0.0, 0.0, 0.0], [0.02, 0.0, 0.0], [0.0, 0.02, 0.0]], dtype=torch.float64)
    place = torch.tensor([4.0, 4.0, 1.0]) + torch.rand(count, 1, 3, generator=torch.Generator().manual_seed(0)).double()
    place[..., 2] = 1.0
    vertices, faces = (place + corner).flatten(0, 1), torch.arange(3 * count).view(count, 3)
    found = soft_silhouette(vertices, faces, plain(10, 10), sigma=1.0)
    torch.testing.assert_close(found, dense(vertices, faces, plain(10, 10), sigma=1.0)[0])
    assert found[0, 0] > 0.99  # of each alone it is about 0.05


def test_the_inside_of_a_shape_neither_underflows_nor_pulls() -> None:
    vertices, faces = sphere(12, dtype=torch.float32)
    vertices.requires_grad_()
    found = soft_silhouette(vertices, faces, outside(40), sigma=1e-6)
    assert (found == 1).sum() > 200
    (grad,) = torch.autograd.grad(found[found == 1].sum(), vertices)
    assert grad.isfinite().all()
    assert (
        torch.autograd.grad(soft_silhouette(vertices, faces, outside(40), sigma=1e-6)[20, 20], vertices)[0].eq(0).all()
    )


def test_single_precision_is_close_to_double() -> None:
    vertices, faces = sphere(16)
    camera, values = outside(48), random(len(vertices), 3)
    results = []
    for dtype in (torch.float64, torch.float32):
        x = vertices.to(dtype, copy=True).requires_grad_()
        found = soft_rasterize(x, faces, camera, values.to(dtype))
        assert {r.dtype for r in found} == {dtype}
        total = found.attributes.square().sum() + found.silhouette.sum() + found.depth[found.depth.isfinite()].sum()
        results.append([r.detach().double() for r in (*found, torch.autograd.grad(total, x)[0])])
    for one, other in zip(*results, strict=True):
        finite = one.isfinite() & other.isfinite()
        torch.testing.assert_close(one[finite], other[finite], rtol=2e-3, atol=2e-3 * float(other[finite].abs().max()))


@pytest.mark.parametrize("kind", ["silhouette", "attributes"])
@pytest.mark.parametrize("lines", [24, 60])  # 2,208 and 14,160 faces
def test_memory_is_bounded_by_the_pairs_and_not_by_the_mesh(kind: str, lines: int) -> None:
    """At most 600 bytes times max_pairs beside arguments and results, forward and backward."""
    max_pairs = 2**13
    vertices, faces = sphere(lines, dtype=torch.float32)
    camera, values = outside(48).to(torch.float32), torch.ones(len(vertices), 2)
    vertices.requires_grad_()

    def call() -> None:
        if kind == "silhouette":
            image = soft_silhouette(vertices, faces, camera, sigma=1e-3, max_pairs=max_pairs)
        else:
            found = soft_rasterize(vertices, faces, camera, values, sigma=1e-3, max_pairs=max_pairs)
            image = found.silhouette + found.attributes.sum(-1)
        torch.autograd.grad(image.sum(), vertices)

    call()
    # of arguments and results: vertices in the camera, on the screen and their gradients; images of each kind
    own = 20 * vertices.numel() * 4 + 40 * 48 * 48 * 4
    assert allocated(call) < 600 * max_pairs + own


def test_the_second_derivative_is_refused() -> None:
    vertices, faces, camera = scenes()[0]
    vertices.requires_grad_()
    for total in (
        soft_silhouette(vertices, faces, camera, sigma=1e-2).square().sum(),
        soft_rasterize(vertices, faces, camera, vertices, sigma=1e-2).attributes.square().sum(),
    ):
        (first,) = torch.autograd.grad(total, vertices, create_graph=True)
        with pytest.raises(RuntimeError, match="rasterisation is differentiable once"):
            first.square().sum().backward()
