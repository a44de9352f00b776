"""MobileNet v1 (Howard et al. 2017, arXiv:1704.04861), slimmable."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.models.network import CLASSIFIER, RGB, SlimmableNetwork, Stage, blocks_of
from slimjax.nn.blocks import ConvNorm, DepthwiseNorm
from slimjax.nn.layers import SlimmableDense
from slimjax.nn.plans import WidthPlan, round_channels

STAGES = (Stage(64, 1, 1), Stage(128, 2, 2), Stage(256, 2, 2), Stage(512, 6, 2), Stage(1024, 2, 2))
TINY_STAGES = (Stage(64, 1, 1), Stage(128, 2, 2), Stage(256, 2, 2))


class MobileNetV1(SlimmableNetwork):
    """A 3x3 convolution, depthwise separable blocks, global mean and a classifier.

    Attributes:
      stem_features: channels of the first convolution at width 1.
      stages: the blocks; `TINY_STAGES` is the network's first five, for images of 8 to 32 pixels.
    """

    stem_features: int = 32
    stages: tuple[Stage, ...] = STAGES

    def uniform_plan(self, width: float) -> WidthPlan:
        """Channels of the stem and of every block's output, rounded to multiples of 8."""
        features = {"stem": self.stem_features}
        for number, (stage, _) in enumerate(blocks_of(self.stages), start=1):
            features[f"block_{number}"] = stage.features
        return WidthPlan(width, tuple((layer, round_channels(count * width)) for layer, count in features.items()))

    @nn.compact
    def __call__(self, images: jax.Array, width: float | None = None, train: bool = False) -> jax.Array:
        """Classifies images at a width.

        Args:
          images: [batch, height, width, 3].
          width: one of `widths`, static; the widest by default.
          train: whether batch norm uses and records the batch's statistics.

        Returns:
          Logits [batch, num_classes], float32.

        Raises:
          UserError: if the width is not one of the model's.
        """
        switch, batch_norm = self.switch_for(images, width), self.make_batch_norm()
        features_of = self.features_by_layer()
        features = features_of["stem"]
        x = ConvNorm(
            (RGB,), features, batch_norm, kernel_size=3, strides=self.stem_strides(), dtype=self.dtype, name="stem"
        )(images, switch, train)
        for number, (_, strides) in enumerate(blocks_of(self.stages), start=1):
            name, in_features = f"block_{number}", features
            features = features_of[name]
            depthwise = DepthwiseNorm(in_features, batch_norm, strides, dtype=self.dtype, name=f"{name}_depthwise")
            x = depthwise(x, switch, train)
            x = ConvNorm(in_features, features, batch_norm, dtype=self.dtype, name=f"{name}_pointwise")(
                x, switch, train
            )
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return SlimmableDense(max(features), self.num_classes, name=CLASSIFIER)(x)
