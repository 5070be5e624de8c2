"""Pixel grids that bend to their task ("Differentiable Sensor Layouts for End-to-End Learning of Task-Specific Camera
Parameters", arXiv 2304.14736).

Sensor and scene are both the square [-1, 1]², x to the right and y down, as in ``grid_sample(align_corners=False)``.
Points and curvatures are ordered (x, y), sizes (height, width).
"""

from throughline.sensing.layout.boxes import box_average
from throughline.sensing.layout.sensor import SensorLayout
from throughline.sensing.layout.warp import Shape as Shape
from throughline.sensing.layout.warp import unwarp_points, warp_points

__all__ = ["SensorLayout", "box_average", "unwarp_points", "warp_points"]
