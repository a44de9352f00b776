"""Weights of one run in another, and in Python: what is taken, what begins anew, and what does not fit."""

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from slimjax.configs import digits

import slimjax
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.checkpoints import Checkpoints, describe
from slimjax.training.run import check_start, create_run, new_state
from slimjax.training.state import Weights, state_of

WIDTHS = (0.5, 1.0)
SEVEN = DatasetInfo("seven", 7, 70, 7, tuple("abcdefg"), (1, 2, 3, 5, 8, 13, 21))


@pytest.fixture(scope="module")
def config():
    """Of both runs, but for what a test changes in a copy."""
    config = digits.get_config()
    config.model.widths = WIDTHS
    return config


@pytest.fixture(scope="module")
def saved(config, tmp_path_factory, random_variables):
    """The workdir of a run on seven classes, saved at step 3, and the variables that it has learned."""
    workdir = tmp_path_factory.mktemp("seven")
    model = slimjax.create_model("mobilenet_v1_tiny", WIDTHS, 7)
    variables = random_variables(model)
    state = state_of(Weights(variables["params"], variables["batch_stats"]), optax.sgd(0.1, momentum=0.9), False)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(state, describe(config, 7, 3, SEVEN), {}, "top1_error")
    checkpoints.close()
    return workdir, variables


def test_a_checkpoint_says_what_its_classes_are(saved):
    checkpoints = Checkpoints(saved[0])
    description = checkpoints.description(3)
    assert (description.step, description.num_classes) == (3, 7)
    assert tuple(description.class_names) == SEVEN.class_names
    assert tuple(description.class_ids) == SEVEN.class_ids


@pytest.fixture
def run_on_three_classes(config, saved, tmp_path):
    """Makes the run that starts from the saved one, on an image folder."""

    def create(**settings):
        for split in ("train", "test"):
            for name in ("cat", "dog", "owl"):
                (folder := tmp_path / "images" / split / name).mkdir(parents=True, exist_ok=True)
                Image.new("L", (16, 16), 90).save(folder / "one.png")
        own = config.copy_and_resolve_references()
        own.dataset.update(name="folder", data_dir=str(tmp_path / "images"))
        own.update({"batch_size": 8, "init_from": str(saved[0])} | settings)
        return create_run(own, tmp_path / "run")

    return create


def test_a_run_on_other_classes_takes_all_but_the_classifier(run_on_three_classes, saved):
    run = run_on_three_classes(init_classifier=False)
    state = new_state(run)
    fresh = new_state(run_on_three_classes(init_from=""))
    theirs = saved[1]
    assert state.params["classifier"]["kernel"].shape[-1] == 3
    jax.tree.map(np.testing.assert_array_equal, state.params["classifier"], fresh.params["classifier"])
    taken, expected = (
        {k: v for k, v in params.items() if k != "classifier"} for params in (state.params, theirs["params"])
    )
    assert jax.tree.structure(taken) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, taken, expected)
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, theirs["batch_stats"])


def test_other_classes_are_refused_with_the_setting_that_allows_them(run_on_three_classes):
    run = run_on_three_classes()
    with pytest.raises(slimjax.UserError, match=r"7 in the checkpoint, 3 here. Set --config.init_classifier=False"):
        new_state(run)


def test_another_network_is_refused_whatever_its_classes(run_on_three_classes, saved):
    run = run_on_three_classes(init_classifier=False)
    run.config.model.widths = (0.25, 1.0)
    with pytest.raises(slimjax.UserError, match=r"of another network: model.widths: \(0.5, 1.0\) in the checkpoint"):
        new_state(run)


def test_a_new_classifier_alone_is_a_mistake(config, tmp_path):
    own = config.copy_and_resolve_references()
    own.init_classifier = False
    with pytest.raises(slimjax.UserError, match=r"init_classifier=False says nothing alone; give --config.init_from"):
        check_start(own, tmp_path)


def test_a_checkpoint_is_loaded_as_it_was_saved(saved):
    workdir, expected = saved
    for which in ("latest", "3"):
        model, variables = slimjax.load_checkpoint(workdir, which)
        assert (model.widths, model.num_classes) == (WIDTHS, 7)
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
    with pytest.raises(slimjax.UserError, match=r"checkpoint='5' is not there; choose latest, best, or .* \[3\]"):
        slimjax.load_checkpoint(workdir, "5")
    with pytest.raises(slimjax.UserError, match="is no folder; train there first"):
        slimjax.load_checkpoint(workdir / "elsewhere")


def test_moving_averages_are_what_is_loaded(config, random_variables, tmp_path):
    model = slimjax.create_model("mobilenet_v1_tiny", WIDTHS, 7)
    variables = random_variables(model)
    state = state_of(Weights(**variables), optax.sgd(0.1), averages=True)
    state = state.replace(params=jax.tree.map(lambda leaf: 2 * leaf, state.params))
    own = config.copy_and_resolve_references()
    own.ema_decay = 0.9
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, describe(own, 7, 1), {}, "top1_error")
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, slimjax.load_checkpoint(tmp_path)[1], variables)
