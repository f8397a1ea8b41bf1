"""Memory for large manifests in a server process with a memory limit.

Each test also runs a server without its bound, as a control that the test detects a missing bound.
MOORAGE_SOAK=1 sends as many manifests as issue 11 names.
"""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest

from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.server.memory.test_memory import resident
from tests.support.kit import Kit, descriptor, image_manifest
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

SOAK = "MOORAGE_SOAK" in os.environ
MOST = (300 if SOAK else 200) << 20
"""Maximum resident bytes of a process at any time. Without manifests, it has 90 MiB."""

LIMIT = 600 << 20
"""Limit of the data of the process in bytes, of which 100 MiB are unused stacks."""

PUTS = 1000 if SOAK else 40
REFERRERS = 150 if SOAK else 24
MOST_OF_A_PAGE = 180 << 20


async def put(port: int, head: bytes, body: bytes) -> int:
    """Send a request without copying its body.

    Returns the status, or 0 if the connection was cut.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(connection, head)
            await loop.sock_sendall(connection, body)
        with contextlib.suppress(ConnectionError):
            answer = await loop.sock_recv(connection, 4096)
            return int(answer.split()[1]) if answer else 0
        return 0


async def put_at_once(server: Server) -> Counter[int]:
    """Put manifests of maximum size whose config is missing, and count the statuses."""
    body = image_manifest(b"missing", [], annotations={"x": "y" * (MAX_MANIFEST_BYTES - 1000)})
    assert MAX_MANIFEST_BYTES - 1000 < len(body) <= MAX_MANIFEST_BYTES
    head = (
        f"PUT /v2/a/b/manifests/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {OCI_MANIFEST}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    return Counter(await asyncio.gather(*(put(server.port, head, body) for _ in range(PUTS))))


async def test_manifests_that_are_put_at_once_take_little(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data", memory=LIMIT)) as server:
        answers = await put_at_once(server)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert resident(server) < MOST
    assert answers[400] > PUTS // 4  # the other requests timed out while waiting for memory
    assert set(answers) <= {0, 400, 503}


async def test_without_a_budget_they_take_more(tmp_path: Path) -> None:
    settings = {"MOORAGE_LIMITS__REQUEST_MEMORY": "8GiB"}
    with serving(Server(tmp_path / "data", settings=settings, fresh=True)) as server:
        await put_at_once(server)
        assert resident(server) > MOST, resident(server)


async def push_referrers(server: Server) -> str:
    """Push manifests with annotations of nearly 4 MiB, and return the path that lists them."""
    subject = image_manifest(b"{}", [])
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        await Kit(http).push_blob("a/b", b"{}")
        for n in range(REFERRERS):
            raw = image_manifest(
                b"{}",
                [],
                subject=descriptor(subject, OCI_MANIFEST),
                annotations={"n": str(n), "x": "y" * (MAX_MANIFEST_BYTES - 1000)},
            )
            answer = await http.put(
                f"/v2/a/b/manifests/{Digest.of(raw)}",
                content=raw,
                headers={"Content-Type": OCI_MANIFEST},
            )
            assert answer.status_code == 201, answer.text
    return f"/v2/a/b/referrers/{Digest.of(subject)}"


UNBOUNDED = """
import registry.services.content.referrers
registry.services.content.referrers.READ_BYTES = 1 << 40
"""


async def test_a_page_of_referrers_takes_little(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(Server(data, fresh=True)) as server:
        path = await push_referrers(server)
    with serving(Server(data, memory=LIMIT)) as server:
        answer = await asyncio.to_thread(httpx.get, f"{server.url}{path}", timeout=60)
        assert len(answer.json()["manifests"]) == 1
        assert resident(server) < MOST_OF_A_PAGE
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "sitecustomize.py").write_text(UNBOUNDED)
    with serving(Server(data, patches=tmp_path / "patches", fresh=True)) as server:
        await asyncio.to_thread(httpx.get, f"{server.url}{path}", timeout=120)
        assert resident(server) > MOST_OF_A_PAGE
