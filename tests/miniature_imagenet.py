"""The two tar files of ImageNet 2012 in little: the true names and nesting, JPEGs of many sizes and colour models.

Every image is of one colour, which is all that tells it from the others, so that tests can recognise what they see.
"""

import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

# tfds repairs these two by name: the first is CMYK in the true data set, the second a PNG called JPEG.
CMYK_REPAIRED, PNG_REPAIRED = "n01739381_1309.JPEG", "n02105855_2933.JPEG"
# Of the 1,000 classes, by their numbers in tfds's list.
SYNSETS = {"n01440764": 0, "n01739381": 59, "n02105855": 230, "n15075141": 999}
IMAGES_PER_SYNSET = 6
NUM_VALIDATION = 9
SIZES = [(500, 375), (375, 500), (64, 48), (320, 320), (33, 97), (224, 224)]


def train_level(synset: str, index: int) -> int:
    """The grey level of a training image."""
    return 8 + 10 * (list(SYNSETS).index(synset) * IMAGES_PER_SYNSET + index)


def validation_level(index: int) -> int:
    """The grey level of a validation image, counted from 0."""
    return 20 + 25 * index


def write_tars(folder: pathlib.Path) -> None:
    """Writes both files."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for synset in SYNSETS:
            inner_bytes = io.BytesIO()
            with tarfile.open(fileobj=inner_bytes, mode="w") as inner:
                for index in range(IMAGES_PER_SYNSET):
                    name = _train_name(synset, index)
                    _add(inner, name, encode(train_level(synset, index), index, _kind(name, index)))
            _add(outer, f"{synset}.tar", inner_bytes.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as outer:
        for index in range(NUM_VALIDATION):
            kind = ("RGB", "L", "CMYK")[index % 3]
            _add(outer, f"ILSVRC2012_val_{index + 1:08d}.JPEG", encode(validation_level(index), index, kind))


def encode(level: int, index: int, kind: str) -> bytes:
    """An image of one grey level: a JPEG whose kind is its colour model, or a PNG."""
    width, height = SIZES[index % len(SIZES)]
    image = Image.fromarray(np.full((height, width, 3), level, np.uint8))
    encoded = io.BytesIO()
    if kind == "PNG":
        image.save(encoded, "PNG")
    else:
        image.convert(kind).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


def _train_name(synset: str, index: int) -> str:
    repaired = {"n01739381": CMYK_REPAIRED, "n02105855": PNG_REPAIRED}
    return repaired[synset] if index == 0 and synset in repaired else f"{synset}_{index + 10}.JPEG"


def _kind(name: str, index: int) -> str:
    if name in (CMYK_REPAIRED, PNG_REPAIRED):
        return "CMYK" if name == CMYK_REPAIRED else "PNG"
    return ("RGB", "L", "CMYK")[index % 3]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
