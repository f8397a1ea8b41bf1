"""Memory that clients without permission can make a process use; such attacks once killed it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.server.memory.test_memory import resident
from tests.support.kit import Kit
from tests.support.servers.nginx import Nginx, proxying
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n"
MOST = 160 << 20
"""Maximum bytes that all attacks together may add. Each one used to take more than 512 MiB."""


async def send_until_cut(wire: Wire, data: bytes, times: int) -> None:
    """Send `data` up to `times` times, until the server closes the connection."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            for _ in range(times):
                await wire.send(data)


@contextlib.asynccontextmanager
async def opening(port: int, count: int) -> AsyncIterator[list[Wire]]:
    """Open connections, which are aborted at the end."""
    wires = [await Wire.open(port) for _ in range(count)]
    try:
        yield wires
    finally:
        for wire in wires:
            wire.abort()
        await asyncio.sleep(0)


async def attack(port: int) -> None:
    """Send endless headers, incomplete headers, and pipelined requests without reading."""
    half = HEAD + b"X: " + b"a" * (1 << 20)
    ahead = b"GET /v HTTP/1.1\r\nHost: localhost\r\n\r\n" * 7500
    async with opening(port, 111) as wires:
        await wires[0].send(HEAD)
        await asyncio.gather(
            send_until_cut(wires[0], b"X: " + b"a" * 1000 + b"\r\n", 100_000),
            *(send_until_cut(wire, half, 16) for wire in wires[1:31]),
            *(send_until_cut(wire, ahead, 1) for wire in wires[31:]),
        )


async def read_nothing(readers: list[Wire], path: str) -> None:
    for wire in readers:
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined] # no public way
        await wire.send_head("GET", path)


async def test_a_process_stays_small_under_attack(tmp_path: Path) -> None:
    data = bytes(8 << 20)
    with serving(Server(tmp_path / "data", fresh=True)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            digest = await Kit(http).push_blob("public", data)
            before = resident(server)
            await attack(server.port)
            async with opening(server.port, 400) as readers:
                await read_nothing(readers, f"/v2/public/blobs/{digest}")
                await asyncio.sleep(3)
                pulled = await http.get(f"/v2/public/blobs/{digest}")
        assert pulled.content == data
        assert resident(server) - before < MOST


@pytest.mark.xdist_group("nginx")
async def test_readers_behind_nginx_who_read_nothing_do_not_fill_the_memory(tmp_path: Path) -> None:
    """With the setup of deploy/nginx, a process with a limit of 512 MiB survives such readers."""
    data = bytes(8 << 20)
    settings = {"MOORAGE_HTTP__TRUSTED_PROXIES": "127.0.0.1"}
    with (
        serving(Server(tmp_path / "data", settings=settings, memory=512 << 20)) as server,
        proxying(Nginx(tmp_path / "nginx", [server.port])) as nginx,
    ):
        async with httpx.AsyncClient(base_url=nginx.url, timeout=60) as http:
            digest = await Kit(http).push_blob("public", data)
            before = resident(server)
            async with opening(nginx.port, 400) as readers:
                await read_nothing(readers, f"/v2/public/blobs/{digest}")
                while count_connections(server.port) < 400:
                    await asyncio.sleep(0.1)
                await wait_while_it_grows(server)
                pulled = await http.get(f"/v2/public/blobs/{digest}")
        assert pulled.content == data
        assert resident(server) - before < MOST
        assert "MemoryError" not in server.log.read_text()


async def wait_while_it_grows(server: Server) -> None:
    """Wait until the memory of the process has not grown for a second."""
    seen = 0
    while (now := resident(server)) > seen:
        seen = now + (1 << 20)
        await asyncio.sleep(1)


def count_connections(port: int) -> int:
    """Return the number of established connections that a server accepted on a local port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
