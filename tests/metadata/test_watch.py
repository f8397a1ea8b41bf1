"""Has the policy changed? Never answered from before the question, on both databases."""

import asyncio
import contextlib
import mmap
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata import leases, policy, repositories
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.metadata.watch import PolicyWatch
from tests.metadata.rows import NAME, add_blob, find
from tests.support.postgres import Cluster

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent.parent
STRESS_SECONDS = 2.0
READERS = 8

WRITER = """
import asyncio, mmap, struct, sys, time
from registry.metadata import policy
from registry.metadata.database import Database

def change(tx):
    tx.change_policy()
    return policy.read_number(tx) + 1  # as it will be: the counter is taken last

async def steps(database):
    while sys.stdin.readline():
        print(await database.write(change, actor=""), flush=True)

async def storm(database, path, seconds):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            number = await database.write(change, actor="")
            struct.pack_into("q", shared, 0, number)

async def main(url, *arguments):
    database = Database(url)
    print("ready", flush=True)
    await (storm(database, *arguments) if arguments else steps(database))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


def change(tx: Transaction) -> None:
    tx.change_policy()


async def bump(database: Database) -> int:
    """Change the policy from another connection; the number after it."""
    await database.write(change, actor="")
    return await database.read(policy.read_number)


@pytest.fixture
async def other(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """Another process's way to the same database."""
    del anyio_backend
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def watch(database: Database) -> Iterator[PolicyWatch]:
    made = PolicyWatch(database)
    yield made
    made.close()


