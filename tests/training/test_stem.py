"""The shared stem of every family against plain convolutions with kernels sliced by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from slimjax import create_model
from slimjax.models.network import SlimmableNetwork
from slimjax.nn import SlimmableConv, WidthPlan
from slimjax.training.stem import Stem, StemOutput

WIDTHS = {
    "mobilenet_v1_tiny": (0.25, 0.5, 1.0),
    "mobilenet_v2": (0.35, 0.75, 1.0),
    "resnet50": (0.25, 0.75, 1.0),
    "shufflenet": (0.5, 1.0, 2.0),
}
GROUPS = {"shufflenet": 3}


@pytest.mark.parametrize("name", WIDTHS)
def test_slices_and_gradients_are_those_of_each_width_by_itself(name, rng):
    model = create_model(name, WIDTHS[name], 10)
    stem = Stem.of(model)
    images = jnp.asarray(rng.standard_normal((2, 9, 9, 3), np.float32))
    (path,) = stem.parameters
    kernel = rng.standard_normal(
        (stem.layer.kernel_size, stem.layer.kernel_size, 3, stem.layer.max_features), np.float32
    )
    groups, strides = GROUPS.get(name, 1), 1 if name.endswith("tiny") else 2
    output = stem.run({path: kernel}, images)
    total, expected = None, np.zeros(kernel.shape, np.float32)
    for width in model.widths:
        own = output.slice_of(width)
        of_group = own.shape[-1] // groups
        indices = (np.arange(groups)[:, None] * (kernel.shape[-1] // groups) + np.arange(of_group)).ravel()

        def alone(kernel):
            padding = (((len(kernel) - 1) // 2,) * 2,) * 2
            return jax.lax.conv_general_dilated(
                images, kernel, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        by_hand, backward = jax.vjp(alone, kernel[..., indices])
        np.testing.assert_allclose(own, by_hand, rtol=1e-4, atol=1e-4)
        of_slice = rng.standard_normal(own.shape, np.float32)
        total = stem.added(total, jnp.asarray(of_slice))
        expected[..., indices] += backward(of_slice)[0]
    np.testing.assert_allclose(stem.gradients({path: kernel}, images, total)[path], expected, rtol=1e-4, atol=1e-3)


def test_gradients_of_bfloat16_add_up_in_float32(rng):
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 10, dtype=jnp.bfloat16)
    stem, images = Stem.of(model), jnp.asarray(rng.standard_normal((2, 8, 8, 3), np.float32))
    kernel = {stem.parameters[0]: rng.standard_normal((3, 3, 3, 32), np.float32)}
    output = stem.run(kernel, images)
    assert output.whole.dtype == jnp.bfloat16
    total = stem.added(stem.added(None, output.slice_of(1.0)), output.slice_of(0.5))
    assert total.dtype == jnp.float32
    assert stem.gradients(kernel, images, total)[stem.parameters[0]].dtype == jnp.float32


def test_the_network_takes_what_stands_in_for_its_stem(rng):
    model = create_model("shufflenet_tiny", (0.5, 1.0), 10)
    images = jnp.asarray(rng.standard_normal((2, 8, 8, 3), np.float32))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    whole = Stem.of(model).run(flatten_dict(variables["params"]), images).whole
    nothing = jnp.full_like(images, jnp.nan)
    output = StemOutput(Stem.of(model), nothing, whole)
    for width in model.widths:
        with output.taken(output.slice_of(width)):
            logits = model.apply(variables, nothing, width=width)
        np.testing.assert_allclose(logits, model.apply(variables, images, width=width), rtol=1e-4, atol=1e-5)
    with output.taken(output.slice_of(1.0)), pytest.raises(ValueError, match="hand batch\\['image'\\] to its network"):
        model.apply(variables, images, width=1.0)


class Scaled(SlimmableNetwork):
    """Does something to the images before its first convolution."""

    def uniform_plan(self, width):
        return WidthPlan(width, (("conv", int(8 * width)),))

    @nn.compact
    def __call__(self, images, width=None, train=False):
        features = self.features_by_layer()["conv"]
        return SlimmableConv(3, max(features), name="conv")(2 * images, features[self.switch_of(width)]).mean((1, 2))


def test_a_network_that_does_not_begin_with_a_convolution_has_none():
    assert Stem.of(Scaled(widths=(0.5, 1.0))) is None
