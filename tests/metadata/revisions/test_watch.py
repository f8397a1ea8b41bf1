"""Tests of the revision watch on both databases: no answer is older than its question."""

import asyncio
import mmap
import struct
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata.access import policy
from registry.metadata.content import repositories
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.revisions import Changed, Revisions
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.metadata.revisions.changes import bump, make, process
from tests.metadata.rows import NAME, find
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio


OTHER = RepositoryName("other")


STRESS_SECONDS = 2.0


READERS = 8


async def test_it_begins_with_what_is_there(
    watch: RevisionWatch, database: Database, other: Database
) -> None:
    number = await bump(other)
    assert watch.latest_known() is None
    assert (await watch.read()).policy == number == await database.read(policy.read_revision)


async def test_a_change_of_another_connection_is_seen(
    watch: RevisionWatch, other: Database
) -> None:
    last = (await watch.read()).policy
    for _ in range(50):
        number = await bump(other)
        assert number == last + 1
        assert watch.latest_known() is None
        assert (await watch.read()).policy == number
        last = number


async def test_a_change_of_its_own_process_is_seen(
    watch: RevisionWatch, database: Database
) -> None:
    await watch.read()
    for _ in range(20):
        number = await bump(database)
        assert (await watch.read()).policy == number


async def test_a_change_of_another_process_is_seen(watch: RevisionWatch, database_url: str) -> None:
    last = (await watch.read()).policy
    with process(database_url) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdin.write("\n")
            writer.stdin.flush()
            number = int(writer.stdout.readline())
            assert number == last + 1
            assert (await watch.read()).policy == number
            last = number
        writer.stdin.close()
    # The end of a process changes the file, but is no change of content and hides none.
    assert (await watch.read()).policy == last


async def test_what_is_rolled_back_is_no_change(watch: RevisionWatch, other: Database) -> None:
    number = (await watch.read()).policy

    def work(tx: Transaction) -> None:
        tx.change_policy()
        raise KeyError

    with pytest.raises(KeyError):
        await other.write(work, actor="")
    assert (await watch.read()).policy == number


async def test_other_commits_are_no_change(watch: RevisionWatch, other: Database) -> None:
    number = (await watch.read()).policy
    await other.write(lambda tx: leases.claim(tx, "gc", "ann", 60), actor="")
    assert (await watch.read()).policy == number
    assert (await watch.read()).policy == number


async def test_a_repository_that_goes_is_a_change(watch: RevisionWatch, other: Database) -> None:
    number = (await watch.read()).policy
    await other.write(lambda tx: make(tx, NAME), actor="")
    assert (await watch.read()).policy == number
    await other.write(lambda tx: repositories.delete(tx, find(tx)), actor="")
    assert (await watch.read()).policy == number + 1


