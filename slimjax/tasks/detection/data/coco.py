"""Data sets in COCO's format as a tfds data set with what tfds's own lacks: instance masks and keypoints.

Written as ArrayRecord files, which are read at any place: a run resumes without reading what it skips, and images are
put together by their shape without being read first.
"""

import io
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from slimjax.errors import UserError
from slimjax.tasks.detection.data.annotations import AnnotatedImage, Annotations, cut_boxes, read_annotations
from slimjax.tasks.detection.data.decoding import IMAGE_ERRORS, decoded, size_of
from slimjax.tasks.detection.data.mirroring import told_pairs
from slimjax.tasks.detection.data.shapes import write_shapes
from slimjax.tensorflow_import import tfds

WIDE, TALL = "wide", "tall"
GROUPS = tuple((orientation, is_empty) for orientation in (WIDE, TALL) for is_empty in (False, True))
"""In which order the images of a split are stored: by orientation, and those with objects before those without."""

_KEYS = 2**128
SHAPES_SPLITS = {"train": 2000, "validation": 300}


def group_of(image: AnnotatedImage) -> tuple[str, bool]:
    """The group of GROUPS that an image is stored with."""
    bboxes = np.array([annotation.bbox for annotation in image.annotations if not annotation.is_crowd]).reshape(-1, 4)
    is_empty = not cut_boxes(bboxes, image.height, image.width)[1].any()
    return (WIDE if image.width >= image.height else TALL), is_empty


def _exactly(*shape: int) -> tfds.features.Tensor:
    """Numbers in float64, as annotation files have them; as bytes, since tfds writes other numbers in float32."""
    return tfds.features.Tensor(shape=shape, dtype=np.float64, encoding="bytes")


