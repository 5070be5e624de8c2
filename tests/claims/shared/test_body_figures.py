"""Outlines lie on the image that they are of, and the nearest faces are painted last."""

import numpy as np

from throughline.claims.shared.body_figures import outline, paint
from throughline.lab.plots import subplots


def test_an_outline_lies_on_the_image() -> None:
    _, axis = subplots()
    mask = np.zeros((40, 40), bool)
    mask[8:32, 20:36] = True  # of an image of 10 pixels: rows 2 to 7, columns 5 to 8
    outline(axis, mask, 10, "red", 1.0)
    (drawn,) = axis.collections
    points = np.concatenate([path.vertices for path in drawn.get_paths()])
    np.testing.assert_allclose(points.min(0), (4.5, 1.5), atol=0.01)
    np.testing.assert_allclose(points.max(0), (8.5, 7.5), atol=0.01)


def test_nothing_has_no_outline() -> None:
    _, axis = subplots()
    for mask in (np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        outline(axis, mask, 4, "red", 1.0)
    assert not axis.collections


def test_faces_are_painted_from_behind() -> None:
    _, axis = subplots()
    vertices = np.array([[0, 0, 5], [1, 0, 5], [0, 1, 5], [0, 0, 1], [2, 0, 1], [0, 2, 1.0]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    painted = paint(axis, vertices, faces, np.array([1, 2, 3, 10, 20, 30.0]), 40.0)
    np.testing.assert_allclose(painted.get_array(), [20, 2])
    assert painted.get_clim() == (0, 40)
    assert painted.get_paths()[0].vertices[:3].tolist() == [[0, 0], [2, 0], [0, 2]]
