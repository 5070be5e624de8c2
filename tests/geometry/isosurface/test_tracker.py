"""The narrow band against the whole pass, what it costs, what it misses, and when it sees it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.geometry.isosurface.shapes import ball, torus
from torch import Tensor, nn

from throughline.geometry.isosurface import SurfaceTracker, extract_surface


class Counted:
    """A field that knows how many points it was asked at, without a graph."""

    def __init__(self, field: Callable[[Tensor], Tensor]) -> None:
        self.field, self.points = field, 0

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.points += len(x)
        return self.field(x)


def same(mesh: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return len(mesh[0]) == len(other[0]) and torch.equal(mesh[0], other[0]) and torch.equal(mesh[1], other[1])


@pytest.mark.parametrize("band", [1, 2])
def test_follows_a_surface_that_moves_less_than_its_band(band: int) -> None:
    tracker = SurfaceTracker(resolution=32, band=band, refresh=100)
    for step in range(8):
        radius = 0.4 + step * 0.9 * band * 2 / 31
        if radius > 0.9:
            break
        field = lambda x, r=radius: ball(x, r)  # noqa: E731
        assert same(tracker(field), extract_surface(field, resolution=32)), step


def test_splits_and_joins_within_the_band() -> None:
    tracker = SurfaceTracker(resolution=32, refresh=100)
    for apart in torch.linspace(0.2, 0.45, 12).tolist():
        field = lambda x, a=apart: torch.minimum(ball(x, 0.3, (a, 0, 0)), ball(x, 0.3, (-a, 0, 0)))  # noqa: E731
        mesh = tracker(field)
        assert same(mesh, extract_surface(field, resolution=32))
    assert len(mesh[0]) - len(mesh[1]) // 2 == 4


def test_a_tracked_call_costs_a_small_share() -> None:
    tracker = SurfaceTracker(resolution=64)
    shares = []
    for _ in range(12):
        field = Counted(ball)
        tracker(field)
        shares.append(field.points / 64**3)
    assert shares[0] == shares[10] == pytest.approx(1, abs=1e-4)  # a whole pass each tenth call, and a probe
    assert all(0.03 < share <= 0.15 for share in (*shares[1:10], shares[11]))
    wide = SurfaceTracker(resolution=64, band=3)
    wide(ball)
    field = Counted(ball)
    wide(field)
    assert 1.6 * shares[1] < field.points / 64**3 < 2.6 * shares[1]  # 2 · band + 2 layers


def test_the_band_is_both_ends_of_cut_edges_and_their_neighbours() -> None:
    """A plane between the layers 4 and 5 of 12: the band of 2 reaches from 2 to 7."""
    tracker = SurfaceTracker(resolution=12, bounds=(0.0, 11.0), band=2)
    plane = lambda x: x[:, 1] - 4.5  # noqa: E731
    tracker(plane)
    seen = []

    def watched(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and len(x) > 2:
            seen.append(x)
        return plane(x)

    tracker(watched)
    assert torch.cat(seen)[:, 1].unique().tolist() == [2, 3, 4, 5, 6, 7]
    assert len(torch.cat(seen)) == 6 * 144


def test_what_appears_elsewhere_waits_for_the_whole_pass() -> None:
    small = lambda x: ball(x, 0.2, (-0.6, 0, 0))  # noqa: E731
    both = lambda x: torch.minimum(small(x), ball(x, 0.2, (0.6, 0, 0)))  # noqa: E731
    tracker = SurfaceTracker(resolution=32, refresh=4)
    tracker(small)
    found = [same(tracker(both), extract_surface(both, resolution=32)) for _ in range(7)]
    assert found == [False, False, False, True, True, True, True]
    always = SurfaceTracker(resolution=32, refresh=1)
    always(small)
    assert same(always(both), extract_surface(both, resolution=32))


def test_after_nothing_everything_is_looked_at() -> None:
    tracker = SurfaceTracker(resolution=16, refresh=100)
    assert len(tracker(lambda x: ball(x) + 5)[0]) == 0
    assert same(tracker(ball), extract_surface(ball, resolution=16))


def test_passes_its_options_on() -> None:
    options: dict[str, Any] = {"resolution": 20, "bounds": (-0.8, 0.9), "level": 0.1}
    scale = torch.tensor(2.0, requires_grad=True)
    field = lambda x: scale * torus(x)  # noqa: E731
    tracker = SurfaceTracker(**options, slope="unit", chunk=50)
    for _ in range(2):
        sizes = []

        def watched(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            if not torch.is_grad_enabled():
                sizes.append(len(x))
            return field(x)

        mesh = tracker(watched)
        whole = extract_surface(field, **options, slope="unit")
        assert same(mesh, whole)
        assert max(sizes) == 50
        gradients = [torch.autograd.grad(v.square().sum(), scale)[0] for v in (mesh[0], whole[0])]
        assert gradients[0] == gradients[1] != 0


def test_another_dtype_is_refused() -> None:
    tracker = SurfaceTracker(resolution=8)
    tracker(ball)
    with pytest.raises(
        ValueError, match=r"field must give torch\.float32 on cpu as at the first call, got torch\.float64"
    ):
        tracker(lambda x: ball(x.double()))
    with pytest.raises(ValueError, match=r"field must map \(N, 3\) to \(N,\)"):
        tracker(lambda x: x)
    assert len(tracker(ball)[0])
    double = SurfaceTracker(resolution=8)
    model = nn.Linear(3, 1).double()
    assert double(lambda x: model(x)[:, 0])[0].dtype == torch.float64


def test_names_the_bad_argument() -> None:
    for options, message in (
        ({"resolution": 1}, r"resolution must be at least 2, got 1"),
        ({"bounds": (1.0, -1.0)}, r"bounds must increase"),
        ({"band": 0}, r"band must be at least 1, got 0"),
        ({"refresh": 0}, r"refresh must be at least 1, got 0"),
        ({"slope": "x"}, r'slope must be "implicit" or "unit", got \'x\''),
        ({"chunk": 0}, r"chunk must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SurfaceTracker(**options)  # type: ignore[arg-type]
