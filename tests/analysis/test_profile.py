"""Counts against arithmetic done by hand, and against what Flax itself records of every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from slimjax import MODELS, UserError, create_model, profile_model
from slimjax.models import SlimmableNetwork
from slimjax.nn import SlimmableConv, SlimmableDense, SlimmableDepthwiseConv, SlimmableLayer, WidthPlan


class EveryKind(SlimmableNetwork):
    """One layer of each kind: a convolution with bias, a batch norm, a grouped and a depthwise convolution, a dense."""

    def uniform_plan(self, width):
        return WidthPlan(width, (("first", int(4 * width)), ("grouped", int(8 * width))))

    @nn.compact
    def __call__(self, images, width=None, train=False):
        switch, features = self.switch_of(width), self.features_by_layer()
        first, grouped = features["first"], features["grouped"]
        first_conv = SlimmableConv(3, max(first), strides=2, use_bias=True, dtype=self.dtype, name="first")
        grouped_conv = SlimmableConv(max(first), max(grouped), groups=2, dtype=self.dtype, name="grouped")
        x = first_conv(images, first[switch])
        x = self.make_batch_norm()(features=first, name="norm")(x, switch, train=train)
        x = grouped_conv(x, features=grouped[switch])
        x = SlimmableDepthwiseConv(max(grouped), strides=2, dtype=self.dtype, name="depthwise")(x)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return SlimmableDense(max(grouped), self.num_classes, name="classifier")(x)


class Repeated(SlimmableNetwork):
    """One convolution that runs twice."""

    def uniform_plan(self, width):
        return WidthPlan(width, (("conv", 3),))

    @nn.compact
    def __call__(self, images, width=None, train=False):
        conv = SlimmableConv(3, 3, kernel_size=1)
        return conv(conv(images))


def test_counts_of_every_kind_of_layer_by_hand():
    # 2 channels, then 4 in 2 groups of 2, on 6x6 pixels: 3x3 after the first convolution, 2x2 after the depthwise.
    row = profile_model(EveryKind((0.5, 1.0), num_classes=5), image_size=6)[0]
    expected = [
        ("first", "Conv", (6, 6, 3), (3, 3, 2), 9 * 3 * 2 + 2, 9 * 2 * 27, 4 * 108, 4 * 18),
        ("norm", "BatchNorm", (3, 3, 2), (3, 3, 2), 2 + 2, 0, 4 * 18, 4 * 18),
        ("grouped", "Conv", (3, 3, 2), (3, 3, 4), 9 * 1 * 4, 9 * 4 * 9, 4 * 18, 4 * 36),
        ("depthwise", "DepthwiseConv", (3, 3, 4), (2, 2, 4), 9 * 4, 4 * 4 * 9, 4 * 36, 4 * 16),
        ("classifier", "Dense", (4,), (5,), 4 * 5 + 5, 4 * 5, 4 * 4, 4 * 5),
    ]
    assert [tuple(vars(layer).values()) for layer in row.layers] == expected
    assert (row.kernel_params, row.batch_norm_params, row.params) == (56 + 36 + 36 + 25, 4, 157)
    assert row.macs == 486 + 324 + 144 + 20
    assert row.activation_bytes == 4 * (18 + 18 + 36 + 16 + 5)
    assert row.largest_layer_bytes == 4 * (108 + 18)


def test_activations_are_counted_in_the_dtype_of_the_computation():
    row = profile_model(EveryKind((0.5, 1.0), num_classes=5, dtype=jnp.bfloat16), image_size=6)[0]
    # Images come, and logits go, in float32.
    assert row.activation_bytes == 2 * (18 + 18 + 36 + 16) + 4 * 5
    assert row.largest_layer_bytes == 4 * 108 + 2 * 18


def test_a_layer_that_runs_twice_has_its_parameters_once():
    row = profile_model(Repeated(), image_size=4)[0]
    assert [layer.params for layer in row.layers] == [9, 0]
    assert [layer.macs for layer in row.layers] == [16 * 9, 16 * 9]
    assert row.params == 9


# ResNet-101 and 152 are more of the same blocks.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"resnet101", "resnet152"}))
def test_activations_are_the_outputs_that_flax_captures(name):
    model = create_model(name, (0.5, 1.0), 7, dtype=jnp.bfloat16)
    images = jnp.zeros((1, 40, 40, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def captured(variables, images, width):
        return model.apply(
            variables,
            images,
            width=width,
            capture_intermediates=lambda module, method: isinstance(module, SlimmableLayer) and method == "__call__",
            mutable=["intermediates"],
        )[1]["intermediates"]

    for row in profile_model(model, image_size=40):
        outputs = jax.tree.leaves(jax.eval_shape(lambda v, x, w=row.width: captured(v, x, w), variables, images))
        assert len(outputs) == len(row.layers)
        assert row.activation_bytes == sum(output.size * output.dtype.itemsize for output in outputs)
        assert sorted(layer.output_shape for layer in row.layers) == sorted(output.shape[1:] for output in outputs)


def test_any_plan_is_counted_layer_by_layer():
    base = create_model("mobilenet_v1_tiny", (0.5, 1.0), 5).resolved_plans()
    odd = WidthPlan(0.5, tuple((layer, 17 if layer == "block_2" else count) for layer, count in base[0].features))
    model = create_model("mobilenet_v1_tiny", (0.5, 1.0), 5, plans=(odd, base[1]))
    narrow, widest = profile_model(model, image_size=16)
    layers = {layer.path: layer for layer in narrow.layers}
    # 16 pixels, 8 after the second block's depthwise.
    assert layers["block_2_pointwise/conv"].output_shape == (8, 8, 17)
    assert layers["block_2_pointwise/conv"].macs == 64 * 32 * 17
    assert layers["block_3_depthwise/conv"].params == 9 * 17
    assert layers["block_3_pointwise/conv"].params == 17 * 64
    assert widest == profile_model(create_model("mobilenet_v1_tiny", (0.5, 1.0), 5), image_size=16)[1]


@pytest.mark.parametrize("image_size", [0, -224])
def test_an_image_without_pixels_is_refused(image_size):
    with pytest.raises(UserError, match=f"image_size={image_size} has to be at least 1 pixel"):
        profile_model(create_model("mobilenet_v2", (1.0,), 10), image_size)


def test_an_image_of_which_nothing_is_left_is_refused():
    class Unpadded(Repeated):
        @nn.compact
        def __call__(self, images, width=None, train=False):
            return SlimmableConv(3, 3, kernel_size=1, name="conv")(nn.max_pool(images, (3, 3), (2, 2)))

    assert profile_model(Unpadded(), image_size=3)[0].layers[0].output_shape == (1, 1, 3)
    with pytest.raises(UserError, match="image_size=2 is too small: nothing is left after conv"):
        profile_model(Unpadded(), image_size=2)


def test_an_image_that_the_pooling_of_the_stem_does_not_fit_is_refused():
    model = create_model("shufflenet", (0.5,), 10)
    assert profile_model(model, image_size=5)
    with pytest.raises(UserError, match="images are too small: 2x2 pixels are left for a window of 3"):
        profile_model(model, image_size=4)


def test_large_images_are_counted_without_being_made():
    row = profile_model(create_model("mobilenet_v1", (1.0,), 10), image_size=2**20)[0]
    assert row.layers[0].macs == 27 * 32 * 2**38
    assert isinstance(row.activation_bytes, int)
    np.testing.assert_equal(row.layers[0].activation_bytes, 4 * 32 * 2**38)
