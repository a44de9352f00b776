"""MobileNet v2 (Sandler et al. 2018, arXiv:1801.04381), slimmable."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.models.network import CLASSIFIER, RGB, SlimmableNetwork, Stage, blocks_of, first_blocks
from slimjax.nn.blocks import BatchNormFactory, ConvNorm, DepthwiseNorm
from slimjax.nn.layers import SlimmableDense
from slimjax.nn.plans import WidthPlan, round_channels


@dataclass(frozen=True)
class InvertedStage(Stage):
    """Consecutive inverted residual blocks.

    Attributes:
      expansion: hidden channels over input channels.
    """

    expansion: int = 6


STAGES = (
    InvertedStage(16, 1, 1, expansion=1),
    InvertedStage(24, 2, 2),
    InvertedStage(32, 3, 2),
    InvertedStage(64, 4, 2),
    InvertedStage(96, 3, 1),
    InvertedStage(160, 3, 2),
    InvertedStage(320, 1, 1),
)
TINY_STAGES = (InvertedStage(16, 1, 1, expansion=1), InvertedStage(24, 2, 2), InvertedStage(32, 2, 2))


class MobileNetV2(SlimmableNetwork):
    """A 3x3 convolution, inverted residual blocks, a 1x1 tail convolution, global mean and a classifier.

    Attributes:
      stem_features: channels of the first convolution at width 1.
      tail_features: channels of the last convolution, which only widths above 1 multiply.
      stages: the blocks.
      tail_bn: `shared`: one batch norm after the tail for all widths, as in the published checkpoints and counts.
        `private`: one for each width, as the paper's text says.
    """

    stem_features: int = 32
    tail_features: int = 1280
    stages: tuple[InvertedStage, ...] = STAGES
    tail_bn: Literal["shared", "private"] = "shared"

    def uniform_plan(self, width: float) -> WidthPlan:
        """Channels of stem, hidden and output layers of every block, and tail, rounded to multiples of 8.

        The hidden channels are a multiple of the *rounded* input channels.
        """
        previous = round_channels(self.stem_features * width)
        features = {"stem": previous}
        for number, (stage, _) in enumerate(blocks_of(self.stages), start=1):
            features[f"block_{number}_hidden"] = stage.expansion * previous
            previous = features[f"block_{number}"] = round_channels(stage.features * width)
        features["tail"] = round_channels(self.tail_features * max(width, 1.0))
        return WidthPlan(width, tuple(features.items()))

    def check_options(self) -> None:
        """See SlimmableNetwork; a block that does not expand has as many hidden channels as inputs in every plan."""
        super().check_options()
        if self.tail_bn not in ("shared", "private"):
            raise UserError(f"tail_bn={self.tail_bn!r} is unknown; choose 'shared' or 'private'")
        for plan in self.resolved_plans():
            given = plan["stem"]
            for number, (stage, _) in enumerate(blocks_of(self.stages), start=1):
                hidden = plan[f"block_{number}_hidden"]
                if stage.expansion == 1 and hidden != given:
                    raise UserError(
                        f"width {plan.width}: block_{number}_hidden={hidden} has to be {given}, its input, as the "
                        "block does not expand"
                    )
                given = plan[f"block_{number}"]

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
        for number, (stage, strides) in enumerate(blocks_of(self.stages), start=1):
            name, in_features = f"block_{number}", features
            hidden, features = features_of[f"{name}_hidden"], features_of[name]
            block = InvertedResidual(
                in_features,
                hidden,
                features,
                batch_norm,
                strides,
                expands=stage.expansion > 1,
                adds=number not in first_blocks(self.stages),
                dtype=self.dtype,
                name=name,
            )
            x = block(x, switch, train)
        tail = features_of["tail"]
        x = ConvNorm(features, tail, self._tail_batch_norm(), dtype=self.dtype, name="tail")(x, switch, train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return SlimmableDense(max(tail), self.num_classes, name=CLASSIFIER)(x)

    def _tail_batch_norm(self) -> BatchNormFactory:
        return self.make_batch_norm("shared" if self.tail_bn == "shared" else None)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and linear 1x1 projection, added to the input inside a stage.

    Attributes:
      in_features: input channels of every switch.
      hidden_features: channels between expansion and projection, of every switch.
      features: output channels of every switch.
      batch_norm: makes the batch norms.
      strides: of the depthwise convolution.
      expands: whether there is an expansion; the first block has none.
      adds: whether the input is added, as in all blocks of a stage but its first; only where the shapes agree.
      dtype: of the computation.
    """

    in_features: tuple[int, ...]
    hidden_features: tuple[int, ...]
    features: tuple[int, ...]
    batch_norm: BatchNormFactory
    strides: int
    expands: bool
    adds: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """[batch, height, width, in_features[switch]] to [batch, height', width', features[switch]]."""
        inputs = x
        if self.expands:
            expand = ConvNorm(self.in_features, self.hidden_features, self.batch_norm, dtype=self.dtype, name="expand")
            x = expand(x, switch, train)
        depthwise = DepthwiseNorm(
            self.hidden_features, self.batch_norm, self.strides, dtype=self.dtype, name="depthwise"
        )
        x = depthwise(x, switch, train)
        x = ConvNorm(
            self.hidden_features, self.features, self.batch_norm, activation=None, dtype=self.dtype, name="project"
        )(x, switch, train)
        # A plan may make the shapes agree at one width only. Each width decides by itself, so that it is the network
        # that has this width alone, whatever the other widths are.
        return x + inputs if self.adds and self.in_features[switch] == self.features[switch] else x
