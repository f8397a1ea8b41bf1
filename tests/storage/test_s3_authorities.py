"""Tests of a bucket behind a certificate of a private authority."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage.errors import ObjectMissingError, StoreUnavailableError
from storage.s3.client import S3Client
from storage.s3.settings import S3Settings
from tests.support.servers.certificates import Authority
from tests.support.servers.seaweed import ACCESS_KEY, SECRET_KEY

pytestmark = pytest.mark.anyio


class NothingThere(BaseHTTPRequestHandler):
    """A store without objects."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
        pass


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    authority = Authority()
    certificate, key = authority.issue(tmp_path, "127.0.0.1")
    (tmp_path / "ca.crt").write_bytes(authority.bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), NothingThere)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


async def ask(endpoint: str) -> None:
    client = S3Client(
        S3Settings(
            bucket="b",
            endpoint=endpoint,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            path_style=True,
        )
    )
    try:
        await client.read("head_object", Key="k")
    finally:
        await client.close()


async def test_the_variable_of_aws_names_who_is_trusted(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.crt"))
    with pytest.raises(ObjectMissingError):
        await ask(endpoint)


async def test_without_it_the_store_is_not_spoken_to(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreUnavailableError):
        await ask(endpoint)
