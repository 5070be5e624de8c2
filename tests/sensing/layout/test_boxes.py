"""Means over boxes against SciPy's integration."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from tests.sensing.layout.formulas import scene

from throughline.sensing.layout import box_average


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99), st.integers(1, 3))
def test_box_average_is_exact_against_quad(height: int, width: int, seed: int, cells: int) -> None:
    image = scene(height, width, seed=seed)
    x_edges, y_edges = (torch.cat([scene(cells + 1, seed=seed + k) + 1e-3]).cumsum(0) for k in (1, 2))
    x_edges, y_edges = (2 * e / (e[-1] + 0.1) - 1 for e in (x_edges, y_edges))
    weights = []
    for edges, n in ((y_edges.numpy(), height), (x_edges.numpy(), width)):
        kinks = -1 + (2 * np.arange(n) + 1) / n
        matrix = np.empty((cells, n))
        for k, (a, b) in enumerate(pairwise(edges)):
            inside = [a, *kinks[(kinks > a) & (kinks < b)], b]  # quad between the kinks: the integrand is linear there
            for j in range(n):
                hat = np.eye(n)[j]
                pieces = pairwise(inside)
                matrix[k, j] = sum(quad(np.interp, p, q, args=(kinks, hat))[0] for p, q in pieces) / (b - a)
        weights.append(torch.from_numpy(matrix))
    expected = weights[0] @ image @ weights[1].mT
    torch.testing.assert_close(box_average(image, x_edges, y_edges), expected, rtol=1e-9, atol=1e-10)


def test_thin_boxes_keep_their_digits_in_single_precision() -> None:
    image = scene(5, 64).float()
    x_edges = torch.tensor([0.5, 0.5001, 0.500101])
    y_edges = torch.tensor([-1.0, 1.0])
    expected = box_average(image.double(), x_edges.double(), y_edges.double())
    torch.testing.assert_close(box_average(image, x_edges, y_edges).double(), expected, rtol=2e-6, atol=0)


def test_gradients_of_boxes_at_pixel_centres() -> None:
    # edges on the kinks of the image, where the pieces of the antiderivative meet; the first half pixel is flat
    edges = (
        torch.tensor([-0.8, -0.4, 0.0, 0.4], dtype=torch.float64, requires_grad=True),
        torch.tensor([-0.5, 0.5, 0.9], dtype=torch.float64, requires_grad=True),
    )
    image = scene(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(box_average, (image, *edges))
