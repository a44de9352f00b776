"""Schedules against formulas written here, and durations in both units."""

import math

import pytest
from slimjax.configs import default

from slimjax.errors import UserError
from slimjax.training.schedules import create_schedule, duration

STEPS_PER_EPOCH, NUM_STEPS, PEAK = 12.5, 100, 0.4


def learning_rates(**settings):
    section = default.schedule()
    with section.unlocked():
        section.update(settings)
    schedule = create_schedule(section, PEAK, NUM_STEPS, STEPS_PER_EPOCH)
    return [float(schedule(step)) for step in range(NUM_STEPS + 1)]


@pytest.mark.parametrize(
    ("settings", "formula"),
    [
        ({"name": "constant"}, lambda step: PEAK),
        ({"name": "linear"}, lambda step: PEAK * (1 - step / 100)),
        ({"name": "cosine"}, lambda step: PEAK * (1 + math.cos(math.pi * step / 100)) / 2),
        ({"name": "exponential", "factor": 0.98}, lambda step: PEAK * 0.98 ** math.floor(step / 12.5)),
        # 2 and 4 epochs are 25 and 50 steps, after which the rate is lower.
        ({"name": "multistep", "boundaries_epochs": (2, 4)}, lambda step: PEAK * 0.1 ** ((step >= 25) + (step >= 50))),
        ({"name": "multistep", "boundaries_steps": (30,), "factor": 0.5}, lambda s: PEAK * 0.5 ** (s >= 30)),
    ],
)
def test_schedules_follow_their_formulas(settings, formula):
    assert learning_rates(**settings) == pytest.approx([formula(step) for step in range(101)], rel=1e-4, abs=1e-7)


def test_warm_up_rises_linearly_and_then_the_schedule_takes_over():
    rates = learning_rates(name="linear", warmup_epochs=1.6, warmup_factor=0.25)
    for step, rate in enumerate(rates):
        expected = PEAK * (0.25 + 0.75 * step / 20) if step < 20 else PEAK * (1 - (step - 20) / 80)
        assert rate == pytest.approx(expected, rel=1e-4, abs=1e-7)
    multistep = learning_rates(name="multistep", boundaries_steps=(30,), warmup_steps=10)
    assert multistep[29] == pytest.approx(PEAK)
    assert multistep[30] == pytest.approx(PEAK * 0.1), "boundaries count from step 0, the warm-up included"


def test_durations_take_either_unit():
    config = default.get_config()
    keys = ("num_train_steps", "num_epochs", 10.4)
    assert duration(config, *keys) is None
    config.num_epochs = 2.5
    assert duration(config, *keys) == 26
    config.num_train_steps = 7
    with pytest.raises(UserError, match=r"num_train_steps=7 and num_epochs=2.5 are both set"):
        duration(config, *keys)
    config.num_epochs = None
    assert duration(config, *keys) == 7
    config.num_train_steps = -1
    with pytest.raises(UserError, match="num_train_steps=-1, num_epochs=None: give a finite duration of at least 0"):
        duration(config, *keys)
    config.num_train_steps = None
    for epochs in (math.inf, math.nan, -1.0):
        config.num_epochs = epochs
        with pytest.raises(UserError, match=f"num_epochs={epochs}: give a finite duration"):
            duration(config, *keys)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cosin"}, "schedule.name='cosin' is unknown; choose one of constant, multistep"),
        ({"name": "multistep"}, "multistep needs either"),
        ({"name": "multistep", "boundaries_steps": (1,), "boundaries_epochs": (1.0,)}, "multistep needs either"),
        ({"name": "multistep", "boundaries_epochs": (1.0, math.inf)}, r"\(1.0, inf\): give finite boundaries"),
        (
            {"name": "linear", "warmup_steps": 100},
            r"a warm-up of 100 steps \(schedule.warmup_steps=100, .*\) does not fit into 100 steps",
        ),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        learning_rates(**settings)
