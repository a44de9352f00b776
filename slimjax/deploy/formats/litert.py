"""LiteRT (TFLite) for phones: in float32, with float16 weights, and in int8, each one file with a signature a width.

Every width is a network of its own there, its batch norms in its kernels: LiteRT packs weights for the processor when
it loads them, so kernels sliced while it runs would be copied at every call. Widths therefore share what happens to be
the same, and the float32 file is larger than the bundle's weights.

A signature is called `width_0.25`, takes `images` [1, height, width, 3] as the bundle's input says, and puts out
`logits` [1, classes], float32; in int8 too, where it quantises on the way in and out. Only LiteRT's built-in operators
are used.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# First, since it is to import TensorFlow before anything else does.
from slimjax.tensorflow_import import tf  # isort: skip

import numpy as np
from jax.experimental import jax2tf

from slimjax.chatter import silence_unless_failing
from slimjax.deploy.backends.litert import INPUT, OUTPUT, LiteRtPrograms
from slimjax.deploy.bundle import signature_key
from slimjax.deploy.formats import FLOAT32, Tolerance, Written
from slimjax.deploy.source import Source

CALIBRATION_IMAGES = 32
"""The most, of those that programs are compared on, and never more than half of them."""

FLOAT16 = Tolerance(1e-2, 0.95)
"""Rounding a weight to float16 changes it by up to 5e-4; through the layers, 1e-3 of the largest logit was seen."""

INT8 = Tolerance(0.5, 0.8)
"""What counts is which logit is the largest; the difference is there to catch a program that computes something else.

A logit has 256 levels, and every layer before it rounds to as many: a tenth to a fifth of the largest logit is usual.
Trained on digits, predictions agree on more than 99 %; where many classes are nearly as likely, as with ImageNet's
narrow networks, on fewer.
"""

_TOLERANCES = {"float32": FLOAT32, "float16": FLOAT16, "int8": INT8}
_NAMES = {"float32": "litert", "float16": "litert_float16", "int8": "litert_int8"}


def write(source: Source, bundle: Path) -> Iterator[Written]:
    """See `slimjax.deploy.formats`."""
    (bundle / "litert").mkdir()
    with TemporaryDirectory() as folder, silence_unless_failing():
        _save(source, folder)
        contents = {weights: _converted(source, folder, weights) for weights in _NAMES}
    for weights, name in _NAMES.items():
        file = f"litert/{weights}.tflite"
        (bundle / file).write_bytes(contents[weights])
        dtype, classes = source.images.dtype, source.trained.model.num_classes
        run = LiteRtPrograms(bundle / file, name, source.widths, source.image_shape, dtype, classes)
        yield Written(name, dict.fromkeys(source.widths, file), run, tolerance=_TOLERANCES[weights])


def _save(source: Source, folder: str) -> None:
    """Writes a SavedModel with a signature a width, which is what the converter takes several of."""
    signatures = {signature_key(width): _function(source, width) for width in source.widths}
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def _function(source: Source, width: float) -> Any:
    """A width as TensorFlow's, its weights constants.

    It is lowered for a platform for which slimjax rewrites no convolution, whatever this machine is: LiteRT has kernels
    for the plain ones, and knows them by their form.
    """
    forward, params = source.alone(width)
    plain = jax2tf.convert(
        lambda images: {OUTPUT: forward(params, images)},
        native_serialization_platforms=("tpu",),
        with_gradient=False,
    )
    images = tf.TensorSpec((1, *source.image_shape), source.images.dtype, name=INPUT)
    return tf.function(plain, input_signature=[images], autograph=False)


def _converted(source: Source, folder: str, weights: str) -> bytes:
    keys = {width: signature_key(width) for width in source.widths}
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(keys.values()))
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if weights == "int8":
        images = calibration_images(source)
        converter.representative_dataset = lambda: (
            (key, {INPUT: image[None]}) for key in keys.values() for image in images
        )
    with warnings.catch_warnings():
        # Of the converter's own calibration, which uses the interpreter that it advises against.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        return bytes(converter.convert())


def calibration_images(source: Source) -> np.ndarray:
    """Images of the evaluation split, without their labels, from whose activations int8's ranges are measured.

    They are the first of those that programs are compared on; at least half of these are left unseen.
    """
    return source.images[: min(CALIBRATION_IMAGES, (len(source.images) + 1) // 2)]
