"""The published recipes, value by value, and the methods behind the colon of a row's file."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from slimjax.configs import default, published

from slimjax import UserError, create_model, profile_model
from slimjax.configuration import check_keys, completed, plain
from slimjax.tasks.detection.network import create_network
from slimjax.tasks.detection.settings import ProposalSettings
from slimjax.training.optimizers import parse_options
from slimjax.training.schedules import create_schedule

IMAGES = 1_281_167
QUARTERS = (0.25, 0.5, 0.75, 1.0)
EIGHT = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
FALLING = {0.5: 0.045, 1.5: 0.045 * 0.98, 100.5: 0.045 * 0.98**100}

# file: model, widths, epochs, batch, learning rate by epoch, augmentation, images of a batch norm
RECIPES = {
    "s_mobilenet_v1": ("mobilenet_v1", QUARTERS, 480, 160, FALLING, "mobile", 40),
    "s_mobilenet_v1_8switch": ("mobilenet_v1", EIGHT, 480, 160, FALLING, "mobile", 40),
    "s_mobilenet_v2": ("mobilenet_v2", (0.35, 0.5, 0.75, 1.0), 480, 160, FALLING, "mobile", 40),
    "s_shufflenet": ("shufflenet", (0.5, 1.0, 2.0), 250, 1024, {0: 0.5, 125: 0.25, 250: 0.0}, "mobile", 128),
    "s_resnet50": ("resnet50", QUARTERS, 100, 256, {29.9: 0.1, 30.1: 0.01, 60.1: 1e-3, 90.1: 1e-4}, "inception", 64),
}
# Of the slimmable networks, top-1, %, narrowest first (SNet, tables 3 and 4).
ERRORS = {
    "s_mobilenet_v1": (46.9, 35.2, 30.5, 28.5),
    "s_mobilenet_v1_8switch": (47.6, 41.1, 36.6, 33.8, 31.4, 30.2, 29.2, 28.4),
    "s_mobilenet_v2": (40.3, 35.6, 31.1, 29.5),
    "s_shufflenet": (42.7, 34.5, 28.7),
    "s_resnet50": (35.0, 27.9, 25.1, 24.0),
}
# Of the individual networks, as far as published. The 8 switches refer to the 4 for theirs.
INDIVIDUAL = {
    "s_mobilenet_v1": (50.2, 36.7, 31.6, 29.1),
    "s_mobilenet_v2": (39.7, 34.6, 30.2, 28.2),
    "s_shufflenet": (43.2, 32.6, 26.3),
    "s_resnet50": (36.2, 28.0, 25.3, 23.9),
}
# Sustained operations a second that the files state for their hours.
OPERATIONS = {
    "s_mobilenet_v1": 4 * 0.02 * 990e12,
    "s_mobilenet_v1_8switch": 4 * 0.02 * 990e12,
    "s_mobilenet_v2": 4 * 0.02 * 990e12,
    "s_mobilenet_v2_pod": 32 * 0.02 * 197e12,
    "s_shufflenet": 8 * 0.02 * 990e12,
    "s_resnet50": 4 * 0.1 * 990e12,
    "s_resnet50_pod": 64 * 0.1 * 197e12,
}


def config_of(name, *method):
    return import_module(f"slimjax.configs.{name}").get_config(*method)


# file: the learning rates of a batch of 4,096 by epoch: the row's own at first, its scaled one after the warm-up
POD_RATES = {
    "s_mobilenet_v2_pod": {0.0: 0.045, 5.5: 1.152 * 0.98**5, 100.5: 1.152 * 0.98**100},
    "s_resnet50_pod": {0.0: 0.1, 2.5: 0.85, 5.1: 1.6, 30.1: 0.16, 90.1: 1.6e-3},
}


# file: what it has beside boxes
DETECTORS = {"s_faster_rcnn": (False, 0), "s_mask_rcnn": (True, 0), "s_keypoint_rcnn": (False, 17)}


def test_no_published_row_is_missing():
    rows = RECIPES.keys() | POD_RATES.keys() | DETECTORS.keys()
    assert rows == {path.stem for path in Path(default.__file__).parent.glob("s_*.py")}


def test_stored_configurations_get_what_was_added_since():
    whole = plain(default.get_config())
    old = plain(default.get_config()) | {"seed": 7}
    del old["task"], old["detection"], old["model"]["tail_bn"]
    assert completed(old) == whole | {"seed": 7}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_have_the_papers_recipe(name):
    """Of R-50-FPN 1x: 16 images of COCO's 118,287 a step, so 7,393 steps an epoch."""
    config = config_of(name)
    assert (config.detection.masks, config.detection.num_keypoints) == DETECTORS[name]
    assert config.model.widths == (0.25, 0.5, 0.75, 1.0)
    assert (config.detection.frozen_stages, config.detection.frozen_batch_norm) == (1, True)
    assert (config.dataset.flip, config.detection.short_side, config.detection.long_side) == (True, 800, 1333)
    assert (config.batch_size, config.num_epochs) == (16, 12)
    assert (config.optimizer.name, parse_options(config.optimizer.options)) == ("sgd", {"momentum": 0.9})
    settings = create_network(config, 80, "cpu").settings
    assert (settings.rpn_samples, settings.box_samples, settings.detections) == (256, 512, 100)
    assert settings.train_proposals == ProposalSettings(candidates=2000, proposals=2000)
    assert settings.test_proposals == ProposalSettings(candidates=1000, proposals=1000)
    assert (settings.rpn_nms_iou, settings.nms_iou, settings.score_threshold) == (0.7, 0.5, 0.05)
    assert (config.optimizer.clip_norm, config.optimizer.weight_decay) == (35.0, 1e-4)
    steps_per_epoch = 118_287 / config.batch_size
    schedule = create_schedule(config.schedule, config.learning_rate, round(12 * steps_per_epoch), steps_per_epoch)
    rates = {0: 0.02 / 3, 250: 0.02 * 2 / 3, 500: 0.02}
    rates |= {round(epoch * steps_per_epoch): rate for epoch, rate in ((7.9, 0.02), (8.1, 0.002), (11.1, 0.0002))}
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=2e-3)
    assert config_of(name, "individual=0.5").model.widths == (0.5,)


