"""ShuffleNet v1 with 3 groups (Zhang et al. 2017, arXiv:1707.01083), slimmable.

What a width slices of a layer between groups of channels:

- A convolution whose outputs form groups takes the leading channels of each group, and so does the batch norm behind it
  where widths share it. These are the 1x1 convolutions and the stem. The stem and the first 1x1 convolution see their
  whole input; the other 1x1 convolutions see, group by group, the leading input rows of that group.
- After the shuffle the channels go round the groups: channel j of group g is at 3 j + g. The leading channels of the
  depthwise convolution and its batch norm are therefore the leading channels of each group, and are sliced as one.
- Which group an *input* channel of a grouped convolution belongs to is a matter of its place at that width: the
  convolution splits the active channels into 3 equal parts. A block with stride 2 hands on its own channels followed by
  the pooled input's, and the parts cut across the two. The classifier reads the leading rows of its kernel.

Kernels whose outputs form groups begin with the standard deviation of all their outputs together. Where every group has
a kernel of its own, as in the public checkpoints, that of a third of them would be 1.7 times as large; the batch norms
behind them take no notice of the scale, but how fast it is learned differs.

At the published widths every count is `int(c * width)`; elsewhere counts are rounded down to a multiple of 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.models.network import CLASSIFIER, RGB, SlimmableNetwork, Stage, blocks_of
from slimjax.nn.blocks import BatchNormFactory, ConvNorm, DepthwiseNorm
from slimjax.nn.layers import SlimmableDense
from slimjax.nn.plans import WidthPlan, truncate_channels
from slimjax.nn.pooling import average_pool, max_pool

GROUPS = 3
BOTTLENECK = 4
"""A block's output channels, the pooled input's among them, over those of its depthwise convolution."""

STAGES = (Stage(240, 4, 2), Stage(480, 8, 2), Stage(960, 4, 2))
TINY_STAGES = (Stage(96, 2, 2), Stage(192, 2, 2))


class ShuffleNet(SlimmableNetwork):
    """A 3x3 convolution with a max-pool, shuffle blocks, global mean and a classifier; the small stem does not pool.

    Attributes:
      stem_features: channels of the first convolution at width 1.
      stages: the blocks.
    """

    stem_features: int = 24
    stages: tuple[Stage, ...] = STAGES

    def uniform_plan(self, width: float) -> WidthPlan:
        """Channels of the stem and, for every block, its bottleneck and its whole output, multiples of the groups."""
        features = {"stem": truncate_channels(self.stem_features * width, GROUPS)}
        for number, (stage, _) in enumerate(blocks_of(self.stages), start=1):
            outputs = truncate_channels(stage.features * width, GROUPS)
            features[f"block_{number}_hidden"] = truncate_channels(outputs / BOTTLENECK, GROUPS)
            features[f"block_{number}"] = outputs
        return WidthPlan(width, tuple(features.items()))

    def check_options(self) -> None:
        """See SlimmableNetwork; the plans' channels also have to fit the groups and the residuals."""
        super().check_options()
        for plan in self.resolved_plans():
            if odd := [f"{layer}={count}" for layer, count in plan.features if count % GROUPS]:
                raise UserError(f"width {plan.width}: {', '.join(odd)} has to be a multiple of {GROUPS}, the groups")
            inputs = plan["stem"]
            for number, (_, strides) in enumerate(blocks_of(self.stages), start=1):
                outputs = plan[f"block_{number}"]
                if (outputs != inputs) if strides == 1 else (outputs <= inputs):
                    allowed = f"{inputs}, as the block before" if strides == 1 else f"above {inputs}, its input, pooled"
                    raise UserError(f"width {plan.width}: block_{number}={outputs} has to be {allowed}")
                inputs = outputs

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
        stem = ConvNorm(
            (RGB,),
            features,
            batch_norm,
            kernel_size=3,
            strides=self.stem_strides(),
            output_groups=GROUPS,
            activation=nn.relu,
            dtype=self.dtype,
            name="stem",
        )
        x = stem(images, switch, train)
        if self.stem == "imagenet":
            x = max_pool(x, window=3, strides=2)
        for number, (_, strides) in enumerate(blocks_of(self.stages), start=1):
            name, in_features = f"block_{number}", features
            hidden, features = features_of[f"{name}_hidden"], features_of[name]
            in_groups = 1 if number == 1 else GROUPS
            block = ShuffleBlock(in_features, hidden, features, batch_norm, strides, in_groups, self.dtype, name=name)
            x = block(x, switch, train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return SlimmableDense(max(features), self.num_classes, name=CLASSIFIER)(x)


class ShuffleBlock(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise and grouped 1x1 convolution, with the input added or, at stride 2, appended.

    Attributes:
      in_features: input channels of every switch.
      hidden_features: channels of the depthwise convolution, of every switch.
      features: output channels of every switch, with those of the appended input.
      batch_norm: makes the batch norms.
      strides: of the depthwise convolution; with 2, the input is averaged over 3x3 pixels and appended.
      in_groups: groups of the input that do not mix in the first convolution; the first block has one.
      dtype: of the computation.
    """

    in_features: tuple[int, ...]
    hidden_features: tuple[int, ...]
    features: tuple[int, ...]
    batch_norm: BatchNormFactory
    strides: int
    in_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """[batch, height, width, in_features[switch]] to [batch, height', width', features[switch]]."""
        hidden, make, appends = self.hidden_features, self.batch_norm, self.strides != 1
        reduce = ConvNorm(
            self.in_features,
            hidden,
            make,
            groups=self.in_groups,
            output_groups=GROUPS,
            activation=nn.relu,
            dtype=self.dtype,
            name="reduce",
        )
        y = shuffle(reduce(x, switch, train), GROUPS)
        depthwise = DepthwiseNorm(hidden, make, self.strides, activation=None, dtype=self.dtype, name="depthwise")
        y = depthwise(y, switch, train)
        added = tuple(
            out - (given if appends else 0) for out, given in zip(self.features, self.in_features, strict=True)
        )
        expand = ConvNorm(hidden, added, make, groups=GROUPS, activation=None, dtype=self.dtype, name="expand")
        y = expand(y, switch, train)
        if not appends:
            return nn.relu(x + y)
        pooled = average_pool(x, window=3, strides=2, padding=1)
        return nn.relu(jnp.concatenate([y, pooled], axis=-1))


def shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel j of group g, of n in each, moves from g * n + j to j * groups + g: [..., groups * n], same shape."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(grouped, -1, -2).reshape(x.shape)
