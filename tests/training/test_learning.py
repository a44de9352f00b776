"""What the paper claims, on the real digits: private batch norms work at every width, one shared batch norm does not.

Both networks train through the same trainer, data, steps and seed; only `model.batch_norm` differs.
"""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slimjax.configs import digits

from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.loop import train
from slimjax.training.progress import Progress
from slimjax.training.run import create_run

NUM_STEPS = 150


def trained(data_dir, workdir, batch_norm):
    config = digits.get_config()
    config.dataset.data_dir = str(data_dir)
    config.model.batch_norm = batch_norm
    config.model.widths = (0.25, 0.5, 1.0)
    config.num_train_steps = config.eval_every_steps = config.checkpoint_every_steps = NUM_STEPS
    config.log_every_steps = 50
    run = create_run(config, workdir)
    return run, train(run)


@pytest.fixture(scope="module")
def switchable(data_dir, tmp_path_factory):
    return trained(data_dir, tmp_path_factory.mktemp("switchable"), "switchable")


@pytest.fixture(scope="module")
def naive(data_dir, tmp_path_factory):
    return trained(data_dir, tmp_path_factory.mktemp("naive"), "shared")


def top1_errors(figures):
    return {width: row["top1_error"] for width, row in figures.items()}


def last_training_line(run):
    import json

    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in reversed(lines) if "train/learning_rate" in line)


def test_switchable_batch_norm_works_at_every_width(switchable):
    _, outcome = switchable
    assert all(error < 10 for error in top1_errors(outcome.figures).values()), outcome.figures


def test_naive_training_looks_normal_and_fails_in_evaluation(naive):
    run, outcome = naive
    line = last_training_line(run)
    for width in run.task.model.widths:
        assert line[f"train/top1_error/width_{width:g}"] < 15, "with the batch's own statistics it seems to learn"
    errors = top1_errors(outcome.figures)
    assert max(errors.values()) > 60, errors
    assert errors[0.25] > 60, errors


def test_evaluation_counts_every_example_once_whatever_batch_and_devices(switchable, meshes):
    """8 devices with batch 64 saw 355 examples; so do one device with batch 50 and 8 with batch 24."""
    run, outcome = switchable
    params, batch_stats = jax.device_get((outcome.state.params, outcome.state.batch_stats))
    counts = {}
    for devices, batch_size in ((1, 50), (8, 24)):
        run.config.batch_size = batch_size
        evaluate = Evaluator(run.task, meshes[devices], Progress(enabled=False))
        figures = evaluate(params, batch_stats)
        for width, row in outcome.figures.items():
            np.testing.assert_allclose(figures[width]["top1_error"], row["top1_error"], rtol=1e-5)
            np.testing.assert_allclose(figures[width]["loss"], row["loss"], rtol=1e-4)
        counts[devices] = sum(int(batch["mask"].sum()) for batch in run.task.eval_batches())
    run.config.batch_size = 64
    assert set(counts.values()) == {355}


def test_calibration_repairs_destroyed_statistics(switchable):
    run, outcome = switchable
    destroyed = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), outcome.state.batch_stats)
    evaluate = Evaluator(run.task, run.mesh, Progress(enabled=False))
    assert min(top1_errors(evaluate(outcome.state.params, destroyed)).values()) > 50
    batches = islice(run.task.train_batches(0), 8)
    repaired = calibrate_statistics(run.task, run.mesh, outcome.state.params, destroyed, batches)
    errors, before = top1_errors(evaluate(outcome.state.params, repaired)), top1_errors(outcome.figures)
    for width, error in errors.items():
        assert error < before[width] + 3, (width, error, before[width])


def test_calibrated_statistics_are_the_mean_of_the_batches_own(switchable):
    """The first batch norm of the widest width, computed here from the convolution's output."""
    run, outcome = switchable
    batches = list(islice(run.task.train_batches(0), 3))
    params = jax.device_get(outcome.state.params)
    calibrated = calibrate_statistics(run.task, run.mesh, outcome.state.params, outcome.state.batch_stats, batches)
    means, variances = [], []
    for batch in batches:
        for share in np.split(batch["image"], run.mesh.size):
            y = jax.lax.conv_general_dilated(
                share,
                params["stem"]["conv"]["kernel"],
                (1, 1),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            pixels = np.asarray(y, np.float64).reshape(-1, y.shape[-1])
            means.append(pixels.mean(0))
            variances.append(pixels.var(0))
    stem = calibrated["stem"]["bn"][f"switch_{len(run.task.model.widths) - 1}"]
    np.testing.assert_allclose(stem["mean"], np.mean(means, 0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stem["var"], np.mean(variances, 0), rtol=1e-3, atol=1e-4)