@pytest.mark.parametrize("name", POD_RATES)
def test_pod_recipes_differ_from_the_papers_as_they_say(name):
    config, paper = config_of(name), config_of(name.removesuffix("_pod"))
    steps_per_epoch = IMAGES / 4096
    num_steps = round(config.num_epochs * steps_per_epoch)
    schedule = create_schedule(config.schedule, config.learning_rate, num_steps, steps_per_epoch)
    for epoch, rate in POD_RATES[name].items():
        assert float(schedule(round(epoch * steps_per_epoch))) == pytest.approx(rate, rel=2e-3)
    assert f"learning rate {4096 / paper.batch_size:g}" in config_doc(name)
    assert f"({config.learning_rate:g}) after 5 epochs of warm-up" in config_doc(name)
    assert (config.batch_size, config.dtype) == (4096, "bfloat16")
    config.update(batch_size=paper.batch_size, learning_rate=paper.learning_rate, dtype=paper.dtype)
    config.schedule = paper.schedule
    assert config == paper, "nothing else changes"
    check_keys(config_of(name))
    assert config_of(name, "individual=0.5").model.widths == (0.5,)


def config_doc(name):
    return " ".join(import_module(f"slimjax.configs.{name}").__doc__.split())


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name):
    model, widths, epochs, batch, rates, augmentation, images_of_batch_norm = RECIPES[name]
    config = config_of(name)
    assert (config.model.name, config.model.widths) == (model, widths)
    assert (config.num_epochs, config.num_train_steps, config.batch_size) == (epochs, None, batch)
    assert (config.model.batch_norm, config.switch_rule, config.label_smoothing) == ("switchable", "all", 0.0)
    dataset = config.dataset
    assert (dataset.name, dataset.train_split, dataset.eval_split) == ("imagenet2012", "train", "validation")
    assert (dataset.augmentation, dataset.image_size, dataset.eval_resize) == (augmentation, 224, 256)
    assert (dataset.flip, dataset.color_jitter, dataset.pca_noise) == (True, 0.4, 0.1)
    assert config.optimizer.name == "sgd"
    assert parse_options(config.optimizer.options) == {"momentum": 0.9, "nesterov": True}
    assert (config.optimizer.weight_decay, config.optimizer.clip_norm) == (1e-4, 0.0)
    assert (config.schedule.warmup_steps, config.schedule.warmup_epochs) == (None, None)
    steps_per_epoch = IMAGES / batch
    schedule = create_schedule(config.schedule, config.learning_rate, round(epochs * steps_per_epoch), steps_per_epoch)
    for epoch, rate in rates.items():
        assert float(schedule(round(epoch * steps_per_epoch))) == pytest.approx(rate, rel=1e-3, abs=1e-6)
    # How many images a batch norm sees follows from the devices, which the file has to name.
    told = import_module(f"slimjax.configs.{name}").__doc__
    assert f"see {images_of_batch_norm} images each: train on {batch // images_of_batch_norm} devices" in told
    assert "estimated and never measured" in told


