"""Rows of users, groups and robots."""

import re
from collections.abc import Callable

import pytest

from registry.metadata import tables
from registry.metadata.access import (
    groups,
    robots,
    secrets,
    users,
)
from registry.metadata.access.users import UserRow
from registry.metadata.content import uploads
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.access.helpers import (
    add_refresh,
    add_token,
    add_user,
    get_group,
    get_user,
    write,
)
from tests.metadata.rows import (
    add_access,
    race,
    read_pages,
    rows,
    upload,
    void,
)

pytestmark = pytest.mark.anyio


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
