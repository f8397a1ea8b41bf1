"""Repositories, tags and usage through the admin API, by callers with grants and with tokens."""

from collections.abc import Iterable
from typing import Any

import pytest

from registry.auth.policy import principals
from registry.auth.policy.patterns import RepositoryPattern
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.oci.tag_patterns import TagPattern
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, OPERATOR, Accounts
from tests.support.admin import Admin
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

RAW = index_manifest([])
OTHER = index_manifest([]) + b" "
DIGEST = str(Digest.of(RAW))


async def push(api: Api, names: Iterable[str], tag: str = "v1", raw: bytes = RAW) -> None:
    for name in names:
        await api.opened.registry.manifests.put(
            RepositoryName(name), raw, None, principals.OPERATOR, set_tags=[Tag(tag)]
        )


async def list_all(caller: Admin, path: str, **query: Any) -> list[str]:
    """Return all entries of a list, read with pages of two."""
    found: list[str] = []
    last = ""
    while True:
        page = await caller.send("GET", path, n=2, last=last, **query)
        found += page["items"]
        if page["next"] is None:
            return found
        assert len(page["items"]) == 2
        last = page["next"]


def copying(source: str, target: str, **more: Any) -> dict[str, Any]:
    """Return the body of a copy from `REPOSITORY:TAG` to `REPOSITORY:TAG`."""
    source_repository, _, reference = source.partition(":")
    repository, _, tag = target.partition(":")
    return {
        "source_repository": source_repository,
        "source_reference": reference,
        "repository": repository,
        "tag": tag,
        **more,
    }


