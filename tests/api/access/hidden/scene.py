"""A hidden repository, and callers who may not see it."""

from dataclasses import dataclass

import httpx
import pytest

from storage.digest import Digest
from tests.api.conftest import SERVED, Api
from tests.support.accounts import (
    ANONYMOUS,
    Accounts,
    Login,
    bearer,
    get_token,
)

THERE = "hidden/real"


NOWHERE = "hidden/none"


MINE = "mine/app"


BLOB = b"a blob of the hidden repository"


MISSING = Digest.of(b"what nobody has ever pushed")


SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests that do not depend on the database, or whose server tests run on both."""


IN_PROCESS = pytest.mark.skipif(
    SERVED, reason="thousands of requests, answered alike over the wire"
)


@dataclass(frozen=True)
class Scene:
    """A hidden repository, and callers who may not see it."""

    api: Api
    accounts: Accounts
    bob: Login
    root: Login
    hidden: Digest
    session: str

    @property
    def http(self) -> httpx.AsyncClient:
        return self.api.http

    async def callers(self, *scopes: str) -> dict[str, dict[str, str]]:
        """Return the headers of all callers without permission, also with tokens for `scopes`."""
        personal = await self.accounts.token("bob")
        robot = await self.accounts.robot("ci")
        return {
            "nothing": {},
            "anonymous token": bearer(await get_token(self.http, ANONYMOUS, *scopes)),
            "password": self.bob.basic,
            "token": bearer(await get_token(self.http, self.bob, *scopes)),
            "token for something else": bearer(
                await get_token(self.http, self.bob, f"repository:{MINE}:pull,push")
            ),
            "access token": personal.basic,
            "robot": robot.basic,
            "token of a robot": bearer(await get_token(self.http, robot, *scopes)),
        }
