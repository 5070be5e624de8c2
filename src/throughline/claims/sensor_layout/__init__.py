"""A learned pixel layout against the uniform one ("Differentiable Sensor Layouts for End-to-End Learning of
Task-Specific Camera Parameters", arXiv 2304.14736): MNIST on 16 pixels by default, the user's image folder, and full
MNIST, CelebA or Cityscapes at paper scale.
"""

from throughline.claims.sensor_layout.claim import LearnedLayout

__all__ = ["LearnedLayout"]
