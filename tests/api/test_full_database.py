"""`/token` if the database is too full for the audit log: 507 until there is space again."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa

from registry.errors import DatabaseFullError
from registry.metadata.access import audit
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.api.conftest import Started
from tests.support.accounts import AUTH, Accounts, Login, bearer, get_token
from tests.support.kit import codes

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("driver", ["memory"])]

SCOPE = "repository:team/app:pull"


@contextlib.asynccontextmanager
async def full(database: Database) -> AsyncIterator[None]:
    """Fill the database so that no event can be recorded and it reports a full disk."""

    async def run(*statements: str) -> None:
        await database.write(lambda tx: [tx.execute(sa.text(s)) for s in statements], actor="")

    if database.embedded:
        await run("PRAGMA max_page_count=1")  # SQLite raises this to the current number of pages
        for size in (1000, 100, 10, 0):
            with contextlib.suppress(DatabaseFullError):
                while True:
                    await database.write(lambda tx, n=size: book(tx, "x" * n), actor="")  # type: ignore[misc]
        yield
        await run("PRAGMA max_page_count=1000000")
    else:
        raising = "BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END"
        await run(
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {raising} $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON audit_log EXECUTE FUNCTION refuse()",
        )
        yield
        await run("DROP FUNCTION refuse CASCADE")


def book(tx: Transaction, text: str) -> None:
    audit.insert(tx, actor="", address="", request_id="", kind="", target="", detail=text)


async def test_a_full_database_is_507_however_a_token_is_asked_for(start_api: Started) -> None:
    async with start_api(AUTH) as api:
        accounts = Accounts.of(api.opened)
        ann = await accounts.user("ann")
        logins = [ann, await accounts.token("ann"), await accounts.robot("ci")]
        await accounts.grant("ann", "team/*", "pull")
        # Use other scopes than below, because a second event in the same minute needs no space.
        other = "repository:team/other:pull"
        token = await get_token(api.http, ann, SCOPE, other)
        offline = f"/token?offline_token=true&scope={other}"
        answer = await api.http.get(offline, headers=ann.basic)
        refresh = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
        typed = {"grant_type": "password", "username": "ann", "password": ann.secret}

        async def ask() -> list[httpx.Response]:
            get, post = api.http.get, api.http.post
            return [
                *[await get(f"/token?scope={SCOPE}", headers=login.basic) for login in logins],
                await get("/token?offline_token=true", headers=ann.basic),
                # Anonymous, twice: the first event was not stored, so the second is not a repeat.
                *[await get("/token") for _ in range(2)],
                await post("/token", data=typed),
                await post("/token", data={**typed, "access_type": "offline"}),
                await post("/token", data=refresh),
                await get("/token", headers=Login("ann", "a guess").basic),
            ]

        async with full(api.opened.database):
            for answer in await ask():
                assert answer.status_code == 507, (answer.request.url, answer.text)
                assert codes(answer) == ["UNAVAILABLE"]
                assert answer.headers["Retry-After"].isdigit()
            # Clients with a token or with Basic authentication can still pull.
            for headers in (bearer(token), *(login.basic for login in logins[:2])):
                answer = await api.http.get("/v2/team/app/manifests/x", headers=headers)
                assert answer.status_code == 404
        statuses = [answer.status_code for answer in await ask()]
        assert statuses == [200] * (len(statuses) - 1) + [401]
