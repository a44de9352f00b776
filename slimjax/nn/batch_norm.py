"""Switchable batch normalisation (SNet, section 3.2): every width keeps its own statistics, scale and bias."""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from slimjax.errors import UserError
from slimjax.nn.channels import LeadingChannels
from slimjax.nn.layers import SlimmableLayer, Variable

Sharing = Literal["switchable", "shared_affine", "shared"]


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and mean of squares of every channel over all other axes, float32 whatever the dtype of x.

    Args:
      x: [..., features].

    Returns:
      mean [features] and mean of squares [features]: both average correctly over devices, which variances do not.
    """
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    return jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel by the batch's own statistics, with the closed-form gradient (Ioffe and Szegedy 2015).

    Left to itself, differentiation keeps several arrays of the size of x; this keeps x and the statistics.

    Args:
      x: [..., features].
      scale: [features] float32.
      bias: [features] float32.
      epsilon: added to variances.

    Returns:
      The normalised x, of its dtype, and mean and biased variance [features] float32, through which no gradient flows:
      they are for the running averages.
    """
    return _normalise_forward(x, scale, bias, epsilon)[0]


def _normalise_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[Any, Any]:
    mean, mean_of_squares = batch_moments(x)
    variance = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
    inverse_std = jax.lax.rsqrt(variance + epsilon)
    slope = scale * inverse_std
    y = x.astype(jnp.float32) * slope + (bias - mean * slope)
    return (y.astype(x.dtype), mean, variance), (x, scale, mean, inverse_std)


