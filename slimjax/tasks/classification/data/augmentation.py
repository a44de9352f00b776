"""What happens to the pixels of one image, [height, width, 3] float32 in 0..1, after decoding."""

from slimjax.tensorflow_import import tf

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)

# Principal components of ImageNet's RGB values in 0..1 (AlexNet, section 4.1): the columns of EIGENVECTORS.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

_LUMA = (0.299, 0.587, 0.114)


def random_shift(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Pads every side with zeros (black) by an eighth of the width, and crops the old size back at random."""
    size = image.shape[0]
    padding = size // 8
    offset = tf.random.stateless_uniform([2], seed, 0, 2 * padding + 1, tf.int32, alg="philox")
    padded = tf.pad(image, [[padding, padding], [padding, padding], [0, 0]])
    return tf.ensure_shape(padded[offset[0] : offset[0] + size, offset[1] : offset[1] + size], [size, size, 3])


def random_flip(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors left and right with probability one half."""
    is_flipped = tf.random.stateless_uniform([], seed, alg="philox") < 0.5
    return tf.cond(is_flipped, lambda: tf.reverse(image, axis=[1]), lambda: image)


def color_jitter(image: tf.Tensor, *, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Scales brightness, contrast and saturation, always in this order, by factors in 1 - strength .. 1 + strength.

    Brightness blends with black, contrast with the mean grey of the image, saturation with each pixel's grey. After
    each the values are clipped to 0..1, as on 8-bit images.

    Args:
      image: [height, width, 3] float32 in 0..1.
      strength: 0..1.
      seed: int64 [2].
    """
    factors = tf.random.stateless_uniform([3], seed, 1 - strength, 1 + strength, alg="philox")
    image = _blend(image, tf.zeros_like(image), factors[0])
    image = _blend(image, tf.reduce_mean(_grey(image)), factors[1])
    return _blend(image, _grey(image), factors[2])


def pca_noise(image: tf.Tensor, *, stddev: float, seed: tf.Tensor) -> tf.Tensor:
    """Adds one random colour along ImageNet's principal components to all pixels (AlexNet, section 4.1).

    On floats and not clipped: a change of less than a grey level must not be rounded away.

    Args:
      image: [height, width, 3] float32 in 0..1.
      stddev: of each component's weight.
      seed: int64 [2].
    """
    weights = tf.random.stateless_normal([3], seed, stddev=stddev, alg="philox")
    return image + tf.linalg.matvec(tf.constant(EIGENVECTORS), weights * tf.constant(EIGENVALUES))


def normalize(image: tf.Tensor) -> tf.Tensor:
    """Subtracts ImageNet's mean and divides by its standard deviation, per channel."""
    return (image - tf.constant(IMAGENET_MEAN)) / tf.constant(IMAGENET_STDDEV)


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True)


def _blend(image: tf.Tensor, other: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(other + factor * (image - other), 0.0, 1.0)
