"""Blobs whose files are damaged while the kernel sends them."""

import hashlib
import os
import socket
from pathlib import Path

import httpx

from tests.support.servers.server import Server, serving

LARGE = 48 << 20
"""More than the kernel buffers for a client."""


def push(url: str, data: bytes) -> str:
    """Push a blob, and return its URL."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    start = httpx.post(f"{url}/v2/team/app/blobs/uploads/")
    answer = httpx.put(
        url + start.headers["location"], params={"digest": digest}, content=data, timeout=120
    )
    assert answer.status_code == 201, answer.text
    return f"{url}/v2/team/app/blobs/{digest}"


def read_paused(server: Server, url: str, path: Path | None) -> bytes:
    """Return the body of a client that reads on only after the file is truncated, if given."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        target = url.removeprefix(server.url)
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = client.recv(1 << 10)
        assert received.startswith(b"HTTP/1.1 200 ")
        if path is not None:
            path.chmod(0o600)
            os.truncate(path, LARGE - 1)
        body = received.partition(b"\r\n\r\n")[2]
        pieces = [body]
        left = LARGE - len(body)
        try:
            while left and (piece := client.recv(1 << 20)):
                pieces.append(piece)
                left -= len(piece)
        except ConnectionResetError:
            pass
    return b"".join(pieces)


def test_a_file_that_is_truncated_cuts_the_connection_and_is_noted(tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    with serving(Server(tmp_path / "data")) as server:
        url = push(server.url, data)
        [path] = (tmp_path / "data").rglob(f"{url.rpartition(':')[2]}.*")
        assert read_paused(server, url, None) == data
        body = read_paused(server, url, path)
        assert len(body) < LARGE
        assert data.startswith(body)
        assert httpx.get(url).status_code == 404
        server.wait_for_log("is damaged; push it again to repair it")
        push(server.url, data)
        assert read_paused(server, url, None) == data
        metrics = httpx.get(f"{server.url}/metrics").text
    [line] = [each for each in metrics.splitlines() if each.startswith("moorage_sent_bytes_total")]
    assert 2 * LARGE < float(line.split()[1]) <= 3 * LARGE + (1 << 20)
