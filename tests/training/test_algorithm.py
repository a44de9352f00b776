"""Summed gradients against those of every width by itself, for every kind of part that a width reads of a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithm_by_hand import assert_trees_close, by_hand, digits
from flax import linen as nn

from slimjax import UserError
from slimjax.nn.channels import LeadingChannels
from slimjax.nn.layers import SlimmableDense
from slimjax.nn.tracing import active_parts
from slimjax.training.algorithm import summed_gradients


@pytest.fixture(params=["mobilenet_v1", "mobilenet_v2", "shufflenet", "resnet50"])
def task(request, make_task, create_small):
    """Of each family: ShuffleNet's kernels are sliced in groups, the widths of MobileNet v2 share a last batch norm."""
    return make_task(model=create_small(request.param, (0.5, 1.0), num_classes=10))


def test_summed_gradient_is_the_sum_of_separate_ones(task):
    params, gradients, statistics, _ = by_hand(task)
    initial = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["batch_stats"]
    sums, _ = jax.jit(lambda p, s, b: summed_gradients(task, task.model.widths[::-1], p, s, b))(
        params, initial, digits(16)
    )
    assert_trees_close(sums.gradients, jax.tree.map(lambda *parts: sum(parts), *gradients), rtol=1e-3, atol=1e-5)
    assert_trees_close(sums.batch_stats, statistics, rtol=1e-4, atol=1e-6)


class CalledTwice(nn.Module):
    """A network in which a width reads different parts of one kernel, and the same part of another twice."""

    widths: tuple[float, ...] = (0.5, 1.0)

    @nn.compact
    def __call__(self, images, width=1.0):
        x, features = images.mean((1, 2)), int(8 * width)
        odd, even = (SlimmableDense(3, 8, name=name) for name in ("odd", "even"))
        first, second, third = (odd(x, count) for count in (features // 2, features, features // 2))
        return jnp.concatenate([first, second**2, third**3, even(x, features), even(2 * x, features) ** 2], axis=-1)


class SumsOfSquares:
    """A task of a network without batch norms."""

    model, shares_stem = CalledTwice(), True

    def loss(self, params, batch_stats, batch, width):
        return jnp.square(self.model.apply({"params": params}, batch["image"], width=width)).mean(), (batch_stats, {})


def test_what_is_read_in_different_parts_is_added_as_a_whole():
    whole, half = LeadingChannels(), (LeadingChannels((3, 4)), LeadingChannels((4,)))
    assert active_parts(CalledTwice(), 0.5) == {
        ("odd", "kernel"): whole, ("odd", "bias"): whole, ("even", "kernel"): half[0], ("even", "bias"): half[1],
    }  # fmt: skip
    task, batch = SumsOfSquares(), digits(4)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(0).normal(size=leaf.shape), jnp.float32),
        task.model.init(jax.random.key(0), batch["image"])["params"],
    )
    sums, _ = summed_gradients(task, (1.0, 0.5), params, {}, batch)
    separate = [jax.grad(lambda p, width=width: task.loss(p, {}, batch, width)[0])(params) for width in (1.0, 0.5)]
    assert_trees_close(sums.gradients, jax.tree.map(lambda *parts: sum(parts), *separate), rtol=1e-5, atol=1e-6)


def test_no_widths_is_an_error(make_task):
    with pytest.raises(UserError, match="at least one width"):
        summed_gradients(make_task(), (), {}, {}, {})
