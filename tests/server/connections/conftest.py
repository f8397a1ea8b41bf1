"""Fixtures for the HTTP server with an echo application and deadlines below a second."""

from collections.abc import AsyncIterator

import pytest

from registry.server import admission
from registry.server.limits import ServerLimits
from tests.support.servers.http_server import Echo, Served, serving_app

LIMITS = ServerLimits(
    connections=8,
    per_address=0,
    head_timeout=0.6,
    keep_alive=1.2,
    write_window=0.6,
    write_minimum=1000,
    linger=0.4,
    heads=256 << 10,
)


@pytest.fixture(autouse=True)
def _sweep_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SWEEP", 0.05)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def served(echo: Echo) -> AsyncIterator[Served]:
    async with serving_app(echo, LIMITS) as served:
        yield served
        echo.gate.set()
