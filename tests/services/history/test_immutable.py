"""Immutable tags cannot be moved or deleted in any way without an override."""

import asyncio

import pytest

from registry.auth.policy.principals import OPERATOR as PRINCIPAL
from registry.errors import ProtectedError
from registry.metadata import tables
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest
from tests.services.gc.conftest import Opening, Yard
from tests.services.history.conftest import NAME, OPERATOR, Seal, delete, list_audited
from tests.support.accounts import AUTH, Accounts
from tests.support.audit_log import read_audit
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio

OVERRIDE = {"Moorage-Override": "immutable"}


def index(seed: object) -> bytes:
    """Return a manifest that references nothing."""
    return index_manifest([], annotations={"seed": str(seed)})


async def put(yard: Yard, reference: str, seed: object, **headers: str) -> int:
    answer = await yard.put_manifest("app", reference, index(seed), headers=headers)
    return answer.status_code


async def read(yard: Yard) -> dict[str, str]:
    return {row.name: str(row.digest) for row in await yard.list_rows(tables.tags)}


async def test_an_error_lists_some_of_what_is_protected(yard: Yard, seal: Seal) -> None:
    tags = "&".join(f"tag=v{n:02}" for n in range(30))
    await put(yard, f"{Digest.of(index('one'))}?{tags}", "one")
    await seal(yard, "*", "v*")
    answer = await delete(yard, "app", Digest.of(index("one")))
    [error] = answer.json()["errors"]
    assert error["detail"]["count"] == 30
    assert list(error["detail"]["protected"]) == [f"v{n:02}" for n in range(20)]


async def test_such_a_tag_stays(yard: Yard, seal: Seal) -> None:
    await put(yard, "v1", "one")
    await put(yard, "latest", "one")
    await seal(yard, "*", "v*")
    before = await read(yard)
    answer = await yard.put_manifest("app", "v1", index("two"))
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    error = answer.json()["errors"][0]
    denied = "requested access to the resource is denied"
    assert error["message"] == f"{denied}: v1 is protected: tags v* are immutable in *"
    assert error["detail"] == {"protected": {"v1": "tags v* are immutable in *"}, "count": 1}
    for reference in ("v1", Digest.of(index("one"))):
        answer = await delete(yard, "app", reference)
        assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    # A push of several tags sets all of them or none.
    new = Digest.of(index("two"))
    assert await put(yard, f"{new}?tag=latest&tag=v1&tag=v2", "two") == 403
    assert await read(yard) == before
    assert not await yard.has_manifest("app", new)
    # Allowed: the same digest again, a new tag, and a tag that matches no rule.
    assert await put(yard, "v1", "one") == 201
    assert await put(yard, "v2", "two") == 201
    assert await put(yard, "latest", "two") == 201
    assert (await delete(yard, "app", "latest")).status_code == 202


async def test_by_no_other_way_either(yard: Yard, seal: Seal) -> None:
    await put(yard, "v1", "one")
    await put(yard, "v1", "two")
    await put(yard, "other", "two")
    await seal(yard, "**", "v*")
    registry, v1 = yard.opened.registry, Tag("v1")
    one = Digest.of(index("one"))
    with pytest.raises(ProtectedError):
        await registry.tags.copy(NAME, one, NAME, v1, PRINCIPAL)
    with pytest.raises(ProtectedError):
        await registry.history.restore(NAME, v1, OPERATOR)
    with pytest.raises(ProtectedError):
        await registry.repositories.delete(NAME, PRINCIPAL)
    assert (await read(yard))["v1"] == str(Digest.of(index("two")))
    restored = await registry.history.restore(NAME, v1, OPERATOR, override=True)
    assert restored.digest == one
    await registry.repositories.delete(NAME, PRINCIPAL, OPERATOR)
    assert await read(yard) == {}
    assert await list_audited(yard, "immutable.override") == [("immutable.override", "app:v1")] * 2


