"""All failed sign-ins do the same work, so their duration does not reveal which users exist.

The tests count the work instead of measuring time, so the speed of the machine does not matter.
`tests/auth/test_passwords.py` checks that the hash for an unknown user takes as long as others.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import bcrypt
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher, extract_parameters

from registry.auth.credentials.passwords import Passwords
from registry.metadata.access import users
from registry.metadata.engine.sqlite import SqliteWriter
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, OPERATOR, Accounts, Login

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

BCRYPT = "bcrypt"
UNKNOWN = Login("unknown", "a guess")


@pytest.fixture(autouse=True)
def cheap_passwords() -> None:
    """Hash passwords as servers do."""


@dataclass
class Watched:
    """Registry that records its work: hashes with their parameters, and SQL statements."""

    api: Api
    accounts: Accounts
    work: list[str] = field(default_factory=list)

    async def fail(self, login: Login) -> list[str]:
        """Sign in with wrong credentials, and return the work that was done."""
        del self.work[:]
        answer = await self.api.http.get("/token", headers=login.basic)
        assert answer.status_code == 401
        return list(self.work)

    async def find_different(self, logins: dict[str, Login]) -> list[str]:
        """Return the logins whose work differs from that of an unknown user.

        The additional bcrypt hash of a user who was imported and has not signed in since then is
        visible, as documented.
        """
        await self.fail(UNKNOWN)  # the first request after a change reads the policy
        unknown = await self.fail(UNKNOWN)
        found = {what: await self.fail(login) for what, login in logins.items()}
        return [
            what
            for what, work in found.items()
            if [each for each in work if each != BCRYPT] != unknown
        ]

    def note(self, *args: Any) -> None:
        self.work.append(str(args[2]))


@pytest.fixture
async def watched(start_api: Started, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    async with start_api({**AUTH, "limits.failed_sign_ins": "0", "jobs.in_serve": "false"}) as api:
        watched = Watched(api, Accounts.of(api.opened))
        verify, check = PasswordHasher.verify, bcrypt.checkpw

        def hashed(self: PasswordHasher, stored: str, password: str) -> bool:
            watched.work.append(f"argon2 {extract_parameters(stored)}")
            return verify(self, stored, password)

        def checked(password: bytes, stored: bytes) -> bool:
            watched.work.append(BCRYPT)
            return check(password, stored)

        monkeypatch.setattr(PasswordHasher, "verify", hashed)
        monkeypatch.setattr(bcrypt, "checkpw", checked)
        writer = api.opened.database._writer
        assert isinstance(writer, SqliteWriter)
        with contextlib.ExitStack() as listening:
            for engine in (api.opened.database._reader, writer._engine):
                sa.event.listen(engine, "before_cursor_execute", watched.note)
                listening.callback(sa.event.remove, engine, "before_cursor_execute", watched.note)
            await watched.accounts.user("root", admin=True)
            await watched.accounts.user("known")
            yield watched


async def test_unknown_and_known_are_the_same_work(watched: Watched) -> None:
    accounts = watched.accounts
    people = accounts.access.users
    disabled = await accounts.user("disabled")
    await people.change("disabled", OPERATOR, disabled=True)
    await people.add("tokens.only", None, OPERATOR)
    imported = bcrypt.hashpw(b"her password", bcrypt.gensalt(5)).decode()
    await people.import_htpasswd([f"imported:{imported}"], OPERATOR)
    personal = await accounts.token("known")
    robot = await accounts.robot("ci")
    last = "0" if personal.secret[-1] != "0" else "1"
    logins = {
        "known": Login("known", "a guess"),
        "disabled": Login("disabled", "a guess"),
        "disabled, the right password": disabled,
        "without a password": Login("tokens.only", "a guess"),
        "imported": Login("imported", "a guess"),
        "imported, more than bcrypt reads": Login("imported", "x" * 80),
        "a robot": Login(robot.name, "a guess"),
        "no robot": Login("robot+none", "a guess"),
        "no name that could be": Login("No Name", "a guess"),
        "a secret that is nearly right": Login("known", personal.secret[:-1] + last),
        "another's secret": Login("root", personal.secret),
        "long": Login("known", "x" * 900),
    }
    unknown = await watched.fail(UNKNOWN)
    assert [each.partition(" ")[0] for each in unknown].count("argon2") == 1
    assert any("INSERT INTO audit_log" in each for each in unknown)
    assert await watched.find_different(logins) == []
    # A password in the form of a refresh token is looked up for any account.
    nobody = f"moorage_{'0' * 16}_{'0' * 64}"
    await watched.fail(Login("unknown", nobody))
    looked_up = await watched.fail(Login("unknown", nobody))
    assert await watched.fail(Login("known", nobody)) == looked_up


async def test_a_shorter_way_for_some_would_be_seen(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a cheaper hash and a missing hash are detected."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("her password")
    await watched.api.opened.database.write(
        lambda tx: users.insert(tx, "cheap", cheap, admin=False), actor=""
    )
    logins = {"known": Login("known", "a guess"), "cheap": Login("cheap", "a guess")}
    assert await watched.find_different(logins) == ["cheap"]
    verify = Passwords.verify

    async def hurried(self: Passwords, password: str, stored: str | None) -> bool:
        return stored is not None and await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", hurried)
    assert await watched.find_different(logins) == ["known", "cheap"]