async def test_many_readers_are_few_queries(
    watch: RevisionWatch, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[Revisions] = []
    ask = watch._ask

    async def counted() -> tuple[Revisions, Changed]:
        told = await ask()
        queries.append(told[0])
        return told

    monkeypatch.setattr(watch, "_ask", counted)
    for _ in range(5):
        number = await bump(other)
        queries.clear()
        told = await asyncio.gather(*(watch.read() for _ in range(500)))
        assert {latest.policy for latest in told} == {number}
        assert 1 <= len(queries) <= 2


async def test_nothing_is_asked_where_nothing_was_committed(
    database: Database, watch: RevisionWatch, other: Database, statements: list[str]
) -> None:
    """An embedded database reports commits without a query."""
    assert watch.latest_known() is None
    number = (await watch.read()).policy
    statements.clear()
    if not database.embedded:
        assert watch.latest_known() is None
        return
    threads = threading.active_count()
    latest = await watch.read()
    assert {await watch.read() for _ in range(1000)} == {latest}
    assert watch.latest_known() == latest
    assert (await watch.read()).policy == number
    assert statements == []
    assert threading.active_count() == threads
    await bump(other)
    assert watch.latest_known() is None


async def test_a_query_that_has_begun_does_not_answer_a_later_question(
    watch: RevisionWatch, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is held back while the policy changes."""
    answered, go_on = asyncio.Event(), asyncio.Event()
    ask = watch._ask

    async def held() -> tuple[Revisions, Changed]:
        told = await ask()
        answered.set()
        await go_on.wait()
        return told

    number = (await watch.read()).policy
    await bump(other)
    monkeypatch.setattr(watch, "_ask", held)
    early = asyncio.ensure_future(watch.read())
    await answered.wait()
    await bump(other)
    late = [asyncio.ensure_future(watch.read()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(asked.done() for asked in [early, *late])
    go_on.set()
    assert (await early).policy == number + 1
    assert [latest.policy for latest in await asyncio.gather(*late)] == [number + 2] * 3
    assert (await watch.read()).policy == number + 2


async def test_one_who_leaves_does_not_take_the_answer_along(
    watch: RevisionWatch, other: Database
) -> None:
    number = await bump(other)
    asked = [asyncio.ensure_future(watch.read()) for _ in range(5)]
    await asyncio.sleep(0)
    asked[0].cancel()
    assert [latest.policy for latest in await asyncio.gather(*asked[1:])] == [number] * 4
    # All callers are cancelled: the next one still gets an answer.
    await bump(other)
    asked = [asyncio.ensure_future(watch.read()) for _ in range(5)]
    await asyncio.sleep(0)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert (await watch.read()).policy == number + 1


async def test_the_mark_shows_the_changes_that_were_read(
    watch: RevisionWatch, other: Database
) -> None:
    await watch.read()
    before = watch.find_mark()
    assert before is not None
    await watch.read()
    assert watch.find_mark() == before
    await bump(other)
    assert (watch.find_mark() == before) is watch.needs_query
    await watch.read()
    assert watch.find_mark() not in {None, before}
    before = watch.find_mark()
    await other.write(lambda tx: make(tx, NAME), actor="")
    await watch.read()
    assert watch.find_mark() not in {None, before}


async def fails_for_all(watch: RevisionWatch) -> None:
    told = await asyncio.gather(*(watch.read() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in told} == {DatabaseUnavailableError}
    with pytest.raises(DatabaseUnavailableError):
        await watch.read()


def rename(old: str, new: str) -> sa.TextClause:
    return sa.text(f"ALTER TABLE {old} RENAME TO {new}")


async def test_a_database_that_fails_and_recovers(watch: RevisionWatch, other: Database) -> None:
    number = (await watch.read()).policy
    await other.write(lambda tx: tx.execute(rename("policy_revision", "away")).close(), actor="")
    await fails_for_all(watch)
    assert watch.latest_known() is None
    await other.write(lambda tx: tx.execute(rename("away", "policy_revision")).close(), actor="")
    assert (await watch.read()).policy == number
    assert (await watch.read()).policy == number


async def test_a_server_that_goes_and_comes_back(postgres: Cluster) -> None:
    """As after a failover: the connections are cut, and the server is unreachable for a while."""
    with postgres.database() as url, postgres._admin.connect() as admin:
        name = url.rpartition("/")[2]
        database = Database(url)
        watch = RevisionWatch(database)
        number = (await watch.read()).policy
        admin.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        admin.execute(sa.text(cut), {"name": name})
        await fails_for_all(watch)
        admin.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        assert (await watch.read()).policy == number
        assert await bump(database) == (await watch.read()).policy == number + 1
        watch.close()
        await database.close()


async def test_a_closed_watch_knows_nothing(watch: RevisionWatch) -> None:
    await watch.read()
    watch.close()
    assert watch.latest_known() is None


async def test_readers_are_never_told_what_is_over(
    watch: RevisionWatch, database_url: str, tmp_path: Path
) -> None:
    """A process writes as fast as it can, and reports its progress after each commit."""
    path = tmp_path / "shared"
    path.write_bytes(bytes(16))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 16) as shared:

        def committed() -> int:
            return int(struct.unpack_from("q", shared)[0])

        end = time.monotonic() + STRESS_SECONDS
        enough = 20
        seen: list[set[int]] = [set() for _ in range(READERS)]

        async def read(mine: set[int]) -> None:
            last = 0
            while len(mine) < enough or time.monotonic() < end:
                floor = committed()
                latest = watch.latest_known()
                if latest is None:
                    latest = await watch.read()
                else:
                    await asyncio.sleep(0)
                number = latest.policy
                assert number >= floor, "what was committed before the question is not in it"
                assert number >= last, "it went back"
                last = number
                mine.add(number)

        with process(database_url, str(path)) as writer:
            await asyncio.gather(*(read(mine) for mine in seen))
            struct.pack_into("q", shared, 8, 1)
            assert await asyncio.to_thread(writer.wait, 30) == 0
        assert (await watch.read()).policy == committed()
