"""Algorithm 1 of SNet with every width's gradient by itself, and images to run it on."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits


def digits(count, size=8):
    """The first digits: image [count, size, size, 3] and label [count]."""
    bunch = load_digits()
    images = np.repeat(bunch.images[:count, :, :, None] / 8 - 1, 3, axis=-1).astype(np.float32)
    return {"image": images.repeat(size // 8, 1).repeat(size // 8, 2), "label": bunch.target[:count].astype(np.int32)}


def assert_trees_close(actual, expected, rtol, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def by_hand(task):
    """Algorithm 1 by hand: each width's own gradient, statistics threaded from one width to the next."""
    variables = jax.device_get(jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    batch, statistics, gradients, losses = digits(16), variables["batch_stats"], [], {}
    for width in task.model.widths[::-1]:

        def loss(params, statistics, width=width):
            logits, updated = task.model.apply(
                {"params": params, "batch_stats": statistics},
                batch["image"],
                width=width,
                train=True,
                mutable=["batch_stats"],
            )
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], 1)
            return -jnp.mean(picked), updated["batch_stats"]

        (losses[width], statistics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            variables["params"], statistics
        )
        gradients.append(jax.device_get(gradient))
    return variables["params"], gradients, jax.device_get(statistics), losses
