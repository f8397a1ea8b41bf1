"""Grants through the admin API, by admins and by those who administer a part."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio

DENIED = "403 DENIED: the right for this is missing"


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


def grant(subject: str, pattern: str, *actions: str) -> dict[str, Any]:
    return {"subject": subject, "pattern": pattern, "actions": list(actions)}


async def test_a_grant_from_first_to_last(api: Api, root: Admin) -> None:
    await Accounts.of(api.opened).user("alice")
    made = await root.send("POST", "/grants", grant("alice", "team/**", "pull"), expect=201)
    more = await root.send("POST", "/grants", grant("alice", "team/**", "push"), expect=201)
    assert more == made | {"actions": ["pull", "push"]}
    assert (await root.send("GET", "/grants"))["items"] == [more]
    query: dict[str, Any] = {"subject": "alice", "repository": "team/app"}
    decision = await root.send("GET", "/grants/check", action="push", **query)
    assert decision == {"allowed": True, "reason": "granted", "grants": [more]}
    taken = grant("alice", "team/**", "overwrite")
    await root.send("POST", "/grants/remove", taken, expect=204)
    assert not (await root.send("GET", "/grants/check", action="push", **query))["allowed"]
    assert (await root.send("GET", "/grants/check", action="create", **query))["allowed"]
    await root.send("DELETE", f"/grants/{made['id']}", expect=204)
    assert "no grant" in await root.refused("DELETE", f"/grants/{made['id']}")
    assert (await root.send("GET", "/grants"))["items"] == []


async def test_what_cannot_be_granted(api: Api, root: Admin) -> None:
    await Accounts.of(api.opened).user("alice")
    for body in (
        grant("alice", "Team", "pull"),
        grant("alice", "team/**/x", "pull"),
        grant("alice", "team", "pul"),
        grant("alice", "team"),
        grant("nobody:alice", "team", "pull"),
        grant("Alice", "team", "pull"),
        grant("anonymous", "team", "push"),
        grant("alice", "\0", "pull"),
        grant("alice", "team", "pull") | {"id": 7},
    ):
        assert (await root.refused("POST", "/grants", body)).startswith("400 INVALID: "), body
    for subject in ("bob", "group:devs", "robot:ci"):
        assert "404 NOT_FOUND" in await root.refused("POST", "/grants", grant(subject, "x", "pull"))


async def test_who_administers_a_pattern_stays_within_it(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    carol = root.by(await accounts.user("carol"))
    await accounts.grant("carol", "team/**", "admin")
    await accounts.user("alice")
    await accounts.grant("alice", "other", "pull")
    for pattern in ("team/app", "team/*", "team/**", "team/app/**"):
        await carol.send("POST", "/grants", grant("alice", pattern, "admin"), expect=201)
    for pattern in ("**", "*", "team", "other", "teams/**", "team-2/app"):
        assert await carol.refused("POST", "/grants", grant("carol", pattern, "pull")) == DENIED
        assert await carol.refused("POST", "/grants/remove", grant("x", pattern, "pull")) == DENIED
    listed = [item["pattern"] for item in (await carol.send("GET", "/grants"))["items"]]
    assert listed == ["team/**", "team/app", "team/*", "team/**", "team/app/**"]
    ids = {g["pattern"]: g["id"] for g in (await root.send("GET", "/grants"))["items"]}
    for number in (ids["other"], 987654321):
        assert await carol.refused("DELETE", f"/grants/{number}") == DENIED
    await carol.send("DELETE", f"/grants/{ids['team/app']}", expect=204)
    query: dict[str, Any] = {"subject": "alice", "action": "pull"}
    assert (await carol.send("GET", "/grants/check", repository="team/x", **query))["allowed"]
    assert await carol.refused("GET", "/grants/check", repository="other", **query) == DENIED


async def test_pages_skip_what_is_not_hers(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    carol = root.by(await accounts.user("carol"))
    await accounts.grant("carol", "team/**", "admin")
    for number in range(6):
        await accounts.grant("carol", f"{'team' if number % 2 else 'other'}/{number}", "pull")
    first = await carol.send("GET", "/grants", n=3)
    assert [g["pattern"] for g in first["items"]] == ["team/**", "team/1", "team/3"]
    second = await carol.send("GET", "/grants", n=3, last=first["next"])
    assert [g["pattern"] for g in second["items"]] == ["team/5"]
    assert second["next"] is None
    assert (await root.send("GET", "/grants", subject="authenticated"))["items"] == []
    assert len((await root.send("GET", "/grants", subject="carol"))["items"]) == 7


async def test_grant_ids_that_are_none(root: Admin) -> None:
    for number in ("x", "-1", "1.5", str(1 << 63), "9" * 5000, "1_0"):
        assert (await root.refused("DELETE", f"/grants/{number}")).startswith("400 INVALID: ")
    assert "404" in await root.refused("DELETE", f"/grants/{(1 << 63) - 1}")
