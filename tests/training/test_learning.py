"""What the paper claims, on the real digits: private batch norms work at every width, one shared batch norm does not.

Both networks train through the same trainer, data, steps and seed; only `model.batch_norm` differs.
"""

from dataclasses import dataclass
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import lines_of
from slimjax.configs import digits

from slimjax.tasks import colours
from slimjax.training import progress
from slimjax.training.evaluation import Evaluator, calibrate_statistics
from slimjax.training.progress import Progress
from slimjax.training.run import Run, create_run, trained_weights
from slimjax.training.state import TrainState

SETTINGS = {
    "num_train_steps": 150,
    "eval_every_steps": 150,
    "checkpoint_every_steps": 150,
    "log_every_steps": 50,
    "model.widths": (0.25, 0.5, 1.0),
}


@dataclass(frozen=True)
class Trained:
    """A run that the program has trained on one device, opened here on eight.

    Attributes:
      run: its parts.
      state: parameters and statistics of its last step.
      line: its last training metrics.
      figures: of its evaluation, by width.
    """

    run: Run
    state: TrainState
    line: dict[str, float]
    figures: dict[float, dict[str, float]]


def trained(run_program, data_dir, workdir, batch_norm):
    settings = {**SETTINGS, "model.batch_norm": batch_norm}
    code, _, err = run_program(f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in settings.items()))
    assert code == 0, err
    config = digits.get_config()
    config.update_from_flattened_dict({**settings, "dataset.data_dir": str(data_dir)})
    run = create_run(config, workdir)
    _, state = trained_weights(run, "latest")
    lines = lines_of(workdir)
    figures = {
        width: {name: lines[-1][f"eval/{name}/width_{width:g}"] for name in ("loss", "top1_error")}
        for width in run.task.model.widths
    }
    return Trained(run, state, next(line for line in reversed(lines) if "train/learning_rate" in line), figures)


@pytest.fixture(scope="module")
def switchable(run_program, data_dir, tmp_path_factory):
    return trained(run_program, data_dir, tmp_path_factory.mktemp("switchable"), "switchable")


@pytest.fixture(scope="module")
def naive(run_program, data_dir, tmp_path_factory):
    return trained(run_program, data_dir, tmp_path_factory.mktemp("naive"), "shared")


def top1_errors(figures):
    return {width: row["top1_error"] for width, row in figures.items()}


def test_switchable_batch_norm_works_at_every_width(switchable):
    assert all(error < 10 for error in top1_errors(switchable.figures).values()), switchable.figures


def test_naive_training_looks_normal_and_fails_in_evaluation(naive):
    for width in naive.figures:
        assert naive.line[f"train/top1_error/width_{width:g}"] < 15, "with the batch's own statistics it seems to learn"
    errors = top1_errors(naive.figures)
    assert max(errors.values()) > 60, errors
    assert errors[0.25] > 60, errors


def test_evaluation_counts_every_example_once_whatever_batch_and_devices(switchable, meshes):
    """The program's one device with batch 64 saw 355 examples; so do one with batch 50 and 8 with batch 24."""
    run, state = switchable.run, jax.device_get(switchable.state)
    counts = {}
    for devices, batch_size in ((1, 50), (8, 24)):
        run.config.batch_size = batch_size
        evaluate = Evaluator(run.task, meshes[devices], Progress(enabled=False))
        figures = evaluate(state.params, state.batch_stats)
        for width, row in switchable.figures.items():
            np.testing.assert_allclose(figures[width]["top1_error"], row["top1_error"], rtol=1e-5)
            np.testing.assert_allclose(figures[width]["loss"], row["loss"], rtol=1e-4)
        counts[devices] = sum(int(batch["mask"].sum()) for batch in run.task.eval_batches())
    run.config.batch_size = 64
    assert set(counts.values()) == {355}


def test_evaluation_of_all_widths_reads_the_images_once(switchable, monkeypatch):
    run, state, read = switchable.run, switchable.state, []
    eval_batches = run.task.eval_batches

    def watched():
        read.append(0)
        for batch in eval_batches():
            read[-1] += 1
            yield batch

    monkeypatch.setattr(run.task, "eval_batches", watched)
    figures = Evaluator(run.task, run.mesh, Progress(enabled=False))(state.params, state.batch_stats)
    assert tuple(figures) == run.task.model.widths
    assert read == [run.task.num_eval_batches]


def test_evaluation_shows_the_errors_of_what_it_has_seen(switchable, capsys, monkeypatch):
    """All images but the last batch's, which are left: counted here from the program's answers."""
    run, state = switchable.run, switchable.state
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0)
    Evaluator(run.task, run.mesh, Progress())(state.params, state.batch_stats)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evaluating")]
    assert [line.split(",")[0] for line in lines] == [f"evaluating {done}/6" for done in range(2, 6)]
    seen = list(run.task.eval_batches())[:5]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    for width in run.task.model.widths:
        logits = [run.task.model.apply(variables, colours.normalised(batch), width=width) for batch in seen]
        wrong = [np.argmax(of_batch, -1) != batch["label"] for of_batch, batch in zip(logits, seen, strict=True)]
        assert f"{width:g}: {100 * np.mean(wrong):.2f}" in lines[-1].partition(": top1_error % ")[2]


def test_calibration_repairs_destroyed_statistics(switchable):
    run, state = switchable.run, switchable.state
    destroyed = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), state.batch_stats)
    evaluate = Evaluator(run.task, run.mesh, Progress(enabled=False))
    assert min(top1_errors(evaluate(state.params, destroyed)).values()) > 50
    batches = islice(run.task.train_batches(0), 8)
    repaired = calibrate_statistics(run.task, run.mesh, state.params, destroyed, batches)
    errors, before = top1_errors(evaluate(state.params, repaired)), top1_errors(switchable.figures)
    for width, error in errors.items():
        assert error < before[width] + 3, (width, error, before[width])


def test_calibrated_statistics_are_the_mean_of_the_batches_own(switchable):
    """The first batch norm of the widest width, computed here from the convolution's output."""
    run, state = switchable.run, switchable.state
    batches = list(islice(run.task.train_batches(0), 3))
    params = jax.device_get(state.params)
    calibrated = calibrate_statistics(run.task, run.mesh, state.params, state.batch_stats, batches)
    means, variances = [], []
    for batch in batches:
        for share in np.split(colours.normalised(batch), run.mesh.size):
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
