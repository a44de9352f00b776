"""Losses and errors against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from slimjax.configs import default

from slimjax import create_model
from slimjax.tasks.classification.metrics import classification_metrics, cross_entropy, top_k_error
from slimjax.tasks.classification.task import ClassificationTask
from slimjax.tasks.dataset_info import DatasetInfo


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_minus_the_expected_log_probability(rng, smoothing):
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    expected = -(targets * log_probabilities).sum(-1)
    actual = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_top_k_error_counts_labels_beyond_the_k_largest(rng):
    logits, labels = rng.normal(size=(50, 8)).astype(np.float32), rng.integers(0, 8, 50)
    for k in (1, 5):
        right = [label in np.argsort(row)[::-1][:k] for row, label in zip(logits, labels, strict=True)]
        np.testing.assert_array_equal(top_k_error(jnp.asarray(logits), jnp.asarray(labels), k), np.where(right, 0, 100))


def test_of_fewer_than_five_classes_none_is_beyond_the_fifth(rng):
    logits, labels = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32), jnp.arange(6) % 3
    assert (top_k_error(logits, labels, 5) == 0).all()


@pytest.mark.parametrize(
    ("num_classes", "names"), [(5, {"loss", "top1_error"}), (6, {"loss", "top1_error", "top5_error"})]
)
def test_an_evaluation_has_a_top_5_error_where_there_is_a_sixth_class(rng, num_classes, names):
    model = create_model("mobilenet_v1_tiny", (1.0,), num_classes)
    task = ClassificationTask(default.get_config(), model, DatasetInfo("folder", num_classes, 100, 50, ()))
    logits, labels = jnp.asarray(rng.normal(size=(4, num_classes)), jnp.float32), jnp.arange(4)
    assert task.figures(classification_metrics(logits, labels, cross_entropy(logits, labels))).keys() == names


def test_constant_and_broken_logits_are_not_taken_for_right():
    labels = jnp.zeros(2, jnp.int32)
    for logits in (jnp.zeros((2, 3)), jnp.full((2, 3), jnp.nan)):
        assert (top_k_error(logits, labels, 1) == 100).all()


def test_padding_does_not_count(rng):
    logits, labels = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), jnp.array([0, 1, 2, 0])
    losses = cross_entropy(logits, labels)
    masked = classification_metrics(logits, labels, losses, jnp.array([1.0, 1.0, 0.0, 0.0])).compute()
    plain = classification_metrics(logits[:2], labels[:2], losses[:2]).compute()
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-6)
