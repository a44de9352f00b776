"""ResNet of bottleneck blocks (He et al. 2015, arXiv:1512.03385), slimmable.

The stride is on the 3x3 convolution of a block. Every layer takes `int(c * width)` channels, the bottleneck a quarter
of the block's rounded output. What detection needs, the feature maps of all stages, is `stage_features`.
"""

from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.models.network import CLASSIFIER, RGB, SlimmableNetwork, Stage, blocks_of, first_blocks
from slimjax.nn.blocks import BatchNormFactory, ConvNorm
from slimjax.nn.layers import SlimmableDense
from slimjax.nn.plans import WidthPlan, truncate_channels
from slimjax.nn.pooling import max_pool

BOTTLENECK = 4
"""A block's output channels over those between its 1x1 convolutions."""


def _stages(*repeats: int) -> tuple[Stage, ...]:
    """The four stages of a network for ImageNet, with so many blocks each."""
    return tuple(
        Stage(features, count, strides)
        for features, count, strides in zip((256, 512, 1024, 2048), repeats, (1, 2, 2, 2), strict=True)
    )


STAGES_50, STAGES_101, STAGES_152 = _stages(3, 4, 6, 3), _stages(3, 4, 23, 3), _stages(3, 8, 36, 3)
PYRAMID_STAGES = (Stage(64, 1, 1), Stage(128, 1, 2), Stage(256, 1, 2), Stage(512, 1, 2))
TINY_STAGES = (Stage(64, 1, 1), Stage(128, 1, 2), Stage(256, 1, 2))


class ResNet(SlimmableNetwork):
    """A convolution with a max-pool, bottleneck blocks, global mean and a classifier; the small stem does not pool.

    Attributes:
      stem_features: channels of the first convolution at width 1.
      stem_kernel_size: side of the first convolution's kernel, pixels.
      stages: the blocks.
      frozen_stages: the first so many, and the stem with them, which no gradient reaches.
    """

    stem_features: int = 64
    stem_kernel_size: int = 7
    stages: tuple[Stage, ...] = STAGES_50
    frozen_stages: int = 0

    def uniform_plan(self, width: float) -> WidthPlan:
        """Channels of the stem and, for every block, of its bottleneck and its output."""
        features = {"stem": truncate_channels(self.stem_features * width)}
        for number, (stage, _) in enumerate(blocks_of(self.stages), start=1):
            outputs = truncate_channels(stage.features * width)
            features[f"block_{number}_hidden"] = truncate_channels(outputs / BOTTLENECK)
            features[f"block_{number}"] = outputs
        return WidthPlan(width, tuple(features.items()))

    def check_options(self) -> None:
        """See SlimmableNetwork; what is added to a block's input has to have as many channels."""
        super().check_options()
        for plan in self.resolved_plans():
            for number in range(2, len(blocks_of(self.stages)) + 1):
                given, outputs = plan[f"block_{number - 1}"], plan[f"block_{number}"]
                if number not in first_blocks(self.stages) and outputs != given:
                    raise UserError(
                        f"width {plan.width}: block_{number}={outputs} has to be {given}, as the block before"
                    )

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
        return self._forward(images, width, train, classifies=True)[1]

    def stage_features(
        self, images: jax.Array, width: float | None = None, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """The feature maps after every stage: `model.apply(variables, images, width, method="stage_features")`.

        Args:
          images: [batch, height, width, 3].
          width: one of `widths`, static; the widest by default.
          train: whether batch norm uses and records the batch's statistics.

        Returns:
          For each stage [batch, height / s, width / s, features], rounded up, in `dtype`. With the stem for ImageNet
          the steps s of ResNet-50's grids are 4, 8, 16 and 32 pixels.

        Raises:
          UserError: if the width is not one of the model's.
        """
        return self._forward(images, width, train, classifies=False)[0]

    @nn.compact
    def _forward(
        self, images: jax.Array, width: float | None, train: bool, classifies: bool
    ) -> tuple[tuple[jax.Array, ...], Any]:
        """The stages' feature maps and, if it classifies, the logits, else None: then there is no classifier."""
        switch, batch_norm = self.switch_for(images, width), self.make_batch_norm()
        features_of = self.features_by_layer()
        features = features_of["stem"]
        stem = ConvNorm(
            (RGB,),
            features,
            batch_norm,
            kernel_size=self.stem_kernel_size,
            strides=self.stem_strides(),
            activation=nn.relu,
            dtype=self.dtype,
            name="stem",
        )
        x = stem(images, switch, train)
        if self.stem == "imagenet":
            x = max_pool(x, window=3, strides=2, padding=1)
        outputs, frozen_blocks = [], sum(stage.repeats for stage in self.stages[: self.frozen_stages])
        for number, (_, strides) in enumerate(blocks_of(self.stages), start=1):
            name, in_features, projects = f"block_{number}", features, number in first_blocks(self.stages)
            hidden, features = features_of[f"{name}_hidden"], features_of[name]
            block = Bottleneck(in_features, hidden, features, batch_norm, strides, projects, self.dtype, name=name)
            x = block(x, switch, train)
            if number == frozen_blocks:
                x = jax.lax.stop_gradient(x)
            outputs.append(x)
        maps = tuple(outputs[last - 1] for last in accumulate(stage.repeats for stage in self.stages))
        if not classifies:
            return maps, None
        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return maps, SlimmableDense(max(features), self.num_classes, name=CLASSIFIER)(pooled)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the input, or to a 1x1 convolution of it.

    Attributes:
      in_features: input channels of every switch.
      hidden_features: channels of the 3x3 convolution, of every switch.
      features: output channels of every switch.
      batch_norm: makes the batch norms.
      strides: of the 3x3 convolution.
      projects: whether the input passes a convolution, as in the first block of every stage; else shapes have to agree.
      dtype: of the computation.
    """

    in_features: tuple[int, ...]
    hidden_features: tuple[int, ...]
    features: tuple[int, ...]
    batch_norm: BatchNormFactory
    strides: int
    projects: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """[batch, height, width, in_features[switch]] to [batch, height', width', features[switch]]."""

        def conv(in_features: tuple[int, ...], features: tuple[int, ...], name: str, **options: Any) -> ConvNorm:
            return ConvNorm(in_features, features, self.batch_norm, dtype=self.dtype, name=name, **options)

        hidden = self.hidden_features
        y = conv(self.in_features, hidden, "reduce", activation=nn.relu)(x, switch, train)
        spatial = conv(hidden, hidden, "spatial", kernel_size=3, strides=self.strides, activation=nn.relu)
        y = spatial(y, switch, train)
        y = conv(hidden, self.features, "expand", activation=None)(y, switch, train)
        # It belongs to the architecture: channels that happen to agree at one width change nothing.
        if self.projects:
            shortcut = conv(self.in_features, self.features, "shortcut", strides=self.strides, activation=None)
            x = shortcut(x, switch, train)
        return nn.relu(x + y)
