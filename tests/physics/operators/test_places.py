"""Points are found in every cell, curved and sheared ones too."""

import numpy as np
import skfem
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.physics.operators.meshes import SHEARED, affine

from throughline.physics.operators import FunctionSpace


def test_points_are_found_in_curved_and_sheared_cells() -> None:
    for mesh in (SHEARED, skfem.MeshTri2.init_circle(2), skfem.MeshTri2.init_circle(1).refined(1)):
        space = FunctionSpace(mesh)
        draw = np.random.default_rng(1)
        cells = draw.integers(mesh.nelements, size=50)
        local = draw.dirichlet(np.ones(3), 50).T[:2]
        points = space.basis.mapping.F(local[:, :, None], cells)[:, :, 0]
        found = space._finder(points, 1e-9)
        assert (found.distance == 0).all()
        there = space.basis.mapping.F(found.local[:, :, None], found.cells)[:, :, 0]
        np.testing.assert_allclose(there, points, atol=1e-9)
        c = torch.randn(space.dim, dtype=torch.float64)
        values = space.evaluate(c, torch.from_numpy(points.T.copy()))
        r, s = local
        phis = [(1 - r) * (1 - s), r * (1 - s), r * s, (1 - r) * s] if mesh is SHEARED else [1 - r - s, r, s]
        wanted = (np.array(phis) * c.numpy()[space.basis.element_dofs[:, cells]]).sum(0)
        np.testing.assert_allclose(values.numpy(), wanted, atol=1e-8)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_every_point_is_found_on_a_graded_mesh(seed: int) -> None:
    """Far cells with near centres do not hide the right one."""
    draw = np.random.default_rng(seed)
    mesh = skfem.MeshTri()
    for _ in range(4):
        mesh = mesh.refined(mesh.elements_satisfying(lambda x: x[0] + x[1] < draw.uniform(0.3, 0.7)))
    space = FunctionSpace(mesh)
    points = torch.from_numpy(draw.uniform(size=(30, 2)))
    torch.testing.assert_close(space.evaluate(space.interpolate(affine), points), affine(points), atol=1e-10, rtol=0)
