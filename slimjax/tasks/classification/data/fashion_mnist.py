"""tfds's Fashion-MNIST, made from the files of Debian's package `dataset-fashion-mnist`."""

import pathlib
from typing import Any

from slimjax.tensorflow_import import tfds

DEBIAN_DIR = pathlib.Path("/usr/share/datasets/fashion-mnist")


class _DebianFiles:
    """Stands in for tfds's download manager: the same files by name, from the package instead of the network.

    The download manager itself refuses them: Debian packed the same bytes anew, so the archives' checksums differ.
    """

    def __init__(self, dl_manager: tfds.download.DownloadManager) -> None:
        self._dl_manager = dl_manager

    def download_and_extract(self, urls: dict[str, str]) -> dict[str, Any]:
        return self._dl_manager.extract({key: DEBIAN_DIR / url.rsplit("/", 1)[-1] for key, url in urls.items()})


# tfds reads the class keyword in a hook that mypy does not see, since tfds imports its data sets late.
class DebianFashionMnist(tfds.image_classification.FashionMNIST, skip_registration=True):  # type: ignore[call-arg]
    """Writes what `tfds build fashion_mnist` would, to the same place."""

    name = "fashion_mnist"
    VERSION = tfds.image_classification.FashionMNIST.VERSION

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        return super()._split_generators(_DebianFiles(dl_manager))
