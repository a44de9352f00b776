"""Places that the user names: folders and files of this machine, and folders in buckets."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from slimjax.buckets import check_bucket
from slimjax.errors import UserError

_BUCKETS = "gs"


def folder_path(text: str, flag: str) -> epath.Path:
    """The folder that a flag names, absolute: on this machine, or `gs://BUCKET/FOLDER`.

    Raises:
      UserError: for a URL of any other kind, which would otherwise become a folder of that name, and for a bucket that
        cannot be read.
    """
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", text)
    if not scheme:
        return epath.Path(os.path.abspath(os.path.expanduser(text)))
    if scheme[1] != _BUCKETS:
        raise UserError(f"{flag}={text}: {scheme[1]}:// is not known; give a folder, or {_BUCKETS}://BUCKET/FOLDER")
    check_bucket(text, flag)
    folder = epath.Path(text)
    try:
        folder.exists()
    # Whatever the file system raises, of rights above all, is for the user to mend.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{flag}={text} cannot be read ({reason}); give a folder that is yours") from error
    return folder


def local_folder(text: str, flag: str) -> Path:
    """The folder of this machine that a flag names; UserError for a URL, which would become a folder of that name."""
    if "://" in text:
        raise UserError(f"{flag}={text} is not on this machine; give a folder here, and copy it from there")
    return Path(text).expanduser()


@contextmanager
def writing(path: os.PathLike[str] | str, flag: str) -> Iterator[None]:
    """UserError if what is written meanwhile fails, on a full disk for example.

    Args:
      path: that is written.
      flag: the one that named it, such as `--output`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be written ({error.strerror or error}); give another place") from None


def is_remote(path: os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(f"{_BUCKETS}://")


def check_writable(path: os.PathLike[str], flag: str, is_file: bool = False) -> None:
    """UserError if a place could not be written, before minutes are spent on what would go there.

    Args:
      path: a folder, which is made with all those above it; or a file, which is made where its folder is there. What is
        in a bucket is not tried.
      flag: the one that named it, such as `--workdir`.
      is_file: whether it is a file.
    """
    if is_remote(path):
        return
    absolute = Path(path).absolute()
    above = [absolute.parent] if is_file else absolute.parents
    # lexists, since a link to nowhere is in the way too.
    existing = next((place for place in (absolute, *above) if os.path.lexists(place)), None)
    is_folder = existing != absolute or not is_file
    if existing is not None and os.path.isdir(existing) == is_folder and os.access(existing, os.W_OK):
        return
    reason = ""
    if is_folder and existing is not None and os.path.isfile(existing):
        reason = f": {existing} is a file"
    elif not is_folder and os.path.isdir(absolute):
        reason = f": {absolute} is a folder"
    wanted = "a file in a folder that exists and is yours" if is_file else "a folder that is yours or can be made"
    raise UserError(f"{flag}={path} cannot be written{reason}; give {wanted}")
