"""Loss and error metrics that add up exactly over batches and devices."""

import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics
from flax import struct


@struct.dataclass
class ClassificationMetrics(clu_metrics.Collection):
    """Mean loss and errors in percent; padding is masked out."""

    loss: clu_metrics.Average.from_output("loss")  # type: ignore[valid-type]
    top1_error: clu_metrics.Average.from_output("top1_error")  # type: ignore[valid-type]
    top5_error: clu_metrics.Average.from_output("top5_error")  # type: ignore[valid-type]

    def over_devices(self, axis_name: str) -> "ClassificationMetrics":
        """Those of the examples of all devices; traced."""
        return jax.lax.psum(self, axis_name)


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of every example.

    Args:
      logits: [batch, num_classes] float32.
      labels: [batch] int32.
      label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7).

    Returns:
      [batch] float32.
    """
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def top_k_error(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """100 where the label is not among the k largest logits, else 0: [batch] float32, percent when averaged.

    Classes that tie with the label rank before it, so that constant logits are not taken for right answers.
    """
    of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    rank = jnp.sum(logits >= of_label, axis=-1)
    # A comparison with not-a-number is false, which would put the label first.
    return jnp.where((rank <= k) & jnp.isfinite(of_label[:, 0]), 0.0, 100.0)


def classification_metrics(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array | None = None
) -> ClassificationMetrics:
    """Metrics of one batch.

    Args:
      logits: [batch, num_classes] float32.
      labels: [batch] int32.
      losses: [batch] float32.
      mask: [batch], 0 where an example is padding; None counts all.
    """
    return ClassificationMetrics.single_from_model_output(
        loss=losses, top1_error=top_k_error(logits, labels, 1), top5_error=top_k_error(logits, labels, 5), mask=mask
    )
