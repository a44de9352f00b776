"""From an encoded image to a square one; a JPEG is decoded only where the crop is.

Throughout, a window is `[y, x, height, width]` in pixels, int32 [4].
"""

import math
from collections.abc import Callable

from slimjax.tensorflow_import import tf

_MIN_ASPECT_RATIO, _MAX_ASPECT_RATIO = 3 / 4, 4 / 3
_CROP_ATTEMPTS = 10

WindowFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def center_window(height: tf.Tensor, width: tf.Tensor, *, image_size: int, eval_resize: int) -> tf.Tensor:
    """The part that "resize the shorter side to eval_resize, crop the central image_size" looks at."""
    shorter = tf.minimum(height, width)
    side = tf.maximum(1, tf.cast(tf.round(tf.cast(shorter, tf.float32) * (image_size / eval_resize)), tf.int32))
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def random_window(
    height: tf.Tensor, width: tf.Tensor, *, area_range: tuple[float, float], seed: tf.Tensor
) -> tf.Tensor:
    """A random window of uniform relative area and log-uniform aspect ratio 3/4-4/3 (Inception, arXiv:1409.4842).

    The first of ten draws that fits the image is taken; if none does, the largest central window whose aspect ratio is
    allowed. TensorFlow's `sample_distorted_bounding_box` draws the height uniformly instead, which favours small areas
    less than the published recipes do.

    Args:
      height: of the image, int32 scalar.
      width: of the image, int32 scalar.
      area_range: smallest and largest share of the image's area.
      seed: int64 [2].
    """
    uniform = tf.random.stateless_uniform([4, _CROP_ATTEMPTS], seed, alg="philox")
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = image_height * image_width * (area_range[0] + (area_range[1] - area_range[0]) * uniform[0])
    log_min, log_max = math.log(_MIN_ASPECT_RATIO), math.log(_MAX_ASPECT_RATIO)
    aspect = tf.exp(log_min + (log_max - log_min) * uniform[1])
    heights, widths = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    tops = tf.floor(uniform[2] * (image_height - heights + 1))
    lefts = tf.floor(uniform[3] * (image_width - widths + 1))
    fits = (heights >= 1) & (widths >= 1) & (heights <= image_height) & (widths <= image_width)

    fallback_height = tf.minimum(image_height, tf.maximum(1.0, tf.round(image_width / _MIN_ASPECT_RATIO)))
    fallback_width = tf.minimum(image_width, tf.maximum(1.0, tf.round(image_height * _MAX_ASPECT_RATIO)))
    fallback_top = (image_height - fallback_height) // 2
    fallback_left = (image_width - fallback_width) // 2
    drawn = tf.stack([tops, lefts, heights, widths], axis=1)[tf.argmax(fits)]
    fallback = tf.stack([fallback_top, fallback_left, fallback_height, fallback_width])
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, fallback), tf.int32)


def decode_square(encoded: tf.Tensor, window_fn: WindowFn, image_size: int) -> tf.Tensor:
    """Decodes the window that `window_fn` chooses and resizes it, bilinear and antialiased as the published recipes do.

    Args:
      encoded: string scalar: JPEG (grey, RGB or CMYK), PNG, BMP or GIF (its first frame).
      window_fn: from the image's height and width, int32 scalars, to the window.
      image_size: pixels.

    Returns:
      The image's columns, [image_size, 3, image_size] float32 in 0..255, see `augmentation`. Those of a grey image have
      three equal colours.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded), lambda: _decode_jpeg(encoded, window_fn), lambda: _decode_other(encoded, window_fn)
    )
    return _resized_columns(image, image_size)


def _resized_columns(image: tf.Tensor, size: int) -> tf.Tensor:
    """What `tf.image.resize(image, [size, size], antialias=True)` gives, number for number, as columns.

    TensorFlow's operation adds up rows quickly and columns slowly. So this resizes rows alone, each with all its pixels
    and colours as channels of one pixel, turns the image around, and does so again.

    Args:
      image: [height, width, 3] uint8.
      size: pixels.

    Returns:
      [size (width), 3, size (height)] float32 in 0..255.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    rows = _resize_rows(tf.reshape(image, [height, width * 3]), size)
    columns = _resize_rows(tf.reshape(tf.transpose(rows), [width, 3 * size]), size)
    return tf.reshape(columns, [size, 3, size])


def _resize_rows(rows: tf.Tensor, size: int) -> tf.Tensor:
    """From [rows, values] to [size, values] float32."""
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(rows)[0], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=rows[tf.newaxis, :, tf.newaxis],
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=[0.0, 0.0],
        kernel_type="triangle",
        antialias=True,
    )
    return resized[0, :, 0]


def _decode_jpeg(encoded: tf.Tensor, window_fn: WindowFn) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)
    return tf.io.decode_and_crop_jpeg(encoded, window_fn(shape[0], shape[1]), channels=3)


def _decode_other(encoded: tf.Tensor, window_fn: WindowFn) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    shape = tf.shape(image)
    top, left, height, width = tf.unstack(window_fn(shape[0], shape[1]))
    return tf.ensure_shape(image[top : top + height, left : left + width], [None, None, 3])
