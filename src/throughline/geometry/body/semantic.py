"""Both terms of differentiable semantic rendering on one image of labels."""

from typing import Literal

import torch
from torch import Tensor, nn

from throughline.core.camera import Camera
from throughline.core.checks import check_floating, check_tensor
from throughline.core.raster import soft_rasterize
from throughline.geometry.body.labels import (
    DSR_C_GROUPS,
    DSR_MC_LABELS,
    PARSING_LABELS,
    check_labels,
    count_labels,
    merge_labels,
)
from throughline.geometry.body.losses import check_pixels, clothing_loss, distance_loss, soft_iou_loss

__all__ = ["DSRLoss"]

SUM_TOLERANCE = 1e-3  # of a vertex' prior
MINIMAL = {"distance": distance_loss, "iou": soft_iou_loss}


class DSRLoss(nn.Module):
    """Skin where the image shows skin (DSR-MC), and a body inside of its clothes (DSR-C).

    "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480). The body is
    rendered once, with a vertex' probabilities as its colours: one channel for the labels among shoes, arms and face
    that have more than ``min_pixels`` in this image, and eight for the merged labels of `DSR_C_GROUPS`. That of the
    background is the prior's own, not what the silhouette leaves.

    A person in long sleeves keeps "arm" present by the hands, and the prior then asks for bare forearms: sharp priors
    and ``min_pixels`` matter.

    Args:
        prior: P(label | vertex), ``(V, 20)``, rows of sum 1, such as `semantic_prior` makes.
        faces: ``(F, 3)``, int64.
        minimal: DSR-MC's form: "distance", or the "iou" of the release's training script.
        minimal_weight: of DSR-MC in the total; 0 leaves it out.
        clothing_weight: of DSR-C in the total; 0 leaves it out.
        sigma: of the renderer, how soft an edge is. Labels are seen up to half the shorter side times √(9.2 σ) beyond
            the body's edge, as wide as at the edge itself: with the paper's 1e-5 that is 1 cm of a person who fills the
            image, with 1e-4 it is 3 cm, and skin then asks for a body that is too lean by as much.
        gamma: of the renderer, how soft an occlusion is. The paper's 0.1 hides nothing: see `soft_rasterize`.
        min_pixels: that a label must have; of 224² the paper takes 60, so scale it by the area.

    Raises:
        TypeError: ``prior`` is no floating point, ``faces`` are no int64 tensor.
        ValueError: ``prior`` is no ``(V, 20)`` of such rows; an option is out of range.

    >>> from throughline.core.camera import weak_perspective
    >>> from throughline.geometry.body import open_body
    >>> body, parsing = open_body(0.07), torch.zeros(1, 32, 32, dtype=torch.int64)
    >>> parsing[:, 4:12, 12:20] = 13  # a face, and nothing else
    >>> prior = torch.eye(20)[torch.full((len(body.template),), 13)]
    >>> criterion = DSRLoss(prior, body.faces, minimal="iou", min_pixels=2)
    >>> at_root = body.template - torch.tensor([0.0, 0.95, 0.0])
    >>> found = criterion(at_root[None], weak_perspective(torch.tensor([[0.9, 0.0, 0.0]]), (32, 32)), parsing)
    >>> {name: tuple(value.shape) for name, value in found.items()}
    {'minimal': (1,), 'clothing': (1,), 'total': ()}
    """

    prior: Tensor
    merged: Tensor
    faces: Tensor

    def __init__(
        self,
        prior: Tensor,
        faces: Tensor,
        *,
        minimal: Literal["distance", "iou"] = "distance",
        minimal_weight: float = 0.1,
        clothing_weight: float = 0.1,
        sigma: float = 1e-5,
        gamma: float = 1e-2,
        min_pixels: int = 60,
    ) -> None:
        super().__init__()
        _check_prior(prior)
        check_tensor("faces", faces)
        if minimal not in MINIMAL:
            raise ValueError(f'minimal must be "distance" or "iou", got {minimal!r}')
        for name, weight in (("minimal_weight", minimal_weight), ("clothing_weight", clothing_weight)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {weight}")
        for name, softness in (("sigma", sigma), ("gamma", gamma)):
            if not 0 < softness < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {softness}")
        check_pixels(min_pixels)
        self.minimal = minimal
        self.minimal_weight, self.clothing_weight = minimal_weight, clothing_weight
        self.sigma, self.gamma, self.min_pixels = sigma, gamma, min_pixels
        self.register_buffer("prior", prior)
        self.register_buffer("faces", faces)

    def forward(self, vertices: Tensor, camera: Camera, parsing: Tensor) -> dict[str, Tensor]:
        """The terms of each image, and the mean over images of their weighted sum.

        Args:
            vertices: ``(B, V, 3)``, in the world of the camera, y down.
            camera: one for all, or a batch of B.
            parsing: ``(B, H, W)``, int64, numbers in `PARSING_LABELS`, of the camera's size.

        Returns:
            "minimal" and "clothing", ``(B,)``, unweighted, zeros where left out or where no label has pixels enough;
            "total", a scalar.

        Raises:
            TypeError: ``vertices`` are no floating point, ``parsing`` no int64 tensor.
            ValueError: a shape does not fit prior or camera, or a label is out of range.
        """
        self._check(vertices, camera, parsing)
        minimal = clothing = vertices.new_zeros(len(vertices))
        skin, merged = self.minimal_weight > 0, self.clothing_weight > 0
        if skin or merged:
            prior = self.prior.to(vertices.dtype)
            seen, count = self._seen(parsing), len(vertices)
            parts = [merge_labels(prior, DSR_C_GROUPS).expand(count, -1, -1)] if merged else []
            if skin:
                tight = prior[:, list(DSR_MC_LABELS)]
                parts.append((seen.to(prior.dtype).unsqueeze(1) * tight).sum(-1, keepdim=True))
            image = soft_rasterize(
                vertices, self.faces, camera, torch.cat(parts, -1), sigma=self.sigma, gamma=self.gamma
            ).attributes
            assert image is not None  # attributes were given
            if merged:
                groups = merge_labels(parsing, DSR_C_GROUPS)
                clothing = clothing_loss(image[..., : len(DSR_C_GROUPS)], groups, min_pixels=self.min_pixels)
            if skin:
                mask = (parsing.unsqueeze(-1) == parsing.new_tensor(DSR_MC_LABELS)) & seen[:, None, None]
                minimal = MINIMAL[self.minimal](image[..., -1], mask.any(-1))
                minimal = torch.where(seen.any(-1), minimal, 0.0)
        weighted = self.minimal_weight * minimal + self.clothing_weight * clothing
        return {"minimal": minimal, "clothing": clothing, "total": weighted.sum() / max(1, len(weighted))}

    def extra_repr(self) -> str:
        """Its settings."""
        names = ("minimal", "minimal_weight", "clothing_weight", "sigma", "gamma", "min_pixels")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _seen(self, parsing: Tensor) -> Tensor:
        """Which of `DSR_MC_LABELS` have pixels enough, ``(B, 5)``."""
        counts = count_labels(parsing.flatten(1), len(PARSING_LABELS))
        return counts[:, list(DSR_MC_LABELS)] > self.min_pixels

    def _check(self, vertices: Tensor, camera: Camera, parsing: Tensor) -> None:
        check_floating("vertices", vertices)
        count = len(self.prior)
        if vertices.ndim != 3 or vertices.shape[1:] != (count, 3):
            raise ValueError(f"vertices must be (B, {count}, 3), of the prior's mesh, got {tuple(vertices.shape)}")
        check_labels("parsing", parsing, len(PARSING_LABELS))
        wanted = (len(vertices), *camera.image_size)
        if parsing.shape != wanted:
            raise ValueError(f"parsing must be {wanted}, of the camera's size, got {tuple(parsing.shape)}")


def _check_prior(prior: Tensor) -> None:
    check_floating("prior", prior)
    if prior.ndim != 2 or prior.shape[1] != len(PARSING_LABELS):
        raise ValueError(f"prior must be (V, {len(PARSING_LABELS)}), got shape {tuple(prior.shape)}")
    if prior.device.type != "meta" and len(prior):
        off = float((prior.sum(1) - 1).abs().max())
        if not off <= SUM_TOLERANCE or float(prior.min()) < 0:
            raise ValueError(
                f"prior must hold probabilities, rows that sum to 1: got a sum that is off by {off:g} and a least "
                f"entry of {float(prior.min()):g}"
            )
