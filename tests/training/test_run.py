"""What a configuration says reaches the parts of a run; nothing is trained here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slimjax.configs import digits

from slimjax.training.run import create_run


@pytest.fixture
def run_with(data_dir, tmp_path):
    def create(**settings):
        config = digits.get_config()
        config.dataset.data_dir = str(data_dir)
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in settings.items()})
        return create_run(config, tmp_path)

    return create


def test_the_loss_is_smoothed_in_training_and_plain_in_evaluation(run_with):
    task = run_with(label_smoothing=0.3, model__widths=(1.0,)).task
    variables = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    params, statistics = variables["params"], variables["batch_stats"]
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(4, 16, 16, 3)).astype(np.float32), "label": np.array([3, 1, 4, 1])}

    def cross_entropies(logits):
        log_probabilities = np.asarray(logits, np.float64)
        log_probabilities -= np.log(np.exp(log_probabilities).sum(-1, keepdims=True))
        return log_probabilities, -log_probabilities[np.arange(4), batch["label"]]

    train_logits, _ = task.model.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    log_probabilities, plain = cross_entropies(train_logits)
    smoothed = 0.7 * plain - 0.3 * log_probabilities.mean(-1)
    loss, _ = task.loss(params, statistics, batch, 1.0)
    np.testing.assert_allclose(loss, smoothed.mean(), rtol=1e-5)

    metrics = task.metrics_at(params, statistics, batch | {"mask": np.array([1.0, 1.0, 0.0, 1.0])}, 1.0)
    _, plain = cross_entropies(task.model.apply(variables, batch["image"]))
    np.testing.assert_allclose(metrics.compute()["loss"], plain[[0, 1, 3]].mean(), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "expected"), [("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")])
def test_the_network_computes_in_the_dtype_asked_for(run_with, dtype, expected):
    assert jnp.dtype(run_with(dtype=dtype).task.model.dtype).name == expected


def test_groups_of_devices_share_batch_norm_statistics_where_that_is_asked_for(run_with):
    alone, grouped = run_with().task.model, run_with(batch_norm_group_size=2).task.model
    assert alone.batch_norm_axis is None
    assert (grouped.batch_norm_axis, grouped.batch_norm_groups) == ("data", ((0, 1), (2, 3), (4, 5), (6, 7)))


def test_epochs_become_steps_of_the_batch_size(run_with):
    """1,442 digits in batches of 72: 20.03 steps an epoch."""
    run = run_with(
        batch_size=72, num_train_steps=None, num_epochs=3.0, eval_every_steps=None, eval_every_epochs=1.0,
        checkpoint_every_steps=None, checkpoint_every_epochs=0.5, schedule__warmup_steps=None,
        schedule__warmup_epochs=1.0, schedule__name="linear", learning_rate=0.4,
    )  # fmt: skip
    assert run.rule.num_steps == 60
    assert (run.cadence.eval_every_steps, run.cadence.checkpoint_every_steps) == (20, 10)
    np.testing.assert_allclose([run.schedule(step) for step in (0, 10, 20, 40, 60)], [0, 0.2, 0.4, 0.2, 0], atol=1e-6)


@pytest.mark.parametrize(("programs", "fused"), [("auto", True), ("per_width", False), ("fused", True)])
def test_the_step_is_as_many_programs_as_asked_for(run_with, programs, fused):
    assert run_with(step_programs=programs).train_step.fused is fused
