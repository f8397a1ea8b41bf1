"""Helpers of the tests of this folder."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest

from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.accounts import (
    ANONYMOUS,
    OPERATOR,
    Accounts,
    Login,
)

NAME = "team/app"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"
ALL = f"repository:{NAME}:pull,push,delete"
DATA = b"a blob of the team"
DIGEST = Digest.of(DATA)
PATH = f"/v2/{NAME}/blobs/{DIGEST}"
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests that do not depend on the database, or whose server tests run on both."""


async def make_user(accounts: Accounts) -> Login:
    login = await accounts.user("alice")
    await accounts.grant("alice", "team/**", "pull,push,delete")
    return login


async def make_robot(accounts: Accounts) -> Login:
    login = await accounts.robot("ci")
    await accounts.grant("robot:ci", "team/**", "pull,push,delete")
    return login


async def make_access_token(accounts: Accounts) -> Login:
    await make_user(accounts)
    return await accounts.token("alice")


async def make_member(accounts: Accounts) -> Login:
    login = await accounts.user("alice")
    await accounts.access.groups.add("devs", OPERATOR)
    await accounts.access.groups.add_member("devs", "alice", OPERATOR)
    await accounts.grant("group:devs", "team/*", "pull,push")
    return login


async def make_signed_in(accounts: Accounts) -> Login:
    await accounts.grant("authenticated", NAME, "pull")
    return await accounts.user("alice")


async def make_nobody(accounts: Accounts) -> Login:
    await accounts.grant("anonymous", "**", "pull")
    return ANONYMOUS


async def make_admin(accounts: Accounts) -> Login:
    return await accounts.user("alice", admin=True)


Change = Callable[[Accounts], Awaitable[object]]


@dataclass(frozen=True)
class Ended:
    """A way in which an account or its credential becomes invalid."""

    make: Change
    end: Change


ENDED = {
    "user disabled": Ended(
        make_user, lambda it: it.access.users.change("alice", OPERATOR, disabled=True)
    ),
    "user removed": Ended(make_user, lambda it: it.access.users.remove("alice", OPERATOR)),
    "password changed": Ended(
        make_user, lambda it: it.access.users.set_password("alice", "another password", OPERATOR)
    ),
    "robot removed": Ended(make_robot, lambda it: it.access.robots.remove("ci", OPERATOR)),
    "robot rotated": Ended(make_robot, lambda it: it.access.robots.rotate("ci", 0, OPERATOR)),
    "token revoked": Ended(
        make_access_token,
        lambda it: it.access.access_tokens.revoke("alice", "laptop", OPERATOR),
    ),
    "user of the token disabled": Ended(
        make_access_token, lambda it: it.access.users.change("alice", OPERATOR, disabled=True)
    ),
    "user of the token removed": Ended(
        make_access_token, lambda it: it.access.users.remove("alice", OPERATOR)
    ),
}
TAKEN = {
    "grant": Ended(make_user, lambda it: it.take("alice", "team/**")),
    "one right of a grant": Ended(make_user, lambda it: it.take("alice", "team/**", "pull")),
    "grant of a robot": Ended(make_robot, lambda it: it.take("robot:ci", "team/**")),
    "grant behind an access token": Ended(
        make_access_token, lambda it: it.take("alice", "team/**")
    ),
    "membership": Ended(
        make_member, lambda it: it.access.groups.remove_member("devs", "alice", OPERATOR)
    ),
    "group": Ended(make_member, lambda it: it.access.groups.remove("devs", OPERATOR)),
    "grant of a group": Ended(make_member, lambda it: it.take("group:devs", "team/*")),
    "grant of all signed in": Ended(make_signed_in, lambda it: it.take("authenticated", NAME)),
    "grant of everybody": Ended(make_nobody, lambda it: it.take("anonymous", "**")),
    "being an admin": Ended(
        make_admin, lambda it: it.access.users.change("alice", OPERATOR, admin=False)
    ),
}


async def make_login(case: Ended, accounts: Accounts) -> Login:
    login = await case.make(accounts)
    assert isinstance(login, Login)
    return login


async def refresh(api: Api, token: str) -> httpx.Response:
    fields = {"grant_type": "refresh_token", "refresh_token": token, "service": "moorage"}
    return await api.http.post("/token", data=fields)


async def make_refresh_token(api: Api, login: Login) -> str:
    params = {"service": "moorage", "offline_token": "true"}
    answer = await api.http.get("/token", params=params, headers=login.basic)
    return str(answer.json()["refresh_token"])
