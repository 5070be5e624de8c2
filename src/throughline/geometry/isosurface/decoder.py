"""The decoder of DeepSDF: a perceptron from a point and a shape's latent code to a signed distance."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_floating, integer
from throughline.geometry.isosurface.checks import count

__all__ = ["DeepSDF"]


class DeepSDF(nn.Module):
    """A field for every latent code: the network that DeepMesh (arXiv 2106.11795) extracts surfaces from.

    The decoder of "DeepSDF: Learning Continuous Signed Distance Functions for Shape Representation" (arXiv 1901.05103):
    linear layers with ReLU on [code, point], the last of them linear alone. A layer of ``skip`` sees the inputs again,
    beside what the layer before it gives; that one is narrower by as much, so that ``hidden`` are the widths of what
    goes in.

    Args:
        latent_dim: length of a code; 0 for a single shape.
        hidden: widths, from the first hidden layer to the last.
        skip: numbers of layers, from 1 to the number of hidden layers, which takes the last.
        fourier_degree: adds sin and cos of 2^k π x, k under the degree, for each coordinate x beside the point.
        dropout: share of hidden units that are dropped in training.
        weight_norm: whether each layer learns lengths and directions of its rows apart.

    Raises:
        TypeError: called with something else than floating point tensors; a size that is no integer.
        ValueError: a size, ``skip`` or ``dropout`` out of range, a layer before a skip that is no wider than the
            inputs; called with points that are not ``(..., 3)`` or codes of another length.

    >>> decoder = DeepSDF(16, (64, 64, 64), skip=(2,))
    >>> decoder(torch.zeros(5, 100, 3), torch.zeros(5, 1, 16)).shape  # a code for each of five shapes
    torch.Size([5, 100])
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: Sequence[int] = (512,) * 5,
        *,
        skip: Sequence[int] = (),
        fourier_degree: int = 0,
        dropout: float = 0.0,
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim, 0)
        self.fourier_degree = count("fourier_degree", fourier_degree, 0)
        widths = tuple(count("hidden", width) for width in hidden)
        if not widths:
            raise ValueError("hidden must have at least one layer, got none")
        self.skip = frozenset(integer("skip", layer) for layer in skip)
        if not all(1 <= layer <= len(widths) for layer in self.skip):
            raise ValueError(f"skip must be layers from 1 to {len(widths)}, got {tuple(skip)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.dropout = dropout
        inputs = self.latent_dim + 3 + 6 * self.fourier_degree
        narrow = [width - inputs * (layer in self.skip) for layer, width in enumerate(widths, 1)]
        if min(narrow) < 1:
            raise ValueError(f"hidden must be wider than the {inputs} inputs before a skip, got {widths}")
        kind = _NormedLinear if weight_norm else nn.Linear
        sizes = zip((inputs, *widths), (*narrow, 1), strict=True)
        self.layers = nn.ModuleList(kind(into, out) for into, out in sizes)

    def forward(self, points: Tensor, latent: Tensor) -> Tensor:
        """Signed distances ``(...,)`` of ``points (..., 3)`` to the shapes of ``latent (..., latent_dim)``.

        Leading dimensions broadcast: ``(N, 3)`` and ``(latent_dim,)`` are points of one shape.
        """
        for name, value, size in (("points", points, 3), ("latent", latent, self.latent_dim)):
            check_floating(name, value)
            if not value.ndim or value.shape[-1] != size:
                raise ValueError(f"{name} must be (..., {size}), got shape {tuple(value.shape)}")
        lead = torch.broadcast_shapes(points.shape[:-1], latent.shape[:-1])  # type: ignore[no-untyped-call]
        inputs = torch.cat([latent.expand(*lead, -1), self._features(points).expand(*lead, -1)], -1)
        hidden = inputs
        for number, layer in enumerate(self.layers):
            if number:
                hidden = F.dropout(F.relu(hidden), self.dropout, self.training)
            if number in self.skip:
                hidden = torch.cat([hidden, inputs], -1)
            hidden = layer(hidden)
        return hidden.squeeze(-1)

    def _features(self, points: Tensor) -> Tensor:
        if not self.fourier_degree:
            return points
        octaves = torch.arange(self.fourier_degree, dtype=points.dtype, device=points.device)
        angles = (points[..., None] * (torch.pi * 2.0**octaves)).flatten(-2)
        return torch.cat([points, angles.sin(), angles.cos()], -1)


class _NormedLinear(nn.Linear):
    """A linear layer with weight g · v / |v|, row by row; at first g = |v|."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.length = nn.Parameter(torch.linalg.vector_norm(self.weight.detach(), dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        row = torch.linalg.vector_norm(self.weight, dim=1, keepdim=True)
        return F.linear(x, self.weight * (self.length / row), self.bias)
