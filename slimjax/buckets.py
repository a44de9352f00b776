"""Buckets, looked at before TensorFlow does: it retries for minutes what cannot succeed."""

import os
from functools import cache
from pathlib import Path

import requests

from slimjax.errors import UserError

CONNECT_TIMEOUT_SECONDS = 5

_SCHEME = "gs://"
_API = "https://storage.googleapis.com/storage/v1/b"
_METADATA_SERVER = "http://metadata.google.internal"
_METADATA_TIMEOUT_SECONDS = 2
_OWN_CREDENTIALS = Path("~/.config/gcloud/application_default_credentials.json")


@cache
def check_bucket(url: str, setting: str) -> None:
    """Checks that the bucket of a `gs://` folder can be reached, exists, and is public or there are credentials to try.

    Args:
      url: of the folder; whatever is not in a bucket passes.
      setting: the one that named it, such as `dataset.data_dir`.

    Raises:
      UserError: within seconds, if it cannot be read.
    """
    if not url.startswith(_SCHEME):
        return
    bucket = url.removeprefix(_SCHEME).partition("/")[0]
    what = f"{setting}={url} cannot be read"
    try:
        status = requests.get(f"{_API}/{bucket}/o?maxResults=1", timeout=CONNECT_TIMEOUT_SECONDS).status_code
    except requests.exceptions.RequestException as error:
        raise UserError(
            f"{what}: there is no connection to storage.googleapis.com; give a folder of this machine, or try again "
            "where there is a network"
        ) from error
    if status in (400, 404):
        raise UserError(f"{what}: there is no bucket {bucket!r}; see `gcloud storage ls` for yours")
    if status in (401, 403) and not _has_credentials():
        raise UserError(
            f"{what}: bucket {bucket!r} is not public and this machine has no credentials; run `gcloud auth "
            "application-default login`, or point GOOGLE_APPLICATION_CREDENTIALS at a service account's key"
        )


def _has_credentials() -> bool:
    """Whether there are any where TensorFlow looks: a file, or the metadata server of a machine in the cloud."""
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or _OWN_CREDENTIALS.expanduser().is_file():
        return True
    try:
        return requests.get(_METADATA_SERVER, timeout=_METADATA_TIMEOUT_SECONDS).ok
    except requests.exceptions.RequestException:
        return False
