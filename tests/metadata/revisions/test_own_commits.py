"""Tests of what the writer of this process hands to the watch (SQLite)."""

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from registry.metadata import tables
from registry.metadata.content import repositories, uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions import own_commits
from registry.metadata.revisions.own_commits import OwnCommits
from registry.metadata.revisions.revisions import Changed
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.metadata.revisions.changes import bump, change, make
from tests.metadata.rows import NAME

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

OTHER = RepositoryName("other")


@pytest.fixture
def told(watch: RevisionWatch) -> list[Changed]:
    """Return the changes that the watch tells its subscribers."""
    heard: list[Changed] = []
    watch.subscribe(heard.append)
    return heard


async def test_own_commits_need_no_query(
    watch: RevisionWatch, database: Database, told: list[Changed], statements: list[str]
) -> None:
    first = await watch.read()
    told.clear()
    statements.clear()
    await database.write(lambda tx: make(tx, NAME), actor="")
    await database.write(lambda tx: make(tx, OTHER), actor="")
    await database.write(lambda tx: leases.claim(tx, "gc", "ann", 60), actor="")
    await database.write(change, actor="")
    latest = await watch.read()
    assert statements == []
    assert told == [frozenset({NAME}), frozenset({OTHER})]
    assert latest.policy == first.policy + 1
    assert latest.feed > first.feed
    assert watch.latest_known() == latest


async def test_they_are_what_a_query_reads(watch: RevisionWatch, database: Database) -> None:
    await watch.read()
    for number in range(5):
        name = RepositoryName(f"r{number}")
        await database.write(lambda tx, name=name: make(tx, name), actor="")  # type: ignore[misc]
        fresh = RevisionWatch(database)
        database.listen(watch._own)  # type: ignore[arg-type]
        try:
            assert await watch.read() == await fresh.read()
        finally:
            fresh.close()


async def test_a_failed_member_changes_nothing(
    watch: RevisionWatch, database: Database, told: list[Changed]
) -> None:
    first = await watch.read()
    told.clear()

    def fail(tx: Transaction) -> None:
        make(tx, NAME)
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(fail, actor="")
    assert await watch.read() == first
    assert told == []


@pytest.mark.parametrize("late", [False, True])
async def test_changes_of_others_are_not_lost(
    watch: RevisionWatch,
    database: Database,
    other: Database,
    told: list[Changed],
    *,
    late: bool,
) -> None:
    await watch.read()
    told.clear()
    for number in range(10):
        mine, theirs = RepositoryName(f"mine{number}"), RepositoryName(f"theirs{number}")
        order = [(database, mine), (other, theirs)]
        for where, name in order if late else order[::-1]:
            await where.write(lambda tx, name=name: make(tx, name), actor="")  # type: ignore[misc]
        policy = await bump(other)
        assert (await watch.read()).policy == policy
        names = {name for changed in told for name in changed or ()}
        assert {mine, theirs} <= names


async def test_a_commit_just_after_its_own_is_noticed(
    watch: RevisionWatch,
    database: Database,
    other: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process commits before the header is read, which a lock of ours does not prevent."""
    await watch.read()
    numbers: list[int] = []
    raw = OwnCommits.after_commit

    def late(own: OwnCommits) -> None:
        with other._writer._engine.begin() as connection:  # type: ignore[union-attr]
            tx = Transaction(connection, "", 0)
            change(tx)
            tx.write_changes()
        raw(own)

    monkeypatch.setattr(OwnCommits, "after_commit", late)
    await database.write(change, actor="")
    monkeypatch.setattr(OwnCommits, "after_commit", raw)
    numbers = [(await watch.read()).policy, (await RevisionWatch(other).read()).policy]
    assert numbers[0] == numbers[1]


async def test_without_the_comparison_it_is_missed(
    watch: RevisionWatch,
    database: Database,
    other: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(own_commits, "is_next", lambda before, after: before != after)
    with pytest.raises(AssertionError):
        await test_a_commit_just_after_its_own_is_noticed(watch, database, other, monkeypatch)


def make_session(name: RepositoryName = NAME) -> UploadRow:
    return UploadRow(
        id="session",
        repository=name,
        repository_generation=None,
        principal="ann",
        algorithm="sha256",
        offset=0,
        prefix_digest=None,
        store="local",
        key_generation="generation",
        key=None,
    )


async def start(database: Database) -> UploadRow:
    row = make_session()
    await database.write(lambda tx: uploads.insert(tx, row), actor="")
    return row


async def advance(database: Database, before: UploadRow, offset: int) -> UploadRow:
    after = replace(before, offset=offset)
    assert await database.write(lambda tx: uploads.advance(tx, after, before), actor="")
    return after


async def test_a_row_is_known_as_it_was_written(watch: RevisionWatch, database: Database) -> None:
    await watch.read()
    row = await start(database)
    assert watch.find_row(row.id) == row == await database.read(lambda tx: uploads.find(tx, row.id))
    await database.write(lambda tx: make(tx, OTHER), actor="")
    assert watch.find_row(row.id) == row
    row = await advance(database, row, 5)
    assert watch.find_row(row.id) == row == await database.read(lambda tx: uploads.find(tx, row.id))
    await database.write(lambda tx: uploads.take(tx, row.id, 0), actor="")
    assert watch.find_row(row.id) is None


async def test_a_row_is_unknown_after_a_commit_of_another_process(
    watch: RevisionWatch, database: Database, other: Database
) -> None:
    await watch.read()
    row = await start(database)
    await other.write(lambda tx: uploads.take(tx, row.id, 0), actor="")
    assert watch.find_row(row.id) is None
    await database.write(change, actor="")
    assert watch.find_row(row.id) is None


@pytest.mark.parametrize("way", ["deleted", "emptied", "statement"])
async def test_a_row_is_unknown_after_what_may_change_it(
    watch: RevisionWatch, database: Database, way: str
) -> None:
    def change_sessions(tx: Transaction) -> None:
        repository = repositories.find(tx, NAME, lock=True)
        if way == "statement":
            tx.execute(sa.update(tables.uploads).values(principal="removed:ann"))
        elif repository is not None and way == "deleted":
            repositories.delete(tx, repository)
        elif repository is not None:
            repositories.remove_if_empty(tx, repository)

    await watch.read()
    await database.write(lambda tx: repositories.ensure(tx, NAME), actor="")
    row = await start(database)
    assert watch.find_row(row.id) == row
    await database.write(change_sessions, actor="")
    assert watch.find_row(row.id) is None
    # A request that read the session before does not bring the rest of its row back.
    await advance(database, row, 5)
    assert watch.find_row(row.id) is None


async def test_a_claim_leaves_no_row(watch: RevisionWatch, database: Database) -> None:
    await watch.read()
    row = await start(database)
    await database.write(lambda tx: uploads.claim(tx, row.id, 60), actor="")
    assert watch.find_row(row.id) is None


async def test_a_failed_change_leaves_the_row(watch: RevisionWatch, database: Database) -> None:
    await watch.read()
    row = await start(database)

    def fail(tx: Transaction) -> None:
        uploads.take(tx, row.id, 0)
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(fail, actor="")
    assert watch.find_row(row.id) == row


async def test_the_oldest_rows_make_room(
    watch: RevisionWatch, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_commits, "MOST_ROWS", 2)
    await watch.read()
    for number in range(3):
        row = replace(make_session(), id=f"session{number}")
        await database.write(lambda tx, row=row: uploads.insert(tx, row), actor="")  # type: ignore[misc]
    assert [watch.find_row(f"session{number}") is None for number in range(3)] == [
        True,
        False,
        False,
    ]
