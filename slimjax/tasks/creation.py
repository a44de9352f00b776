"""Tasks and networks of configurations, whatever is to be learned. What a task needs is imported when it is created."""

from typing import Any

from ml_collections import ConfigDict

from slimjax.errors import UserError, did_you_mean
from slimjax.models.network import SlimmableNetwork
from slimjax.tasks.dataset_info import DatasetInfo
from slimjax.tasks.task import Task

TASKS = ("classification", "detection")


def check_task(config: ConfigDict) -> None:
    """UserError unless `config.task` is known."""
    if config.task not in TASKS:
        hint = did_you_mean(config.task, TASKS)
        raise UserError(f"task={config.task!r} is unknown{hint}; choose one of {', '.join(TASKS)}")


def count_classes(config: ConfigDict) -> int:
    """The classes of a configuration's data set, or categories of objects.

    Raises:
      UserError: if there is no such data set or it is of another kind; of objects, if it is not at hand.
    """
    check_task(config)
    if config.task == "detection":
        from slimjax.tasks.detection.data.opening import categories_of

        return len(categories_of(config.dataset).names)
    from slimjax.tasks.classification.data import count_classes as of_classification

    return of_classification(config.dataset)


def create_network(config: ConfigDict, num_classes: int, platform: str) -> SlimmableNetwork:
    """Builds the network of a configuration.

    Args:
      config: a whole configuration, see configs/default.py.
      num_classes: outputs of the classifier, or categories of objects.
      platform: of the devices that compute: cpu, gpu or tpu.

    Raises:
      UserError: if something in the configuration is unknown or out of range.
    """
    check_task(config)
    if config.task == "detection":
        from slimjax.tasks.detection.network import create_network as create_detector

        return create_detector(config, num_classes, platform)
    from slimjax.tasks.classification.task import create_network as create_classifier

    return create_classifier(config, num_classes, platform)


def create_task(
    config: ConfigDict,
    platform: str,
    batch_norm_axis: str | None = None,
    batch_norm_groups: tuple[tuple[int, ...], ...] | None = None,
    info: DatasetInfo | None = None,
) -> Task:
    """Resolves the data set and builds the network for its classes.

    Args:
      config: a whole configuration, see configs/default.py.
      platform: of the devices that compute: cpu, gpu or tpu.
      batch_norm_axis: mapped device axis over which training statistics are averaged; None keeps them apart.
      batch_norm_groups: groups of devices along that axis.
      info: of the data set; None opens it.

    Raises:
      UserError: if something in the configuration is unknown, or the data set is not at hand.
    """
    check_task(config)
    options: dict[str, Any] = {"batch_norm_axis": batch_norm_axis, "batch_norm_groups": batch_norm_groups}
    if config.task == "detection":
        from slimjax.tasks.detection.task import create_task as create_detection

        return create_detection(config, platform, info, **options)
    from slimjax.tasks.classification.task import create_task as create_classification

    return create_classification(config, platform, **options, info=info)
