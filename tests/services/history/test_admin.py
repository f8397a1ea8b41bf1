"""Holds and immutable tags in the admin API, for administrators of a pattern."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.services.gc.conftest import Opening, Yard
from tests.services.history.conftest import OPERATOR
from tests.support.accounts import AUTH, Accounts, Login
from tests.support.admin import Admin
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

ASK = "ask an admin of this registry"
RAW = index_manifest([])
NAMES = ("team/app", "other", "team/web")


@pytest.fixture
async def closed(open_yard: Opening) -> AsyncIterator[Yard]:
    async with open_yard(AUTH) as opened:
        yield opened


async def sign_up(yard: Yard) -> tuple[Login, Login]:
    """Create an admin and an administrator of team/**, and push the manifest to each repository."""
    accounts = Accounts.of(yard.opened)
    root, carol = await accounts.user("root", admin=True), await accounts.user("carol")
    await accounts.grant("carol", "team/**", "admin")
    for name in NAMES:
        await yard.put_manifest(name, "latest", RAW, headers=root.basic)
    return root, carol


async def test_holds_are_seen_and_removed_within_what_she_administers(closed: Yard) -> None:
    root, carol = (Admin(closed.http, login) for login in await sign_up(closed))
    made = [
        await closed.opened.registry.holds.add(
            RepositoryName(name), Digest.of(RAW), f"for {name}", OPERATOR
        )
        for name in NAMES
    ]
    ids = [hold.id for hold in made]
    first = await carol.send("GET", "/holds", n=1)
    assert [hold["id"] for hold in first["items"]] == [ids[0]]
    second = await carol.send("GET", "/holds", n=1, last=first["next"])
    assert [hold["id"] for hold in second["items"]] == [ids[2]]
    assert second["next"] is None
    assert [hold["id"] for hold in (await root.send("GET", "/holds"))["items"]] == ids
    [other] = (await root.send("GET", "/holds", repository="other"))["items"]
    assert other["reason"] == "for other"
    for number in (ids[1], 987654321):
        assert await carol.refused("DELETE", f"/holds/{number}") == (
            f"403 DENIED: permission denied: requires admin on the repository of the hold; {ASK}"
        )
    assert "404 NOT_FOUND" in await root.refused("DELETE", "/holds/987654321")
    await carol.send("DELETE", f"/holds/{ids[0]}", expect=204)


async def test_what_cannot_be_held(closed: Yard) -> None:
    _, carol = (Admin(closed.http, login) for login in await sign_up(closed))
    good: dict[str, Any] = {"repository": "team/app", "digest": str(Digest.of(RAW)), "reason": "x"}
    for change, refusal in (
        ({"repository": "other"}, "403 DENIED"),
        ({"repository": "Team"}, "400 NAME_INVALID"),
        ({"digest": "sha256:12"}, "400 INVALID"),
        ({"digest": str(Digest.of(b""))}, "404 NOT_FOUND"),
        ({"reason": ""}, "400 INVALID"),
        ({"reason": "x" * 1001}, "400 INVALID"),
        ({"expires": "soon"}, "400 INVALID"),
    ):
        assert (await carol.refused("POST", "/holds", good | change)).startswith(refusal), change
    assert (await carol.send("POST", "/holds", good, expect=201))["created_by"] == "carol"


async def test_immutable_tags_within_what_she_administers(closed: Yard) -> None:
    root, carol = (Admin(closed.http, login) for login in await sign_up(closed))
    rule = {"pattern": "team/*", "tags": "v*"}
    made = await carol.send("POST", "/immutable-tags", rule, expect=201)
    assert made["created_by"] == "carol"
    assert (await carol.refused("POST", "/immutable-tags", rule)).startswith("409 CONFLICT")
    await root.send("POST", "/immutable-tags", {"pattern": "**", "tags": "*"}, expect=201)
    assert (await carol.send("GET", "/immutable-tags"))["items"] == [made]
    for wrong in ({"pattern": "team/**/x"}, {"tags": "a b"}, {"tags": ""}):
        refused = await root.refused("POST", "/immutable-tags", rule | wrong)
        assert refused.startswith("400 INVALID"), wrong
    for path in ("/immutable-tags", "/immutable-tags/delete"):
        assert await carol.refused("POST", path, {"pattern": "**", "tags": "*"}) == (
            f"403 DENIED: permission denied: requires admin on **; {ASK}"
        )
    await carol.send("POST", "/immutable-tags/delete", rule, expect=204)
    refused = await carol.refused("POST", "/immutable-tags/delete", rule)
    assert refused.startswith("404 NOT_FOUND")


