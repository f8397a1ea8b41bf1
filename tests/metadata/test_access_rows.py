"""Tests of users, permissions and keys as rows: unique, and deleted with their owners."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.access import (
    audit,
    failed_sign_ins,
    grants,
    groups,
    key_store,
    policy,
    refresh_tokens,
    robots,
    secrets,
    signing_keys,
    users,
)
from registry.metadata.access.audit import AuditRow
from registry.metadata.access.groups import GroupRow
from registry.metadata.access.policy import Removal
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.signing_keys import KeyState
from registry.metadata.access.users import UserRow
from registry.metadata.content import blobs, repositories, uploads
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import (
    NAME,
    add_access,
    add_blob,
    digest,
    find,
    race,
    read_pages,
    rows,
    upload,
    void,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def get_user(tx: Transaction, name: str) -> UserRow:
    row = users.find(tx, name)
    assert row is not None
    return row


def get_group(tx: Transaction, name: str) -> GroupRow:
    row = groups.find(tx, name)
    assert row is not None
    return row


def get_robot(tx: Transaction, name: str) -> RobotRow:
    row = robots.find(tx, name)
    assert row is not None
    return row


def add_user(tx: Transaction, name: str, password: str | None = None) -> UserRow:
    assert users.insert(tx, name, password, admin=False)
    return get_user(tx, name)


def add_token(tx: Transaction, user: UserRow, secret_id: str, name: str = "laptop") -> bool:
    return secrets.insert_for_user(
        tx, user, secret_id=secret_id, name=name, hash_="hash", scopes=None, expires_at=None
    )


def add_refresh(tx: Transaction, token_id: str, credential: str) -> None:
    refresh_tokens.insert(
        tx, token_id, "hash", credential=credential, service="here", client="docker"
    )


async def write(database: Database, work: Callable[[Transaction], T]) -> T:
    return await database.write(work, actor="ann")


async def number(database: Database) -> int:
    return await database.read(policy.read_number)


CHANGES: dict[str, Callable[[Transaction], object]] = {
    "user added": lambda tx: users.insert(tx, "bob", None, admin=False),
    "password": lambda tx: users.set_password(tx, get_user(tx, "ann"), "hash"),
    "disabled": lambda tx: users.set_disabled(tx, get_user(tx, "ann"), disabled=True),
    "admin": lambda tx: users.set_admin(tx, get_user(tx, "ann"), admin=False),
    "user removed": lambda tx: users.delete(tx, get_user(tx, "ann")),
    "group added": lambda tx: groups.insert(tx, "ops"),
    "group removed": lambda tx: groups.delete(tx, get_group(tx, "devs")),
    "member added": lambda tx: groups.add_member(tx, get_group(tx, "devs"), add_user(tx, "bob")),
    "member removed": lambda tx: groups.remove_member(
        tx, get_group(tx, "devs"), get_user(tx, "ann")
    ),
    "robot added": lambda tx: robots.insert(tx, "cd", None),
    "robot expires": lambda tx: robots.set_expiry(tx, get_robot(tx, "ci"), 5),
    "robot removed": lambda tx: robots.delete(tx, get_robot(tx, "ci"), "robot+ci"),
    "token added": lambda tx: add_token(tx, get_user(tx, "ann"), "token"),
    "secret added": lambda tx: secrets.insert_for_robot(tx, get_robot(tx, "ci"), "new", "hash"),
    "secrets expire": lambda tx: secrets.expire_of_robot(tx, get_robot(tx, "ci"), 5),
    "grant put": lambda tx: grants.put(tx, "ann", "team/**", "push"),
    "grants removed": lambda tx: grants.delete_all_of(tx, "ann"),
    "key added": lambda tx: signing_keys.insert(tx, "next", "{}"),
    "key revoked": lambda tx: signing_keys.revoke(tx, "kid"),
    "repository removed": lambda tx: repositories.delete(tx, repositories.ensure(tx, NAME)),
}

NO_CHANGES: dict[str, Callable[[Transaction], object]] = {
    "a look": policy.load,
    "a rehash": lambda tx: users.rehash(tx, "ann", "old", "new"),
    "a use": lambda tx: secrets.set_used(tx, "id"),
    "a refresh token": lambda tx: add_refresh(tx, "next", "secret:id"),
    "a failure": lambda tx: failed_sign_ins.insert(tx, "127.0.0.1", "hash"),
    "a private key": lambda tx: key_store.insert(tx, "next", b"sealed"),
    "a repository born": lambda tx: add_blob(tx, repositories.ensure(tx, NAME), "layer"),
    "no such token": lambda tx: secrets.delete_of_user(tx, get_user(tx, "ann"), "none"),
    "old keys": lambda tx: signing_keys.delete_retired(tx, 0),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_every_change_is_numbered_once(database: Database, name: str) -> None:
    await write(database, add_access)
    before = await number(database)
    await write(database, lambda tx: void(CHANGES[name](tx)))
    assert await number(database) == before + 1


@pytest.mark.parametrize("name", NO_CHANGES)
async def test_what_is_no_change_costs_no_number(database: Database, name: str) -> None:
    await write(database, add_access)
    before = await number(database)
    await write(database, lambda tx: void(NO_CHANGES[name](tx)))
    assert await number(database) == before


async def test_all_is_loaded_as_it_is_together(database: Database) -> None:
    await write(database, add_access)
    loaded = await database.read(policy.load)
    assert loaded.number == await number(database)
    assert [row.name for row in loaded.users] == ["ann"]
    assert loaded.memberships == [("ann", "devs")]
    assert [row.name for row in loaded.robots] == ["ci"]
    assert [(row.id, row.user, row.robot) for row in loaded.secrets] == [("id", None, "ci")]
    assert [(row.subject, row.pattern, row.actions) for row in loaded.grants] == [
        ("ann", "team/**", "pull")
    ]
    assert [(row.kid, row.state) for row in loaded.keys] == [("kid", KeyState.ACTIVE)]
    assert loaded.removals == {}


async def test_a_change_while_it_is_loaded_is_not_mixed_in(database: Database) -> None:
    """On PostgreSQL each query of a transaction sees its own snapshot."""
    await write(database, add_access)
    other = Database(database.url.render_as_string(hide_password=False))
    asked: list[int] = []

    def load(tx: Transaction) -> policy.PolicyRows:
        def change_once(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "FROM users" in statement and not asked:
                asked.append(1)
                asyncio.run(other.write(lambda tx: void(add_user(tx, "bob")), actor=""))

        sa.event.listen(tx.connection, "before_cursor_execute", change_once)
        try:
            return policy.load(tx)
        finally:
            sa.event.remove(tx.connection, "before_cursor_execute", change_once)

    loaded = await database.read(load)
    now = await number(database)
    await other.close()
    assert asked
    assert (loaded.number, len(loaded.users)) in {(now - 1, 1), (now, 2)}


class TestUsers:
    """Users."""

    async def test_a_name_is_taken_once(self, replicas: list[Database]) -> None:
        added = await race(replicas, [lambda tx: users.insert(tx, "ann", None, admin=False)] * 16)
        assert sorted(added) == [False] * 15 + [True]
        assert len(await rows(replicas[0], tables.users)) == 1

    async def test_it_is_as_it_was_added(self, database: Database) -> None:
        await write(database, lambda tx: users.insert(tx, "ann", "hash", admin=True))
        ann = await database.read(lambda tx: get_user(tx, "ann"))
        assert (ann.admin, ann.disabled) == (True, False)
        assert re.fullmatch(r"[0-9a-f]{32}", ann.generation)
        assert await database.read(lambda tx: users.find_password(tx, "ann")) == "hash"
        assert await database.read(lambda tx: users.find_password(tx, "bob")) is None
        assert await database.read(users.is_any)

    async def test_whatever_ends_her_sessions_changes_her_generation(
        self, database: Database
    ) -> None:
        await write(database, lambda tx: void(add_user(tx, "ann", "old")))
        steps: list[Callable[[Transaction, UserRow], None]] = [
            lambda tx, ann: users.set_password(tx, ann, "new"),
            lambda tx, ann: users.set_disabled(tx, ann, disabled=True),
            lambda tx, ann: users.set_disabled(tx, ann, disabled=False),
        ]
        seen = {(await database.read(lambda tx: get_user(tx, "ann"))).generation}
        for step in steps:

            def work(tx: Transaction, step: Callable[[Transaction, UserRow], None] = step) -> str:
                ann = get_user(tx, "ann")
                add_refresh(tx, ann.generation, f"user:ann:{ann.generation}")
                step(tx, ann)
                return get_user(tx, "ann").generation

            seen.add(await write(database, work))
            assert await rows(database, tables.refresh_tokens) == []
        assert len(seen) == 1 + len(steps)

    async def test_an_admin_made_stays_signed_in(self, database: Database) -> None:
        await write(database, lambda tx: void(add_user(tx, "ann")))
        before = await database.read(lambda tx: get_user(tx, "ann"))
        await write(database, lambda tx: users.set_admin(tx, before, admin=True))
        after = await database.read(lambda tx: get_user(tx, "ann"))
        assert after.admin
        assert after.generation == before.generation

    async def test_a_better_hash_is_not_kept_over_a_new_password(self, database: Database) -> None:
        await write(database, lambda tx: void(add_user(tx, "ann", "old")))
        await write(database, lambda tx: users.rehash(tx, "ann", "old", "better"))
        assert await database.read(lambda tx: users.find_password(tx, "ann")) == "better"
        await write(database, lambda tx: users.set_password(tx, get_user(tx, "ann"), "new"))
        await write(database, lambda tx: users.rehash(tx, "ann", "better", "late"))
        assert await database.read(lambda tx: users.find_password(tx, "ann")) == "new"

    async def test_pages(self, database: Database) -> None:
        names = ["a", "a-b", "a.b", "a0", "a_b", "aa", "b"]  # in byte order

        def add(tx: Transaction) -> None:
            for name in reversed(names):
                add_user(tx, name)

        await write(database, add)
        found = await read_pages(
            database,
            lambda tx, last: [row.name for row in users.list_page(tx, 2, str(last or ""))],
        )
        assert found == names

    async def test_another_name_with_marks_keeps_its_sessions(self, database: Database) -> None:
        """In a LIKE pattern `_` and `%` are wildcards. SQLite compares letters in either case."""
        names = ["a_b", "axb", "a-b", "a_b_c", "a", "ab", "A_B", "A_b"]

        def work(tx: Transaction) -> None:
            for name in names:
                user = add_user(tx, name)
                add_refresh(tx, name, f"user:{name}:{user.generation}")
            add_refresh(tx, "robot", "robot:a_b:generation")
            users.end_sessions(tx, get_user(tx, "a_b"))

        await write(database, work)
        left = {row.id for row in await rows(database, tables.refresh_tokens)}
        assert left == {*names, "robot"} - {"a_b"}

        def percent(tx: Transaction) -> None:
            row = get_user(tx, "a")
            users.end_sessions(tx, UserRow(row.id, "%", "g", False, False, 0))

        await write(database, percent)
        assert {row.id for row in await rows(database, tables.refresh_tokens)} == left

    async def test_who_goes_takes_all_of_hers_and_nothing_else(self, database: Database) -> None:
        def work(tx: Transaction) -> str:
            ann, bob = add_user(tx, "ann"), add_user(tx, "bob")
            groups.insert(tx, "devs")
            for user in (ann, bob):
                groups.add_member(tx, get_group(tx, "devs"), user)
                add_token(tx, user, f"of-{user.name}")
                add_refresh(tx, f"token-{user.name}", f"secret:of-{user.name}")
                add_refresh(tx, f"password-{user.name}", f"user:{user.name}:{user.generation}")
                uploads.insert(tx, upload(f"upload-{user.name}", principal=user.name))
            uploads.insert(tx, upload("upload-robot", principal="robot+ann"))
            users.delete(tx, ann)
            return ann.generation

        generation = await write(database, work)
        assert [row.name for row in await rows(database, tables.users)] == ["bob"]
        assert [row.id for row in await rows(database, tables.secrets)] == ["of-bob"]
        assert len(await rows(database, tables.group_members)) == 1
        assert [row.id for row in await rows(database, tables.refresh_tokens)] == [
            "password-bob",
            "token-bob",
        ]
        owners = {row.id: row.principal for row in await rows(database, tables.uploads)}
        assert owners == {
            "upload-ann": f"removed:{generation}",
            "upload-bob": "bob",
            "upload-robot": "robot+ann",
        }

    async def test_the_next_of_her_name_is_another(self, database: Database) -> None:
        def work(tx: Transaction) -> tuple[UserRow, UserRow]:
            first = add_user(tx, "ann")
            users.delete(tx, first)
            return first, add_user(tx, "ann")

        first, second = await write(database, work)
        assert first.id != second.id
        assert first.generation != second.generation


class TestGroups:
    """Groups and their members."""

    async def test_a_name_is_taken_once(self, replicas: list[Database]) -> None:
        added = await race(replicas, [lambda tx: groups.insert(tx, "devs")] * 8)
        assert sorted(added) == [False] * 7 + [True]

    async def test_members(self, database: Database) -> None:
        def work(tx: Transaction) -> list[bool]:
            groups.insert(tx, "devs")
            groups.insert(tx, "ops")
            ann, bob, devs = add_user(tx, "ann"), add_user(tx, "bob"), get_group(tx, "devs")
            return [
                groups.add_member(tx, devs, bob),
                groups.add_member(tx, devs, ann),
                groups.add_member(tx, devs, ann),
                groups.add_member(tx, get_group(tx, "ops"), ann),
                groups.remove_member(tx, get_group(tx, "ops"), bob),
            ]

        assert await write(database, work) == [True, True, False, True, False]
        listed = await database.read(lambda tx: groups.list_members(tx, get_group(tx, "devs")))
        assert listed == ["ann", "bob"]
        pairs = await database.read(groups.list_memberships)
        assert sorted(pairs) == [("ann", "devs"), ("ann", "ops"), ("bob", "devs")]

    async def test_a_group_goes_and_its_members_stay(self, database: Database) -> None:
        await write(database, add_access)
        await write(database, lambda tx: groups.delete(tx, get_group(tx, "devs")))
        assert await rows(database, tables.groups) == []
        assert await rows(database, tables.group_members) == []
        assert len(await rows(database, tables.users)) == 1


class TestRobots:
    """Robots and their secrets."""

    async def test_a_name_is_taken_once(self, replicas: list[Database]) -> None:
        added = await race(replicas, [lambda tx: robots.insert(tx, "ci", None)] * 8)
        assert len([row for row in added if row is not None]) == 1

    async def test_old_secrets_end_and_none_is_prolonged(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            ci, cd = robots.insert(tx, "ci", None), robots.insert(tx, "cd", None)
            assert ci is not None
            assert cd is not None
            secrets.insert_for_robot(tx, ci, "early", "hash")
            secrets.expire_of_robot(tx, ci, 10)
            secrets.insert_for_robot(tx, ci, "open", "hash")
            secrets.insert_for_robot(tx, cd, "other", "hash")
            secrets.expire_of_robot(tx, ci, 20)

        await write(database, work)
        ends = {row.id: row.expires_at for row in await rows(database, tables.secrets)}
        assert ends == {"early": 10, "open": 20, "other": None}

    async def test_who_goes_takes_all_of_its_own(self, database: Database) -> None:
        def work(tx: Transaction) -> str:
            ci, cd = robots.insert(tx, "ci", None), robots.insert(tx, "cd", None)
            assert ci is not None
            assert cd is not None
            for robot in (ci, cd):
                name = robot.name
                secrets.insert_for_robot(tx, robot, f"of-{name}", "hash")
                add_refresh(tx, f"by-secret-{name}", f"secret:of-{name}")
                add_refresh(tx, f"by-issuer-{name}", f"robot:{name}:{robot.generation}")
                uploads.insert(tx, upload(f"upload-{name}", principal=f"robot+{name}"))
            uploads.insert(tx, upload("upload-user", principal="ci"))
            robots.delete(tx, ci, "robot+ci")
            return ci.generation

        generation = await write(database, work)
        assert [row.name for row in await rows(database, tables.robots)] == ["cd"]
        assert [row.id for row in await rows(database, tables.secrets)] == ["of-cd"]
        assert [row.id for row in await rows(database, tables.refresh_tokens)] == [
            "by-issuer-cd",
            "by-secret-cd",
        ]
        owners = {row.id: row.principal for row in await rows(database, tables.uploads)}
        assert owners == {
            "upload-ci": f"removed:{generation}",
            "upload-cd": "robot+cd",
            "upload-user": "ci",
        }


class TestSecrets:
    """Personal access tokens, and which of them are deleted."""

    async def test_a_user_has_a_name_once(self, database: Database) -> None:
        def work(tx: Transaction) -> list[bool]:
            ann, bob = add_user(tx, "ann"), add_user(tx, "bob")
            return [
                add_token(tx, ann, "1"),
                add_token(tx, ann, "2"),
                add_token(tx, ann, "3", "desktop"),
                add_token(tx, bob, "4"),
            ]

        assert await write(database, work) == [True, False, True, True]
        listed = await database.read(
            lambda tx: [row.name for row in secrets.list_of_user(tx, get_user(tx, "ann"))]
        )
        assert listed == ["desktop", "laptop"]

    async def test_revoked_with_its_refresh_tokens(self, database: Database) -> None:
        def work(tx: Transaction) -> tuple[bool, bool]:
            ann, bob = add_user(tx, "ann"), add_user(tx, "bob")
            for secret_id, user in (("1", ann), ("2", bob)):
                add_token(tx, user, secret_id)
                add_refresh(tx, f"refresh-{secret_id}", f"secret:{secret_id}")
            return (
                secrets.delete_of_user(tx, ann, "laptop"),
                secrets.delete_of_user(tx, ann, "laptop"),
            )

        assert await write(database, work) == (True, False)
        assert [row.id for row in await rows(database, tables.secrets)] == ["2"]
        assert [row.id for row in await rows(database, tables.refresh_tokens)] == ["refresh-2"]

    async def test_what_expired_long_ago_goes_with_its_refresh_tokens(
        self, database: Database
    ) -> None:
        def work(tx: Transaction) -> int:
            ci, cd = robots.insert(tx, "ci", None), robots.insert(tx, "cd", None)
            assert ci is not None
            assert cd is not None
            for robot, secret_id, ends in ((ci, "new", 50), (cd, "old", 5)):
                secrets.insert_for_robot(tx, robot, secret_id, "hash")
                secrets.expire_of_robot(tx, robot, ends)
                add_refresh(tx, f"refresh-{secret_id}", f"secret:{secret_id}")
            secrets.insert_for_robot(tx, ci, "never", "hash")
            return secrets.delete_expired(tx, 10)

        assert await write(database, work) == 1
        assert [row.id for row in await rows(database, tables.secrets)] == ["never", "new"]
        assert [row.id for row in await rows(database, tables.refresh_tokens)] == ["refresh-new"]


class TestGrants:
    """Grants: one row for each subject and pattern."""

    async def test_the_last_word_counts(self, replicas: list[Database]) -> None:
        first = await write(replicas[0], lambda tx: grants.put(tx, "ann", "team/*", "pull"))
        again = await write(replicas[1], lambda tx: grants.put(tx, "ann", "team/*", "push"))
        assert again.id == first.id
        assert again.actions == "push"
        await race(replicas, [lambda tx: grants.put(tx, "bob", "**", "pull")] * 8)
        assert len(await rows(replicas[0], tables.grants)) == 2

    async def test_found_by_both_and_by_number(self, database: Database) -> None:
        row = await write(database, lambda tx: grants.put(tx, "ann", "team/*", "pull"))
        assert await database.read(lambda tx: grants.find_by_id(tx, row.id)) == row
        assert await database.read(lambda tx: grants.find_by_id(tx, row.id + 1)) is None
        assert await write(database, lambda tx: grants.find(tx, "ann", "team/*")) == row
        assert await write(database, lambda tx: grants.find(tx, "ann", "team/**")) is None

    async def test_those_of_one_subject_go(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            for subject in ("ann", "group:ann", "robot:ann", "annie"):
                for pattern in ("a", "b"):
                    grants.put(tx, subject, pattern, "pull")
            grants.delete_all_of(tx, "ann")

        await write(database, work)
        left = [row.subject for row in await rows(database, tables.grants)]
        assert set(left) == {"group:ann", "robot:ann", "annie"}

    async def test_pages(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            for number in range(7):
                grants.put(tx, f"user{number}", "**", "pull")

        await write(database, work)
        found = await read_pages(
            database, lambda tx, last: grants.list_page(tx, 2, last.id if last else 0)
        )
        assert [row.subject for row in found] == [f"user{number}" for number in range(7)]
        assert found == await database.read(grants.list_all)


class TestKeys:
    """Signing keys and the key store."""

    async def test_the_newest_signs(self, database: Database) -> None:
        for kid in ("first", "second", "third"):
            await write(database, lambda tx, kid=kid: signing_keys.insert(tx, kid, "{}"))  # type: ignore[misc]
        await write(database, lambda tx: signing_keys.revoke(tx, "first"))
        keys = {key.kid: key.state for key in await database.read(signing_keys.list_all)}
        assert keys == {
            "first": KeyState.REVOKED,
            "second": KeyState.RETIRED,
            "third": KeyState.ACTIVE,
        }
        assert not await write(database, lambda tx: signing_keys.revoke(tx, "none"))

    async def test_only_what_no_longer_signs_goes(self, database: Database) -> None:
        for kid in ("revoked", "retired", "active"):
            await write(database, lambda tx, kid=kid: signing_keys.insert(tx, kid, "{}"))  # type: ignore[misc]
        await write(database, lambda tx: signing_keys.revoke(tx, "revoked"))
        assert await write(database, lambda tx: signing_keys.delete_retired(tx, 1)) == []
        gone = await write(database, lambda tx: signing_keys.delete_retired(tx, tx.now + 1))
        assert sorted(gone) == ["retired", "revoked"]
        assert [row.kid for row in await rows(database, tables.signing_keys)] == ["active"]

    async def test_the_first_in_the_vault_stays(self, replicas: list[Database]) -> None:
        values = [bytes([number]) for number in range(8)]
        await race(
            replicas,
            [lambda tx, value=value: key_store.insert(tx, "kid", value) for value in values],  # type: ignore[misc]
        )
        (row,) = await rows(replicas[0], tables.private_keys)
        assert row.value in values
        await write(replicas[0], lambda tx: key_store.delete(tx, "kid"))
        assert await replicas[0].read(lambda tx: key_store.find(tx, "kid")) is None


class TestRefreshTokens:
    """Refresh tokens: each `docker login` creates one."""

    async def test_the_longest_unused_go(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refresh_tokens, "MOST", 3)
        for token_id in ("other", "a", "b", "c"):
            credential = "secret:2" if token_id == "other" else "secret:1"  # noqa: S105 - an id
            await write(
                database,
                lambda tx, i=token_id, c=credential: add_refresh(tx, i, c),  # type: ignore[misc]
            )
        await write(database, lambda tx: refresh_tokens.set_used(tx, "a"))
        for token_id in ("d", "e"):
            await write(database, lambda tx, i=token_id: add_refresh(tx, i, "secret:1"))  # type: ignore[misc]
        left = [row.id for row in await rows(database, tables.refresh_tokens)]
        assert left == ["a", "d", "e", "other"]

    async def test_as_many_as_may_be(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            for number in range(refresh_tokens.MOST + 20):
                add_refresh(tx, f"{number:03}", "secret:1")

        await write(database, work)
        assert len(await rows(database, tables.refresh_tokens)) == refresh_tokens.MOST

    async def test_it_is_as_it_was_added(self, database: Database) -> None:
        await write(database, lambda tx: add_refresh(tx, "a", "secret:1"))
        row = await database.read(lambda tx: refresh_tokens.find(tx, "a"))
        assert row is not None
        assert (row.credential, row.service, row.client) == ("secret:1", "here", "docker")
        assert await database.read(lambda tx: refresh_tokens.find(tx, "b")) is None


class TestBooks:
    """The audit log and the counted sign-in failures."""

    async def test_pages(self, database: Database) -> None:
        for number in range(7):
            await write(database, lambda tx, n=number: log(tx, n))  # type: ignore[misc]
        every = await pages(database)
        assert [row.target for row in every] == [str(number) for number in range(7)]
        assert [row.number for row in every] == sorted({row.number for row in every})
        assert [row.target for row in await pages(database, actor="ann")] == ["0", "2", "4", "6"]
        assert [row.target for row in await pages(database, since=every[4].at)] == ["4", "5", "6"]
        both = await pages(database, since=every[3].at, actor="bob")
        assert [row.target for row in both] == ["3", "5"]
        assert await pages(database, actor="cy") == []
        assert every[0].detail == '{"n": 0}'
        assert (every[0].address, every[0].request_id) == ("192.0.2.1", "r0")

    async def test_the_oldest_are_forgotten_some_at_a_time(self, database: Database) -> None:
        for number in range(5):
            await write(database, lambda tx, n=number: log(tx, n))  # type: ignore[misc]
        last = (await pages(database))[-1]
        for left in ("234", "4", "4"):
            await write(database, lambda tx: audit.delete_before(tx, last.at, 2))
            assert "".join(row.target for row in await pages(database)) == left

    async def test_a_number_is_not_given_again(self, database: Database) -> None:
        await write(database, lambda tx: log(tx, 0))
        (first,) = await pages(database)
        await write(database, lambda tx: audit.delete_before(tx, first.at + 1, 9))
        await write(database, lambda tx: log(tx, 1))
        (second,) = await pages(database)
        assert second.number > first.number

    async def test_failures_are_counted(self, database: Database) -> None:
        def work(tx: Transaction) -> list[tuple[int, int]]:
            for address, account in (("a", "x"), ("a", "y"), ("b", "x")):
                failed_sign_ins.insert(tx, address, account)
            asked = [
                failed_sign_ins.count(tx, 0),
                failed_sign_ins.count(tx, 0, address="a"),
                failed_sign_ins.count(tx, 0, account="x"),
                failed_sign_ins.count(tx, 0, address="a", account="x"),
                failed_sign_ins.count(tx, 0, address="c"),
                failed_sign_ins.count(tx, tx.now),
            ]
            return [(each.count, each.oldest - tx.now if each.count else 0) for each in asked]

        assert await write(database, work) == [(3, 0), (2, 0), (2, 0), (1, 0), (0, 0), (0, 0)]
        assert await write(database, lambda tx: failed_sign_ins.delete_before(tx, tx.now + 1)) == 3


def log(tx: Transaction, number: int) -> None:
    audit.insert(
        tx,
        actor="bob" if number % 2 else "ann",
        address="192.0.2.1",
        request_id=f"r{number}",
        kind="user.add",
        target=str(number),
        detail=f'{{"n": {number}}}',
    )


async def pages(database: Database, *, since: int = 0, actor: str | None = None) -> list[AuditRow]:
    def page(tx: Transaction, last: AuditRow | None) -> list[AuditRow]:
        after = last.number if last else 0
        return audit.list_page(tx, 2, after=after, since=since, actor=actor)

    return await read_pages(database, page)


class TestRemovals:
    """Removals: a recorded removal keeps old tokens from a new repository of the same name."""

    async def test_with_the_number_of_its_going(self, database: Database) -> None:
        def make(tx: Transaction) -> None:
            add_blob(tx, repositories.ensure(tx, NAME), "layer")

        for _ in range(2):
            await write(database, make)
            before = await number(database)
            assert await write(database, go) == await number(database) - 1 == before
            removals = (await database.read(policy.load)).removals
            assert set(removals) == {NAME}
            assert removals[NAME].number == before + 1

    async def test_one_that_becomes_empty_too(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            repository = repositories.ensure(tx, NAME)
            add_blob(tx, repository, "layer")
            repositories.remove_if_empty(tx, repository)
            assert tx.removed_repositories == []
            blobs.unlink(tx, repository, {digest("layer"): None})
            repositories.remove_if_empty(tx, repository)

        await write(database, work)
        assert await database.read(lambda tx: repositories.find(tx, NAME)) is None
        assert set((await database.read(policy.load)).removals) == {NAME}

    async def test_several_at_once_and_with_other_changes(self, database: Database) -> None:
        names = [RepositoryName(f"team/{letter}") for letter in "cab"]

        def work(tx: Transaction) -> None:
            for name in [*names, names[0]]:
                repositories.delete(tx, repositories.ensure(tx, name))
            users.insert(tx, "ann", None, admin=False)

        before = await number(database)
        await write(database, work)
        now = await number(database)
        assert now == before + 1
        removals = (await database.read(policy.load)).removals
        assert {name: removal.number for name, removal in removals.items()} == dict.fromkeys(
            names, now
        )

    async def test_what_is_rolled_back_has_not_gone(self, database: Database) -> None:
        def work(tx: Transaction) -> None:
            go(tx)
            raise KeyError

        await write(database, lambda tx: void(repositories.ensure(tx, NAME)))
        with pytest.raises(KeyError):
            await write(database, work)
        assert (await database.read(policy.load)).removals == {}

    async def test_it_is_forgotten_when_no_token_is_so_old(self, database: Database) -> None:
        await write(database, lambda tx: void(repositories.ensure(tx, NAME)))
        await write(database, lambda tx: void(go(tx)))
        removal = (await database.read(policy.load)).removals[NAME]
        assert isinstance(removal, Removal)
        assert await write(database, lambda tx: policy.forget_removals(tx, removal.at)) == 0
        assert await write(database, lambda tx: policy.forget_removals(tx, removal.at + 1)) == 1
        assert (await database.read(policy.load)).removals == {}


def go(tx: Transaction) -> int:
    """Delete the repository. Return the revision of the policy before."""
    repositories.delete(tx, find(tx))
    return policy.read_number(tx)
