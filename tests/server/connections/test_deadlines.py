"""Deadlines for silent, slow and unread connections, each next to a well-behaved one."""

import asyncio

import pytest

from tests.support.servers.http_server import Echo, Served
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


async def wait_for_end(wire: Wire) -> bytes:
    """Read until the server closes the connection. Raises TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        try:
            return await wire.reader.read()
        except ConnectionResetError:
            return b""
        finally:
            wire.abort()


async def drip(wire: Wire, data: bytes) -> None:
    """Send one byte at a time with pauses, until the connection ends."""
    for byte in data:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.1)


async def test_a_silent_connection_is_closed(served: Served) -> None:
    assert await wait_for_end(await Wire.open(served.port)) == b""


async def test_single_bytes_do_not_extend_the_time_for_a_head(served: Served, echo: Echo) -> None:
    wire = await Wire.open(served.port)
    dripping = asyncio.create_task(drip(wire, HEAD + b"X: " + b"a" * 1000))
    assert await wait_for_end(wire) == b""
    dripping.cancel()
    assert echo.seen == []


async def test_single_bytes_do_not_keep_an_idle_connection(served: Served, echo: Echo) -> None:
    wire = await Wire.open(served.port)
    await wire.send(HEAD + b"\r\n")
    assert (await wire.read()).status == 200
    dripping = asyncio.create_task(drip(wire, b"\r\n" + HEAD + b"X: " + b"a" * 1000))
    assert await wait_for_end(wire) == b""
    dripping.cancel()
    assert len(echo.seen) == 1


async def test_an_idle_connection_lives_as_long_as_it_may(served: Served) -> None:
    wire = await Wire.open(served.port)
    for pause in (0, 0.8):  # above the deadline of a head, below that of an idle connection
        await asyncio.sleep(pause)
        await wire.send(HEAD + b"\r\n")
        assert (await wire.read()).status == 200
    assert await wait_for_end(wire) == b""


async def test_a_request_in_progress_has_no_deadline_here(served: Served, echo: Echo) -> None:
    echo.gate.clear()
    wire = await Wire.open(served.port)
    await wire.send(HEAD + b"\r\n")
    await asyncio.sleep(2)
    echo.gate.set()
    assert (await wire.read()).status == 200
    wire.abort()


async def test_a_response_that_nobody_reads_is_cut(served: Served, echo: Echo) -> None:
    echo.body = b"x" * (64 << 20)
    wire = await Wire.open(served.port)
    wire.reader._transport.pause_reading()  # type: ignore[attr-defined] # no public way
    await wire.send(HEAD + b"\r\n")
    async with asyncio.timeout(10):
        while not served.server.server_state.connections:
            await asyncio.sleep(0.01)
        while served.server.server_state.connections:
            await asyncio.sleep(0.01)
    wire.abort()


async def test_a_response_that_is_read_slowly_is_not_cut(served: Served, echo: Echo) -> None:
    """Acknowledged bytes count as progress, as the socket gets writable only after megabytes."""
    echo.body = b"x" * (24 << 20)
    wire = await Wire.open(served.port)
    await wire.send(HEAD + b"\r\n")
    for _ in range(20):
        await wire.reader.readexactly(64 << 10)
        await asyncio.sleep(0.1)
    await wire.reader.readexactly(16 << 20)
    wire.abort()
