"""KMeansLayer against k-means written out, by way of SciPy; its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from throughline.discrete.clustering import KMeansLayer

X = torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.5


def layer(unit: bool, alpha: float = 1e-3, k: int = 7) -> KMeansLayer:
    made = KMeansLayer(5, k, alpha=alpha, normalize=unit, generator=torch.Generator().manual_seed(0)).double()
    made.project_()  # the first centres are of unit length in float32
    return made


def distances(made: KMeansLayer, x: Tensor = X) -> np.ndarray:
    """Squared distances by way of SciPy."""
    rows = normalize(x.numpy()) if made.normalize else x.numpy()
    return cdist(rows, made.centers.detach().numpy()) ** 2


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 0.7])
def test_logits_distances_assignment_and_losses_are_k_means(unit: bool, alpha: float) -> None:
    made = layer(unit, alpha)
    squared = distances(made)
    np.testing.assert_allclose(made.distances(X).detach(), squared, atol=1e-10)
    np.testing.assert_array_equal(made.assign(X), squared.argmin(1))
    assert made.assign(X).dtype == torch.int64
    soft = softmax(-alpha * squared, axis=1)
    np.testing.assert_allclose(made(X).softmax(-1).detach(), soft, atol=1e-12)
    assert made.loss(X).item() == pytest.approx(squared.min(1).mean())
    assert made.loss(X, hard=False).item() == pytest.approx((soft * squared).sum(1).mean())


def test_logits_are_shifted_squared_distances() -> None:
    made = layer(False, 0.3)
    expected = 0.3 * ((X**2).sum(1).numpy()[:, None] - distances(made))
    np.testing.assert_allclose(made(X).detach(), expected, atol=1e-12)
    plain = X @ made.weight.detach().T  # without the bias it is another clustering
    assert (plain.argmax(1) != made.assign(X)).any()


def test_the_soft_loss_becomes_the_hard_one() -> None:
    for unit in (True, False):
        made = layer(unit, 1e5)
        torch.testing.assert_close(made.loss(X, hard=False), made.loss(X), rtol=1e-8, atol=0)


def test_the_gradient_is_lloyds_direction() -> None:
    made = layer(False)
    made.loss(X).backward()
    labels, centers = distances(made).argmin(1), made.centers.detach().numpy()
    rows = [2 * (centers[j] - X.numpy()[labels == j]).sum(0) / len(X) for j in range(7)]
    assert made.weight.grad is not None
    np.testing.assert_allclose(made.weight.grad * 2e-3, rows, atol=1e-12)  # dΩ = dW / 2α


def test_the_gradient_on_the_sphere_is_the_sum_of_directions() -> None:
    made = layer(True)
    made.loss(X).backward()
    labels, directions = distances(made).argmin(1), normalize(X.numpy())
    rows = [-directions[labels == j].sum(0) / (1e-3 * len(X)) for j in range(7)]
    assert made.weight.grad is not None
    np.testing.assert_allclose(made.weight.grad, rows, rtol=1e-10)  # no radial part: that would be another step


@pytest.mark.parametrize("unit", [True, False])
def test_the_hard_loss_moves_samples_to_their_centre(unit: bool) -> None:
    made, x = layer(unit), X.clone().requires_grad_()
    before = made.distances(x).amin(-1)
    (gradient,) = torch.autograd.grad(made.loss(x), x)
    assert (made.distances(x - 1e-3 * len(x) * gradient).amin(-1) < before).all()


def test_a_step_of_the_paper() -> None:
    made = layer(True, k=60)  # with so many some stay without samples
    before = made.weight.detach().clone()
    optimizer = torch.optim.Adadelta(made.parameters())
    made.loss(X[:30]).backward()
    grad = made.weight.grad
    assert grad is not None
    used = torch.unique(made.assign(X[:30]))
    made.normalize_gradient_()
    lengths = torch.zeros(60, dtype=torch.float64)
    lengths[used] = 2e-4
    torch.testing.assert_close(grad.norm(dim=1), lengths)
    optimizer.step()
    assert not torch.allclose(made.weight.norm(dim=1)[used], torch.tensor(2e-3, dtype=torch.float64), rtol=1e-6)
    made.project_()
    torch.testing.assert_close(made.weight.norm(dim=1), torch.full((60,), 2e-3, dtype=torch.float64))
    moved = (made.weight - before).norm(dim=1) > 1e-12
    assert moved.nonzero()[:, 0].tolist() == used.tolist()


def test_projection_does_nothing_to_euclidean_centers() -> None:
    made = layer(False)
    before = made.weight.detach().clone()
    made.project_()
    assert torch.equal(made.weight, before)
    made.set_centers_(3 * torch.ones(7, 5))
    torch.testing.assert_close(made.centers, torch.full((7, 5), 3.0, dtype=torch.float64))
    unit = layer(True)
    unit.set_centers_(3 * torch.ones(7, 5))
    torch.testing.assert_close(unit.centers, torch.full((7, 5), 0.2**0.5, dtype=torch.float64))


def test_zero_vectors_are_equally_far_from_all() -> None:
    made, x = layer(True), torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(made.distances(x), torch.ones(3, 7, dtype=torch.float64))
    for hard in (True, False):
        (gradient,) = torch.autograd.grad(made.loss(x, hard=hard), x)
        assert gradient.norm() < 10


@given(st.floats(-30, 30), st.integers(0, 100))
def test_lengths_do_not_matter_on_the_sphere(exponent: float, seed: int) -> None:
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed))
    made = layer(True).float()
    torch.testing.assert_close(made(x * 10.0**exponent), made(x), rtol=1e-4, atol=1e-8)


def test_half_precision_computes_logits_in_float32() -> None:
    made, x = layer(True, k=60).bfloat16(), X.bfloat16()
    assert made(x).dtype == torch.float32
    wide = layer(True, k=60).bfloat16().float()
    assert torch.equal(made.assign(x), wide.assign(x.float()))
    assert (made(x).bfloat16().argmax(-1) != made.assign(x)).any()  # half-precision logits tie
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wide(x.float()), wide(X.bfloat16().float()))
        assert wide(x.float()).dtype == torch.float32
    torch.testing.assert_close(wide(x.float()), made(x))


def test_works_behind_any_module() -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6))
    clusters = KMeansLayer(6, 3)
    images = torch.as_tensor(load_digits().data[:20] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    clusters.loss(encoder(images)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert nn.Sequential(encoder, clusters)(images).shape == (20, 3)


@pytest.mark.parametrize("offset", [4e5, -1e6])
def test_an_offset_costs_float32_no_digits(offset: float) -> None:
    """Rows and centres that float32 holds exactly, so that a float64 oracle sees the same."""
    made = layer(False, 0.3).float()
    made.set_centers_((torch.arange(35).view(7, 5) * 7 % 16).float() + offset)
    centers = made.centers.detach().double().round()
    x = (torch.arange(100).view(20, 5) * 3 % 16).float() + offset
    squared = torch.from_numpy(cdist(x.numpy(), centers.numpy()) ** 2)
    scale = (centers - offset).norm(dim=1).max() * 0.2  # what the centres themselves lose in weight = 2 α centres
    assert (made.distances(x) - squared).abs().max() < 4 * scale
    assert (squared.gather(1, made.assign(x)[:, None])[:, 0] - squared.amin(1)).max() < 4 * scale
    assert made.loss(x).item() == pytest.approx(squared.amin(1).mean().item(), abs=float(4 * scale))


def test_distances_of_float32_rows_to_exact_centres() -> None:
    made = KMeansLayer(2, 3, normalize=False).double()
    centers = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-8.0, 1.0]], dtype=torch.float64) + 2.0**22
    made.set_centers_(centers)
    x = torch.tensor([[0.0, 1.0], [3.0, 3.0], [-8.0, 0.0]]) + 2.0**22
    expected = torch.from_numpy(cdist(x.numpy(), centers.numpy()) ** 2)
    assert made.distances(x).dtype == torch.float32
    torch.testing.assert_close(made.distances(x).double(), expected, rtol=1e-6, atol=1e-6)
    assert made.assign(x).tolist() == [0, 1, 2]
    for hard in (True, False):
        logits = -made.alpha * expected
        soft = (logits.softmax(-1) * expected).sum(-1)
        assert made.loss(x, hard=hard).item() == pytest.approx(float((expected.amin(1) if hard else soft).mean()))


@pytest.mark.parametrize("unit", [True, False])
def test_nan_is_no_cluster(unit: bool) -> None:
    made, x = layer(unit), X[:4].clone()
    expected = made.assign(x)
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN"):
        made.assign(x)
    expected[2] = -1
    assert torch.func.vmap(made.assign)(x).equal(expected)
