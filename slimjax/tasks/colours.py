"""ImageNet's colours, of values in 0..1, and how networks see an image's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

MEAN = (0.485, 0.456, 0.406)
STDDEV = (0.229, 0.224, 0.225)

# Principal components of RGB values (AlexNet, section 4.1): the columns of EIGENVECTORS.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

SEEN = ("image", "noise", "size")
"""Arrays of a batch that `normalised` looks at."""

_WHITE = 255.0


def normalised(batch: Mapping[str, Any]) -> Any:
    """The images of a batch as networks see them: less ImageNet's mean, divided by its standard deviation.

    Args:
      batch: arrays of NumPy or JAX: `image` [b, height, width, 3] uint8; `noise` [b, 3] float32, if there is any: a
        colour that is added to an image's; `size` [b, 2] float32, if images are padded: their own height and width.

    Returns:
      [b, height, width, 3] float32, zero where padded.
    """
    images = batch["image"].astype(np.float32)
    if "noise" in batch:
        images = images + batch["noise"][:, None, None]
    mean, stddev = np.array(MEAN, np.float32), np.array(STDDEV, np.float32)
    images = (images / np.float32(_WHITE) - mean) / stddev
    return images * _is_own(batch["size"], *images.shape[1:3]) if "size" in batch else images


def _is_own(sizes: Any, height: int, width: int) -> Any:
    """[b, height, width, 1] float32: 1 within an image's own height and width, else 0."""
    rows, columns = np.arange(height) < sizes[:, :1], np.arange(width) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None])[..., None].astype(np.float32)
