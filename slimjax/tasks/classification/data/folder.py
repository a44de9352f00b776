"""Images in folders, SPLIT/CLASS/FILE, served like a tfds data set."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from slimjax.errors import UserError
from slimjax.tasks.classification.data.splits import WHOLE_FILE, ExampleRange, count_examples, places
from slimjax.tensorflow_import import tf, tfds

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_LAYOUT = "SPLIT/CLASS/FILE.jpg (or .jpeg, .png, .bmp, .gif)"


class FolderSource:
    """The images below one folder; classes are the union over the splits, in alphabetical order.

    Unlike `tfds.ImageFolder` it slices splits, and reads no file before it knows that the example is wanted.
    """

    def __init__(self, root: str) -> None:
        """Lists the files.

        Raises:
          UserError: if the folder is missing or holds no image where one should be.
        """
        folders = _class_folders(epath.Path(root).expanduser())
        self.class_names = tuple(sorted({name for classes in folders.values() for name in classes}))
        self._paths: dict[str, list[str]] = {}
        self._labels: dict[str, list[int]] = {}
        for split, classes in folders.items():
            files = [
                (path, label)
                for label, name in enumerate(self.class_names)
                if name in classes
                for path in _images(classes[name])
            ]
            if files:
                # Each device trains on its own part of the list, which is not to be some of the classes.
                np.random.default_rng(0).shuffle(files)
                self._paths[split], self._labels[split] = map(list, zip(*files, strict=True))
        if not self._paths:
            raise UserError(f"dataset.data_dir={root!r} holds no images; dataset.name='folder' wants {_LAYOUT}")
        self.splits = tfds.core.SplitDict(
            [
                tfds.core.SplitInfo(name=split, shard_lengths=[len(paths)], num_bytes=0)
                for split, paths in self._paths.items()
            ]
        )

    def references(self, ranges: tuple[ExampleRange, ...], seed: tf.Tensor | None) -> tf.data.Dataset:
        """See `Source`: paths and labels. The order by seed is a full permutation, in constant memory."""
        with tf.init_scope():
            paths = tf.constant([path for part in ranges for path in self._paths[part.split][part.start : part.stop]])
            labels = tf.constant(
                [label for part in ranges for label in self._labels[part.split][part.start : part.stop]], tf.int64
            )

        def reference(place: tf.Tensor) -> dict[str, tf.Tensor]:
            return {
                "file": tf.gather(paths, place),
                "record": tf.constant(WHOLE_FILE, tf.int64),
                "label": tf.gather(labels, place),
            }

        return places(count_examples(ranges), seed).map(reference)

    def read(self, reference: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Reads the file of a reference, without decoding it."""
        return {"image": tf.io.read_file(reference["file"]), "label": reference["label"]}


def _class_folders(root: epath.Path) -> dict[str, dict[str, epath.Path]]:
    """Folders by split and class."""
    if not root.is_dir():
        raise UserError(f"dataset.data_dir={str(root)!r} is not a folder; dataset.name='folder' wants {_LAYOUT} in it")
    return {
        split.name: {folder.name: folder for folder in split.iterdir() if folder.is_dir()}
        for split in sorted(root.iterdir())
        if split.is_dir()
    }


def _images(folder: epath.Path) -> list[str]:
    """The image files of one class, in a fixed order."""
    return sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
