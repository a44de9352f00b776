"""Buckets that cannot be read, against a server of this machine that answers as the storage service does."""

import http.server
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from slimjax import buckets
from slimjax.errors import UserError
from slimjax.paths import folder_path


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Nobody's keys, no proxy, and no metadata server."""
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(buckets, "_OWN_CREDENTIALS", tmp_path / "absent.json")
    monkeypatch.setattr(buckets, "_METADATA_SERVER", f"http://127.0.0.1:{_closed_port()}")


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
        monkeypatch.setattr(buckets, "_API", f"http://127.0.0.1:{server.server_address[1]}/b")
        yield
        server.shutdown()


@pytest.mark.parametrize(
    ("data_dir", "line"),
    [
        ("gs://absent/tfds", r"data_dir=gs://absent/tfds cannot be read: there is no bucket 'absent'"),
        ("gs://private", r"bucket 'private' is not public and this machine has no credentials; run `gcloud auth"),
    ],
)
@pytest.mark.usefixtures("service")
def test_a_bucket_that_cannot_be_read(data_dir: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        buckets.check_bucket(data_dir, "dataset.data_dir")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("service")
def test_a_bucket_that_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets.check_bucket("gs://public/tfds", "dataset.data_dir")
    buckets.check_bucket("/a/folder", "dataset.data_dir")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    buckets.check_bucket("gs://private/tfds", "dataset.data_dir")


def test_without_a_network_it_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_API", f"http://127.0.0.1:{_closed_port()}/b")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"--workdir=gs://some/run cannot be read: there is no connection to storage"):
        folder_path("gs://some/run", "--workdir")
    assert time.monotonic() - began < 10
