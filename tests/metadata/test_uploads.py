"""Tests of upload sessions as rows: found by id, advanced, listed when idle, deleted."""

import asyncio

import pytest
from msgspec.structs import replace

from registry.metadata import tables
from registry.metadata.content import uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import digest, held_open, rows, upload
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

BIG = 5 << 40
"""Bytes, more than fit in 32 bits."""


async def test_is_found_as_it_was_written(database: Database) -> None:
    full = upload("full", repository_generation="g", offset=7, prefix_digest=digest("x"), key="k")

    def work(tx: Transaction) -> list[UploadRow | None]:
        for row in (upload("bare"), full):
            uploads.insert(tx, row)
        return [
            uploads.find(tx, "bare"),
            uploads.find(tx, "full", lock=True),
            uploads.find(tx, "none"),
        ]

    assert await database.write(work, actor="ann") == [upload("bare"), full, None]


async def test_advances_in_all_that_it_is_told(database: Database) -> None:
    def work(tx: Transaction) -> list[object]:
        row = upload("a", repository_generation="g")
        uploads.insert(tx, row)
        tx.now += 5
        moved = replace(row, offset=BIG, prefix_digest=digest("x"), key="k", resume_state="[]")
        there = uploads.advance(tx, moved, row)
        first = uploads.find(tx, "a")
        uploads.advance(tx, replace(row, offset=BIG + 1), moved)
        stale = uploads.advance(tx, replace(row, offset=1), row)
        gone = uploads.advance(tx, upload("b", offset=1), upload("b"))
        return [there, gone or stale, first, uploads.find(tx, "a")]

    there, gone, first, second = await database.write(work, actor="ann")
    assert (there, gone) == (True, False)
    assert first == upload(
        "a",
        repository_generation="g",
        offset=BIG,
        prefix_digest=digest("x"),
        key="k",
        resume_state="[]",
    )
    assert second == upload("a", repository_generation="g", offset=BIG + 1)
    (row,) = await rows(database, tables.uploads)
    assert row.active_at == row.started_at + 5


async def test_ends_once(database: Database) -> None:
    def work(tx: Transaction) -> list[bool]:
        uploads.insert(tx, upload("a"))
        return [uploads.delete(tx, "a") for _ in range(2)]

    assert await database.write(work, actor="ann") == [True, False]


async def test_the_holder_of_the_claim_takes_the_row(database: Database) -> None:
    def work(tx: Transaction) -> list[UploadRow | None]:
        uploads.insert(tx, upload("a", claim_number=2))
        return [uploads.take(tx, "a", claim) for claim in (1, 2, 2)]

    assert await database.write(work, actor="ann") == [None, upload("a", claim_number=2), None]


async def test_idle_ones_are_listed_oldest_first(database: Database) -> None:
    def work(tx: Transaction) -> list[list[str]]:
        for upload_id, active_at in {"c": 30, "a": 10, "b": 20, "busy": 40}.items():
            tx.now = active_at
            uploads.insert(tx, upload(upload_id))
        return [
            [row.id for row in uploads.list_idle(tx, ["local"], 40, 9)],
            [row.id for row in uploads.list_idle(tx, ["local"], 40, 2)],
        ]

    assert await database.write(work, actor="ann") == [["a", "b", "c"], ["a", "b"]]


async def test_those_that_are_there_are_told_from_those_that_are_not(database: Database) -> None:
    def work(tx: Transaction) -> set[str]:
        for upload_id in ("a", "b"):
            uploads.insert(tx, upload(upload_id))
        return uploads.list_present(tx, ["a", "x", "b", "y"])

    assert await database.write(work, actor="ann") == {"a", "b"}


async def test_a_locked_one_cannot_end(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        await database.write(lambda tx: uploads.insert(tx, upload("a")), actor="ann")
        with held_open(url) as tx:
            assert uploads.find(tx, "a", lock=True) == upload("a")
            ending = asyncio.ensure_future(
                database.write(lambda tx: uploads.delete(tx, "a"), actor="bob")
            )
            await asyncio.sleep(0.3)
            assert not ending.done()
        assert await ending
        await database.close()


class TestClaim:
    """Claims as rows, for stores that cannot lock."""

    async def test_one_at_a_time_until_it_is_released(self, database: Database) -> None:
        def work(tx: Transaction) -> list[UploadRow | None]:
            uploads.insert(tx, upload("a", resume_state="{}"))
            first, refused = (uploads.claim(tx, "a", 30) for _ in range(2))
            uploads.release(tx, "a", 1)
            return [first, refused, uploads.claim(tx, "a", 30), uploads.claim(tx, "b", 30)]

        claims = await database.write(work, actor="ann")
        one, two = (
            upload("a", resume_state="{}", claim_number=1),
            upload("a", resume_state="{}", claim_number=2),
        )
        assert claims == [one, None, two, None]

    @pytest.mark.usefixtures("own_time")
    async def test_a_dead_holder_is_followed_when_its_lease_is_over(
        self, database: Database
    ) -> None:
        def work(tx: Transaction) -> list[object]:
            uploads.insert(tx, upload("a"))
            uploads.claim(tx, "a", 30)
            tx.now += 20_000_000
            beat = uploads.hold(tx, "a", 1, 30)
            tx.now += 30_000_000
            early = uploads.claim(tx, "a", 30)
            tx.now += 1
            return [beat, early, uploads.claim(tx, "a", 30)]

        assert await database.write(work, actor="ann") == [True, None, upload("a", claim_number=2)]

    @pytest.mark.usefixtures("own_time")
    async def test_whoever_was_followed_changes_nothing_more(self, database: Database) -> None:
        def work(tx: Transaction) -> list[object]:
            uploads.insert(tx, upload("a"))
            for _ in range(2):
                uploads.claim(tx, "a", 30)
                tx.now += 30_000_001
            before = uploads.find(tx, "a")
            refused = [
                uploads.advance(tx, upload("a", offset=7, claim_number=1), upload("a")),
                uploads.save(tx, "a", 1, "late"),
                uploads.hold(tx, "a", 1, 3600),
                uploads.delete(tx, "a", 1),
            ]
            return [refused, before == uploads.find(tx, "a"), uploads.claim(tx, "a", 30)]

        assert await database.write(work, actor="ann") == [
            [False] * 4,
            True,
            upload("a", claim_number=3),
        ]

    async def test_its_holder_may_do_everything(self, database: Database) -> None:
        def work(tx: Transaction) -> list[object]:
            uploads.insert(tx, upload("a"))
            uploads.claim(tx, "a", 30)
            return [
                uploads.save(tx, "a", 1, "half-way"),
                uploads.find(tx, "a"),
                uploads.advance(
                    tx, upload("a", offset=7, resume_state="moved", claim_number=1), upload("a")
                ),
                uploads.find(tx, "a"),
                uploads.delete(tx, "a", 1),
            ]

        assert await database.write(work, actor="ann") == [
            True,
            upload("a", resume_state="half-way", claim_number=1),
            True,
            upload("a", offset=7, resume_state="moved", claim_number=1),
            True,
        ]
