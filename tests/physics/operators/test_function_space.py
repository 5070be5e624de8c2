"""Function spaces against closed forms, scikit-fem's own projection, dense algebra and brute force."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import skfem
import torch
from tests.physics.operators.meshes import (
    CONFORMING,
    SCALAR,
    TRI,
    VECTOR,
    affine,
    affine_vector,
    constant_vector,
    inside,
    made,
)
from torch import Tensor

from throughline.physics.operators import Decoder, Encoder, FunctionSpace, hierarchy, prolongation

# ---- what a space is ----


@pytest.mark.parametrize("name", [*SCALAR, *VECTOR, *CONFORMING])
def test_functions_of_the_space_are_kept(name: str) -> None:
    """Interpolation, projection and evaluation agree on functions that lie in the space."""
    space = made(name)
    f = affine if name in SCALAR else affine_vector if name in VECTOR else constant_vector
    c = space.interpolate(f)
    torch.testing.assert_close(space.project(f), c, atol=1e-10, rtol=0)
    points = inside(space)
    torch.testing.assert_close(space.evaluate(c, points), f(points), atol=1e-10, rtol=0)
    assert space.coordinates.shape == (space.dim, space.mesh.dim())
    if space.nodal:
        there = space.evaluate(c, space.coordinates)
        torch.testing.assert_close(there, f(space.coordinates), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", [*SCALAR, *VECTOR, *CONFORMING])
def test_projection_and_norm_are_those_of_scikit_fem(name: str) -> None:
    space = made(name)

    def wave(x: np.ndarray) -> np.ndarray:
        first = np.sin(5 * x[0]) + x[-1] ** 3
        return first if space.components is None else np.stack([first * (k + 1) - x[k] for k in range(len(x))])

    c = space.project(torch.from_numpy(wave(space.quadrature_points.numpy().T).T.copy()))
    np.testing.assert_allclose(c.numpy(), space.basis.project(wave), atol=1e-9)
    field = space.basis.interpolate(c.numpy())
    values = np.asarray(field)
    square = values**2 if space.components is None else (values**2).sum(0)
    assert space.norm(c).item() == pytest.approx(np.sqrt((square * space.basis.dx).sum()))


@pytest.mark.parametrize("name", [*SCALAR, *VECTOR, *CONFORMING])
def test_edges_are_the_pattern_of_the_mass_matrix(name: str) -> None:
    space = made(name)
    cells = space.basis.element_dofs.T
    wanted = {(a, b) for cell in cells.tolist() for a in cell for b in cell if a != b}
    source, target = space.edges.tolist()
    assert set(zip(source, target, strict=True)) == wanted
    assert len(source) == len(wanted)
    assert target == sorted(target)


def test_probes_of_scikit_fem_give_the_same_values() -> None:
    for name in ("tri P2", "tri vector P2", "tri RT", "tet P1"):
        space = made(name)
        c, points = torch.randn(space.dim, dtype=torch.float64), inside(space)
        wanted = space.basis.interpolator(c.numpy())(points.numpy().T)
        found = space.evaluate(c, points).numpy()
        np.testing.assert_allclose(found if space.components is None else found.T, wanted, atol=1e-10)


def test_order_of_convergence_of_the_projection() -> None:
    """O(h²) of linear and O(h³) of quadratic elements, with the quadrature of the default."""
    f = lambda x: (3 * x[:, 0]).sin() * (2 * x[:, 1]).cos()  # noqa: E731
    for element, order in ((skfem.ElementTriP1(), 2), (skfem.ElementTriP2(), 3), (skfem.ElementTriP0(), 1)):
        found = []
        for level in (3, 4):
            space = FunctionSpace(skfem.MeshTri().refined(level), element)
            fine = FunctionSpace(space.mesh, quadrature_order=10)
            values = space.evaluate(space.project(f), fine.quadrature_points)
            weights = torch.from_numpy(fine.basis.dx.ravel())
            found.append((((values - f(fine.quadrature_points)) ** 2 * weights).sum().sqrt()).item())
        assert np.log2(found[0] / found[1]) == pytest.approx(order, abs=0.15)


def test_mass_counts_area_not_nodes() -> None:
    """On a graded mesh the norm is that of the function, whatever the number of nodes here and there."""
    mesh = skfem.MeshTri().refined(2)
    for _ in range(3):
        mesh = mesh.refined(mesh.elements_satisfying(lambda x: x[0] < 0.3))
    space = FunctionSpace(mesh)
    c = space.interpolate(lambda x: x[:, 0])
    assert space.norm(c).item() == pytest.approx(3**-0.5)
    assert c.square().mean().sqrt().item() < 0.8 * 3**-0.5
    assert space.mass.to_dense().sum().item() == pytest.approx(1)


def test_norm_of_nothing_has_no_slope() -> None:
    space = made("tri P1")
    c = torch.zeros(2, space.dim, dtype=torch.float64, requires_grad=True)
    space.norm(c).sum().backward()
    assert c.grad is not None
    assert (c.grad == 0).all()


# ---- boundary conditions ----


def test_dirichlet_by_name_predicate_and_all() -> None:
    mesh = skfem.MeshTri().refined(2).with_boundaries({"left": lambda x: x[0] == 0, "top": lambda x: x[1] == 1})
    x = FunctionSpace(mesh).coordinates
    on = {"left": x[:, 0] == 0, "top": x[:, 1] == 1}
    border = ((x == 0) | (x == 1)).any(1)
    for given_, wanted in (
        ("left", on["left"]),
        (["left", "top"], on["left"] | on["top"]),
        (lambda x: x[0] == 0, on["left"]),
        ("all", border),
        (None, torch.zeros_like(border)),
    ):
        assert torch.equal(FunctionSpace(mesh, dirichlet=given_).constrained, wanted)
    vector = FunctionSpace(mesh, skfem.ElementVector(skfem.ElementTriP2()), dirichlet="left")
    assert torch.equal(vector.constrained, vector.coordinates[:, 0] == 0)
    normal = FunctionSpace(mesh, skfem.ElementTriRT1(), dirichlet="left")
    assert torch.equal(normal.constrained, normal.coordinates[:, 0] == 0)


def test_predicates_select_no_inner_facets() -> None:
    space = FunctionSpace(skfem.MeshTri().refined(2), dirichlet=lambda x: abs(x[0] - 0.5) < 0.3)
    assert ((space.coordinates[:, 1] == 0) | (space.coordinates[:, 1] == 1))[space.constrained].all()


def test_a_hierarchy_carries_conditions() -> None:
    mesh = skfem.MeshTri().with_boundaries({"left": lambda x: x[0] == 0})
    for condition in ("left", lambda x: x[0] == 0):
        for space in hierarchy(mesh, 3, skfem.ElementTriP2(), dirichlet=condition, quadrature_order=7):
            assert torch.equal(space.constrained, space.coordinates[:, 0] == 0)
            assert isinstance(space.element, skfem.ElementTriP2)
            assert space.basis.X.shape[1] == skfem.Basis(mesh, space.element, intorder=7).X.shape[1]
    assert [s.dim for s in hierarchy(skfem.MeshHex(), 2)] == [8, 27]


@pytest.mark.parametrize(
    ("mesh", "element"),
    [
        (skfem.MeshTri().refined(2), skfem.ElementTriP1()),
        (skfem.MeshTri().refined(2), skfem.ElementTriP2()),
        (skfem.MeshQuad().refined(2), skfem.ElementQuad1()),
        (skfem.MeshTri().refined(2), skfem.ElementVector(skfem.ElementTriP1())),
        (skfem.MeshTet().refined(1), skfem.ElementTetP1()),
        (skfem.MeshHex().refined(1), skfem.ElementHex1()),
        (skfem.MeshLine().refined(3), skfem.ElementLineP2()),
    ],
)
def test_periodic_faces_and_corners_are_one(mesh: Any, element: Any) -> None:
    d = mesh.dim()
    space = FunctionSpace(mesh, element, periodic=range(d))
    whole = FunctionSpace(mesh, element)
    places = {tuple((np.round(x, 9) % 1).tolist()) for x in whole.coordinates.numpy()}
    assert space.dim == len(places) * (space.components or 1)
    assert (space.coordinates < 1 - 1e-9).all()  # each keeps its lowest place
    torch.testing.assert_close(space.mass.to_dense().sum(), whole.mass.to_dense().sum())

    def wave(x: Tensor) -> Tensor:
        one = (2 * torch.pi * x).cos().sum(1)
        return one if space.components is None else torch.stack([one * (k + 1) for k in range(d)], 1)

    c = space.interpolate(wave)
    low = torch.rand(20, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low[:, 0] = 0
    high = low.clone()
    high[:, 0] = 1
    torch.testing.assert_close(space.evaluate(c, low), space.evaluate(c, high))
    smooth = whole.interpolate(wave)
    torch.testing.assert_close(space.norm(c), whole.norm(smooth))
    assert space.edges.max() < space.dim
    degrees = torch.bincount(space.edges[1], minlength=space.dim)
    if isinstance(element, skfem.ElementQuad1):
        assert (degrees == 8).all()  # no unknown has a border


def test_a_periodic_projection_solves_the_periodic_system() -> None:
    whole = FunctionSpace(skfem.MeshTri().refined(2))
    space = FunctionSpace(whole.mesh, periodic=[0])
    join = np.zeros((whole.dim, space.dim))
    for i, (x, y) in enumerate(whole.coordinates.tolist()):
        join[i, space.coordinates.tolist().index([x % 1, y])] = 1
    mass = join.T @ whole.mass.to_dense().numpy() @ join
    np.testing.assert_allclose(space.mass.to_dense().numpy(), mass, atol=1e-14)
    values = torch.randn(len(space.quadrature_points), dtype=torch.float64)
    np.testing.assert_allclose(
        space.project(values).numpy(), np.linalg.solve(mass, join.T @ (whole.load @ values.numpy())), atol=1e-9
    )


def test_periodic_and_constrained() -> None:
    mesh = skfem.MeshTri().refined(2)
    space = FunctionSpace(mesh, periodic=[0], dirichlet="all")  # what is periodic is no boundary
    assert torch.equal(space.constrained, (space.coordinates[:, 1] == 0) | (space.coordinates[:, 1] == 1))
    both = FunctionSpace(mesh, periodic=[0], dirichlet=lambda x: x[0] == 1)
    assert torch.equal(both.constrained, both.coordinates[:, 0] == 0)


# ---- meshes as generators write them ----


def with_spare_points(mesh: Any, first: bool) -> Any:
    """The mesh with two points that no cell uses, one of them far outside, ahead of the others or behind them."""
    spare = np.array([[0.5, 7.0]] * mesh.p.shape[0])
    points = np.hstack([spare, mesh.p] if first else [mesh.p, spare])
    return type(mesh)(points, mesh.t + 2 * first).with_boundaries({"left": lambda x: x[0] == 0})


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["tri P1", "tri P2", "tet P1", "quad Q1", "line P1"])
def test_points_that_no_cell_uses_are_left_out(name: str, first: bool) -> None:
    mesh, element = SCALAR[name]
    clean = FunctionSpace(mesh.with_boundaries({"left": lambda x: x[0] == 0}), element, dirichlet="left")
    space = FunctionSpace(with_spare_points(mesh, first), element, dirichlet="left")
    assert space.dim == clean.dim
    torch.testing.assert_close(space.coordinates, clean.coordinates)
    assert torch.equal(space.constrained, clean.constrained)
    torch.testing.assert_close(space.project(affine), space.interpolate(affine))
    torch.testing.assert_close(Encoder(space)(affine(space.quadrature_points)), clean.project(affine))
    torch.testing.assert_close(space.evaluate(space.interpolate(affine), inside(clean)), affine(inside(clean)))


def test_spare_points_do_not_widen_the_period() -> None:
    mesh = skfem.MeshTri().refined(2)
    space, clean = (FunctionSpace(m, periodic=[0, 1]) for m in (with_spare_points(mesh, True), mesh))
    assert space.dim == clean.dim == 16
    assert torch.equal(space.periods, clean.periods)


def test_an_axis_stands_for_a_sequence_of_one() -> None:
    mesh = skfem.MeshTri().refined(2)
    for axis in (0, 1, np.int64(0)):
        assert FunctionSpace(mesh, periodic=axis).dim == FunctionSpace(mesh, periodic=[int(axis)]).dim == 20
    assert FunctionSpace(mesh, periodic=[]).dim == FunctionSpace(mesh, periodic=np.array([], dtype=int)).dim == 25


# ---- bad input ----


CURVED = skfem.MeshTri2.init_circle(1)


def uneven() -> Any:
    mesh = skfem.MeshTri().refined(2)
    return mesh.refined(mesh.elements_satisfying(lambda x: x[0] < 0.2))


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, r"mesh must be a skfem.Mesh .*, got int", lambda: FunctionSpace(3)),
        (TypeError, r"mesh must be a skfem.Mesh of lines.*, got MeshWedge1", lambda: FunctionSpace(skfem.MeshWedge1())),
        (TypeError, r"element must be a skfem.Element, got str", lambda: FunctionSpace(TRI, "P1")),
        (
            TypeError,
            r"one of the cells of MeshTri1, such as ElementTriP1, got ElementQuad1",
            lambda: FunctionSpace(TRI, skfem.ElementQuad1()),
        ),
        (
            TypeError,
            r"element must have one field, got ElementComposite",
            lambda: FunctionSpace(TRI, skfem.ElementTriP2() * skfem.ElementTriP1()),
        ),
        (
            ValueError,
            r"dirichlet must name boundaries of the mesh \(left\) or be \"all\", got 'right'",
            lambda: FunctionSpace(TRI, dirichlet=["left", "right"]),
        ),
        (
            ValueError,
            r"dirichlet must name boundaries of the mesh \(none\)",
            lambda: FunctionSpace(skfem.MeshTri(), dirichlet="left"),
        ),
        (
            ValueError,
            r"dirichlet must select at least one boundary facet, got none",
            lambda: FunctionSpace(TRI, dirichlet=lambda x: x[0] > 2),
        ),
        (
            ValueError,
            r"dirichlet must select at least one boundary facet",
            lambda: FunctionSpace(TRI, dirichlet="all", periodic=[0, 1]),
        ),
        (ValueError, r"periodic must hold axes from 0 to 1, got 2", lambda: FunctionSpace(TRI, periodic=[2])),
        (
            ValueError,
            r"the faces of axis 0 must match node by node, got 4 of 14 degrees of freedom without a partner",
            lambda: FunctionSpace(uneven(), periodic=[0]),
        ),
        (
            ValueError,
            r"periodic is for elements of nodal values, got ElementTriRT1",
            lambda: FunctionSpace(TRI, skfem.ElementTriRT1(), periodic=[0]),
        ),
        (
            ValueError,
            r"mesh must lie in a space of its own dimension, 2, got points of 3 coordinates",
            lambda: FunctionSpace(skfem.MeshTri(np.vstack([TRI.p, TRI.p[:1]]), TRI.t)),
        ),
        (
            ValueError,
            r"mesh must have no points that no cell uses where it is curved, got 1 of them",
            lambda: FunctionSpace(skfem.MeshTri2(np.hstack([CURVED.doflocs, [[9.0], [9.0]]]), CURVED.t)),
        ),
        (TypeError, r"points must be a tensor, got list", lambda: FunctionSpace(TRI).evaluate(torch.zeros(9), [[0.0]])),
        (ValueError, r"quadrature_order must be at least 1, got 0", lambda: FunctionSpace(TRI, quadrature_order=0)),
        (ValueError, r"levels must be at least 1, got 0", lambda: hierarchy(TRI, 0)),
        (TypeError, r"mesh must be a skfem.Mesh, got NoneType", lambda: hierarchy(None, 2)),
        (
            ValueError,
            r"f must return shape \(9,\), got shape \(9, 2\)",
            lambda: FunctionSpace(TRI).interpolate(lambda x: x),
        ),
        (
            ValueError,
            r"f\(quadrature_points\) must be \(\.\.\., 48\), .* got shape \(48, 2\)",
            lambda: FunctionSpace(TRI).project(lambda x: x),
        ),
        (
            ValueError,
            r"f must be \(\.\.\., 48\), .*, got shape \(47,\)",
            lambda: FunctionSpace(TRI).project(torch.zeros(47)),
        ),
        (ValueError, r"f must be finite, got 48 values", lambda: FunctionSpace(TRI).project(torch.full((48,), np.nan))),
        (
            ValueError,
            r"coefficients must be \(\.\.\., 9\), got shape \(8,\)",
            lambda: FunctionSpace(TRI).norm(torch.zeros(8)),
        ),
        (
            TypeError,
            r"coefficients must be floating point, got torch\.int64",
            lambda: FunctionSpace(TRI).norm(torch.zeros(9).long()),
        ),
        (
            ValueError,
            r"points must lie in the mesh, got 2 outside of it, the first \[1\.5, 0\.5\]",
            lambda: FunctionSpace(TRI).evaluate(torch.zeros(9), torch.tensor([[0.5, 0.5], [1.5, 0.5], [-1.0, 0.0]])),
        ),
        (
            ValueError,
            r"points must be \(p, 2\)",
            lambda: FunctionSpace(TRI).evaluate(torch.zeros(9), torch.zeros(3, 3)),
        ),
        (ValueError, r"points must be finite", lambda: Decoder(FunctionSpace(TRI), torch.full((3, 2), np.nan))),
        (TypeError, r"points must be a tensor or a FunctionSpace", lambda: Decoder(FunctionSpace(TRI), [[0.0, 0.0]])),
        (
            ValueError,
            r"values must be finite",
            lambda: Encoder(FunctionSpace(TRI), FunctionSpace(TRI))(torch.full((9,), np.nan)),
        ),
        (
            ValueError,
            r"source must have the components of space",
            lambda: Encoder(FunctionSpace(TRI), made("tri vector P1")),
        ),
        (
            ValueError,
            r"coarse and fine must be of one dimension and kind",
            lambda: prolongation(made("tet P1"), made("tri P1")),
        ),
    ],
)
def test_names_what_is_wrong(error: type[Exception], match: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        call()


# ---- derivatives, dtypes, storage ----


def test_linear_maps_are_differentiated_twice() -> None:
    space = made("tri P1")
    fine = FunctionSpace(space.mesh.refined(1))
    draw = torch.Generator().manual_seed(0)
    c = torch.randn(2, 2, fine.dim, dtype=torch.float64, generator=draw, requires_grad=True)
    encode = Encoder(space, fine)
    for call in (lambda c: encode(c) ** 2, lambda c: Decoder(fine, inside(space, 5))(c) ** 2, fine.norm):
        assert torch.autograd.gradcheck(call, c, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, c, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_results_follow_the_dtype(dtype: torch.dtype) -> None:
    space = made("tri P1")
    c = torch.randn(3, space.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = inside(space, 6)
    values = torch.randn(
        3, len(space.quadrature_points), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    for call, x in ((space.project, values), (space.norm, c), (lambda c: space.evaluate(c, points), c)):
        found = call(x.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), call(x.to(dtype).double()), atol=3e-2, rtol=2e-2)


def test_spaces_are_copied_and_stored() -> None:
    space = FunctionSpace(TRI, dirichlet="left")
    c = space.project(affine)
    for twin in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
        torch.testing.assert_close(twin.project(affine), c)
        assert torch.equal(twin.edges, space.edges)
        torch.testing.assert_close(twin.evaluate(c, inside(space)), affine(inside(space)))


def test_nothing_is_dense() -> None:
    space = FunctionSpace(skfem.MeshTri().refined(5))
    assert space.mass.layout == torch.sparse_coo
    assert space.mass._nnz() == space.edges.shape[1] + space.dim
    assert sp.issparse(prolongation(FunctionSpace(skfem.MeshTri().refined(4)), space))
    assert prolongation(FunctionSpace(skfem.MeshTri().refined(4)), space).nnz <= 2 * space.dim


def test_exact_inside_of_autocast() -> None:
    space = made("tri P1")
    fine = FunctionSpace(space.mesh.refined(1))
    points, c = inside(space, 5), torch.randn(3, space.dim, generator=torch.Generator().manual_seed(0))
    calls = (
        space.norm,
        lambda c: space.evaluate(c, points),
        Encoder(fine, space),
        Decoder(space, points),
        Decoder(space, fine),
        lambda c: space.project(Decoder(space, space.quadrature_points)(c)),
    )
    for call in calls:
        x = c.clone().requires_grad_()
        (expected,) = torch.autograd.grad(call(x).square().sum(), x)
        with torch.autocast("cpu", torch.bfloat16):
            found = call(x)
            (slope,) = torch.autograd.grad(found.square().sum(), x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, call(c))
        torch.testing.assert_close(slope, expected)


def test_maps_of_none() -> None:
    space = made("tri vector P1")
    none = torch.zeros(2, 0, space.dim)
    points = inside(space, 5)
    assert space.norm(none).shape == (2, 0)
    assert space.evaluate(none, points).shape == Decoder(space, points)(none).shape == (2, 0, 5, 2)
    assert Encoder(space, space)(none).shape == (2, 0, space.dim)
    assert space.project(torch.zeros(0, len(space.quadrature_points), 2)).shape == (0, space.dim)
