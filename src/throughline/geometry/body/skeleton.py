"""The bones of `open_body`: where its joints are at rest, and a tapered capsule around each."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ARMS", "HEAD", "JOINTS", "LEGS", "PARENTS", "TORSO", "Bones", "bones"]

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINTS: tuple[tuple[float, float, float], ...] = (
    (0.00, 0.95, 0.00),  # pelvis
    (0.09, 0.87, 0.00),  # hips, left and right
    (-0.09, 0.87, 0.00),
    (0.00, 1.07, 0.00),  # spine
    (0.10, 0.49, 0.00),  # knees
    (-0.10, 0.49, 0.00),
    (0.00, 1.20, 0.00),  # spine
    (0.10, 0.08, -0.02),  # ankles
    (-0.10, 0.08, -0.02),
    (0.00, 1.30, 0.00),  # spine
    (0.10, 0.03, 0.11),  # feet
    (-0.10, 0.03, 0.11),
    (0.00, 1.46, 0.00),  # neck
    (0.07, 1.39, 0.00),  # collars
    (-0.07, 1.39, 0.00),
    (0.00, 1.54, 0.02),  # head
    (0.18, 1.40, 0.00),  # shoulders
    (-0.18, 1.40, 0.00),
    (0.44, 1.40, 0.00),  # elbows
    (-0.44, 1.40, 0.00),
    (0.69, 1.40, 0.00),  # wrists
    (-0.69, 1.40, 0.00),
    (0.78, 1.40, 0.00),  # hands
    (-0.78, 1.40, 0.00),
)  # metres, y up, the person looks along +z, left is +x
TORSO, HEAD = (0, 3, 6, 9, 13, 14), (12, 15)
LEGS, ARMS = (1, 2, 4, 5, 7, 8, 10, 11), (16, 17, 18, 19, 20, 21, 22, 23)
CHILD = {0: 3, 1: 4, 2: 5, 3: 6, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11, 9: 12, 12: 15}  # where the bone of a joint ends
CHILD |= {13: 16, 14: 17, 16: 18, 17: 19, 18: 20, 19: 21, 20: 22, 21: 23}
TIPS = {10: (0.0, 0.0, 0.04), 11: (0.0, 0.0, 0.04), 15: (0.0, 0.11, 0.0), 22: (0.05, 0.0, 0.0), 23: (-0.05, 0.0, 0.0)}
RADII = {  # at the joint and at the end
    **dict.fromkeys((0, 3, 6), (0.13, 0.13)),
    9: (0.13, 0.06),
    **dict.fromkeys((13, 14), (0.09, 0.06)),
    12: (0.06, 0.075),
    15: (0.085, 0.085),
    **dict.fromkeys((1, 2), (0.085, 0.055)),
    **dict.fromkeys((4, 5), (0.055, 0.04)),
    **dict.fromkeys((7, 8), (0.04, 0.035)),
    **dict.fromkeys((10, 11), (0.035, 0.035)),
    **dict.fromkeys((16, 17), (0.052, 0.042)),
    **dict.fromkeys((18, 19), (0.042, 0.032)),
    **dict.fromkeys((20, 21, 22, 23), (0.035, 0.035)),
}


class Bones(NamedTuple):
    """One bone for each joint, that moves with it; in double precision."""

    start: Tensor  # (J, 3)
    end: Tensor  # (J, 3)
    radii: Tensor  # (J, 2)

    def nearest(self, points: Tensor, bone: int) -> Tensor:
        """How far along a bone, in [0, 1], the point of its axis is that is nearest to each of ``(N, 3)``."""
        along = self.end[bone] - self.start[bone]
        t: Tensor = ((points - self.start[bone]) @ along / along.square().sum()).clamp(0, 1)
        return t

    def axis(self, points: Tensor, bone: int) -> Tensor:
        """The point of a bone's axis that is nearest to each of ``(N, 3)``."""
        return torch.lerp(self.start[bone], self.end[bone], self.nearest(points, bone).unsqueeze(-1))

    def distance(self, points: Tensor, bone: int) -> Tensor:
        """From ``(N, 3)`` to a bone's capsule, negative inside: to the axis, less the radius there."""
        first, last = self.radii[bone]
        away: Tensor = torch.linalg.vector_norm(points - self.axis(points, bone), dim=-1)
        return away - torch.lerp(first, last, self.nearest(points, bone))


def bones() -> Bones:
    """Those of `open_body`, on the CPU."""
    start = torch.tensor(JOINTS, dtype=torch.float64, device="cpu")
    tips = {j: [a + b for a, b in zip(JOINTS[j], tip, strict=True)] for j, tip in TIPS.items()}
    ends = [tips[j] if j in tips else list(JOINTS[CHILD[j]]) for j in range(len(JOINTS))]
    end = torch.tensor(ends, dtype=torch.float64, device="cpu")
    return Bones(start, end, torch.tensor([RADII[j] for j in range(len(JOINTS))], dtype=torch.float64, device="cpu"))
