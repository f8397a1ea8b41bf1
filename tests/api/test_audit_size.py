"""Clients can make the audit log grow only a little, no matter how much they send."""

import json
from collections.abc import AsyncIterator

import pytest

from registry import clock
from registry.logs import LONGEST_FIELD
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts, Login, get_token, signed
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio

PULL = "repository:team/app:pull"
OFFLINE = {"offline_token": "true"}
LONG = "x" * (1 << 20)


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the minutes that a stopped clock has been moved forward."""
    gone = [0]
    start = clock.now_us() // 60_000_000 * 60_000_000
    monkeypatch.setattr(clock, "now_us", lambda: start + gone[0] * 60_000_000)
    return gone


@pytest.fixture
async def api(start_api: Started, minutes: list[int]) -> AsyncIterator[Api]:
    del minutes
    async with start_api(AUTH | {"http.trusted_proxies": "127.0.0.1"}) as started:
        yield started


@pytest.fixture
async def alice(api: Api) -> Login:
    accounts = Accounts.of(api.opened)
    login = await accounts.user("alice", admin=True)
    await accounts.user("bob", admin=True)
    return login


async def list_issued(api: Api, alice: Login) -> list[dict[str, object]]:
    page = await Admin(api.http, alice).send("GET", "/audit", event="token.issue")
    return [
        {"target": event["target"], "count": event["detail"].get("count", 1)}
        for event in page["items"]
    ]


async def test_tokens_alike_in_a_minute_are_one_event(api: Api, alice: Login) -> None:
    tokens = {await get_token(api.http, alice, PULL) for _ in range(5)}
    assert len(tokens) == 5
    assert await list_issued(api, alice) == [{"target": PULL, "count": 5}]


async def test_other_tokens_are_other_events(api: Api, alice: Login, minutes: list[int]) -> None:
    await get_token(api.http, alice, PULL)
    await get_token(api.http, alice, PULL, "repository:team/web:pull")
    await get_token(api.http, alice, "repository:team/web:pull", PULL)
    await get_token(api.http, alice, PULL, **OFFLINE)
    await get_token(api.http, Login("bob", "the password of bob"), PULL)
    elsewhere = signed(api.http, {"X-Forwarded-For": "192.0.2.9"})
    await get_token(elsewhere.http, alice, PULL)
    assert [event["count"] for event in await list_issued(api, alice)] == [1, 2, 1, 1, 1]
    minutes[0] += 1
    await get_token(api.http, alice, PULL)
    assert len(await list_issued(api, alice)) == 6


async def test_fields_of_the_audit_log_are_cut(api: Api, alice: Login) -> None:
    names = [f"team/{'a' * 100}-{i}" for i in range(30)]
    scopes = [f"repository:{name}:pull" for name in names]
    await get_token(api.http, alice, *scopes, client_id=LONG[:2000])
    [event] = (await Admin(api.http, alice).send("GET", "/audit", event="token.issue"))["items"]
    assert event["target"] == f"{scopes[0]} and 29 more"
    assert len(event["detail"]["client"]) <= LONGEST_FIELD
    # Texts of admins can be long too.
    digest, _ = await signed(api.http, alice.basic).push_image("team/app", "v1")
    body = {"repository": "team/app", "digest": str(digest), "reason": "y" * 500}
    await Admin(api.http, alice).send("POST", "/holds", body, expect=201)
    [event] = (await Admin(api.http, alice).send("GET", "/audit", event="hold.create"))["items"]
    assert len(event["detail"]["reason"]) == LONGEST_FIELD
    assert event["detail"]["reason"].endswith("…")
    assert len(json.dumps(event)) < 2000
