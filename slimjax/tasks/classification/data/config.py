"""What a `dataset` config may hold, checked without TensorFlow."""

import ml_collections

from slimjax.errors import UserError, did_you_mean

CROP_AREAS = {"inception": (0.08, 1.0), "mobile": (0.25, 1.0)}
AUGMENTATIONS = ("none", "basic", *CROP_AREAS)


def check_dataset_config(dataset_config: ml_collections.ConfigDict) -> None:
    """Checks the values that need no data set to be judged.

    Raises:
      UserError: for the first value that is not allowed.
    """
    if dataset_config.augmentation not in AUGMENTATIONS:
        raise UserError(
            f"dataset.augmentation={dataset_config.augmentation!r} does not exist; choose one of "
            f"{', '.join(AUGMENTATIONS)}{did_you_mean(dataset_config.augmentation, AUGMENTATIONS)}"
        )
    if dataset_config.name == "folder" and not dataset_config.data_dir:
        raise UserError("dataset.data_dir='' with dataset.name='folder'; give the folder that holds train/CLASS/*.jpg")
    for key in ("image_size", "shuffle_buffer"):
        if dataset_config[key] < 1:
            raise UserError(f"dataset.{key}={dataset_config[key]} is not a positive number; give 1 or more")
    if dataset_config.eval_resize < dataset_config.image_size:
        raise UserError(
            f"dataset.eval_resize={dataset_config.eval_resize} is smaller than the crop taken from it; give "
            f"dataset.image_size={dataset_config.image_size} or more"
        )
    if not 0 <= dataset_config.color_jitter <= 1:
        raise UserError(f"dataset.color_jitter={dataset_config.color_jitter} is outside 0..1; 0 turns it off")
    if dataset_config.pca_noise < 0:
        raise UserError(f"dataset.pca_noise={dataset_config.pca_noise} is negative; 0 turns it off")


def per_process_batch_size(
    batch_size: int, process_index: int, process_count: int, devices_per_process: int = 1
) -> int:
    """This host's share of the global batch.

    Raises:
      UserError: if the devices of all hosts cannot share `batch_size` evenly, or there is no such host.
    """
    if not 0 <= process_index < process_count:
        raise UserError(f"process_index={process_index} is not one of {process_count} processes; give 0 or more, below")
    device_count = process_count * devices_per_process
    if batch_size < 1 or batch_size % device_count:
        sharers = f"{process_count} processes" if devices_per_process == 1 else f"{device_count} devices"
        raise UserError(
            f"batch_size={batch_size} cannot be shared by {sharers}; give a positive multiple of {device_count}"
        )
    return batch_size // process_count
