"""What several claims draw: paired differences, images and polygons, by what lies in the axes."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from throughline.lab.plots import draw_image, draw_polygon, paired_differences, subplots


class Stored:
    """What is asked of `Results`: three arms, of which one has a single seed."""

    arms = ("plain", "better", "new")
    claim = type("Claim", (), {"arms": arms, "context": ()})
    found = {"better": np.array([0.3, 0.1, 0.2]), "new": np.array([-0.4])}

    def paired(self, metric: str, arm: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        assert (metric, other) == ("k_accuracy", "plain")
        difference = self.found[arm]
        return tuple(range(len(difference))), 0.5 + difference, np.full(len(difference), 0.5)


def test_paired_differences_have_the_interval_of_a_paired_t_test() -> None:
    results: Any = Stored()
    figure = paired_differences(results, "k_accuracy", "plain")
    (axis,) = figure.axes
    assert axis.get_ylabel() == "k accuracy above plain"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["better", "new"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.asarray(dots[0].get_ydata()), Stored.found["better"])
    np.testing.assert_allclose(np.asarray(dots[1].get_ydata()), Stored.found["new"])
    assert len(axis.containers) == 1  # one seed alone has no interval
    bars: Any = axis.containers[0]
    (segment,) = bars[2][0].get_segments()
    expected = stats.ttest_1samp(Stored.found["better"], 0).confidence_interval(0.95)
    assert segment[:, 1].tolist() == pytest.approx([expected.low, expected.high])


def test_images_of_one_channel_are_grey() -> None:
    _, (left, right) = subplots(1, 2)
    draw_image(left, np.arange(6.0).reshape(2, 3, 1), vmax=9)
    draw_image(right, np.zeros((2, 3, 3)))
    assert left.images[0].get_array().shape == (2, 3)
    assert (left.images[0].get_cmap().name, left.images[0].get_clim()) == ("gray", (0, 9))
    assert right.images[0].get_array().shape == (2, 3, 3)


@pytest.mark.parametrize("numbered", [True, False])
def test_polygons_are_closed(numbered: bool) -> None:
    _, axis = subplots()
    points = np.array([[0.0, 0], [1, 0], [0.2, 0.1], [0, 1]])
    draw_polygon(axis, points, np.array([0, 1, 3]), "red", "--", numbered=numbered)
    around = axis.lines[1]
    assert around.get_xydata().tolist() == points[[0, 1, 3, 0]].tolist()
    assert around.get_linestyle() == "--"
    assert [text.get_text() for text in axis.texts] == (["1", "2", "3"] if numbered else [])
    assert len(axis.lines[0].get_xydata()) == 4
    draw_polygon(axis, points, [], "red")  # nothing was found
