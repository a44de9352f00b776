"""Places that the user names to be written to."""

import os
from pathlib import Path

from slimjax.errors import UserError


def check_writable(path: Path, flag: str, is_file: bool = False) -> None:
    """UserError if a place could not be written, before minutes are spent on what would go there.

    Args:
      path: a folder, which is made with all those above it; or a file, which is made where its folder is there.
      flag: the one that named it, such as `--workdir`.
      is_file: whether it is a file.
    """
    absolute = path.absolute()
    above = [absolute.parent] if is_file else absolute.parents
    # lexists, since a link to nowhere is in the way too.
    existing = next((place for place in (absolute, *above) if os.path.lexists(place)), None)
    is_folder = existing != absolute or not is_file
    if existing is None or os.path.isdir(existing) != is_folder or not os.access(existing, os.W_OK):
        wanted = "a file in a folder that exists and is yours" if is_file else "a folder that is yours or can be made"
        raise UserError(f"{flag}={path} cannot be written; give {wanted}")
