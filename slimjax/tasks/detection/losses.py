"""Losses of a detector's parts, each the mean over images of what an image's sample comes to by itself."""

import jax
import jax.numpy as jnp
import optax


def smooth_l1(differences: jax.Array, beta: float) -> jax.Array:
    """|d| - beta / 2, and below beta the parabola d**2 / (2 * beta) (Girshick 2015, arXiv:1504.08083): same shape."""
    return optax.losses.huber_loss(differences, delta=beta) / beta


def mean_of_those_there(values: jax.Array, there: jax.Array) -> jax.Array:
    """Mean along the last axis of values [..., n] where `there` [..., n] is true; 0 where it nowhere is: [...]."""
    count = jnp.maximum(jnp.sum(there, -1), 1)
    # Chosen before they are added: what is not there may be infinite, and 0 times that is no number.
    return jnp.sum(jnp.where(there, values, 0.0), -1) / count


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of independent yes or no, computed in float32 from logits: same shape."""
    return optax.losses.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels.astype(jnp.float32))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of logits [..., classes] with whole labels [...], computed in float32: [...]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
