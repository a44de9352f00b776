"""What is left of a batch norm at inference, once its statistics are constants."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.nn.batch_norm import Normaliser
from slimjax.nn.layers import Variable

Folding = Literal["affine", "bias"]


class FoldedAffine(Normaliser):
    """A scale and a bias for every channel, or a bias only, in the place of a batch norm; for inference.

    Attributes:
      folding: `affine`: scale and bias, which leaves the convolution's kernel to be shared by all switches. `bias`: the
        scale is in the kernel.
      shared: whether all switches slice one set, as where the batch norm was shared, statistics included.
      dtype: of the output; the computation is float32.
    """

    folding: Folding = "affine"
    shared: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """Scales and shifts each channel by the values of one switch.

        Args:
          x: [..., features[switch]].
          switch: index of the width, static.
          train: has to be false.

        Returns:
          An array of the shape of x in `dtype`.

        Raises:
          UserError: in training, or if the channels of x are not those of the switch.
        """
        if train:
            raise UserError(
                "train=True, but the batch norms of this network are folded, which leaves no statistics to train with; "
                "only train=False works, so train the network that it was folded from"
            )
        self._check_switch(x, switch)
        values = {}
        for key, size in self._sizes(self.shared).items():
            if self.is_initializing() or key == self._key(self.shared, switch):
                values[key] = self.param(key, self._initial, size)
        own = values[self._key(self.shared, switch)]
        y = x.astype(jnp.float32)
        if self.folding == "affine":
            y = y * self._active(switch)(own["scale"])
        return (y + self._active(switch)(own["bias"])).astype(self.dtype)

    def _initial(self, key: jax.Array, size: int) -> dict[str, jax.Array]:
        bias = {"bias": jnp.zeros(size, jnp.float32)}
        return bias if self.folding == "bias" else {"scale": jnp.ones(size, jnp.float32), **bias}

    def variables_read(self, x: jax.Array, switch: int, train: bool = False) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        key, active = self._key(self.shared, switch), self._active(switch)
        scale = Variable("params", (key, "scale"), "scale", active)
        bias = Variable("params", (key, "bias"), "bias", active)
        return (scale, bias) if self.folding == "affine" else (bias,)


def check_folding(folding: str | None) -> None:
    """UserError unless `folding` is None or one of those that FoldedAffine knows."""
    if folding is not None and folding not in get_args(Folding):
        raise UserError(f"folding={folding!r} is unknown; choose one of None, {', '.join(get_args(Folding))}")
