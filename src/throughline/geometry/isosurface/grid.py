"""Regular grids on which a field is evaluated without gradients, in the precision and place that it computes in."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from throughline.geometry.isosurface.checks import check_finite, check_level, count

__all__ = ["Field", "Grid", "Slope", "check_extraction", "check_slope", "evaluated"]

Field = Callable[[Tensor], Tensor]  # (N, 3) -> (N,)
Slope = Literal["implicit", "unit"]


@dataclass(frozen=True)
class Grid:
    """``resolution``³ points over a cube, corners included."""

    resolution: int
    bounds: tuple[float, float]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, field: Field, resolution: int, bounds: tuple[float, float]) -> "Grid":
        """The grid in the dtype and on the device of what the field gives."""
        return cls(resolution, bounds, *_kind(field, bounds))

    @property
    def spacing(self) -> float:
        return (self.bounds[1] - self.bounds[0]) / (self.resolution - 1)

    def sample(self, field: Field, chunk: int, chosen: Tensor | None = None) -> Tensor:
        """Values of the field at grid points, all of them by default, ``chunk`` at a time: flat."""
        total = self.resolution**3 if chosen is None else len(chosen)
        values = torch.empty(total, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for start in range(0, total, chunk):
                rows = torch.arange(start, min(start + chunk, total), device=self.device)
                points = self._points(rows if chosen is None else chosen[rows])
                values[start : start + chunk] = evaluated(field, points)
        try:
            check_finite("values", values)
        except ValueError as error:
            raise ValueError(f"field must give finite values on the grid: {error}") from None
        return values

    def _points(self, numbers: Tensor) -> Tensor:
        wide = torch.promote_types(self.dtype, torch.float32)
        index = torch.stack(torch.unravel_index(numbers, 3 * (self.resolution,)), 1)
        return (self.bounds[0] + self.spacing * index.to(wide)).to(self.dtype)


def evaluated(field: Field, points: Tensor) -> Tensor:
    """What a field gives at ``points``, which must be one number each."""
    found = field(points)
    if not isinstance(found, Tensor):
        raise ValueError(f"field must map (N, 3) to (N,), got {type(found).__name__} for {tuple(points.shape)}")
    if found.shape != points.shape[:1]:
        raise ValueError(f"field must map (N, 3) to (N,), got {tuple(found.shape)} for {tuple(points.shape)}")
    if not found.is_floating_point():
        raise ValueError(f"field must map (N, 3) to (N,), floating point, got {found.dtype}")
    return found


def check_slope(slope: str) -> None:
    """Raise a ValueError unless ``slope`` is one of the two."""
    if slope not in ("implicit", "unit"):
        raise ValueError(f'slope must be "implicit" or "unit", got {slope!r}')


def check_extraction(resolution: int, bounds: tuple[float, float], level: float, slope: str, chunk: int) -> None:
    """Raise a ValueError for a grid or a surface that cannot be."""
    count("resolution", resolution, 2)
    count("chunk", chunk)
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must increase and be finite, got {bounds}")
    check_level(level)
    check_slope(slope)


def _kind(field: Field, bounds: tuple[float, float]) -> tuple[torch.dtype, torch.device]:
    """Dtype and device of what a field gives at two points: in the precision of a module, else in the first that it
    takes."""
    first: RuntimeError | None = None
    with torch.no_grad():
        for dtype, device in _candidates(field):
            try:
                found = evaluated(field, torch.tensor([[end] * 3 for end in bounds], dtype=dtype, device=device))
            except RuntimeError as error:  # of a product or sum in two precisions, or on two devices
                first = first or error
            else:
                return found.dtype, found.device
    assert first is not None
    raise first


def _candidates(field: Field) -> Iterator[tuple[torch.dtype, torch.device]]:
    if isinstance(field, nn.Module):
        for tensor in (*field.parameters(), *field.buffers()):
            if tensor.is_floating_point():
                yield tensor.dtype, tensor.device
                break
    default = torch.get_default_device()
    devices = [torch.device("cpu") if default.type == "meta" else default]
    if torch.accelerator.is_available():
        devices.append(torch.accelerator.current_accelerator() or devices[0])
    for device in dict.fromkeys(devices):
        for dtype in dict.fromkeys((torch.get_default_dtype(), torch.float32, torch.float64, torch.bfloat16)):
            yield dtype, device
