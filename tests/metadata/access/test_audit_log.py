"""Rows of the audit log, and what is removed with an account."""

import pytest

from registry.metadata.access import (
    audit,
    failed_sign_ins,
    policy,
    users,
)
from registry.metadata.access.policy import Removal
from registry.metadata.content import blobs, repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.access.helpers import policy_number, write
from tests.metadata.rows import (
    NAME,
    add_blob,
    digest,
    find,
    read_pages,
    void,
)
from tests.support.audit_log import AuditRow, list_rows

pytestmark = pytest.mark.anyio


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
        kind="user.create",
        target=str(number),
        detail=f'{{"n": {number}}}',
    )


async def pages(database: Database, *, since: int = 0, actor: str | None = None) -> list[AuditRow]:
    def page(tx: Transaction, last: AuditRow | None) -> list[AuditRow]:
        after = last.number if last else 0
        return list_rows(tx, 2, after=after, since=since, actor=actor)

    return await read_pages(database, page)


class TestRemovals:
    """Removals: a recorded removal keeps old tokens from a new repository of the same name."""

    async def test_with_the_number_of_its_going(self, database: Database) -> None:
        def make(tx: Transaction) -> None:
            add_blob(tx, repositories.ensure(tx, NAME), "layer")

        for _ in range(2):
            await write(database, make)
            before = await policy_number(database)
            assert await write(database, go) == await policy_number(database) - 1 == before
            removals = (await database.read(policy.load)).removals
            assert set(removals) == {NAME}
            assert removals[NAME].revision == before + 1

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

        before = await policy_number(database)
        await write(database, work)
        now = await policy_number(database)
        assert now == before + 1
        removals = (await database.read(policy.load)).removals
        assert {name: removal.revision for name, removal in removals.items()} == dict.fromkeys(
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
    return policy.read_revision(tx)
