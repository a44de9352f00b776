"""Small networks of random variables, measured on real digits as a report does."""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits
from slimjax.configs import default

from slimjax.reporting.layers import find_layer
from slimjax.reporting.measuring import measure_classifier
from slimjax.reporting.runs import FoundObjects, MeasuredDetector, ReportedRun
from slimjax.training.progress import Progress

CLASSES = 5
BATCH = 16


@pytest.fixture(scope="session")
def split():
    """Images [40, 16, 16, 3] uint8, the same as networks see them, and labels of digits below five."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[labels < CLASSES][:40].reshape(-1, 8, 8).repeat(2, 1).repeat(2, 2), labels[labels < CLASSES]
    rng = np.random.default_rng(0)
    colours = np.rint(images[..., None] * [15.0, 12.0, 9.0] + rng.integers(0, 10, (40, 16, 16, 3))).astype(np.uint8)
    normalised = (colours / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return colours, normalised.astype(np.float32), labels[:40].astype(np.int32)


@pytest.fixture(scope="session")
def batches(split):
    """The split in batches, the last one padded; one image in the middle is damaged, which is padding as well."""
    images, _, labels = split

    def make():
        places = [*range(20), None, *range(20, len(labels))]
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            part = part + [None] * (BATCH - len(part))
            yield {
                "image": np.stack([np.zeros((16, 16, 3), np.uint8) if n is None else images[n] for n in part]),
                "label": np.array([0 if n is None else labels[n] for n in part], np.int32),
                "mask": np.array([n is not None for n in part], np.float32),
            }

    return make


@pytest.fixture(scope="session")
def reported_run(create_small, random_variables, batches):
    """Makes a run of a family's smallest network."""

    def make(family="mobilenet_v1", widths=(0.25, 0.5, 1.0), name="run", **options):
        model = create_small(family, widths, **options)
        config = default.get_config()
        config.model.name, config.model.widths = family, widths
        return ReportedRun(
            name=name,
            workdir=f"/runs/{name}",
            step=80,
            config=config,
            model=model,
            variables=random_variables(model),
            class_names=("zero", "one", "two", "three & more", "four"),
            curves={},
            image_size=16,
            eval_batches=batches,
            num_eval_batches=3,
        )

    return make


@pytest.fixture(scope="session")
def measure():
    """Measures a run."""

    def make(run, layer=None, channel=None):
        with Progress(enabled=False) as progress:
            return measure_classifier(run, find_layer(run.model, layer, run.name), channel, progress)

    return make


@pytest.fixture(scope="session")
def measured(reported_run, measure):
    """A run whose stem is looked at."""
    return measure(reported_run(), layer="stem")


@pytest.fixture
def with_predictions(measured):
    """The measured run with given labels and predictions by width, the rest as it is."""

    def make(labels, predictions):
        labels, outcomes = np.array(labels, np.int32), {}
        for width, values in predictions.items():
            values = np.array(values, np.int32)
            confidences = np.linspace(0.5, 1, len(labels), dtype=np.float32)
            outcome = measured.outcomes[width]
            outcomes[width] = dataclasses.replace(
                outcome, predictions=values, confidences=confidences, is_right=values == labels
            )
        return dataclasses.replace(measured, labels=labels, outcomes=outcomes)

    return make


def _objects(boxes, scores, labels):
    size = len(boxes)
    arrays = {"boxes": np.array(boxes, np.float32), "labels": np.array(labels), "scores": np.array(scores, np.float32)}
    return {**arrays, "there": np.ones(size, bool)}


@pytest.fixture(scope="session")
def detector(reported_run):
    """Makes a measured detector of given average precisions by width."""

    def make(figures, name="run"):
        run = reported_run(widths=tuple(figures), name=name)
        run.config.task = "detection"
        truth = _objects([[4, 4, 20, 20], [30, 10, 60, 40]], [1, 1], [0, 1])
        found = {width: _objects([[4, 4, 20, 20]] * 2, [0.9, 0.4], [0, 2]) for width in figures}
        example = FoundObjects("image 7.jpg", np.full((48, 64, 3), 200, np.uint8), truth, found)
        return MeasuredDetector(run, {}, precisions=figures, num_evaluated=12, examples=[example])

    return make
