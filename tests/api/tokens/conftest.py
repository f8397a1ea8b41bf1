"""Fixtures of the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import (
    AUTH,
    Accounts,
    Login,
)


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(AUTH) as started:
        yield started


@pytest.fixture
def accounts(api: Api) -> Accounts:
    return Accounts.of(api.opened)


@pytest.fixture
async def alice(accounts: Accounts) -> Login:
    """Return a user who may pull and push in `team/**`."""
    login = await accounts.user("alice")
    await accounts.grant("alice", "team/**", "pull,push")
    return login
