"""The loop as it runs in a process: when it fetches from the devices."""

import jax.numpy as jnp
import pytest
from slimjax.configs import digits

from slimjax.training.log import TrainingLog
from slimjax.training.loop import train
from slimjax.training.run import create_run

LINES_EVERY, STEPS = 4, 12


@pytest.fixture
def fetched(monkeypatch):
    """Records the steps after which arrays are fetched from the devices, in the order of the fetching."""
    steps, array = [], type(jnp.ones(1))
    # Whatever makes a NumPy array or a number of a jax.Array asks for this; CPU has no transfers to guard.
    value = array._value
    added = []

    def fetch(self):
        steps.append(len(added))
        return value.fget(self)

    def add(self, step, *rest):
        added.append(step)
        return keep(self, step, *rest)

    keep = TrainingLog.add
    monkeypatch.setattr(TrainingLog, "add", add)
    monkeypatch.setattr(array, "_value", property(fetch))
    return steps


def test_nothing_is_fetched_from_the_devices_but_what_a_line_needs(data_dir, tmp_path, fetched):
    config = digits.get_config()
    config.dataset.data_dir = str(data_dir)
    config.model.widths = (0.25,)
    config.num_train_steps, config.log_every_steps, config.eval_every_steps = STEPS, LINES_EVERY, STEPS
    config.schedule.warmup_steps = 2
    run = create_run(config, tmp_path)
    outcome = train(run, quiet=True)
    run.checkpoints.close()
    assert outcome.step == STEPS
    while_training = [step for step in fetched if 0 < step < STEPS]
    assert set(while_training) == {4, 8}, "where a line is due, and nowhere else"
