"""From a data set's name to a tfds builder whose files are there, or one line that says how to get them."""

import contextlib
import os
import shlex
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import requests
from etils import epath

from slimjax.buckets import CONNECT_TIMEOUT_SECONDS, check_bucket
from slimjax.errors import UserError, did_you_mean
from slimjax.paths import check_writable
from slimjax.tasks.classification.data import fashion_mnist
from slimjax.tasks.classification.data.digits import Digits
from slimjax.tasks.detection.data.coco import Coco, Shapes
from slimjax.tensorflow_import import silent_tfds, tf, tfds

_MAX_REASON_LENGTH = 240

_OWN_BUILDERS: dict[str, type[tfds.core.DatasetBuilder]] = {"coco": Coco, "digits": Digits, "shapes": Shapes}
if fashion_mnist.DEBIAN_DIR.is_dir():
    _OWN_BUILDERS["fashion_mnist"] = fashion_mnist.DebianFashionMnist


# What tfds says of them is in no fixed form.
_MANUAL_FILES = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}


Check = Callable[[str, tfds.core.DatasetBuilder], None]
"""Given a data set's name and its builder, UserError if it is of another kind than is wanted."""


def find_builder(name: str, data_dir: str, check: Check) -> tfds.core.DatasetBuilder:
    """Finds the named data set, whose files may be absent: it knows its features without them.

    Args:
      name: as tfds writes it: "name", "name/config", "name:version".
      data_dir: where prepared data sets lie; "" is tfds's default.
      check: of its kind.

    Raises:
      UserError: if there is none, it is of another kind, or `data_dir` is in a bucket that cannot be read.
    """
    check_bucket(data_dir or os.environ.get("TFDS_DATA_DIR", ""), "dataset.data_dir")
    with _one_line_errors(f"dataset.name={name!r} cannot be opened"):
        builder = _construct_builder(name, data_dir or None)
    check(name, builder)
    return builder


def open_builder(name: str, data_dir: str, check: Check) -> tfds.core.DatasetBuilder:
    """Opens the named data set, ready to be read.

    Args:
      name: as `find_builder`.
      data_dir: likewise.
      check: likewise.

    Raises:
      UserError: as `find_builder`, and if its files cannot be had.
    """

    def construct() -> tfds.core.DatasetBuilder:
        return _construct_builder(name, data_dir or None)

    builder = find_builder(name, data_dir, check)
    if _is_prepared(builder):
        # It knows no splits where another process has finished writing them since it looked.
        return builder if builder.info.splits else construct()
    if _is_made_here(builder):
        return _prepare_from_this_machine(builder, construct)
    return _download(name, builder, construct)


def prepare(
    name: str, data_dir: str, manual_dir: str, file_format: str, *, shows_progress: bool = True
) -> tuple[tfds.core.DatasetBuilder, bool]:
    """Writes the named data set, or finds it written.

    Args:
      name: as `find_builder`.
      data_dir: likewise.
      manual_dir: where files that are fetched by hand lie; "" is tfds's default, below `data_dir`.
      file_format: `tfrecord` or `array_record`.
      shows_progress: whether tfds's own is shown.

    Returns:
      Its builder, ready to be read, and whether it was written now.

    Raises:
      UserError: as `open_builder`, and if it is there in another format.
    """
    if name in ("digits", "folder", "shapes"):
        raise UserError(f"--dataset={name} needs no preparing; train with --config.dataset.name={name}")
    builder = find_builder(name, data_dir, _check_kind)
    if isinstance(builder, Coco):
        file_format = Coco.FILE_FORMAT
    if not _is_prepared(builder):
        check_writable(builder.data_dir_root, "--data_dir")
        _check_manual_files(name, builder, epath.Path(manual_dir or builder.data_dir_root / "downloads" / "manual"))
        download_config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
        with _one_line_errors(f"data set {name!r} cannot be written to {builder.data_dir}", anything=True):
            if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not _is_made_here(builder):
                _check_connection(builder)
            with contextlib.nullcontext() if shows_progress else silent_tfds():
                builder.download_and_prepare(download_config=download_config, file_format=file_format)
        return _construct_builder(name, data_dir or None), True
    if builder.info.file_format.value != file_format:
        raise UserError(
            f"data set {name!r} is in {builder.data_dir} as {builder.info.file_format.value} already; remove it, or "
            f"give another --data_dir for --file_format={file_format}"
        )
    return builder, False


def _check_manual_files(name: str, builder: tfds.core.DatasetBuilder, manual_dir: epath.Path) -> None:
    """Names the files that somebody has to fetch, where they are not there."""
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return
    missing = [file for file in _MANUAL_FILES.get(builder.name, ()) if not (manual_dir / file).exists()]
    if not missing and manual_dir.is_dir() and any(manual_dir.iterdir()):
        return
    files = " and ".join(missing) or "files"
    raise UserError(f"data set {name!r} needs {files} in {manual_dir}: {_instructions(builder)}; see --manual_dir")


def _instructions(builder: tfds.core.DatasetBuilder) -> str:
    return " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split()).rstrip(".")


