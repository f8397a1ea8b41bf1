"""Fixtures of the access services."""

from collections.abc import AsyncIterator

import pytest

from registry import clock
from tests.services.access.access_services import House, Time


@pytest.fixture
async def house(database_url: str, anyio_backend: str) -> AsyncIterator[House]:
    del anyio_backend
    opened = House(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def houses(house: House, database_url: str) -> AsyncIterator[list[House]]:
    """Yield two replicas."""
    other = House(database_url)
    yield [house, other]
    await other.close()


@pytest.fixture
async def filled(house: House) -> House:
    await house.fill()
    return house


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Replace the clock before the databases open, which read it at that time."""
    time = Time(clock.now_us())
    monkeypatch.setattr(clock, "now_us", lambda: time.now)
    return time
