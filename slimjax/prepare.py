"""Writes a tfds data set for training, such as ImageNet or COCO from the files that one fetches by hand.

python -m slimjax.prepare --dataset=imagenet2012 --manual_dir=TARS --data_dir=DIR      says which files are missing
python -m slimjax.prepare --dataset=imagenet2012 --manual_dir=TARS --data_dir=DIR --file_format=array_record
python -m slimjax.main --config=configs/s_mobilenet_v2.py --config.dataset.data_dir=DIR --workdir=RUN           then
python -m slimjax.prepare --dataset=coco/instances --manual_dir=COCO --data_dir=DIR    or any data set in COCO's format

Done once, on one machine, before the runs; DIR may be a bucket, gs://BUCKET/FOLDER.
"""

from absl import flags

from slimjax import cli
from slimjax.errors import UserError
from slimjax.paths import folder_path

_DATASET = flags.DEFINE_string("dataset", None, "Its name in tfds, such as imagenet2012, or coco/instances.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder or bucket to write to; tfds's own folder if not given.")
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Folder of files fetched by hand; DATA_DIR/downloads/manual if not."
)
_FILE_FORMAT = flags.DEFINE_enum(
    "file_format",
    "tfrecord",
    ["tfrecord", "array_record"],
    "tfrecord is read in sequence; array_record at any place, so that a run resumes without reading what it skips. "
    "COCO's format is always written as array_record.",
)
_QUIET = cli.define_quiet()


def main() -> int:
    """Prepares the data set that the flags name; returns the exit code."""
    if not _DATASET.value:
        raise UserError("--dataset is missing; give its name in tfds, such as --dataset=imagenet2012")
    data_dir = str(folder_path(_DATA_DIR.value, "--data_dir")) if _DATA_DIR.value else ""
    # Imported once the flags are known to be good: TensorFlow takes seconds.
    from slimjax.tasks.builders import prepare

    builder, is_new = prepare(
        _DATASET.value, data_dir, _MANUAL_DIR.value, _FILE_FORMAT.value, shows_progress=not _QUIET.value
    )
    splits = ", ".join(f"{name}: {split.num_examples:,} examples" for name, split in builder.info.splits.items())
    print(f"{builder.data_dir} holds {builder.info.full_name} as {builder.info.file_format.value} ({splits})")
    if not is_new:
        print("it was there already, and no file was read; delete that folder to write it anew")
    print(f"train on it: --config.dataset.name={_DATASET.value} --config.dataset.data_dir={builder.data_dir_root}")
    return 0


if __name__ == "__main__":
    cli.run(main)
