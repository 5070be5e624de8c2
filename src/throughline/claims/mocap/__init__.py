"""Motion capture that goes on learning on the clip ("Self-supervised Learning of Motion Capture", arXiv 1712.01337):
generated people by default, the user's clips, SURREAL at paper scale.
"""

from throughline.claims.mocap.claim import AdaptsToTheClip

__all__ = ["AdaptsToTheClip"]
