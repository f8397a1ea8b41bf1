"""Rows of secrets, grants, keys and refresh tokens."""

import pytest

from registry.metadata import tables
from registry.metadata.access import (
    grants,
    key_store,
    refresh_tokens,
    robots,
    secrets,
    signing_keys,
)
from registry.metadata.access.signing_keys import KeyState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.access.helpers import add_refresh, add_token, add_user, get_user, write
from tests.metadata.rows import (
    race,
    read_pages,
    rows,
)

pytestmark = pytest.mark.anyio


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

    async def test_the_first_in_the_key_store_stays(self, replicas: list[Database]) -> None:
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
