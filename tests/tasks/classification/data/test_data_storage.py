"""Buckets that cannot be read, against a server of this machine that answers as the storage service does."""

import http.server
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import ml_collections
import pytest

from slimjax.errors import UserError
from slimjax.tasks.classification import data
from slimjax.tasks.classification.data import storage


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Nobody's keys, no proxy, and no metadata server."""
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(storage, "_OWN_CREDENTIALS", tmp_path / "absent.json")
    monkeypatch.setattr(storage, "_METADATA_SERVER", f"http://127.0.0.1:{_closed_port()}")


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Knows the buckets `public` and `private`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bucket = self.path.split("/")[2]
            self.send_response({"public": 200, "private": 401}.get(bucket, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(storage, "_API", f"http://127.0.0.1:{server.server_address[1]}/b")
        yield
        server.shutdown()


@pytest.mark.parametrize(
    ("data_dir", "line"),
    [
        ("gs://absent/tfds", r"data_dir='gs://absent/tfds' cannot be read: there is no bucket 'absent'"),
        ("gs://private", r"bucket 'private' is not public and this machine has no credentials; run `gcloud auth"),
    ],
)
@pytest.mark.usefixtures("service")
def test_a_bucket_that_cannot_be_read(data_dir: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        storage.check_bucket(data_dir)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("service")
def test_a_bucket_that_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    storage.check_bucket("gs://public/tfds")
    storage.check_bucket("/a/folder")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    storage.check_bucket("gs://private/tfds")


@pytest.mark.parametrize("name", ["imagenet2012", "folder"])
def test_without_a_network_it_takes_seconds(
    dataset_config: ml_collections.ConfigDict, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(storage, "_API", f"http://127.0.0.1:{_closed_port()}/b")
    dataset_config.update(name=name, data_dir="gs://some-bucket/tfds")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"'gs://some-bucket/tfds' cannot be read: there is no connection to storage"):
        data.load_info(dataset_config)
    assert time.monotonic() - began < 10
