"""The last pull of each manifest, collected in memory and written in few statements."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.errors import DatabaseFrozenError
from registry.metadata import tables
from registry.metadata.content import manifests, pull_times, tags
from registry.metadata.engine import write_freeze
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention.usage_of_tags import read_now
from registry.oci.references import Tag
from registry.services.content import pulls as service
from registry.services.content.pulls import Pulls
from storage.digest import Digest
from tests.metadata.rows import NAME, digest_of, find, image, rows
from tests.services.retention.histories import push, write
from tests.support.kit import Kit
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.anyio

LATEST = Tag("latest")
PATIENCE = 100.0
"""Seconds to wait for something that normally takes less than one."""


@contextlib.contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Record the statements that change the table of pulls."""
    connections = database.connections
    engine = connections.engine if connections else database._writer._engine  # type: ignore[union-attr]
    found: list[str] = []

    def note(*args: object) -> None:
        statement = str(args[2])
        if "pull_times" in statement:
            found.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(engine, "before_cursor_execute", note)


async def push_one(database: Database, seed: str = "1") -> int:
    await push(database, image(seed), "latest")
    row = await database.read(lambda tx: manifests.find(tx, NAME, digest_of(image(seed))))
    assert row is not None
    return row.id


async def known(database: Database) -> dict[tuple[int, str], int]:
    return {
        (row.manifest_id, row.tag): row.pulled_at for row in await rows(database, tables.pull_times)
    }


async def test_many_pulls_are_one_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await push_one(database), await push_one(database, "2")
    noted = Pulls(database, 3600)
    with counted(database) as statements:
        for _ in range(1000):
            noted.note(one, LATEST)
            noted.note(one, digest_of(image("1")))
            noted.note(two, LATEST)
        assert statements == []
        before = await database.read(read_now)
        await noted.flush()
        await noted.flush()
        assert len(statements) == 1
        found = await known(database)
        assert found.keys() == {(one, "latest"), (one, ""), (two, "latest")}
        assert all(abs(at - before) < PATIENCE * 1_000_000 for at in found.values())
        monkeypatch.setattr(service, "BATCH", 2)
        for tag in ("a", "b", "c"):
            noted.note(one, Tag(tag))
        await noted.flush()
    assert len([text for text in statements if "INSERT" in text]) == 3
    assert len(await known(database)) == 6


async def test_the_latest_stays_whoever_writes_last(database: Database) -> None:
    one = await push_one(database)
    hour = 3600 * 1_000_000
    await write(database, lambda tx: pull_times.put(tx, [(one, "", hour)]))
    first = await known(database)
    await write(database, lambda tx: pull_times.put(tx, [(one, "", 2 * hour)]))
    assert await known(database) == first
    await write(database, lambda tx: pull_times.put(tx, [(one, "", 0)]))
    assert (await known(database))[one, ""] > first[one, ""]


async def test_what_went_meanwhile_is_passed_over(database: Database) -> None:
    one, two = await push_one(database), await push_one(database, "2")
    noted = Pulls(database, 3600)
    for manifest_id in (one, two, 987654321):
        noted.note(manifest_id, digest_of(image("1")))

    def delete(seed: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            row = manifests.find(tx, NAME, digest_of(image(seed)))
            assert row is not None
            tags.delete_all_of(tx, find(tx), row.digest)
            manifests.delete(tx, find(tx), row)

        return work

    await write(database, delete("1"))
    await noted.flush()
    assert (await known(database)).keys() == {(two, "")}
    # Deleting a manifest deletes its pulls.
    await write(database, delete("2"))
    assert await known(database) == {}


async def test_a_database_that_takes_no_changes_is_waited_for(database: Database) -> None:
    one = await push_one(database)
    noted = Pulls(database, 0.01)
    await write(database, lambda tx: write_freeze.freeze(tx, "token", "elsewhere", 600))
    noted.note(one, LATEST)
    noted.note(one, Tag("other"))
    with pytest.raises(DatabaseFrozenError):
        await noted.flush()
    noted.note(one, LATEST)
    noted.start()
    assert await known(database) == {}
    await write(database, write_freeze.release)
    await noted.stop()
    assert (await known(database)).keys() == {(one, "latest"), (one, "other")}


async def test_memory_is_bounded(database: Database) -> None:
    one = await push_one(database)
    noted = Pulls(database, 3600, most=3)
    for tag in ("a", "b", "c", "a", "d"):
        noted.note(one, Tag(tag))
    await write(database, lambda tx: write_freeze.freeze(tx, "token", "elsewhere", 600))
    with pytest.raises(DatabaseFrozenError):
        await noted.flush()
    noted.note(one, Tag("e"))
    await write(database, write_freeze.release)
    await noted.flush()
    assert {tag for _, tag in await known(database)} == {"a", "d", "e"}


# A server with two workers


def read_pulls(data: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(data / "moorage.db")) as connection:
        return dict(connection.execute("SELECT tag, pulled_at FROM pull_times"))


def wait_for(data: Path, names: set[str]) -> dict[str, int]:
    deadline = time.monotonic() + PATIENCE
    while not names <= read_pulls(data).keys():
        assert time.monotonic() < deadline, read_pulls(data)
        time.sleep(0.02)
    return read_pulls(data)


async def push_tags(server: Server, names: list[str]) -> Digest:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        digest, raw = await Kit(http).push_image("team/app", names[0])
        for tag in names[1:]:
            await Kit(http).put_manifest("team/app", tag, raw)
    return digest


def pull_each(server: Server, references: list[str], method: str = "GET") -> None:
    """Pull each over a new connection, so that both workers serve some."""
    for reference in references:
        url = f"{server.url}/v2/team/app/manifests/{reference}"
        assert httpx.request(method, url, timeout=30).status_code == 200


async def test_two_workers_that_stop_lose_nothing(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(16)]
    with serving(
        Server(tmp_path / "data", 2, {"MOORAGE_RETENTION__PULL_FLUSH_INTERVAL": "1h"})
    ) as server:
        digest = await push_tags(server, names)
        pull_each(server, names[:8])
        pull_each(server, names[8:], "HEAD")
        pull_each(server, [str(digest)])
        assert read_pulls(server.data) == {}
    assert read_pulls(server.data).keys() == {*names, ""}


async def test_a_kill_loses_what_was_not_yet_written_and_no_more(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", 2, {"MOORAGE_RETENTION__PULL_FLUSH_INTERVAL": "200ms"})
    with serving(server):
        await push_tags(server, ["a", "b"])
        pull_each(server, ["a"])
        before = wait_for(server.data, {"a"})
        pull_each(server, ["b"])
        server.kill()
    after = read_pulls(server.data)
    assert after.keys() - {"b"} == {"a"}
    assert after["a"] == before["a"]
