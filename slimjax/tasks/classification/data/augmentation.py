"""What happens to the pixels of one image after decoding.

Throughout, an image is its planes, [3, width, height] float32 in 0..255: colour by colour, and of each colour column by
column, as `decoding` leaves it. On planes an operation takes a third of the time that it takes on interleaved colours.
"""

from slimjax.tasks import colours
from slimjax.tensorflow_import import tf

_WHITE = 255.0
_LUMA = (0.299, 0.587, 0.114)


def random_shift(planes: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Pads every side with zeros (black) by an eighth of the width, and crops the old size back at random."""
    size = planes.shape[1]
    padding = size // 8
    offset = tf.random.stateless_uniform([2], seed, 0, 2 * padding + 1, tf.int32, alg="philox")
    padded = tf.pad(planes, [[0, 0], [padding, padding], [padding, padding]])
    shifted = padded[:, offset[0] : offset[0] + size, offset[1] : offset[1] + size]
    return tf.ensure_shape(shifted, [3, size, size])


def random_flip(planes: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors left and right with probability one half."""
    is_flipped = tf.random.stateless_uniform([], seed, alg="philox") < 0.5
    return tf.cond(is_flipped, lambda: tf.reverse(planes, axis=[1]), lambda: planes)


def color_jitter(planes: tf.Tensor, *, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Scales brightness, contrast and saturation, always in this order, by factors in 1 - strength .. 1 + strength.

    Brightness blends with black, contrast with the mean grey of the image, saturation with each pixel's grey. After
    each the values are clipped to 0..255, as on 8-bit images.

    Args:
      planes: [3, width, height] float32 in 0..255.
      strength: 0..1.
      seed: int64 [2].
    """
    brightness, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform([3], seed, 1 - strength, 1 + strength, alg="philox")
    )
    luma = tf.constant(_LUMA)
    pixels = tf.minimum(tf.reshape(planes, [3, -1]) * brightness, _WHITE)
    mean_grey = tf.tensordot(luma, tf.reduce_mean(pixels, axis=1), 1)
    pixels = tf.clip_by_value(pixels * contrast + mean_grey * (1 - contrast), 0.0, _WHITE)
    # For each colour of the result, the weights of the three colours in it.
    mixing = tf.eye(3) * saturation + luma * (1 - saturation)
    return tf.reshape(tf.clip_by_value(tf.matmul(mixing, pixels), 0.0, _WHITE), planes.shape)


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


def normalized_image(planes: tf.Tensor, added: tf.Tensor | None = None) -> tf.Tensor:
    """The image that the network sees: less ImageNet's mean and divided by its standard deviation, for each colour.

    Args:
      planes: [3, width, height] float32 in 0..255.
      added: [3], a colour that is added first.

    Returns:
      [height, width, 3] float32.
    """
    scale, mean = 1 / (_WHITE * tf.constant(colours.STDDEV)), _WHITE * tf.constant(colours.MEAN)
    offset = (-mean if added is None else added - mean) * scale
    normalized = tf.reshape(planes, [3, -1]) * scale[:, tf.newaxis] + offset[:, tf.newaxis]
    return tf.transpose(tf.reshape(normalized, planes.shape), [2, 1, 0])
