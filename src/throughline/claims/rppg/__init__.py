"""Heart rate from video ("Robust and Generalizable Heart Rate Estimation via Deep Learning for Remote
Photoplethysmography in Complex Scenarios", arXiv 2507.07795): generated faces by default, the user's videos, and PURE
to MMPD at paper scale.
"""

from throughline.claims.rppg.claim import ReadsPulseInHardVideos

__all__ = ["ReadsPulseInHardVideos"]
