"""Body motion from video without labels: three losses on what detectors see, and what to do with them.

"Self-supervised Learning of Motion Capture" (arXiv 1712.01337, NIPS 2017). A regressor that was trained on synthetic
people goes on learning on the very video it is tested on, from the projection of the body that it predicts:
`keypoint_loss`, `motion_loss` and `segmentation_loss`, together in `SelfSupervision`, and `adapt`, which trains a copy.
`fit_body` is what the paper argues against, an optimisation of the body's own parameters; `heatmaps` and
`supervised_loss` belong to the training before.
"""

from throughline.geometry.motion.adaptation import adapt
from throughline.geometry.motion.fitting import fit_body
from throughline.geometry.motion.flow import motion_loss, sample_flow
from throughline.geometry.motion.keypoints import heatmaps, keypoint_loss
from throughline.geometry.motion.segmentation import segmentation_loss
from throughline.geometry.motion.supervision import Clip, SelfSupervision, supervised_loss

__all__ = [
    "Clip",
    "SelfSupervision",
    "adapt",
    "fit_body",
    "heatmaps",
    "keypoint_loss",
    "motion_loss",
    "sample_flow",
    "segmentation_loss",
    "supervised_loss",
]