def _construct_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    dataset_name, _, version = name.partition(":")
    own_name, _, config = dataset_name.partition("/")
    if own_name in _OWN_BUILDERS:
        configs = _OWN_BUILDERS[own_name].builder_configs
        if config and config not in configs:
            allowed = " or ".join(f"{own_name}/{known}" for known in configs) or own_name
            raise UserError(f"dataset.name={name!r} does not exist{did_you_mean(config, configs)}; give {allowed}")
        return _OWN_BUILDERS[own_name](data_dir=data_dir, config=config or None, version=version or None)
    known = [*tfds.list_builders(with_community_datasets=False), "folder"]
    try:
        # A prefix such as "huggingface:" would start to download somebody's code.
        if version and not version[0].isdigit():
            raise tfds.core.DatasetNotFoundError(name)
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        hint = did_you_mean(dataset_name.partition("/")[0], known)
        raise UserError(
            f"dataset.name={name!r} does not exist{hint}; give 'digits', 'folder' or an "
            "image-classification data set of https://www.tensorflow.org/datasets/catalog"
        ) from error


def _check_kind(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Refuses what nothing here trains on."""
    if not isinstance(builder, Coco):
        check_classification(name, builder)


def check_detection(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Refuses what is not images with objects, in the project's own form."""
    if not isinstance(builder, Coco):
        raise UserError(
            f"dataset.name={name!r} is not of detection; choose shapes, coco/instances or coco/person_keypoints"
        )


def check_classification(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Refuses what is not 8-bit images with one class each."""
    features = builder.info.features
    by_key = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    is_image = isinstance(by_key.get("image"), tfds.features.Image)
    if not is_image or not isinstance(by_key.get("label"), tfds.features.ClassLabel):
        found = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in by_key.items()) or str(features)
        raise UserError(
            f"dataset.name={name!r} is not an image-classification data set: it has {found}; choose one with "
            "image: Image and label: ClassLabel"
        )
    dtype = np.dtype(by_key["image"].np_dtype)
    if dtype != np.uint8:
        raise UserError(f"dataset.name={name!r} has {dtype} images; choose a data set with 8-bit images")


def _is_made_here(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether all that it is made from is on this machine already."""
    return type(builder) in _OWN_BUILDERS.values() and not builder.MANUAL_DOWNLOAD_INSTRUCTIONS


def _prepare_from_this_machine(
    builder: tfds.core.DatasetBuilder, construct: Callable[[], tfds.core.DatasetBuilder]
) -> tfds.core.DatasetBuilder:
    """Prepares without network, in silence.

    tfds writes to a directory of its own and renames it at the end, so a process that is killed leaves nothing that
    counts as prepared, and of several that start at once one wins the rename and the others use its files.
    """
    try:
        with silent_tfds():
            builder.download_and_prepare()
    except (OSError, tf.errors.OpError) as error:
        if not _is_prepared(construct()):
            raise UserError(
                f"data set {builder.name!r} cannot be written to {builder.data_dir}: {_one_line(error)}; give a "
                "dataset.data_dir that can be written"
            ) from error
    return construct()


def _download(
    name: str, builder: tfds.core.DatasetBuilder, construct: Callable[[], tfds.core.DatasetBuilder]
) -> tfds.core.DatasetBuilder:
    """Lets tfds download and prepare, showing its progress, where that needs no files fetched by hand."""
    root = builder.data_dir_root
    command = f"python -m slimjax.prepare --dataset={shlex.quote(name)} --data_dir={shlex.quote(str(root))}"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise UserError(
            f"data set {name!r} is not in {root} and must be fetched by hand: put the files into a folder DIR "
            f"({_instructions(builder)}), then run `{command} --manual_dir=DIR`, or give the dataset.data_dir that "
            "holds it"
        )
    hint = "; or `apt install dataset-fashion-mnist`, whose files slimjax finds" if name == "fashion_mnist" else ""
    try:
        _check_connection(builder)
        builder.download_and_prepare()
    except Exception as error:  # Whatever a builder's own code raises, the user's way out is the same.
        if not _is_prepared(construct()):
            raise UserError(
                f"data set {name!r} is not in {root} and cannot be downloaded ({_one_line(error)}); give the "
                f"dataset.data_dir that holds it, or run `{command}` where there is a network{hint}"
            ) from error
    return construct()


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether all files are there; tfds alone would log that they are not."""
    with silent_tfds():
        return builder.is_prepared()


def _check_connection(builder: tfds.core.DatasetBuilder) -> None:
    """Raises a ConnectionError at once where the first file's host cannot be reached."""
    url = next((url for url in builder.url_infos if url.startswith("http")), None)
    if url:
        try:
            requests.head(url, timeout=CONNECT_TIMEOUT_SECONDS, allow_redirects=False)
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise ConnectionError(f"no connection to {url}") from error


@contextlib.contextmanager
def _one_line_errors(summary: str, anything: bool = False) -> Iterator[None]:
    """Turns tfds's complaints about a name, a config or a version, or anything that it raises, into a UserError."""
    complaints = (ValueError, AssertionError, ImportError, OSError, tf.errors.OpError)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not anything and not isinstance(error, complaints):
            raise
        raise UserError(f"{summary}: {_one_line(error)}; see https://www.tensorflow.org/datasets/catalog") from error


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), _MAX_REASON_LENGTH, placeholder=" ...") or type(error).__name__