async def test_tags_are_restored_within_what_she_administers(closed: Yard) -> None:
    root, carol = (Admin(closed.http, login) for login in await sign_up(closed))
    digest = str(Digest.of(RAW))
    tag: dict[str, Any] = {"repository": "team/app", "tag": "latest"}
    assert "has always pointed to the same manifest" in await carol.refused(
        "POST", "/tags/restore", tag
    )
    await closed.http.delete("/v2/team/app/manifests/latest", headers=root.login.basic)
    between = (await carol.send("GET", "/tags/history", **tag))["history"][0]["at"]
    answer = {"repository": "team/app", "tag": "latest", "digest": digest, "manifests": 0}
    assert await carol.send("POST", "/tags/restore", tag) == answer
    shown = await carol.send("GET", "/tags/history", **tag, n=2)
    assert (shown["repository"], shown["tag"]) == ("team/app", "latest")
    changes = [(line["actor"], line["digest"], line["state"]) for line in shown["history"]]
    assert changes == [("carol", digest, "present"), ("root", None, None)]
    [event] = (await root.send("GET", "/audit", actor="carol", event="tag.restore"))["items"]
    assert (event["event"], event["target"]) == ("tag.restore", "team/app:latest")
    for change, refusal in (
        ({"at": between}, "404 MANIFEST_UNKNOWN"),
        ({"digest": str(Digest.of(b""))}, "404 MANIFEST_UNKNOWN"),
        ({"digest": "sha256:12"}, "400 INVALID"),
        ({"digest": digest, "at": between}, "400 INVALID"),
        ({"at": "2026-11-23T19:12:00"}, "400 INVALID"),
        ({"at": "24h"}, "400 INVALID"),
        ({"tag": "a b"}, "400 NAME_INVALID"),
        ({"tag": "never"}, "404 NAME_UNKNOWN"),
        ({"repository": "Team"}, "400 NAME_INVALID"),
        ({"repository": "other"}, "403 DENIED"),
    ):
        assert (await carol.refused("POST", "/tags/restore", tag | change)).startswith(refusal)
    assert await carol.refused("GET", "/tags/history", repository="other", tag="latest") == (
        f"403 DENIED: permission denied: requires admin on other; {ASK}"
    )
    assert "404" in await carol.refused("GET", "/tags/history", repository="team/app", tag="never")


async def test_an_immutable_tag_is_restored_by_those_who_override_that(closed: Yard) -> None:
    root, carol = (Admin(closed.http, login) for login in await sign_up(closed))
    await closed.put_manifest("team/app", "latest", RAW + b" ", headers=root.login.basic)
    await root.send("POST", "/immutable-tags", {"pattern": "**", "tags": "*"}, expect=201)
    tag: dict[str, Any] = {"repository": "team/app", "tag": "latest"}
    assert "403 DENIED: latest is protected" in await carol.refused("POST", "/tags/restore", tag)
    restored = await carol.send("POST", "/tags/restore", tag | {"override": True})
    assert restored["digest"] == str(Digest.of(RAW))
    events = (await root.send("GET", "/audit", actor="carol"))["items"]
    events = [event for event in events if event["source"] == "audit"]
    assert [event["event"] for event in events] == ["immutable.override", "tag.restore"]


async def test_nothing_is_restored_in_a_registry_that_is_read_only(open_yard: Opening) -> None:
    async with open_yard({**AUTH, "content.read_only": "true"}) as yard:
        root = Admin(yard.http, await Accounts.of(yard.opened).user("root", admin=True))
        tag = {"repository": "team/app", "tag": "latest"}
        assert (await root.refused("POST", "/tags/restore", tag)).startswith("409 CONFLICT")
