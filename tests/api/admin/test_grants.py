"""Grants through the admin API, by admins and by users who administer some repositories."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.support.accounts import OPERATOR, Accounts
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio


def denial(need: str) -> str:
    return f"403 DENIED: permission denied: requires admin on {need}; ask an admin of this registry"


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
    await root.send("POST", "/grants/revoke", taken, expect=204)
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
        grant("al ice", "team", "pull"),
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
        assert await carol.refused("POST", "/grants", grant("carol", pattern, "pull")) == denial(
            pattern
        )
        assert await carol.refused("POST", "/grants/revoke", grant("x", pattern, "pull")) == denial(
            pattern
        )
    listed = [item["pattern"] for item in (await carol.send("GET", "/grants"))["items"]]
    assert listed == ["team/**", "team/app", "team/*", "team/**", "team/app/**"]
    ids = {g["pattern"]: g["id"] for g in (await root.send("GET", "/grants"))["items"]}
    for number in (ids["other"], 987654321):
        assert await carol.refused("DELETE", f"/grants/{number}") == denial(
            "the repositories of the grant"
        )
    await carol.send("DELETE", f"/grants/{ids['team/app']}", expect=204)
    query: dict[str, Any] = {"subject": "alice", "action": "pull"}
    assert (await carol.send("GET", "/grants/check", repository="team/x", **query))["allowed"]
    assert await carol.refused("GET", "/grants/check", repository="other", **query) == denial(
        "other"
    )


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


# The admin of a pattern learns nothing about other repositories


@pytest.fixture
async def carol(api: Api, root: Admin) -> Admin:
    """Return a caller who administers `team/**`."""
    accounts = Accounts.of(api.opened)
    login = await accounts.user("carol")
    await accounts.grant("carol", "team/**", "admin")
    return root.by(login)


async def test_a_check_does_not_tell_who_has_an_account(
    api: Api, root: Admin, carol: Admin
) -> None:
    accounts = Accounts.of(api.opened)
    for name in ("alice", "eve", "boss"):
        await accounts.user(name, admin=name == "boss")
    await api.opened.access.users.change("eve", OPERATOR, disabled=True)
    await accounts.robot("ci")
    await accounts.grant("authenticated", "**", "pull")
    for action, allowed in (("pull", True), ("push", False)):
        found = []
        for subject in ("alice", "eve", "boss", "nobody", "robot:ci", "robot:none"):
            asked: dict[str, Any] = {"subject": subject, "repository": "team/app", "action": action}
            decision = await carol.send("GET", "/grants/check", **asked)
            decision["reason"] = decision["reason"].replace(subject, "SUBJECT")
            found.append(decision)
        assert [each for each in found if each != found[0]] == []
        # The caller may not see the grant that decides.
        assert (found[0]["allowed"], found[0]["grants"]) == (allowed, [])
    query: dict[str, Any] = {"subject": "nobody", "repository": "team/app", "action": "pull"}
    assert "no user" in (await root.send("GET", "/grants/check", **query))["reason"]


async def test_a_check_tells_of_the_grants_within_the_pattern(api: Api, carol: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await accounts.user("alice")
    await accounts.grant("alice", "team/app", "pull,push")
    query: dict[str, Any] = {"subject": "alice", "repository": "team/app", "action": "push"}
    decision = await carol.send("GET", "/grants/check", **query)
    assert decision["allowed"]
    assert [each["pattern"] for each in decision["grants"]] == ["team/app"]


@pytest.mark.parametrize("subject", ["bob", "group:devs", "robot:ci"])
async def test_a_grant_does_not_tell_who_has_an_account(
    api: Api, root: Admin, carol: Admin, subject: str
) -> None:
    body = grant(subject, "team/app", "pull")
    assert "404" in await root.refused("POST", "/grants", body)
    made = await carol.send("POST", "/grants", body, expect=201)
    assert (made["subject"], made["actions"]) == (subject, ["pull"])
    # A new account with the same name inherits nothing.
    access = api.opened.access
    if subject == "bob":
        await access.users.add("bob", "a good password", OPERATOR)
    elif subject == "robot:ci":
        await access.robots.add("ci", None, OPERATOR)
    else:
        await access.groups.add("devs", OPERATOR)
    query: dict[str, Any] = {"subject": subject, "repository": "team/app", "action": "pull"}
    assert not (await root.send("GET", "/grants/check", **query))["allowed"]
    assert await carol.send("POST", "/grants", body, expect=201)
    assert (await root.send("GET", "/grants/check", **query))["allowed"]
