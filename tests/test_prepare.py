"""`python -m slimjax.prepare` as a user runs it, on a miniature ImageNet in tar files."""

import json

import pytest
from miniature_imagenet import write_tars

PREPARE = "slimjax.prepare"


@pytest.fixture
def run_prepare(run_program):
    return lambda *arguments: run_program(*arguments, module=PREPARE)


def test_imagenet_from_its_tar_files(run_prepare, assert_refused, tmp_path):
    arguments = ["--dataset=imagenet2012", f"--data_dir={tmp_path / 'tfds'}", f"--manual_dir={tmp_path / 'tars'}"]
    missing = "'imagenet2012' needs ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in"
    assert_refused(run_prepare(*arguments), missing)
    write_tars(tmp_path / "tars")
    code, out, err = run_prepare(*arguments, "--file_format=array_record")
    assert code == 0, err
    folder = tmp_path / "tfds" / "imagenet2012" / "5.1.0"
    assert f"{folder} holds imagenet2012/5.1.0 as array_record (train: 24 examples, validation: 9 examples)" in out
    assert f"--config.dataset.name=imagenet2012 --config.dataset.data_dir={tmp_path / 'tfds'}" in out
    assert "Traceback" not in err
    assert "Generating train examples" in err
    assert json.loads((folder / "dataset_info.json").read_text())["fileFormat"] == "array_record"


def test_quiet_leaves_results_alone(run_prepare, tmp_path):
    write_tars(tmp_path / "tars")
    arguments = ["--dataset=imagenet2012", f"--data_dir={tmp_path / 'tfds'}", f"--manual_dir={tmp_path / 'tars'}"]
    code, out, err = run_prepare(*arguments, "--quiet")
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["holds", "on"]


MISTAKES = {
    "": "--dataset is missing; give its name in tfds",
    "--dataset=digits --file_format=csv": "tfrecord|array_record",
    "--dataset=digits --datadir=x": "Unknown command line flag 'datadir'",
    "--dataset=coco/instance": "does not exist (did you mean 'instances'?); give coco/instances or coco/person_key",
    "--dataset=coco --data_dir=setup.cfg": "setup.cfg is a file; give a folder that is yours or can be made",
    "--dataset=digits now": "'now' is not a flag",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(run_prepare, assert_refused, arguments):
    assert_refused(run_prepare(*arguments.split()), MISTAKES[arguments])


def test_an_empty_folder_of_fetched_files_is_none(run_prepare, assert_refused, tmp_path):
    (tmp_path / "manual").mkdir()
    arguments = ["--dataset=coco/instances", f"--data_dir={tmp_path / 'tfds'}", f"--manual_dir={tmp_path / 'manual'}"]
    assert_refused(run_prepare(*arguments), f"'coco/instances' needs files in {tmp_path / 'manual'}: annotations_")
