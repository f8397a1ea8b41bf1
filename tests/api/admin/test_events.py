"""Pushes and deletions in the admin API: events of the audit log and the change feed."""

from typing import Any

import pytest

from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.oci.names import RepositoryName
from tests.api.conftest import Api
from tests.support.accounts import Accounts, Login, bearer, get_token
from tests.support.admin import Admin
from tests.support.kit import Kit

pytestmark = pytest.mark.anyio


def by(api: Api, login: Login) -> Kit:
    api.http.headers.update(login.basic)
    return Kit(api.http)


def names(page: Any) -> list[str]:
    return [f"{event['actor']} {event['event']} {event['target']}" for event in page["items"]]


async def write(
    database: Database, tx_actor: str, *changes: tuple[Change, str, str | None]
) -> None:
    def work(tx: Transaction) -> None:
        for kind, name, tag in changes:
            tx.record_change(kind, RepositoryName(name), "generation", tag=tag)

    await database.write(work, actor=tx_actor)


async def test_pushes_and_deletions_by_clients_are_events(api: Api, root: Admin) -> None:
    kit = by(api, root.login)
    digest, _ = await kit.push_image("team/app", "v1")
    answer = await kit.http.delete("/v2/team/app/manifests/v1")
    assert answer.status_code == 202
    answer = await kit.http.delete(f"/v2/team/app/manifests/{digest}")
    assert answer.status_code == 202
    page = await root.send("GET", "/audit", event="repository.*,manifest.*,tag.*")
    assert names(page) == [
        "root repository.create team/app",
        f"root manifest.put team/app@{digest}",
        "root tag.set team/app:v1",
        "root tag.delete team/app:v1",
        f"root manifest.delete team/app@{digest}",
    ]
    assert page["items"][2]["detail"] == {"digest": str(digest)}
    assert page["items"][3]["detail"] == {"old_digest": str(digest)}
    # The blobs of a push are listed only if the filter asks for them.
    assert "blob.link" not in {e["event"] for e in (await root.send("GET", "/audit"))["items"]}
    assert len((await root.send("GET", "/audit", event="blob.*"))["items"]) == 3


async def test_pages_of_both_sources_skip_nothing_and_repeat_nothing(api: Api, root: Admin) -> None:
    for number in range(4):
        await root.send("POST", "/robots", {"name": f"ci{number}"}, expect=201)
        await write(api.opened.database, "ann", (Change.TAG_SET, "team/app", f"v{number}"))
    whole = (await root.send("GET", "/audit"))["items"]
    assert [event["at"] for event in whole] == sorted(event["at"] for event in whole)
    assert {event["source"] for event in whole} == {"audit", "feed"}
    for newest_first in (False, True):
        found: list[Any] = []
        last: str | None = ""
        while last is not None:
            page = await root.send(
                "GET", "/audit", n=3, last=last, newest_first=str(newest_first).lower()
            )
            found += page["items"]
            last = page["next"]
        assert found == (whole[::-1] if newest_first else whole)
    since = await root.send("GET", "/audit", since=whole[-2]["at"])
    assert since["items"] == whole[-2:]


async def test_events_are_filtered(api: Api, root: Admin) -> None:
    database = api.opened.database
    await write(database, "ann", (Change.TAG_DELETE, "team/app", "v1"))
    await write(database, "ben", (Change.TAG_DELETE, "team/app/deep", "v1"))
    await write(database, "ben", (Change.TAG_SET, "team0/app", "v1"))
    await root.send("PUT", "/quotas", {"pattern": "team/**", "limit": 1 << 30})
    asked: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({"actor": "ann"}, ["ann tag.delete team/app:v1"]),
        ({"event": "tag.set"}, ["ben tag.set team0/app:v1"]),
        ({"event": "user.*, tag.set"}, ["operator user.create root", "ben tag.set team0/app:v1"]),
        ({"repository": "team/app"}, ["ann tag.delete team/app:v1"]),
        ({"repository": "team/*"}, ["ann tag.delete team/app:v1", "root quota.set team/**"]),
        (
            {"repository": "team/**", "event": "tag.*"},
            ["ann tag.delete team/app:v1", "ben tag.delete team/app/deep:v1"],
        ),
        ({"repository": "root"}, []),
    )
    for query, found in asked:
        assert names(await root.send("GET", "/audit", **query)) == found, query
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"event": "tag.moved"}, "unknown event 'tag.moved'; events are "),
        ({"repository": "Team"}, "invalid pattern"),
        ({"last": "7"}, "invalid `last`: use the value from `next`"),
        ({"since": "1"}, "since: expected a time with a UTC offset"),
    )
    for query, said in wrong:
        refused = await root.refused("GET", "/audit", **query)
        assert refused.startswith("400 INVALID: "), query
        assert said in refused


async def test_who_administers_a_part_sees_what_happened_there(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    carol = root.by(await accounts.user("carol"))
    await accounts.grant("carol", "team/**", "admin")
    await write(api.opened.database, "ann", (Change.TAG_SET, "team/app", "v1"))
    await write(api.opened.database, "ann", (Change.TAG_SET, "other/app", "v1"))
    await root.send("POST", "/immutable-tags", {"pattern": "team/**", "tags": "v*"}, expect=201)
    await root.send("POST", "/immutable-tags", {"pattern": "**", "tags": "v*"}, expect=201)
    seen = names(await carol.send("GET", "/audit"))
    assert seen == [
        "ann tag.set team/app:v1",
        "root immutable.create team/**",
    ]
    assert names(await carol.send("GET", "/audit", repository="team/app")) == seen[:1]
    assert names(await carol.send("GET", "/audit", repository="other/**")) == []
    bounded = root.by(await accounts.token("carol", bounds=[("**", "admin")]))
    assert (await bounded.refused("GET", "/audit")).startswith("403 DENIED")
    robot = root.by(await accounts.robot("ci"))
    assert (await robot.refused("GET", "/audit")).startswith("403 DENIED")


async def test_a_push_without_the_right_names_it_and_whom_to_ask(api: Api) -> None:
    alice = await Accounts.of(api.opened).user("alice")
    need = "requires push on team/app; ask an admin of this registry or of team/app"
    path = "/v2/team/app/blobs/uploads/"
    answer = await api.http.post(path, headers=alice.basic)
    assert answer.status_code == 403
    assert need in answer.json()["errors"][0]["message"]
    # The refusal of a token also names the permission, if no other token would help.
    token = await get_token(api.http, alice, "repository:team/app:pull,push")
    answer = await api.http.post(path, headers=bearer(token))
    assert answer.status_code == 401
    assert need in answer.json()["errors"][0]["message"]