@contextlib.contextmanager
def process(url: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database by those who read."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(database._reader, "before_cursor_execute", note)
    yield asked
    sa.event.remove(database._reader, "before_cursor_execute", note)


async def test_it_begins_with_what_is_there(
    watch: PolicyWatch, database: Database, other: Database
) -> None:
    number = await bump(other)
    assert watch.peek() is None
    assert await watch.read() == number == await database.read(policy.read_number)


async def test_a_change_of_another_connection_is_seen(watch: PolicyWatch, other: Database) -> None:
    last = await watch.read()
    for _ in range(50):
        number = await bump(other)
        assert number == last + 1
        assert watch.peek() is None
        assert await watch.read() == number
        last = number


async def test_a_change_of_its_own_process_is_seen(watch: PolicyWatch, database: Database) -> None:
    await watch.read()
    for _ in range(20):
        number = await bump(database)
        assert await watch.read() == number


async def test_a_change_of_another_process_is_seen(watch: PolicyWatch, database_url: str) -> None:
    last = await watch.read()
    with process(database_url) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdin.write("\n")
            writer.stdin.flush()
            number = int(writer.stdout.readline())
            assert number == last + 1
            assert await watch.read() == number
            last = number
        writer.stdin.close()
    # What the end of a process does to the file is no change, and hides none.
    assert await watch.read() == last


async def test_what_is_rolled_back_is_no_change(watch: PolicyWatch, other: Database) -> None:
    number = await watch.read()

    def work(tx: Transaction) -> None:
        tx.change_policy()
        raise KeyError

    with pytest.raises(KeyError):
        await other.write(work, actor="")
    assert await watch.read() == number


async def test_other_commits_are_no_change(watch: PolicyWatch, other: Database) -> None:
    number = await watch.read()
    await other.write(lambda tx: leases.claim(tx, "gc", "ann", 60), actor="")
    assert await watch.read() == number
    assert await watch.read() == number


async def test_a_repository_that_goes_is_a_change(watch: PolicyWatch, other: Database) -> None:
    def make(tx: Transaction) -> None:
        add_blob(tx, repositories.ensure(tx, NAME), "layer")

    number = await watch.read()
    await other.write(make, actor="")
    assert await watch.read() == number
    await other.write(lambda tx: repositories.delete(tx, find(tx)), actor="")
    assert await watch.read() == number + 1


async def test_many_readers_are_few_queries(
    watch: PolicyWatch, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[int] = []
    ask = watch._ask

    async def counted() -> int:
        queries.append(await ask())
        return queries[-1]

    monkeypatch.setattr(watch, "_ask", counted)
    for _ in range(5):
        number = await bump(other)
        queries.clear()
        told = await asyncio.gather(*(watch.read() for _ in range(500)))
        assert set(told) == {number}
        assert 1 <= len(queries) <= 2


async def test_nothing_is_asked_where_nothing_was_committed(
    database: Database, watch: PolicyWatch, other: Database, statements: list[str]
) -> None:
    """An embedded database tells of commits without a query."""
    assert watch.peek() is None
    number = await watch.read()
    statements.clear()
    if not database.embedded:
        assert watch.peek() is None
        return
    threads = threading.active_count()
    assert [watch.peek() for _ in range(1000)] == [number] * 1000
    assert await watch.read() == number
    assert statements == []
    assert threading.active_count() == threads
    await bump(other)
    assert watch.peek() is None


async def test_a_query_that_has_begun_does_not_answer_a_later_question(
    watch: PolicyWatch, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held back between its answer and those who wait for it, while the policy changes."""
    answered, go_on = asyncio.Event(), asyncio.Event()
    ask = watch._ask

    async def held() -> int:
        number = await ask()
        answered.set()
        await go_on.wait()
        return number

    number = await watch.read()
    await bump(other)
    monkeypatch.setattr(watch, "_ask", held)
    early = asyncio.ensure_future(watch.read())
    await answered.wait()
    await bump(other)
    late = [asyncio.ensure_future(watch.read()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(asked.done() for asked in [early, *late])
    go_on.set()
    assert await early == number + 1
    assert await asyncio.gather(*late) == [number + 2] * 3
    assert await watch.read() == number + 2


async def test_one_who_leaves_does_not_take_the_answer_along(
    watch: PolicyWatch, other: Database
) -> None:
    number = await bump(other)
    asked = [asyncio.ensure_future(watch.read()) for _ in range(5)]
    await asyncio.sleep(0)
    asked[0].cancel()
    assert await asyncio.gather(*asked[1:]) == [number] * 4
    # All leave: the next one is answered all the same.
    await bump(other)
    asked = [asyncio.ensure_future(watch.read()) for _ in range(5)]
    await asyncio.sleep(0)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert await watch.read() == number + 1


async def fails_for_all(watch: PolicyWatch) -> None:
    told = await asyncio.gather(*(watch.read() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in told} == {DatabaseUnavailableError}
    with pytest.raises(DatabaseUnavailableError):
        await watch.read()


def rename(old: str, new: str) -> sa.TextClause:
    return sa.text(f"ALTER TABLE {old} RENAME TO {new}")


async def test_a_database_that_fails_and_recovers(watch: PolicyWatch, other: Database) -> None:
    number = await watch.read()
    await other.write(lambda tx: tx.execute(rename("policy_head", "away")).close(), actor="")
    await fails_for_all(watch)
    assert watch.peek() is None
    await other.write(lambda tx: tx.execute(rename("away", "policy_head")).close(), actor="")
    assert await watch.read() == number
    assert await watch.read() == number


async def test_a_server_that_goes_and_comes_back(postgres: Cluster) -> None:
    """As after a failover: the connections are cut, and for a while there is nothing to reach."""
    with postgres.database() as url, postgres._admin.connect() as admin:
        name = url.rpartition("/")[2]
        database = Database(url)
        watch = PolicyWatch(database)
        number = await watch.read()
        admin.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        admin.execute(sa.text(cut), {"name": name})
        await fails_for_all(watch)
        admin.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        assert await watch.read() == number
        assert await bump(database) == await watch.read() == number + 1
        watch.close()
        await database.close()


async def test_a_closed_watch_knows_nothing(watch: PolicyWatch) -> None:
    await watch.read()
    watch.close()
    assert watch.peek() is None


async def test_readers_are_never_told_what_is_over(
    watch: PolicyWatch, database_url: str, tmp_path: Path
) -> None:
    """A process writes as fast as it can and says after each commit how far it is."""
    path = tmp_path / "shared"
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:

        def committed() -> int:
            return int(struct.unpack_from("q", shared)[0])

        end = time.monotonic() + STRESS_SECONDS
        seen: list[set[int]] = [set() for _ in range(READERS)]

        async def read(mine: set[int]) -> None:
            last = 0
            while time.monotonic() < end:
                floor = committed()
                number = watch.peek()
                if number is None:
                    number = await watch.read()
                else:
                    await asyncio.sleep(0)
                assert number >= floor, "what was committed before the question is not in it"
                assert number >= last, "it went back"
                last = number
                mine.add(number)

        with process(database_url, str(path), str(STRESS_SECONDS)) as writer:
            await asyncio.gather(*(read(mine) for mine in seen))
            assert await asyncio.to_thread(writer.wait, 30) == 0
        assert await watch.read() == committed()
        assert min(len(mine) for mine in seen) > 20