def _normalise_backward(epsilon: float, residuals: Any, cotangents: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Dx = scale / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)), written as one affine map of dy and x."""
    x, scale, mean, inverse_std = residuals
    axes = tuple(range(x.ndim - 1))
    wide, dy = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    dbias = dy.sum(axes)
    dscale = ((dy * wide).sum(axes) - mean * dbias) * inverse_std
    count, slope = x.size // x.shape[-1], scale * inverse_std
    of_x = -slope * inverse_std * dscale / count
    dx = dy * slope + wide * of_x - (slope * dbias / count + of_x * mean)
    return dx.astype(x.dtype), dscale, dbias


normalise.defvjp(_normalise_forward, _normalise_backward)


class Normaliser(SlimmableLayer):
    """What stands behind a convolution: values for every channel, of each switch or shared by all of them.

    A switch is the index of a width. Variables are keyed by the switch and never by the channel count, since two widths
    can round to the same count.

    Attributes:
      features: channels of every switch, in the order of the widths.
      groups: of the convolution before it, whose outputs are sliced inside each group: what switches share is sliced
        the same way, so that a channel keeps its values at every width.
    """

    features: tuple[int, ...]
    groups: int = 1

    def _check_switch(self, x: jax.Array, switch: int) -> None:
        if not 0 <= switch < len(self.features) or x.shape[-1] != self.features[switch]:
            raise UserError(
                f"{self.place()}: {x.shape[-1]} channels at switch {switch}, but its features={self.features}"
            )

    def _sizes(self, shared: bool) -> dict[str, int]:
        """Channels allocated under every key: one key for all switches or one for each."""
        if shared:
            return {"shared": max(self.features)}
        return {f"switch_{index}": size for index, size in enumerate(self.features)}

    def _key(self, shared: bool, switch: int) -> str:
        return "shared" if shared else f"switch_{switch}"

    def _active(self, switch: int) -> LeadingChannels:
        """The channels of a switch among those stored: all of a private array, the leading ones of a shared one."""
        return LeadingChannels((self.features[switch],), self.groups)

    def macs(self, x: jax.Array, output: jax.Array) -> int:
        """None: at inference it folds into the convolution before it, and the papers do not count it."""
        return 0


class SwitchableBatchNorm(Normaliser):
    """Batch normalisation with one set of variables per switch.

    Running variances are biased, as Flax keeps them (PyTorch's are unbiased: larger by n / (n - 1)).

    Attributes:
      sharing: `switchable`: all private (S-BN). `shared_affine`: private statistics, one scale and bias sliced by every
        switch (US-Nets, section 3.2). `shared`: one of everything, sliced (the naive training of SNet, figure 2).
      momentum: weight of the old value in a running average; PyTorch's .1 is .9 here.
      epsilon: added to variances.
      axis_name: mapped device axis over which training statistics are averaged; None keeps them on the device.
      axis_index_groups: groups of devices that average with each other; None means all.
      dtype: of the output; statistics are float32.
    """

    sharing: Sharing = "switchable"
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switch: int, train: bool = False) -> jax.Array:
        """Normalises with the variables of one switch; in training with the batch's statistics, which it also records.

        Args:
          x: [..., features[switch]].
          switch: index of the width, static.
          train: whether to use the statistics of the batch and to update the running ones.

        Returns:
          An array of the shape of x in `dtype`.

        Raises:
          UserError: if the channels of x are not those of the switch, or `sharing` is unknown.
        """
        check_sharing(self.sharing)
        self._check_switch(x, switch)
        affine, running = self._variables_of(switch)
        scale, bias = (self._active(switch)(affine[name]) for name in ("scale", "bias"))
        if train and self.axis_name is None:
            y, mean, variance = normalise(x, scale, bias, self.epsilon)
        else:
            # Statistics of several devices: differentiation has to go through their average.
            mean, variance = self._statistics_over_devices(x) if train else self._running_moments(running, switch)
            y = (x.astype(jnp.float32) - mean) * (scale * jax.lax.rsqrt(variance + self.epsilon)) + bias
        if train and not self.is_initializing():
            running.value = self._updated(running.value, {"mean": mean, "var": variance}, switch)
        return y.astype(self.dtype)

    def _variables_of(self, switch: int) -> tuple[dict[str, jax.Array], nn.Variable]:
        """Scale and bias, and the running statistics, of a switch; initialisation creates those of all switches."""
        affine, running = {}, {}
        for key, size in self._sizes(self._shares_affine).items():
            if self.is_initializing() or key == self._key(self._shares_affine, switch):
                affine[key] = self.param(key, _initial_affine, size)
        for key, size in self._sizes(self._shares_statistics).items():
            if self.is_initializing() or key == self._key(self._shares_statistics, switch):
                running[key] = self.variable("batch_stats", key, _initial_statistics, size)
        return affine[self._key(self._shares_affine, switch)], running[self._key(self._shares_statistics, switch)]

    @property
    def _shares_affine(self) -> bool:
        return self.sharing != "switchable"

    @property
    def _shares_statistics(self) -> bool:
        return self.sharing == "shared"

    def _running_moments(self, running: nn.Variable, switch: int) -> tuple[jax.Array, jax.Array]:
        mean, variance = (self._active(switch)(running.value[name]) for name in ("mean", "var"))
        return mean, variance

    def _statistics_over_devices(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        moments = jax.lax.pmean(batch_moments(x), self.axis_name, axis_index_groups=self.axis_index_groups)
        mean, mean_of_squares = moments
        return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)

    def _updated(self, running: dict[str, jax.Array], batch: dict[str, jax.Array], switch: int) -> dict[str, jax.Array]:
        """Moves the running averages of a switch's channels towards the batch's; the rest stays."""
        active = self._active(switch)

        def moved(average: jax.Array, of_batch: jax.Array) -> jax.Array:
            return active.replace(average, self.momentum * active(average) + (1.0 - self.momentum) * of_batch)

        return {name: moved(average, batch[name]) for name, average in running.items()}

    def variables_read(self, x: jax.Array, switch: int, train: bool = False) -> tuple[Variable, ...]:
        """See SlimmableLayer."""
        affine, statistics = self._key(self._shares_affine, switch), self._key(self._shares_statistics, switch)
        active = self._active(switch)
        return (
            Variable("params", (affine, "scale"), "scale", active),
            Variable("params", (affine, "bias"), "bias", active),
            Variable("batch_stats", (statistics, "mean"), "statistic", active),
            Variable("batch_stats", (statistics, "var"), "statistic", active),
        )


def check_sharing(sharing: str) -> None:
    """UserError unless `sharing` is one of those that SwitchableBatchNorm knows."""
    if sharing not in get_args(Sharing):
        raise UserError(f"batch_norm={sharing!r} is unknown; choose one of {', '.join(get_args(Sharing))}")


def _initial_affine(key: jax.Array, size: int) -> dict[str, jax.Array]:
    return {"scale": jnp.ones(size, jnp.float32), "bias": jnp.zeros(size, jnp.float32)}


def _initial_statistics(size: int) -> dict[str, jax.Array]:
    return {"mean": jnp.zeros(size, jnp.float32), "var": jnp.ones(size, jnp.float32)}
