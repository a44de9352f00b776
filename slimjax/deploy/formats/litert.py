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
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# First, since it is to import TensorFlow before anything else does.
from slimjax.tensorflow_import import tf  # isort: skip

import numpy as np
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager
from jax.experimental import jax2tf

from slimjax.chatter import silence_unless_failing
from slimjax.deploy.backends.litert import INPUT, OUTPUT, LiteRtPrograms
from slimjax.deploy.bundle import signature_key
from slimjax.deploy.formats import FLOAT32, Tolerance, Written
from slimjax.deploy.source import Source

CALIBRATION_IMAGES = 32
"""The most, of those that programs are compared on, and never more than half of them."""

FLOAT16 = Tolerance(3e-2, 0.95)
"""Rounding a weight to float16 changes it by up to 5e-4 of itself, which layers pass on and add up.

Of the largest logit, 1e-3 was seen of networks trained on digits, and 1e-2 of a whole S-MobileNet v2 of random weights.
"""

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
    with TemporaryDirectory() as folder, silence_unless_failing(), _without_interpreters_advice():
        _save(source, folder)
        contents = {"float32": _converted(source, folder), "float16": _converted(source, folder, tf.float16)}
        contents["int8"] = _in_int8(source, contents["float32"])
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


def _converted(source: Source, folder: str, weights: Any = None) -> bytes:
    """What TensorFlow's converter makes of a SavedModel; `weights` is the type that they are stored in, if another."""
    keys = [signature_key(width) for width in source.widths]
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=keys)
    if weights is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [weights]
    return bytes(converter.convert())


def _in_int8(source: Source, float32: bytes) -> bytes:
    """Weights and activations of a float32 file in int8, what goes in and out left as it is.

    Ranges are those of all calibration images. The quantizer's own default, a moving average, stays close to the first
    image's: four times as far from the network. (TensorFlow's converter takes the -inf around ResNet's max-pool for a
    range, and makes a program of it that does not run.)
    """
    recipe = RecipeManager()
    recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    images = [{INPUT: image[None]} for image in calibration_images(source)]
    calibrator = Calibrator(float32, qsv_update_func=_both_ranges)
    calibrator.calibrate({signature_key(width): images for width in source.widths}, recipe)
    quantizer = Quantizer(float32, recipe.get_quantization_recipe())
    result = quantizer.quantize(
        calibrator.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False
    ).quantized_model
    return bytes(result)


def _both_ranges(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"min": np.minimum(one["min"], other["min"]), "max": np.maximum(one["max"], other["max"])}


@contextmanager
def _without_interpreters_advice() -> Iterator[None]:
    """Without the interpreter's warning, while calibrating, that it keeps all activations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def calibration_images(source: Source) -> np.ndarray:
    """Images of the evaluation split, without their labels, from whose activations int8's ranges are measured.

    They are the first of those that programs are compared on; at least half of these are left unseen.
    """
    return source.images[: min(CALIBRATION_IMAGES, (len(source.images) + 1) // 2)]