async def test_a_list_has_the_repositories_that_the_caller_may_see(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    names = [f"team/{letter}" for letter in "abcde"]
    await push(api, ["before", *names, "other/app", "secret", "team/a/deep"])
    alice = root.by(await accounts.user("alice"))
    assert await list_all(alice, "/repositories") == []
    await accounts.grant("alice", "team/*", "pull")
    await accounts.grant("alice", "other/**", "admin")
    await accounts.grant("alice", "secret", "create")
    assert await list_all(alice, "/repositories") == ["other/app", *names]
    bounds = [("team/b", "pull"), ("secret", "pull"), ("other/**", "push")]
    bounded = root.by(await accounts.token("alice", "laptop", bounds))
    assert await list_all(bounded, "/repositories") == ["team/b"]
    robot = root.by(await accounts.robot("ci"))
    assert await list_all(robot, "/repositories") == []
    await accounts.grant("anonymous", "before", "pull")
    assert await list_all(robot, "/repositories") == ["before"]
    everything = sorted(["before", *names, "other/app", "secret", "team/a/deep"])
    assert await list_all(root, "/repositories") == everything


async def test_a_repository_is_described_to_who_may_pull(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await push(api, ["team/app"])
    for tag in ("v2", "v3"):
        await push(api, ["team/app"], tag, OTHER)
    alice = root.by(await accounts.user("alice"))
    await accounts.grant("alice", "team/**", "pull")
    found = await alice.send("GET", "/repositories/details", repository="team/app")
    assert found.pop("created_at").endswith("Z")
    assert found == {
        "name": "team/app",
        "tags": 3,
        "manifests": 2,
        "blobs": 0,
        "bytes": len(RAW) + len(OTHER),
    }
    assert await list_all(alice, "/tags", repository="team/app") == ["v1", "v2", "v3"]
    for path in ("/repositories/details", "/tags"):
        assert await alice.refused("GET", path, repository="team/none") == (
            "404 NAME_UNKNOWN: no repository team/none"
        )
        assert "400 NAME_INVALID" in await alice.refused("GET", path, repository="Team")
        there, gone = [
            await alice.refused("GET", path, repository=name) for name in ("other", "gone")
        ]
        assert there.replace("other", "gone") == gone
        assert there.startswith("403 DENIED: permission denied: requires pull on other")


async def test_a_copy_needs_pull_on_the_source_and_push_on_the_target(
    api: Api, root: Admin
) -> None:
    accounts = Accounts.of(api.opened)
    await push(api, ["team/app", "secret"])
    await push(api, ["secret"], "v2", OTHER)
    alice = root.by(await accounts.user("alice"))
    await accounts.grant("alice", "team/**", "pull")
    await accounts.grant("alice", "prod/**", "pull,create")
    body = copying("team/app:v1", "prod/app:v1")
    done = await alice.send("POST", "/tags/copy", body)
    assert done == {"repository": "prod/app", "tag": "v1", "digest": DIGEST}
    for source, target in (("secret:v1", "prod/app:v9"), ("team/app:v1", "team/app:v9")):
        refused = await alice.refused("POST", "/tags/copy", copying(source, target))
        assert refused.startswith("403 DENIED: permission denied: requires pull on ")
    # Without `overwrite`, a tag can be set again, but not moved.
    await alice.send("POST", "/tags/copy", body)
    await accounts.grant("alice", "secret", "pull")
    moving = copying("secret:v2", "prod/app:v1")
    assert "403 DENIED" in await alice.refused("POST", "/tags/copy", moving)
    await accounts.grant("alice", "prod/**", "overwrite")
    await alice.send("POST", "/tags/copy", moving)
    robot = root.by(await accounts.robot("ci"))
    assert "403 DENIED" in await robot.refused("POST", "/tags/copy", moving)
    await accounts.grant("robot:ci", "**", "pull,push")
    assert (await robot.send("POST", "/tags/copy", body))["digest"] == DIGEST
    feed = await root.send("GET", "/audit", event="tag.*", repository="prod/app")
    assert [event["actor"] for event in feed["items"]] == ["alice", "alice", "alice", "robot+ci"]


async def test_an_immutable_tag_needs_admin_and_override(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await push(api, ["team/app"])
    await push(api, ["team/app"], "v2", OTHER)
    pattern = RepositoryPattern.parse("team/app")
    await api.opened.registry.immutable_tags.add(pattern, TagPattern("v*"), OPERATOR)
    alice = root.by(await accounts.user("alice"))
    carol = root.by(await accounts.user("carol"))
    await accounts.grant("alice", "team/**", "pull,push,delete")
    await accounts.grant("carol", "team/**", "admin")
    named = {"repository": "team/app", "tag": "v2"}
    for path, body in (
        ("/tags/copy", copying("team/app:v1", "team/app:v2")),
        ("/tags/delete", named),
        ("/repositories/delete", {"repository": "team/app"}),
    ):
        assert "protected" in await carol.refused("POST", path, body)
        forced = body | {"override": True}
        assert "requires" in await alice.refused("POST", path, forced)
        await carol.send("POST", path, forced)
    events = (await root.send("GET", "/audit", event="immutable.override"))["items"]
    assert [(event["actor"], event["target"]) for event in events] == [
        ("carol", "team/app:v2"),
        ("carol", "team/app:v2"),
        ("carol", "team/app:v1"),
    ]


async def test_a_tag_is_deleted_by_who_may_delete(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await push(api, ["team/app"])
    alice = root.by(await accounts.user("alice"))
    await accounts.grant("alice", "team/**", "pull,push")
    body = {"repository": "team/app", "tag": "v1"}
    refused = await alice.refused("POST", "/tags/delete", body)
    assert refused.startswith("403 DENIED: permission denied: requires delete on team/app")
    await accounts.grant("alice", "team/**", "delete")
    assert await alice.send("POST", "/tags/delete", body) == body | {"digest": DIGEST}
    assert "404 MANIFEST_UNKNOWN" in await alice.refused("POST", "/tags/delete", body)
    unknown = {"repository": "team/none", "tag": "v1"}
    assert "404 NAME_UNKNOWN" in await alice.refused("POST", "/tags/delete", unknown)
    refused = await alice.refused("POST", "/repositories/delete", {"repository": "team/app"})
    assert refused.startswith("403 DENIED: permission denied: requires admin on team/app")
    deleted = await root.send("POST", "/repositories/delete", {"repository": "team/app"})
    counts = {"tags": 0, "manifests": 1, "blobs": 0, "bytes": len(RAW)}
    assert deleted == {"repository": "team/app", **counts}


async def test_settings_that_forbid_deletion_and_changes(start_api: Started) -> None:
    body = {"repository": "team/app", "tag": "v1"}
    async with start_api({**AUTH, "content.allow_delete": "false"}) as api:
        accounts = Accounts.of(api.opened)
        root = Admin(api.http, await accounts.user("root", admin=True))
        alice = root.by(await accounts.user("alice"))
        await accounts.grant("alice", "team/**", "pull,delete")
        await push(api, ["team/app"])
        assert "content.allow_delete" in await alice.refused("POST", "/tags/delete", body)
        await root.send("POST", "/tags/delete", body)
        await push(api, ["team/app"])
    async with start_api({**AUTH, "content.read_only": "true"}) as api:
        for path, sent in (
            ("/tags/delete", body),
            ("/tags/copy", copying("team/app:v1", "team/app:v2")),
            ("/repositories/delete", {"repository": "team/app"}),
        ):
            reader = Admin(api.http, root.login)
            assert "read-only" in await reader.refused("POST", path, sent)


async def test_usage(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await push(api, ["team/app", "other/app"])
    report = await root.send("GET", "/usage", n=1)
    assert report["stored"]["manifests"] == 2
    carol = root.by(await accounts.user("carol"))
    await accounts.grant("carol", "team/**", "admin")
    mine = {"tags": [{"repository": "team/app", "tag": "v1"}]}
    freed = await carol.send("POST", "/usage/freed", mine)
    assert freed == {"blobs": 0, "bytes": 0, "manifests": 1, "manifest_bytes": len(RAW)}
    both = {"tags": [*mine["tags"], {"repository": "other/app", "tag": "v1"}]}
    assert "requires admin on" in await carol.refused("POST", "/usage/freed", both)
    assert (await root.send("POST", "/usage/freed", both))["manifests"] == 2
    unknown = {"tags": [{"repository": "team/app", "tag": "v9"}]}
    assert "no tag team/app:v9" in await carol.refused("POST", "/usage/freed", unknown)
    assert "400 INVALID" in await root.refused("POST", "/usage/freed", {"tags": []})
    assert "400 INVALID" in await root.refused("GET", "/usage", n=0)
