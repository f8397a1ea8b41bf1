"""Retention through the admin API, for content pushed and pulled through the registry API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry.services.retention import planner, retention
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts, bearer, get_token, signed
from tests.support.admin import Admin
from tests.support.clock import MovableClock
from tests.support.kit import Kit, find_job

pytestmark = pytest.mark.anyio

DAY = 86_400.0


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


@pytest.fixture
async def api(start_api: Started, movable_clock: MovableClock) -> AsyncIterator[Api]:
    del movable_clock  # replaces the clock before anything reads it
    # The test runs the jobs explicitly.
    async with start_api(AUTH | {"jobs.in_serve": "false"}) as started:
        yield started


async def sign_in(api: Api, root: Admin, *names: str) -> Kit:
    scopes = [f"repository:{name}:pull,push" for name in names]
    return signed(api.http, bearer(await get_token(api.http, root.login, *scopes)))


async def plan(root: Admin, **query: Any) -> dict[str, list[str]]:
    """Return the tags that the plan drops, by repository."""
    page = await root.send("GET", "/retention/plan", **query)
    return {
        each["repository"]: [tag["tag"] for tag in each["tags"] if tag["action"] == "drop"]
        for each in page["items"]
    }


async def test_what_is_pulled_in_any_way_stays(
    api: Api, root: Admin, movable_clock: MovableClock
) -> None:
    kit = await sign_in(api, root, "app")
    digests = {}
    for tag in ("got", "looked-at", "unchanged", "by-digest", "unused"):
        digests[tag], _ = await kit.push_image("app", tag, tag)
    movable_clock.forward(100 * DAY)
    kit = await sign_in(api, root, "app")
    path = "/v2/app/manifests"
    assert (await kit.http.get(f"{path}/got")).status_code == 200
    assert (await kit.http.head(f"{path}/looked-at")).status_code == 200
    etag = {"If-None-Match": f'"{digests["unchanged"]}"'}
    assert (await kit.http.get(f"{path}/unchanged", headers=etag)).status_code == 304
    assert (await kit.http.get(f"{path}/{digests['by-digest']}")).status_code == 200
    assert (await kit.http.get(f"{path}/unused-too")).status_code == 404
    await root.send("PUT", "/retention/rules", {"pattern": "**", "drop_not_pulled": "90d"})
    await root.send("POST", "/retention/rules/enable", {"pattern": "**"})
    # Pull times are only in memory until the next flush.
    assert await plan(root) == {"app": sorted(digests)}
    await api.opened.registry.pulls.flush()
    assert await plan(root) == {"app": ["unused"]}
    job = find_job(api.opened, "retention")
    assert await job.is_due()
    assert await job.run() == 1
    assert await job.run() == 0
    kit = await sign_in(api, root, "app")
    assert (await kit.http.get(f"{path}/unused")).status_code == 404
    assert (await kit.http.get(f"{path}/{digests['unused']}")).status_code == 200
    status = await root.send("GET", "/retention/status")
    assert (status["tags"], status["manifests"]) == (1, 0)
    assert status["started_at"] <= status["ended_at"] < status["due_at"]


async def test_rules_and_pages_of_plans(
    api: Api, root: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "team/c", "team/d"]
    kit = await sign_in(api, root, *names)
    for name in names:
        await kit.push_image(name, "one")
    assert await plan(root) == {}
    rules = {"pattern": "**", "drop": ["o*"]}
    shown = await root.send("PUT", "/retention/rules", rules)
    await root.send("PUT", "/retention/rules", {"pattern": "b", "keep_newest": 1, "by": "pull"})
    listed = await root.send("GET", "/retention/rules")
    assert [each["pattern"] for each in listed["items"]] == ["**", "b"]
    assert listed["items"][0] == shown
    assert await plan(root) == {"a": ["one"], "b": [], "team/c": ["one"], "team/d": ["one"]}
    assert await plan(root, pattern="team/*", n=1) == {"team/c": ["one"]}
    assert await plan(root, pattern="team/*", n=1, last="team/c") == {"team/d": ["one"]}
    page = await root.send("GET", "/retention/plan", n=3)
    assert page["next"] == "team/c"
    monkeypatch.setattr(planner, "MAX_ITEMS", 2)
    assert list(await plan(root)) == ["a", "b"]
    monkeypatch.setattr(planner, "MAX_SECONDS", -1.0)
    assert list(await plan(root)) == ["a"]
    assert "are not enabled" in await root.refused("POST", "/retention/run", {})
    await root.send("POST", "/retention/rules/enable", {"pattern": "**"})
    # A run is also done in batches.
    monkeypatch.setattr(retention, "SLICE_SECONDS", -1.0)
    pieces: list[int] = []
    last: str | None = ""
    while last is not None:
        piece = await root.send("POST", "/retention/run", {"last": last})
        pieces.append(piece["tags"])
        last = piece["next"]
    assert sum(pieces) == 3
    assert len(pieces) >= 3
    await root.send("POST", "/retention/rules/delete", {"pattern": "**"}, expect=204)
    assert "404 NOT_FOUND" in await root.refused(
        "POST", "/retention/rules/delete", {"pattern": "**"}
    )
    for body in (
        {"pattern": "**"},
        {"pattern": "**", "by": "pull"},
        {"pattern": "**", "keep": ["a/b"]},
        {"pattern": "**", "keep_newest": 0},
        {"pattern": "**", "drop_not_pulled": "soon"},
        {"pattern": "*/a", "drop": ["*"]},
    ):
        assert "400 INVALID" in await root.refused("PUT", "/retention/rules", body), body


async def test_a_registry_that_is_read_only_says_so(start_api: Started) -> None:
    async with start_api(AUTH | {"content.read_only": "true"}) as api:
        root = Admin(api.http, await Accounts.of(api.opened).user("root", admin=True))
        await root.send("PUT", "/retention/rules", {"pattern": "**", "drop": ["*"], "now": True})
        assert (await root.send("GET", "/retention/status"))["due_at"] is None
        assert "409 CONFLICT" in await root.refused("POST", "/retention/run", {})
