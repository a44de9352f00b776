"""Makes a bundle to keep and what its programs compute, as README.md beside it tells.

python tests/deploy/data/make_bundle.py tests/deploy/data/bundle_v2
"""

import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.deploy.bundle import InputEntry
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats import FORMATS
from slimjax.deploy.source import Trained
from slimjax.models.mobilenet_v2 import InvertedStage, MobileNetV2
from slimjax.nn.tracing import abstract_variables
from slimjax.training.progress import Progress

WIDTHS = (0.5, 1.0)
INPUT = InputEntry.square(8, "uint8", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), 8)


def network():
    """A network with every kind of layer that a bundle can have: strides, a residual, a shared batch norm."""
    stages = (InvertedStage(8, 1, 1, expansion=1), InvertedStage(16, 2, 2, expansion=2))
    return MobileNetV2(WIDTHS, 5, stem="small", stem_features=16, tail_features=16, stages=stages)


def variables_of(model):
    """Kernels that keep activations alive, batch norms of which no part is trivial."""
    rng = np.random.default_rng(1)
    values = {
        "scale": lambda shape: rng.uniform(0.5, 1.5, shape),
        "var": lambda shape: rng.uniform(0.5, 1.5, shape),
        "mean": lambda shape: rng.normal(0, 0.2, shape),
        "bias": lambda shape: rng.normal(0, 0.2, shape),
        "kernel": lambda shape: rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape),
    }
    shapes = flatten_dict(abstract_variables(model))
    return unflatten_dict({path: values[path[-1]](leaf.shape).astype(np.float32) for path, leaf in shapes.items()})


def main(output):
    """Writes the bundle, and beside it the images and the logits of the network that it was made from."""
    model = network()
    variables = variables_of(model)
    colours = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    images = ((colours / 255 - INPUT.mean) / INPUT.stddev).astype(np.float32)
    figures = {width: {"top1_error": 10 / width} for width in WIDTHS}
    names = tuple("abcde")
    trained = Trained("mobilenet_v2", "classification", model, variables, names, INPUT, 8, figures, images)
    export_bundle(trained, output, WIDTHS, Progress(enabled=False), tuple(FORMATS))
    logits = {
        f"width_{width:g}": np.asarray(jax.jit(model.apply, static_argnames="width")(variables, images, width=width))
        for width in WIDTHS
    }
    np.savez(output.with_name(f"{output.name}_logits.npz"), images=colours, **logits)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
