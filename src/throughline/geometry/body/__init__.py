"""Bodies from images: a model of the body, a regressor of its parameters, losses on rendered clothes, and errors.

"Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480). Joints in the image
say nothing about girth, and a silhouette shows the clothes. So every vertex carries a distribution over clothing labels
(`semantic_prior`), and the body is rendered with it: skin in the image must be met by rendered skin (DSR-MC), and where
clothes are seen the body must lie inside of them (DSR-C). `DSRLoss` is both, and needs an image's parsing alone.

Metres, radians and pixels. Bodies stand with y up and look along +z; cameras have y down: turn the root by π about x.
"""

from throughline.geometry.body.labels import (
    DSR_C_GROUPS,
    DSR_MC_LABELS,
    PARSING_LABELS,
    merge_labels,
    semantic_prior,
)
from throughline.geometry.body.losses import class_weights, clothing_loss, distance_loss, soft_iou_loss
from throughline.geometry.body.metrics import joint_error, procrustes_error, vertex_error
from throughline.geometry.body.model import BodyModel
from throughline.geometry.body.regressor import BodyPrediction, BodyRegressor
from throughline.geometry.body.semantic import DSRLoss
from throughline.geometry.body.smpl import load_smpl
from throughline.geometry.body.surface import open_body

__all__ = [
    "DSR_C_GROUPS",
    "DSR_MC_LABELS",
    "PARSING_LABELS",
    "BodyModel",
    "BodyPrediction",
    "BodyRegressor",
    "DSRLoss",
    "class_weights",
    "clothing_loss",
    "distance_loss",
    "joint_error",
    "load_smpl",
    "merge_labels",
    "open_body",
    "procrustes_error",
    "semantic_prior",
    "soft_iou_loss",
    "vertex_error",
]
