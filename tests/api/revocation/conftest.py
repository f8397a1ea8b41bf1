"""Fixtures of the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.api.conftest import Api, Started
from tests.api.revocation.helpers import DATA, NAME
from tests.support.accounts import (
    AUTH,
    Accounts,
    signed,
)
from tests.support.clock import MovableClock


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


@pytest.fixture
async def api(start_api: Started, movable_clock: MovableClock) -> AsyncIterator[Api]:
    del movable_clock  # replaces the clock before anything reads it
    async with start_api({**AUTH, "auth.token_lifetime": "60s"}) as started:
        accounts = Accounts.of(started.opened)
        root = await accounts.user("root", admin=True)
        await signed(started.http, root.basic).push_blob(NAME, DATA)
        yield started


@pytest.fixture
def accounts(api: Api) -> Accounts:
    return Accounts.of(api.opened)
