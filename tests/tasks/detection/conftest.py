"""A small detector of random variables."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from slimjax.models.network import Stage
from slimjax.nn.tracing import abstract_variables
from slimjax.tasks.detection.detector import Detector
from slimjax.tasks.detection.settings import ProposalSettings, Settings

SETTINGS = Settings(
    features=16,
    box_features=24,
    rpn_samples=32,
    box_samples=16,
    train_proposals=ProposalSettings(40, 60),
    test_proposals=ProposalSettings(20, 30),
    candidates=50,
    detections=10,
    masks=True,
    num_keypoints=4,
    keypoint_features=8,
    score_threshold=0.0,
)
STAGES = (Stage(32, 1, 1), Stage(64, 1, 2), Stage(64, 1, 2), Stage(96, 1, 2))
WIDTHS, CLASSES, SIZE = (0.5, 1.0), 3, 64


def small_detector(widths=WIDTHS, **settings):
    """Every kind of head, few channels."""
    settings = dataclasses.replace(SETTINGS, **settings)
    return Detector(widths, CLASSES, stages=STAGES, stem_features=16, stem_kernel_size=3, settings=settings)


@pytest.fixture(scope="session")
def create_small_detector():
    return small_detector


@pytest.fixture(scope="session")
def detector():
    return small_detector()


@pytest.fixture(scope="session")
def variables(detector):
    rng = np.random.default_rng(0)

    def value(path, leaf):
        if path[-1] in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        if path[-1] in ("mean", "bias"):
            return rng.normal(0, 0.1, leaf.shape)
        # A trained network moves its regions a little; moved far, all of them would be cut to nothing.
        scale = 0.01 if "shifts" in path else 1.0
        return scale * rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)

    shapes = flatten_dict(abstract_variables(detector))
    return unflatten_dict({path: jnp.asarray(value(path, leaf), jnp.float32) for path, leaf in shapes.items()})


@pytest.fixture(scope="session")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 3)), jnp.float32)
