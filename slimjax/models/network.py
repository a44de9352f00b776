"""What all slimmable networks have in common: widths, their plans, and the batch norm that switches with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.nn.batch_norm import Sharing, SwitchableBatchNorm, check_sharing
from slimjax.nn.blocks import BatchNormFactory
from slimjax.nn.folded import FoldedAffine, Folding, check_folding
from slimjax.nn.plans import WidthPlan, check_plans, check_widths, switch_of

RGB = 3
"""Channels of the images."""

CLASSIFIER = "classifier"
"""The name, in every family, of the layer whose outputs are the classes."""

BACKBONE = "backbone"
"""The name of the network among the parts of whatever is built on one."""


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one resolution.

    Attributes:
      features: output channels at width 1.
      repeats: number of blocks.
      strides: of the first block; the others keep the resolution.
    """

    features: int
    repeats: int
    strides: int


AnyStage = TypeVar("AnyStage", bound=Stage)


def blocks_of(stages: Iterable[AnyStage]) -> list[tuple[AnyStage, int]]:
    """The stage and the strides of every block, in the order of the network."""
    return [(stage, stage.strides if index == 0 else 1) for stage in stages for index in range(stage.repeats)]


def first_blocks(stages: Sequence[Stage]) -> tuple[int, ...]:
    """The numbers, from 1, of the blocks that begin a stage."""
    return tuple(accumulate((stage.repeats for stage in stages[:-1]), initial=1))


class SlimmableNetwork(nn.Module):
    """Base of the families. A family adds its layers, `uniform_plan` and `__call__(images, width=None, train=False)`.

    Attributes:
      widths: ascending; each is a switch.
      num_classes: outputs of the classifier.
      plans: one for each width, for networks that are not uniformly slimmed; None takes the family's rounding rule.
      stem: `imagenet` halves the resolution in the first convolution, `small` keeps it, for images of 8 to 64 pixels.
      batch_norm: what the widths share of a batch norm, see SwitchableBatchNorm.
      batch_norm_momentum: weight of the old value in the running averages.
      batch_norm_axis: mapped device axis over which training statistics are averaged; None keeps them on the device.
      batch_norm_groups: groups of devices along that axis; None means all.
      folding: None for a network that can be trained; otherwise what its batch norms have become, see FoldedAffine.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    widths: tuple[float, ...] = (1.0,)
    num_classes: int = 1000
    plans: tuple[WidthPlan, ...] | None = None
    stem: str = "imagenet"
    batch_norm: Sharing = "switchable"
    batch_norm_momentum: float = 0.9
    batch_norm_axis: str | None = None
    batch_norm_groups: tuple[tuple[int, ...], ...] | None = None
    folding: Folding | None = None
    dtype: Any = jnp.float32

    @property
    def class_layers(self) -> tuple[tuple[str, ...], ...]:
        """Where in the parameters the layers are whose size follows from the number of classes."""
        return ((CLASSIFIER,),)

    def uniform_plan(self, width: float) -> WidthPlan:
        """The plan of a width by the family's rounding rule."""
        raise NotImplementedError

    def resolved_plans(self) -> tuple[WidthPlan, ...]:
        """The plan of every width, checked against the network's layers.

        Raises:
          UserError: if widths or plans do not fit the network or each other.
        """
        widths = check_widths(self.widths)
        if self.plans is None:
            return tuple(self.uniform_plan(width) for width in widths)
        if tuple(plan.width for plan in self.plans) != widths:
            raise UserError(f"the plans are of widths {tuple(p.width for p in self.plans)}, the model's are {widths}")
        return check_plans(self.plans, self.uniform_plan(widths[-1]).layers)

    def check_options(self) -> None:
        """UserError if an attribute has a value that the network cannot have; a family extends this by its own."""
        try:
            jnp.dtype(self.dtype)
        except TypeError:
            raise UserError(f"dtype={self.dtype!r} is unknown; give float32 or bfloat16") from None
        self.resolved_plans()
        self.stem_strides()
        check_sharing(self.batch_norm)
        check_folding(self.folding)

    def features_by_layer(self) -> dict[str, tuple[int, ...]]:
        """Active channels of every planned layer, at every switch."""
        plans = [dict(plan.features) for plan in self.resolved_plans()]
        return {layer: tuple(plan[layer] for plan in plans) for layer in plans[0]}

    def switch_of(self, width: float | None) -> int:
        """Index of a width, None being the widest; UserError if the model does not have it."""
        return switch_of(self.widths, width)

    def switch_for(self, images: jax.Array, width: float | None) -> int:
        """As `switch_of`, for images that are to be classified.

        Raises:
          UserError: likewise, and if the images are not [batch, height, width, 3]: the stem would take fewer channels
            for a slimmed input.
        """
        if images.ndim != 4 or images.shape[-1] != RGB:
            raise UserError(f"images of shape {images.shape} have to be [batch, height, width, 3], channels last")
        return self.switch_of(width)

    def stem_strides(self) -> int:
        """Step of the stem's convolution, pixels; UserError if `stem` is unknown."""
        strides = {"imagenet": 2, "small": 1}
        if not isinstance(self.stem, str) or self.stem not in strides:
            raise UserError(f"stem={self.stem!r} is unknown; choose one of {tuple(strides)}")
        return strides[self.stem]

    def make_batch_norm(self, sharing: Sharing | None = None) -> BatchNormFactory:
        """A factory of this network's batch norms, or of what they are folded to; `sharing` overrides the network's."""
        sharing = sharing or self.batch_norm
        if self.folding:
            # Where the statistics are private, so is what they fold to, even if scale and bias were shared.
            return partial(FoldedAffine, folding=self.folding, shared=sharing == "shared", dtype=self.dtype)
        return partial(
            SwitchableBatchNorm,
            sharing=sharing,
            momentum=self.batch_norm_momentum,
            axis_name=self.batch_norm_axis,
            axis_index_groups=self.batch_norm_groups,
            dtype=self.dtype,
        )
