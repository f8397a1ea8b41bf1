"""Errors of accept(2), and clients that speak TLS to a plain HTTP port."""

import asyncio
import errno
import logging
import os
import socket

import pytest

from registry.server import listener
from registry.server.admission import RESERVE
from registry.server.limits import ServerLimits
from registry.server.listener import Listener
from tests.support.servers.http_server import Echo, Served, serving_app, wait_until
from tests.support.servers.raw import Wire

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


class Failing(socket.socket):
    """Listening socket whose first calls of accept fail with the numbers in `errors`."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


async def get_through(served: Served, errors: list[int]) -> int:
    """Return the status of a request to a listener whose first calls of accept fail."""
    server, first = served.server, served.server.servers[0]
    failing = Failing()
    failing.errors = errors
    failing.bind(("127.0.0.1", 0))
    failing.listen()
    port = failing.getsockname()[1]
    server.servers.append(Listener(failing, server.admission, first._make, None))
    wire = await Wire.open(port)
    await wire.send_head("GET", "/")
    async with asyncio.timeout(10):
        status = (await wire.read()).status
    wire.abort()
    assert failing.errors == []
    return status


@pytest.mark.parametrize("number", sorted(listener._LOST))
async def test_a_connection_that_is_lost_before_its_accept_is_passed_over(
    echo: Echo, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_app(echo) as served:
        assert await get_through(served, [number] * 3) == 200
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EINVAL])
async def test_other_errors_are_logged_and_accepting_goes_on(
    echo: Echo, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_app(echo) as served:
        assert await get_through(served, [number] * 3) == 200
    [line] = [record for record in caplog.records if record.levelno > logging.INFO]
    assert line.getMessage().startswith(f"cannot accept connections: {os.strerror(number)}")
    assert ("LimitNOFILE" in line.getMessage()) == (number != errno.EINVAL)


async def test_tls_on_a_port_without_is_told_so_at_once(served: Served, echo: Echo) -> None:
    wire = await Wire.open(served.port)
    await wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    answer = await wire.read()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert b"this port uses HTTP without TLS" in answer.body
    assert echo.seen == []
    wire.abort()


async def test_a_crowd_that_is_refused_does_not_keep_health_from_others(echo: Echo) -> None:
    """Regression: refused connections that stayed open used the places for health checks."""
    limits = ServerLimits(connections=4, per_address=0, head_timeout=60, linger=60)
    async with serving_app(echo, limits) as served:
        echo.gate.clear()
        busy = [await Wire.open(served.port) for _ in range(4)]
        for wire in busy:
            await wire.send_head("GET", "/busy")
        await wait_until(lambda: len(echo.seen) >= 4)
        crowd: list[Wire] = []
        for _ in range(2 * RESERVE):
            crowd.append(await Wire.open(served.port))
            await crowd[-1].send_head("GET", "/v2/")
            await asyncio.sleep(0.01)
        checks = [await check_health(served.port, f"127.0.0.{n}") for n in (1, 2)]
        await wait_until(lambda: len(echo.seen) >= 6)
        echo.gate.set()
        assert [(await check.read()).status for check in checks] == [200, 200]
        for wire in checks:
            wire.abort()
        for wire in (*busy, *crowd):
            wire.abort()


async def check_health(port: int, address: str) -> Wire:
    opened = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    wire = Wire(*opened)
    await wire.send_head("GET", "/healthz")
    return wire
