"""From an image file to its pixels, upright, wherever detectors read images."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

IMAGE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises about files that are no images, damaged, or larger than any image should be."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By orientation tag what makes an image upright; Pillow's own function for it fails where other tags are damaged."""


def decoded(file: Path | BinaryIO, annotated_size: tuple[int, int] | None = None) -> Image.Image:
    """An image in RGB as it is meant to be looked at: cameras that were turned say so beside the pixels.

    Args:
      file: the encoded image.
      annotated_size: height and width by its annotations, if there are any. An image that has this size only as it is
        stored was annotated without regard to the tag, and stays as it is.

    Raises:
      IMAGE_ERRORS: if it cannot be decoded.
    """
    with Image.open(file) as opened:
        # First: of some formats Pillow itself makes upright what it decodes, and drops the tag.
        stored = _in_8_bits(opened).convert("RGB")
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    upright = stored if turn is None else stored.transpose(turn)
    return stored if annotated_size == size_of(stored) != size_of(upright) else upright


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """A grey image of 16 bits with its values scaled: Pillow would cut all of them off at 255."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray(np.rint(np.clip(np.asarray(picture) / 257.0, 0, 255)).astype(np.uint8))


def size_of(picture: Image.Image) -> tuple[int, int]:
    """Height and width, pixels."""
    return picture.height, picture.width