async def test_rules_are_of_patterns_and_go_again(yard: Yard, seal: Seal) -> None:
    await seal(yard, "team/**", "[0-9]*")
    await seal(yard, "team/*", "1.?")
    for name, reference, status in (
        ("team/app", "1.0", 403),
        ("team/app", "v1.0", 201),
        ("team/app/web", "2.0", 403),
        ("app", "1.0", 201),
        ("teams/app", "1.0", 201),
    ):
        await yard.put_manifest(name, reference, index("one"))
        answer = await yard.put_manifest(name, reference, index("two"))
        assert (name, reference, answer.status_code) == (name, reference, status)
    rules = await yard.opened.registry.immutable_tags.list_page(9)
    assert [(rule.pattern, rule.tags) for rule in rules] == [
        ("team/**", "[0-9]*"),
        ("team/*", "1.?"),
    ]


async def test_who_administers_the_repository_may_override(open_yard: Opening, seal: Seal) -> None:
    async with open_yard(AUTH) as yard:
        accounts = Accounts.of(yard.opened)
        admin = await accounts.user("root", admin=True)
        pusher = await accounts.user("ann")
        await accounts.grant("ann", "app", "pull,push,delete")
        assert await put(yard, "v1", "one", **pusher.basic) == 201
        await seal(yard, "app", "*")
        assert await put(yard, "v1", "two", **admin.basic) == 403
        assert await put(yard, "v1", "two", **pusher.basic, **OVERRIDE) == 403
        assert await put(yard, "v1", "two", **admin.basic, **{"Moorage-Override": "all"}) == 400
        assert (await delete(yard, "app", "v1", **pusher.basic, **OVERRIDE)).status_code == 403
        assert await list_audited(yard, "immutable.override") == []
        assert await put(yard, "v1", "two", **admin.basic, **OVERRIDE) == 201
        assert await put(yard, "v1", "two", **admin.basic, **OVERRIDE) == 201  # no change
        digest = Digest.of(index("two"))
        assert (await delete(yard, "app", digest, **admin.basic, **OVERRIDE)).status_code == 202
        assert await read(yard) == {}
        [event, _] = [
            row
            for row in await read_audit(yard.opened.access.audit)
            if row.kind == "immutable.override"
        ]
        assert (event.actor, event.target) == ("root", "app:v1")
        assert event.address
        assert "tags * are immutable in app" in event.detail


async def test_of_many_at_once_one_makes_it(yard: Yard, seal: Seal) -> None:
    await seal(yard, "**", "*")
    for tag in ("v1", "v2", "v3"):
        found = await asyncio.gather(*(put(yard, tag, number) for number in range(16)))
        assert sorted(found) == [201] + [403] * 15
        [won] = [number for number, status in enumerate(found) if status == 201]
        assert (await read(yard))[tag] == str(Digest.of(index(won)))


async def test_once_a_rule_is_made_nothing_moves(yard: Yard, seal: Seal) -> None:
    """A push that has already read the rules must not commit after a new rule."""
    for name in ("a", "b", "c"):
        moving = [asyncio.create_task(put(yard, name, number)) for number in range(12)]
        await asyncio.wait(moving, return_when=asyncio.FIRST_COMPLETED)
        await seal(yard, "app", name)
        at_once = (await read(yard))[name]
        await asyncio.gather(*moving)
        assert (await read(yard))[name] == at_once


async def test_the_rules_stay_apart_from_repositories(yard: Yard, seal: Seal) -> None:
    """A rule that is older than its repository applies to it."""
    await seal(yard, "later", "v*")
    for seed, status in (("one", 201), ("two", 403)):
        answer = await yard.put_manifest("later", "v1", index(seed))
        assert answer.status_code == status
    with pytest.raises(ProtectedError):
        await yard.opened.registry.repositories.delete(RepositoryName("later"), PRINCIPAL)
