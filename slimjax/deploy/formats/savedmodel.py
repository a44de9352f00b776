"""A TensorFlow SavedModel, for TensorFlow Serving: a signature for each width over variables that all widths share.

Signatures are called `width_0.25` and so on, and `serving_default` is the widest. Each takes `images` [batch, height,
width, 3] as the bundle's input says, and puts out `logits` [batch, classes], or what a detector finds. They hold
StableHLO, which TensorFlow compiles by XLA for whatever of CPU, CUDA and TPU it runs on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

# First, since it is to import TensorFlow before anything else does.
from slimjax.tensorflow_import import tf  # isort: skip

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from orbax.export import ExportManager, JaxModule, ServingConfig

from slimjax.chatter import silence_unless_failing
from slimjax.deploy.bundle import LOGITS, Outputs, signature_key
from slimjax.deploy.formats import Written
from slimjax.deploy.formats.stablehlo import PLATFORMS, without_source_paths
from slimjax.deploy.source import Source

INPUT, OUTPUT = "images", LOGITS
"""Of every signature."""

DEFAULT_SIGNATURE = "serving_default"

_FOLDER = "savedmodel"


def write(source: Source, bundle: Path) -> Iterator[Written]:
    """See `slimjax.deploy.formats`."""
    path = str(bundle / _FOLDER)
    with silence_unless_failing(), without_source_paths():
        ExportManager(_module(source), [_signature(source, width) for width in source.widths]).save(path)
        loaded = tf.saved_model.load(path)

    def run(width: float, images: np.ndarray) -> Outputs:
        outputs = loaded.signatures[signature_key(width)](**{INPUT: tf.constant(images)})
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        return arrays[OUTPUT] if arrays.keys() == {OUTPUT} else arrays

    yield Written("savedmodel", dict.fromkeys(source.widths, f"{_FOLDER}/saved_model.pb"), run)


def _module(source: Source) -> JaxModule:
    """All widths over one set of variables, each of which is read by the widths that have it."""
    tensors = {name: tensor for width in source.widths for name, tensor in source.tensors(width).items()}
    params = unflatten_dict({tuple(name.split("/")): tensor for name, tensor in tensors.items()})
    functions = {signature_key(width): _function(source, width) for width in source.widths}
    return JaxModule(
        params,
        functions,
        trainable=False,
        input_polymorphic_shape=dict.fromkeys(functions, "batch, ..."),
        jax2tf_kwargs={key: {"native_serialization_platforms": PLATFORMS} for key in functions},
    )


def _function(source: Source, width: float) -> Any:
    forward = source.forward(width)

    def function(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        outputs = forward(params, images)
        return outputs if isinstance(outputs, dict) else {OUTPUT: outputs}

    return function


def _signature(source: Source, width: float) -> ServingConfig:
    key = signature_key(width)
    keys = [key, DEFAULT_SIGNATURE] if width == source.widths[-1] else [key]
    images = tf.TensorSpec((None, *source.image_shape), source.images.dtype, name=INPUT)
    return ServingConfig(keys, input_signature=[images], method_key=key)
