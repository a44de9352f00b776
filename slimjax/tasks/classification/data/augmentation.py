"""What happens to the pixels of one image after decoding.

Throughout, an image is its columns, [width, 3, height] float32 in 0..255: of each column the reds, the greens and the
blues, as `decoding` leaves it: operations on interleaved colours take longer.
"""

from slimjax.tasks import colours
from slimjax.tensorflow_import import tf

_WHITE = 255.0
_LUMA = (0.299, 0.587, 0.114)


def random_shift(columns: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Pads every side with zeros (black) by an eighth of the width, and crops the old size back at random."""
    size = columns.shape[0]
    padding = size // 8
    offset = tf.random.stateless_uniform([2], seed, 0, 2 * padding + 1, tf.int32, alg="philox")
    padded = tf.pad(columns, [[padding, padding], [0, 0], [padding, padding]])
    shifted = padded[offset[0] : offset[0] + size, :, offset[1] : offset[1] + size]
    return tf.ensure_shape(shifted, [size, 3, size])


def random_flip(columns: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors left and right with probability one half."""
    is_flipped = tf.random.stateless_uniform([], seed, alg="philox") < 0.5
    return tf.cond(is_flipped, lambda: tf.reverse(columns, axis=[0]), lambda: columns)


def color_jitter(columns: tf.Tensor, *, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Scales brightness, contrast and saturation, always in this order, by factors in 1 - strength .. 1 + strength.

    Brightness blends with black, contrast with the mean grey of the image, saturation with each pixel's grey. After
    each the values are clipped to 0..255, as on 8-bit images.

    Args:
      columns: [width, 3, height] float32 in 0..255.
      strength: 0..1.
      seed: int64 [2].
    """
    brightness, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform([3], seed, 1 - strength, 1 + strength, alg="philox")
    )
    luma = tf.constant(_LUMA)
    pixels = tf.minimum(columns * brightness, _WHITE)
    # Over the columns first: sums along the leading axis are the quick ones.
    mean_grey = tf.tensordot(luma, tf.reduce_mean(tf.reduce_mean(pixels, axis=0), axis=1), 1)
    pixels = tf.clip_by_value(pixels * contrast + mean_grey * (1 - contrast), 0.0, _WHITE)
    # For each colour of the result, the weights of the three colours in it.
    mixing = tf.eye(3) * saturation + luma * (1 - saturation)
    return tf.clip_by_value(tf.matmul(mixing[tf.newaxis], pixels), 0.0, _WHITE)


def pca_noise(*, stddev: float, seed: tf.Tensor) -> tf.Tensor:
    """A random colour along ImageNet's principal components, to be added to all pixels (AlexNet, section 4.1).

    It is for floats, and not clipped: a change of less than a grey level must not be rounded away.

    Args:
      stddev: of each component's weight.
      seed: int64 [2].

    Returns:
      [3] float32, for pixels in 0..255.
    """
    weights = tf.random.stateless_normal([3], seed, stddev=stddev, alg="philox")
    return _WHITE * tf.linalg.matvec(tf.constant(colours.EIGENVECTORS), weights * tf.constant(colours.EIGENVALUES))


def to_image(columns: tf.Tensor) -> tf.Tensor:
    """The image [height, width, 3] of whole grey levels, uint8; what is slightly out of 0..255 is clipped."""
    width, _, height = columns.shape
    # TensorFlow's cast clips too, but for the last few values, which it wraps. What is above -1.5 comes to 0 by itself.
    columns = tf.minimum(columns, _WHITE)
    # Turned around as floats, since of bytes oneDNN prints that it cannot; rounded in between, since TensorFlow would
    # exchange a cast that comes right behind.
    rows = tf.transpose(tf.reshape(columns, [width * 3, height]))
    return tf.reshape(tf.cast(rows + 0.5, tf.uint8), [height, width, 3])
