"""What slims: width plans, slimmable convolution and dense layers, switchable batch normalisation."""

from slimjax.nn.batch_norm import SwitchableBatchNorm
from slimjax.nn.folded import FoldedAffine
from slimjax.nn.layers import SlimmableConv, SlimmableDense, SlimmableDepthwiseConv, SlimmableLayer
from slimjax.nn.plans import WidthPlan, check_widths, round_channels, switch_of

__all__ = [
    "FoldedAffine",
    "SlimmableConv",
    "SlimmableDense",
    "SlimmableDepthwiseConv",
    "SlimmableLayer",
    "SwitchableBatchNorm",
    "WidthPlan",
    "check_widths",
    "round_channels",
    "switch_of",
]
