"""Fields and meshes that the tests of iso-surfaces look at, and what can be counted and measured on a mesh."""

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

DTYPE = {"dtype": torch.float64}
CUBE_FACES = torch.tensor(  # of corners dx + 2 dy + 4 dz, counter-clockwise as seen from outside
    [
        face
        for a, b, c, d in (
            (0, 2, 3, 1),
            (4, 5, 7, 6),
            (0, 1, 5, 4),
            (2, 6, 7, 3),
            (0, 4, 6, 2),
            (1, 3, 7, 5),
        )
        for face in ([a, b, c], [a, c, d])
    ]
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), **DTYPE)


def grid(n: int, *, low: float = -1.0, high: float = 1.0) -> Tensor:
    """``(n, n, n, 3)`` points."""
    axis = torch.linspace(low, high, n, **DTYPE)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def ball(x: Tensor, radius: float | Tensor = 0.5, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    return torch.linalg.vector_norm(x - x.new_tensor(centre), dim=-1) - radius


def torus(x: Tensor, large: float | Tensor = 0.5, small: float | Tensor = 0.2) -> Tensor:
    ring = torch.linalg.vector_norm(x[..., :2], dim=-1) - large
    return torch.sqrt(ring.square() + x[..., 2].square()) - small


def box(side: float = 1.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple[Tensor, Tensor]:
    """A cube of twelve triangles."""
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], **DTYPE) - 0.5
    return side * corners + torch.tensor(centre, **DTYPE), CUBE_FACES.clone()


def box_distance(x: Tensor, side: float = 1.0) -> Tensor:
    """The signed distance to the cube around the origin, in closed form."""
    q = x.abs() - side / 2
    return torch.linalg.vector_norm(q.clamp(min=0), dim=-1) + q.amax(-1).clamp(max=0)


def directed_edges(faces: Tensor) -> Tensor:
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def is_closed(faces: Tensor) -> bool:
    """Whether each directed edge is there once, and so is the one against it: a closed, oriented manifold."""
    edges = directed_edges(faces)
    once = len(edges.unique(dim=0)) == len(edges)
    return once and torch.equal(edges.unique(dim=0), edges.flip(1).unique(dim=0))


def euler_number(vertices: Tensor, faces: Tensor) -> int:
    edges = directed_edges(faces).sort(1).values.unique(dim=0)
    return len(vertices) - len(edges) + len(faces)


def pieces(count: int, faces: Tensor) -> int:
    """Connected components of a mesh of ``count`` vertices."""
    edges = directed_edges(faces).numpy()
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    return int(connected_components(graph, directed=False)[0])


def area(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=1).sum() / 2


def volume(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6
