"""Images with labels: scikit-learn's digits, MNIST, Omniglot, and folders of the user's own pictures."""

from throughline.data.images.folders import describe_images, image_files, image_folder, read_image
from throughline.data.images.sets import Images, Omniglot, digits, mnist, omniglot

__all__ = [
    "Images",
    "Omniglot",
    "describe_images",
    "digits",
    "image_files",
    "image_folder",
    "mnist",
    "omniglot",
    "read_image",
]
