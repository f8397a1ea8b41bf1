"""Fixtures for tests of the admin API: a registry with sign-in, and its admin."""

from collections.abc import AsyncIterator

import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts
from tests.support.admin import Admin


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(AUTH) as started:
        yield started


@pytest.fixture
async def root(api: Api) -> Admin:
    return Admin(api.http, await Accounts.of(api.opened).user("root", admin=True))
