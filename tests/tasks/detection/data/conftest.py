"""A data set in COCO's format: generated, written as files, prepared by tfds, opened. To be read only."""

import zipfile

import pytest
from coco_files import SPLITS, config_of, write_files

from slimjax.tasks.builders import prepare
from slimjax.tasks.detection.data.opening import open_data
from slimjax.tasks.detection.task import example_settings


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Files laid out as COCO's are, unpacked."""
    folder = tmp_path_factory.mktemp("official")
    write_files(folder)
    return folder


@pytest.fixture(scope="session")
def prepared(official, tmp_path_factory):
    """Where the data set has been prepared from zip files."""
    zips = tmp_path_factory.mktemp("zips")
    with zipfile.ZipFile(zips / "annotations_trainval2017.zip", "w") as archive:
        for path in (official / "annotations").iterdir():
            archive.write(path, f"annotations/{path.name}")
    for split in SPLITS:
        with zipfile.ZipFile(zips / f"{split}.zip", "w") as archive:
            for path in sorted((official / split).iterdir()):
                archive.write(path, f"{split}/{path.name}")
    data_dir = tmp_path_factory.mktemp("data")
    _, is_new = prepare("coco/instances", str(data_dir), str(zips), "array_record")
    assert is_new
    _, is_new = prepare("coco/instances", str(data_dir), str(zips), "array_record")
    assert not is_new, "nothing is written twice"
    return data_dir


@pytest.fixture(scope="session")
def data(prepared):
    config = config_of(prepared)
    return open_data(config, example_settings(config))
