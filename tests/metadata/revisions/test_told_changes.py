"""The changes that a revision watch reports to its subscribers."""

import asyncio
import time

import pytest
import sqlalchemy as sa

from registry.metadata.content import repositories
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.revisions.revisions import MAX_LISTED, Changed, Revisions
from registry.metadata.revisions.watch import RevisionWatch
from registry.metadata.tables import change_feed, change_feed_revision
from registry.oci.names import RepositoryName
from tests.metadata.revisions.changes import bump, make
from tests.metadata.rows import NAME, find

pytestmark = pytest.mark.anyio


OTHER = RepositoryName("other")


async def test_what_changed_is_told_before_the_heads_are(
    watch: RevisionWatch, other: Database
) -> None:
    told: list[Changed] = []
    watch.subscribe(told.append)
    first = await watch.read()
    assert told == [None]  # there is no earlier revision to compare with
    await other.write(lambda tx: make(tx, NAME, OTHER), actor="")
    second = await watch.read()
    assert second.feed > first.feed
    assert told == [None, {NAME, OTHER}]
    await other.write(lambda tx: leases.claim(tx, "gc", "ann", 60), actor="")
    await bump(other)
    assert (await watch.read()).feed == second.feed
    assert told == [None, {NAME, OTHER}]
    await other.write(lambda tx: repositories.delete(tx, find(tx)), actor="")
    assert (await watch.read()).feed == second.feed + 1
    assert told == [None, {NAME, OTHER}, {NAME}]


async def test_changes_that_are_too_many_or_no_longer_listed_are_all(
    watch: RevisionWatch, other: Database
) -> None:
    told: list[Changed] = []
    await watch.read()
    watch.subscribe(told.append)

    def change_often(tx: Transaction, times: int) -> None:
        repository = repositories.ensure(tx, NAME)
        for _ in range(times):
            tx.record_change(Change.TAG_SET, NAME, repository.generation)

    await other.write(lambda tx: change_often(tx, 1), actor="")
    await watch.read()
    for times, changed in ((MAX_LISTED, {NAME}), (MAX_LISTED + 1, None), (1, {NAME})):
        told.clear()
        await other.write(lambda tx, times=times: change_often(tx, times), actor="")  # type: ignore[misc]
        await watch.read()
        assert told == [changed]
    await other.write(lambda tx: change_often(tx, 2), actor="")
    newest = sa.select(sa.func.max(change_feed.c.revision)).scalar_subquery()
    trim = sa.delete(change_feed).where(change_feed.c.revision < newest)
    await other.write(lambda tx: tx.execute(trim).close(), actor="")
    told.clear()
    await watch.read()
    assert told == [None]
    # As after a restore of an older copy.
    back = sa.update(change_feed_revision).values(revision=1)
    await other.write(lambda tx: tx.execute(back).close(), actor="")
    told.clear()
    assert (await watch.read()).feed == 1
    assert told == [None]


async def test_what_was_read_since_is_not_asked_for_again(
    watch: RevisionWatch, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = 0
    ask = watch._ask

    async def counted() -> tuple[Revisions, Changed]:
        nonlocal queries
        queries += 1
        return await ask()

    monkeypatch.setattr(watch, "_ask", counted)
    began = time.monotonic()
    assert watch.latest_known(began) is None
    before = await watch.read(began)
    await bump(other)
    assert watch.latest_known(began) == await watch.read(began) == before
    assert queries == 1
    assert (await watch.read(time.monotonic())).policy == before.policy + 1
    assert queries == 2


async def test_a_task_that_is_answered_from_memory_lets_others_run(watch: RevisionWatch) -> None:
    """Otherwise it blocks the loop forever, and with it the change of the answer."""
    began = time.monotonic()
    await watch.read(began)
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    questions = 0
    while not done.is_set():
        if watch.latest_known(began) is None:
            await watch.read(began)
        questions += 1
        assert questions < 10_000, "nobody else has run"
    assert questions > 1
