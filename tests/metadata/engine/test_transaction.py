"""Tests of the numbers of the change feed: without gaps, and in commit order."""

import asyncio
import random
from collections.abc import Callable

import pytest

from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.revisions import change_feed
from registry.metadata.revisions.change_feed import ChangeRow
from tests.metadata.rows import NAME, events, rows

pytestmark = pytest.mark.anyio


class RefusedError(Exception):
    """An error that rolls a transaction back."""


def tell(tx: Transaction, tag: str, times: int = 1) -> None:
    for _ in range(times):
        tx.record_change(Change.TAG_SET, NAME, "g", tag=tag)


async def test_a_transaction_takes_a_range(database: Database) -> None:
    for tag, times in {"a": 1, "b": 3, "c": 0, "d": 2}.items():
        await database.write(lambda tx, tag=tag, times=times: tell(tx, tag, times), actor="ann")  # type: ignore[misc]
    told = [(event.revision, event.tag) for event in await events(database)]
    assert told == [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "d"), (6, "d")]
    (head,) = await rows(database, tables.change_feed_revision)
    assert head.revision == 6


async def test_what_rolls_back_leaves_no_gap(database: Database) -> None:
    def refuse(tx: Transaction) -> None:
        tell(tx, "never")
        tx.write_changes()
        raise RefusedError

    for tag in ("a", "b"):
        with pytest.raises(RefusedError):
            await database.write(refuse, actor="ann")
        await database.write(lambda tx, tag=tag: tell(tx, tag), actor="ann")  # type: ignore[misc]
    assert [(event.revision, event.tag) for event in await events(database)] == [(1, "a"), (2, "b")]


async def test_numbers_follow_commits_under_many_writers(  # noqa: C901
    replicas: list[Database],
) -> None:
    """A reader that asks for changes after the last number it saw misses none."""
    chance = random.Random(7)
    committed: list[str] = []
    plans = [(f"{n}", chance.randrange(4), chance.random() < 0.3) for n in range(200)]

    def work(tag: str, times: int, refuse: bool) -> Callable[[Transaction], None]:
        def job(tx: Transaction) -> None:
            tell(tx, tag, times)
            if refuse:
                raise RefusedError

        return job

    async def writer(number: int) -> None:
        for tag, times, refuse in plans[number::16]:
            try:
                await replicas[number % 2].write(work(tag, times, refuse), actor=f"w{number}")
            except RefusedError:
                assert refuse
            else:
                committed.extend([tag] * times)

    seen: list[ChangeRow] = []
    done = asyncio.Event()

    async def reader() -> None:
        while True:
            last = done.is_set()
            page = await replicas[0].read(
                lambda tx: change_feed.list_after(tx, seen[-1].revision if seen else 0, 1000)
            )
            seen.extend(page)
            if last:
                return
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(reader())
    await asyncio.gather(*(writer(number) for number in range(16)))
    done.set()
    await watching
    assert [change.revision for change in seen] == list(range(1, len(seen) + 1))
    assert sorted(change.tag or "" for change in seen) == sorted(committed)
    # The changes of one transaction are adjacent.
    tags = [change.tag for change in seen]
    runs = [tag for at, tag in enumerate(tags) if at == 0 or tags[at - 1] != tag]
    assert len(runs) == len(set(runs))