@pytest.mark.parametrize("name", RECIPES)
def test_published_errors_are_told(name):
    _, widths, *_ = RECIPES[name]
    errors = [f"{width}".removeprefix("0") + f" {error}" for width, error in zip(widths, ERRORS[name], strict=True)]
    told = import_module(f"slimjax.configs.{name}").__doc__
    assert f"Published top-1 error, %: {', '.join(errors)}" in told


@pytest.mark.parametrize("name", INDIVIDUAL)
def test_published_errors_of_individual_networks_are_told(name):
    assert f"(individual networks: {', '.join(map(str, INDIVIDUAL[name]))})" in config_doc(name)


def test_the_incremental_row_is_told_with_its_command():
    told = config_doc("s_mobilenet_v2")
    assert "where frozen .35 has 39.7, .5 reaches 39.0 (34.6 by itself)" in told
    options = '--config=configs/s_mobilenet_v2.py:incremental --config.model.widths="(.35,.5)" --workdir=DIR'
    assert f"python -m slimjax.main {options}" in told


@pytest.mark.parametrize("name", OPERATIONS)
def test_hours_follow_from_the_arithmetic_that_is_told(name):
    config, told = config_of(name), config_doc(name)
    model = create_model(config.model.name, config.model.widths, 1000)
    macs = {profile.width: profile.macs for profile in profile_model(model, image_size=224)}
    seconds = {width: 6 * count * IMAGES * config.num_epochs / OPERATIONS[name] for width, count in macs.items()}
    hours = {width: count / 3600 for width, count in seconds.items()}
    found = re.search(r"never measured: ([\d.]+) hours on (\d+) (?:H100|TPU v5e) \((\d+) % of (\d+)", told)
    total, chips, percent, peak = map(float, found.groups())
    assert chips * percent / 100 * peak * 1e12 == pytest.approx(OPERATIONS[name])
    assert total == pytest.approx(sum(hours.values()), rel=0.15)
    (jpegs,) = re.findall(r"([\d,]+) JPEGs a second", told)
    assert int(jpegs.replace(",", "")) == pytest.approx(IMAGES * config.num_epochs / sum(seconds.values()), rel=0.1)
    if not name.endswith("_pod"):
        alone = [f"{width}".removeprefix("0") + f" {count:.1f}" for width, count in hours.items()]
        computing = f"if JPEGs come as fast as they compute, {', '.join(alone)}."
        assert f"{found[1]} hours each at that rate or, {computing}" in told
        # Computing takes as long whichever widths share a step; images are read anew for each.
        times = f"incremental {len(config.model.widths)} times as long, as it reads every image once for each width"
        assert times in told


def test_the_naive_result_is_told():
    assert all("Naive: about 99.9." in config_doc(name) for name in RECIPES)
    told = " ".join(published.__doc__.split())
    assert "about 0.1 % accuracy in evaluation (a top-1 error of 99.9 %)" in told


@pytest.mark.parametrize("name", RECIPES)
def test_methods(name):
    slimmable = config_of(name)
    assert config_of(name, "slimmable") == slimmable
    for width in slimmable.model.widths:
        individual = config_of(name, f"individual={width}")
        assert individual.model.widths == (width,)
        individual.model.widths = slimmable.model.widths
        assert individual == slimmable, "nothing else changes"
    naive, incremental = config_of(name, "naive"), config_of(name, "incremental")
    assert (naive.model.batch_norm, naive.switch_rule) == ("shared", "all")
    assert (incremental.model.batch_norm, incremental.switch_rule) == ("switchable", "incremental")
    assert incremental.model.tail_bn == ("private" if name == "s_mobilenet_v2" else None)
    for config in (naive, incremental):
        check_keys(config)
        options = {"tail_bn": config.model.tail_bn} if config.model.tail_bn else {}
        create_model(config.model.name, config.model.widths, 1000, batch_norm=config.model.batch_norm, **options)


def test_widths_are_read_as_they_are_written_anywhere():
    for text in ("0.5", ".5"):
        assert config_of("s_shufflenet", f"individual={text}").model.widths == (0.5,)
    for text in ("2", "2.0"):
        assert config_of("s_shufflenet", f"individual={text}").model.widths == (2.0,)


@pytest.mark.parametrize("method", ["", "naif", "naive=0.5", "individual", "individual=0.4", "individual=x"])
def test_wrong_methods_are_told_with_those_allowed(method):
    with pytest.raises(
        UserError, match=r"choose slimmable, individual=WIDTH|widths \(0.25, 0.5, 0.75, 1.0\); give one"
    ):
        published.with_method(config_of("s_resnet50"), method)
