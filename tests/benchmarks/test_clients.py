"""The load generators send what they claim to send."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.clients.blobs import BLOCK, CHUNK, make_blob
from benchmarks.clients.exchange import Client, ExchangeError, Request, run
from benchmarks.clients.head_requests import run_heads
from benchmarks.clients.images import find_target, make_manifest, make_small_blobs
from benchmarks.clients.wrk import LoadError


def decode_chunks(data: bytes) -> bytes:
    """Return the content of a body in the chunked coding. Fails unless it is complete."""
    pieces, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size, at = int(data[at:end], 16), end + 2
        pieces.append(data[at : at + size])
        assert data[at + size : at + size + 2] == b"\r\n"
        at += size + 2
        if not size:
            assert at == len(data)
            return b"".join(pieces)


@pytest.mark.parametrize("size", [17, 2048, BLOCK, BLOCK + 5, 2 * BLOCK + CHUNK + 1])
def test_a_blob_has_its_size_and_its_digest(size: int) -> None:
    blob = make_blob(size)
    content = decode_chunks(b"".join(blob.list_chunks()))
    assert len(content) == size
    assert blob.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_blobs_are_unique() -> None:
    blobs = [*make_small_blobs(), *make_small_blobs()]
    assert len({blob.digest for blob in blobs}) == 6
    assert make_manifest(blobs[:3]).digest != make_manifest(blobs[3:]).digest


def test_a_location_can_be_a_url_or_a_path() -> None:
    assert find_target("/v2/a/blobs/uploads/1?s=2") == "/v2/a/blobs/uploads/1?s=2"
    assert find_target("http://h:1/v2/a/blobs/uploads/1?s=2") == "/v2/a/blobs/uploads/1?s=2"


@contextmanager
def responding(*responses: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that sends one response for each request head on each connection.

    Yields its port and the received request heads. It closes a connection after the last response.
    """
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            for response in responses:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    more = connection.recv(1)
                    if not more:
                        return
                    head += more
                received.append(head)
                connection.sendall(response)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,)).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def get(target: str, *statuses: int) -> Client:
    for status in statuses:
        response = yield Request("GET", target)
        response.expect(status)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


def test_clients_run_at_once_and_get_their_responses() -> None:
    with responding(OK, OK) as (port, received):
        run(port, [get("/a", 200, 200), get("/b", 200, 200)])
    targets = sorted(re.findall(rb"GET (\S+)", b"".join(received)))
    assert targets == [b"/a", b"/a", b"/b", b"/b"]


def test_a_client_that_sends_nothing_is_done_at_once() -> None:
    with responding() as (port, received):
        run(port, [get("/a")])
    assert received == []


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nfull", "500 instead of 200: b'full'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "longer than its Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked"),
    ],
)
def test_unusable_responses_are_errors(response: bytes, message: str) -> None:
    with responding(response) as (port, _), pytest.raises(ExchangeError, match=re.escape(message)):
        run(port, [get("/a", 200)])


def test_a_silent_server_ends_the_run() -> None:
    with (
        responding(b"", b"") as (port, _),
        pytest.raises(ExchangeError, match="1 clients are not done"),
    ):
        run(port, [get("/a", 200)], limit_s=0.1)


def test_head_responses_other_than_200_are_errors() -> None:
    with (
        responding(b"HTTP/1.1 404 X\r\nContent-Length: 4\r\n\r\n") as (port, _),
        pytest.raises(LoadError, match="404"),
    ):
        run_heads(port, "/a", seconds=1, connections=2)