class Coco(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """COCO 2017, or any data set of its layout, from files that were fetched by hand.

    The manual folder has `annotations/KIND_SPLIT.json`, in a folder or in `annotations_*.zip`, and images in `SPLIT/`
    or `SPLIT.zip`: `instances_train2017.json` and `train2017.zip` as COCO serves them, or files of one's own.
    """

    name = "coco"
    FILE_FORMAT = "array_record"
    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Boxes, crowds, masks and keypoints.",
        "2.0.0": "Boxes as the files have them, keypoints in the middles of pixels, sizes of images.",
        "3.0.0": "Boxes and areas exactly as the files have them.",
    }
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="instances", description="Objects of all categories, with masks."),
        tfds.core.BuilderConfig(name="person_keypoints", description="People, with keypoints."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS: ClassVar[str | None] = (
        "annotations_trainval2017.zip, train2017.zip and val2017.zip of cocodataset.org, or the folders that are in "
        "them: annotations/KIND_SPLIT.json and SPLIT/*.jpg; any data set of this layout will do"
    )

    def __init__(self, **options: Any) -> None:
        """As tfds's builders, for files of one format."""
        super().__init__(**{**options, "file_format": self.FILE_FORMAT})

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Objects in COCO's format: boxes, crowds, masks as run lengths, keypoints.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "image/id": np.int64,
                    "image/filename": tfds.features.Text(),
                    "image/size": tfds.features.Tensor(shape=(2,), dtype=np.int64),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": _exactly(4),
                            "label": np.int64,
                            "area": _exactly(),
                            "is_crowd": np.bool_,
                            "segmentation": tfds.features.Text(),
                            # Flat, since categories without keypoints have none.
                            "keypoints": tfds.features.Sequence(np.float32),
                        }
                    ),
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        folder = Path(dl_manager.manual_dir)
        kind = self.builder_config.name
        splits = {split: read_annotations(path) for split, path in _annotation_files(folder, kind).items()}
        if not splits:
            raise UserError(f"{folder} has no annotations/{kind}_SPLIT.json, nor an annotations_*.zip that has one")
        generators = self._generators(folder, splits)
        if names := next(iter(splits.values())).keypoint_names:
            print(told_pairs(names), file=sys.stderr)
        return generators

    def _generators(self, folder: Path, splits: dict[str, Annotations]) -> dict[str, Iterator[tuple[int, Any]]]:
        images = {split: _images_of(folder, split, annotations) for split, annotations in splits.items()}
        self._keep_metadata(splits)
        return {split: self._generate_examples(splits[split], images[split]) for split in splits}

    def _keep_metadata(self, splits: dict[str, Annotations]) -> None:
        first, *others = splits.values()
        for other in others:
            for what in ("category_names", "category_ids", "keypoint_names"):
                ours, theirs = getattr(first, what), getattr(other, what)
                if ours != theirs:
                    raise UserError(
                        f"the splits differ in their {what.replace('_', ' ')}: {ours} and {theirs}; make their "
                        "annotation files agree"
                    )
        counts = {
            split: [sum(group_of(image) == group for image in annotations.images) for group in GROUPS]
            for split, annotations in splits.items()
        }
        self.info.metadata.update(
            category_names=first.category_names,
            category_ids=first.category_ids,
            keypoint_names=first.keypoint_names,
            group_counts=counts,
        )
        for split, annotations in splits.items():
            for line in annotations.problems.lines():
                print(f"{split}: {line}", file=sys.stderr)

    def _generate_examples(
        self, annotations: Annotations, open_image: Callable[[str], io.BytesIO]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        ordered = sorted(annotations.images, key=lambda image: GROUPS.index(group_of(image)))
        # tfds sorts in memory what has the first of a key's 128 bits in common, which of small numbers is everything.
        apart = _KEYS // max(len(ordered), 1)
        for index, image in enumerate(ordered):
            _check_picture(open_image(image.file_name), image)
            yield (
                index * apart,
                {
                    "image": open_image(image.file_name),
                    "image/id": image.id,
                    "image/filename": image.file_name,
                    "image/size": (image.height, image.width),
                    "objects": [
                        {
                            "bbox": annotation.bbox,
                            "label": annotation.label,
                            "area": annotation.area,
                            "is_crowd": annotation.is_crowd,
                            "segmentation": annotation.segmentation,
                            "keypoints": annotation.keypoints.reshape(-1),
                        }
                        for annotation in image.annotations
                    ],
                },
            )


class Shapes(Coco, skip_registration=True):  # type: ignore[call-arg]
    """Generated images of discs, boxes and triangles, written in COCO's format and read from there."""

    name = "shapes"
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = []
    MANUAL_DOWNLOAD_INSTRUCTIONS = None

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        folder = Path(dl_manager.download_dir) / "shapes"
        write_shapes(folder, SHAPES_SPLITS)
        files = _annotation_files(folder, "instances")
        return self._generators(folder, {split: read_annotations(files[split]) for split in SHAPES_SPLITS})


def _check_picture(file: io.BytesIO, image: AnnotatedImage) -> None:
    """UserError unless the image can be decoded and is as large as its annotations say: better told now than later."""
    try:
        size = size_of(decoded(file, (image.height, image.width)))
    except IMAGE_ERRORS:
        raise UserError(f"{image.file_name} is no image that can be read; replace it") from None
    if size != (image.height, image.width):
        raise UserError(
            f"{image.file_name} has {size[0]} x {size[1]} pixels, its annotations say {image.height} x {image.width}; "
            "they are of another file"
        )


def _annotation_files(folder: Path, kind: str) -> dict[str, Any]:
    """Annotation files of a kind by split: paths, or what zip files have in their stead."""
    members: list[Any] = [
        member
        for path in sorted(folder.glob("annotations_*.zip"))
        for member in _in_zip(path, "annotations/").iterdir()
    ]
    files: list[Any] = [*members, *sorted((folder / "annotations").glob("*.json"))]
    found = ((re.fullmatch(rf"{kind}_(.+)\.json", file.name), file) for file in files)
    return {match[1]: file for match, file in found if match}


def _in_zip(archive: Path, folder: str) -> zipfile.Path:
    """A folder in a zip file; UserError if that is damaged."""
    try:
        return zipfile.Path(archive, folder)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is damaged or cut short ({error}); fetch it again, or unpack it") from None


def _images_of(folder: Path, split: str, annotations: Annotations) -> Callable[[str], io.BytesIO]:
    """Opens a split's images by name, from its folder or its zip file.

    Raises:
      UserError: if there is neither, or images that the annotations list are not in it; the function, if an image in
        a zip file is damaged.
    """
    archive = folder / f"{split}.zip"
    if not (folder / split).is_dir() and not archive.is_file():
        raise UserError(
            f"{folder} has annotations of {split}, but neither {split}/ nor {split}.zip; put the images there"
        )
    images: Any = folder / split if (folder / split).is_dir() else _in_zip(archive, f"{split}/")
    listed = [image.file_name for image in annotations.images]
    if missing := [name for name in listed if not (name and (images / name).is_file())]:
        raise UserError(
            f"{images} lacks {len(missing)} of the {len(listed)} images that its annotations list (the first: "
            f"{missing[0]!r}); the split is incomplete"
        )

    def open_image(name: str) -> io.BytesIO:
        try:
            return io.BytesIO((images / name).read_bytes())
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{images}: {name!r} is damaged ({error}); fetch the archive again") from None

    return open_image
