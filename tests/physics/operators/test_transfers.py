"""Maps between meshes: exact on coarse functions, and continued where meshes are only nearly nested."""

from typing import Any

import numpy as np
import pytest
import skfem
import torch
from tests.physics.operators.meshes import affine, affine_vector, inside, made

from throughline.physics.operators import Decoder, Encoder, FunctionSpace, hierarchy, prolongation


@pytest.mark.parametrize(
    ("mesh", "element"),
    [
        (skfem.MeshTri.init_lshaped(), skfem.ElementTriP1()),
        (skfem.MeshTri.init_lshaped(), skfem.ElementTriP2()),
        (skfem.MeshQuad(), skfem.ElementQuad2()),
        (skfem.MeshTet(), skfem.ElementTetP2()),
        (skfem.MeshHex(), skfem.ElementHex1()),
        (skfem.MeshTri(), skfem.ElementVector(skfem.ElementTriP2())),
        (skfem.MeshTri(), skfem.ElementTriRT1()),
        (skfem.MeshTri(), skfem.ElementTriN1()),
        (skfem.MeshTet(), skfem.ElementTetN1()),
        (skfem.MeshTri(), skfem.ElementTriP0()),
    ],
)
def test_prolongation_is_the_identity_on_coarse_functions(mesh: Any, element: Any) -> None:
    coarse, fine = hierarchy(mesh, 2, element)
    p = prolongation(coarse, fine)
    assert p.shape == (fine.dim, coarse.dim)
    c = torch.randn(3, coarse.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lifted = Decoder(coarse, fine)(c)
    np.testing.assert_allclose(lifted.numpy(), c.numpy() @ p.toarray().T, atol=1e-12)
    torch.testing.assert_close(fine.norm(lifted), coarse.norm(c))
    torch.testing.assert_close(Encoder(coarse, fine)(lifted), c, atol=1e-8, rtol=0)
    points = inside(coarse)
    torch.testing.assert_close(fine.evaluate(lifted, points), coarse.evaluate(c, points), atol=1e-9, rtol=0)


def test_prolongation_joins_periodic_unknowns() -> None:
    coarse, fine = hierarchy(skfem.MeshTri().refined(1), 2, periodic=[0, 1])
    p = prolongation(coarse, fine)
    np.testing.assert_allclose(p.sum(1), 1)
    c = torch.randn(coarse.dim, dtype=torch.float64)
    torch.testing.assert_close(fine.norm(torch.from_numpy(p @ c.numpy())), coarse.norm(c))


def test_nearly_nested_meshes_continue_the_nearest_cell() -> None:
    circle = skfem.MeshTri.init_circle(2)
    moved = circle.refined(1)
    rim = np.unique(moved.facets[:, moved.boundary_facets()])
    p = moved.p.copy()
    p[:, rim] /= np.linalg.norm(p[:, rim], axis=0)  # onto the circle, out of the coarse polygon
    coarse, fine = FunctionSpace(circle), FunctionSpace(skfem.MeshTri(p, moved.t))
    with pytest.raises(ValueError, match=r"points must lie in the mesh, got \d+ outside"):
        coarse.evaluate(torch.zeros(coarse.dim), fine.coordinates)
    lifted = Decoder(coarse, fine)(coarse.interpolate(affine))
    torch.testing.assert_close(lifted, fine.interpolate(affine), atol=1e-9, rtol=0)


def test_values_of_a_vector_at_scalar_nodes() -> None:
    vector, scalar = made("tri vector P2"), made("tri P1")
    values = Decoder(vector, scalar)(vector.interpolate(affine_vector))
    torch.testing.assert_close(values, affine_vector(scalar.coordinates))
    points = inside(vector, 7)
    assert Decoder(vector, points)(torch.zeros(2, 5, vector.dim)).shape == (2, 5, 7, 2)


def test_normal_and_tangential_components_continue_across_facets() -> None:
    """Of H(div) and H(curl) functions with random coefficients, seen from the two sides."""
    for name, across in (("tri RT", True), ("tri Nédélec", False)):
        space = made(name)
        mesh = space.mesh
        facets = np.flatnonzero(mesh.f2t[1] >= 0)
        a, b = mesh.p[:, mesh.facets[0, facets]], mesh.p[:, mesh.facets[1, facets]]
        way = (b - a) / np.linalg.norm(b - a, axis=0)
        normal = np.stack([-way[1], way[0]])
        middle, c = 0.7 * a + 0.3 * b, torch.randn(space.dim, dtype=torch.float64)
        sides = [space.evaluate(c, torch.from_numpy((middle + s * 1e-9 * normal).T.copy())).numpy().T for s in (-1, 1)]
        jumps = [((sides[0] - sides[1]) * direction).sum(0) for direction in (way, normal)]
        assert np.abs(jumps[int(across)]).max() < 1e-6
        assert np.abs(jumps[int(not across)]).max() > 0.1
