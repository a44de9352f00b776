"""Tasks without an input pipeline, and meshes of one and of eight devices."""

import jax
import pytest
from slimjax.configs import default

from slimjax import create_model
from slimjax.models.mobilenet_v1 import Stage
from slimjax.tasks.classification.task import ClassificationTask
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.training.mesh import data_mesh

WIDTHS = (0.25, 0.5, 1.0)


@pytest.fixture(scope="session")
def make_task():
    def make(widths=WIDTHS, model=None, **options):
        config = default.get_config()
        if model is None:
            # Two blocks: what a step does is the same, and it compiles in seconds.
            stages = (Stage(32, 1, 1), Stage(64, 1, 2))
            model = create_model("mobilenet_v1_tiny", widths, 10, stages=stages, **options)
        info = DatasetInfo("digits", 10, 1438, 359, tuple("0123456789"))
        return ClassificationTask(config, model, info)

    return make


@pytest.fixture(scope="session")
def meshes():
    """By the number of devices."""
    one = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    return {1: one, 8: data_mesh()}
