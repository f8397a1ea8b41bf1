"""Request smuggling: bytes of one client never become a request of another client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.kit import Kit
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, add_admin, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

DELETE = b"DELETE /v2/a/b/manifests/victim HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(Server(tmp_path / "data")) as server:
        yield server


async def push_victim(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        await Kit(http).push_image("a/b", "victim")


def victim_status(server: Server) -> int:
    return httpx.get(f"{server.url}/v2/a/b/manifests/victim").status_code


@pytest.mark.parametrize("pause", [0.0, 0.2])
async def test_a_body_behind_upgrade_is_no_request(server: Server, pause: float) -> None:
    await push_victim(server)
    wire = await Wire.open(server.port)
    head = "PUT /v2/a/b/manifests/z HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    await wire.send(f"{head}Upgrade: foo\r\nContent-Length: {len(DELETE)}\r\n\r\n".encode())
    await asyncio.sleep(pause)
    await wire.send(DELETE)
    answer = await wire.read()
    assert answer.status == 400
    assert b"MANIFEST_INVALID" in answer.body  # the request in the body was read as a manifest
    await wire.send_head("GET", "/v2/")
    assert (await wire.read()).status == 200
    assert victim_status(server) == 200
    wire.abort()


async def test_credentials_in_a_trailer_are_none(tmp_path: Path) -> None:
    add_admin(tmp_path / "data", "ann", "a long password")
    with serving(Server(tmp_path / "data")) as server:
        wire = await Wire.open(server.port)
        await wire.send_head("PUT", "/v2/a/b/manifests/z", Transfer_Encoding="chunked")
        # The credentials are `ann:a long password`.
        await wire.send(
            b"2\r\n{}\r\n0\r\nAuthorization: Basic YW5uOmEgbG9uZyBwYXNzd29yZA==\r\n\r\n"
        )
        answer = await wire.read()
        assert answer.status == 401
        wire.abort()
