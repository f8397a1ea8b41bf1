"""Changes between the plan and the drop, and runs of the job."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError
from registry.metadata import tables
from registry.metadata.content import repositories, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.retention.planner import Plan
from registry.services.retention.retention import Retention
from tests.metadata.rows import digest_of, find, image, index, rows
from tests.services.retention.conftest import GRACE
from tests.services.retention.histories import (
    DAY,
    list_manifests,
    list_tags,
    pull,
    push,
    set_rule,
    write,
)
from tests.services.retention.runs.helpers import ALL, carry_out, going, plan_of, run
from tests.support.accounts import OPERATOR
from tests.support.clock import Clocks

pytestmark = pytest.mark.anyio


# Between the plan and the drop.

Change = Callable[[Database], Awaitable[object]]


async def _recreate(database: Database) -> None:
    await write(database, lambda tx: repositories.delete(tx, find(tx)))
    await push(database, image("old"), "old", days_ago=9)


async def _move_and_back(database: Database) -> None:
    await push(database, image("new"), "old")
    await push(database, image("old"), "old")


async def _delete_other(database: Database) -> None:
    await write(database, lambda tx: tags.delete(tx, find(tx), Tag("new")))


async def _nothing(database: Database) -> None:
    del database


BETWEEN: dict[str, tuple[Change, tuple[int, int, bool]]] = {
    # Control: without a change, the tag is dropped.
    "nothing": (_nothing, (1, 0, True)),
    "moved": (lambda db: push(db, image("new"), "old"), (0, 0, True)),
    "moved and back": (_move_and_back, (0, 0, True)),
    "pulled": (lambda db: pull(db, digest_of(image("old")), "old"), (0, 0, True)),
    "pulled by digest": (lambda db: pull(db, digest_of(image("old"))), (0, 0, True)),
    "another pulled": (lambda db: pull(db, digest_of(image("new")), "new"), (1, 0, True)),
    "another pushed": (lambda db: push(db, image("3"), "3"), (1, 0, True)),
    # The tag exceeded the number of newest tags only because of the deleted one.
    "another deleted": (_delete_other, (0, 0, False)),
    "other rules": (lambda db: set_rule(db, keep="old"), (0, 0, False)),
    "another repository": (_recreate, (0, 0, False)),
}


@pytest.mark.parametrize("what", BETWEEN)
async def test_a_tag_goes_only_as_planned(
    database: Database, retention: Retention, what: str
) -> None:
    change, expected = BETWEEN[what]
    await push(database, image("old"), "old", days_ago=9)
    await push(database, image("new"), "new", days_ago=8)
    await set_rule(database, "team/*", keep_newest=1, drop_not_pulled="5d")
    plan = await plan_of(retention)
    assert going(plan) == ["old"]
    await change(database)
    assert await carry_out(retention, plan) == expected
    assert ("old" in await list_tags(database)) is (expected[0] == 0)


async def _name_it(database: Database) -> None:
    await push(database, index([image("old")]), "index")


async def _tag_it(database: Database) -> None:
    await write(database, lambda tx: tags.put(tx, find(tx), Tag("back"), digest_of(image("old"))))


LOOSE_BETWEEN: dict[str, tuple[Change, int]] = {
    "nothing": (_nothing, 1),
    "tagged": (_tag_it, 0),
    "named by an index": (_name_it, 0),
    "pushed again": (lambda db: push(db, image("old")), 0),
    "pulled": (lambda db: pull(db, digest_of(image("old"))), 0),
}


@pytest.mark.parametrize("what", LOOSE_BETWEEN)
async def test_a_manifest_goes_only_as_planned(
    database: Database, retention: Retention, what: str
) -> None:
    change, expected = LOOSE_BETWEEN[what]
    await push(database, image("old"), days_ago=9)
    await push(database, image("new"), "new", days_ago=9)
    await set_rule(database, drop_untagged="7d")
    plan = await plan_of(retention)
    assert [each.item.digest for each in plan.drops] == [digest_of(image("old"))]
    await change(database)
    assert (await carry_out(retention, plan))[1] == expected
    assert (digest_of(image("old")) in await list_manifests(database)) is (expected == 0)


async def test_what_something_holds_is_not_untagged(
    database: Database, retention: Retention
) -> None:
    child, lone = image("child"), image("lone")
    parent = index([child])
    subject = {"digest": str(digest_of(parent)), "size": 1, "mediaType": "x"}
    signature = image("signature", subject=subject)
    for manifest in (child, lone, signature):
        await push(database, manifest, days_ago=9)
    await push(database, parent, "index", days_ago=9)
    await set_rule(database, drop_untagged="7d")
    assert await run(retention) == (0, 1)
    everything = {digest_of(each) for each in (child, parent, signature)}
    assert await list_manifests(database) == everything
    # Long enough after its tag is deleted, the index, its content and the repository are dropped.
    await write(database, lambda tx: tags.delete(tx, find(tx), Tag("index")))
    assert await run(retention) == (0, 0)
    await write(
        database, lambda tx: tx.execute(sa.update(tables.change_feed).values(at=tx.now - 8 * DAY))
    )
    assert await run(retention) == (0, 3)
    assert await list_manifests(database) == set()


async def test_untagged_counts_from_when_the_last_tag_left(
    database: Database, retention: Retention
) -> None:
    def untag(tag: str, days_ago: int) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            tx.now -= days_ago * DAY
            tags.delete(tx, find(tx), Tag(tag))

        return work

    digest = await push(database, image("1"), "a", "b", days_ago=30)
    await write(database, untag("a", 20))
    await set_rule(database, drop_untagged="7d")
    assert (await plan_of(retention)).manifests == []
    await write(database, untag("b", 6))
    assert [each.is_dropped for each in (await plan_of(retention)).manifests] == [False]
    await set_rule(database, drop_untagged="6d")
    assert [each.is_dropped for each in (await plan_of(retention)).manifests] == [True]
    # If the feed is shorter, the manifest may have been untagged as late as the feed begins.
    await push(database, image("2"), "c", days_ago=3)
    await write(
        database,
        lambda tx: tx.execute(sa.delete(tables.change_feed).where(tables.change_feed.c.tag == "b")),
    )
    await write(
        database,
        lambda tx: tx.execute(
            sa.delete(tables.change_feed).where(tables.change_feed.c.revision < 9)
        ),
    )
    [loose] = (await plan_of(retention)).manifests
    assert loose.item.digest == digest
    first = (await rows(database, tables.change_feed))[0]
    assert loose.item.untagged_at == first.at


# Runs


async def test_the_job_goes_on_where_it_was_cut_off(
    database: Database, retention: Retention
) -> None:
    for name in ("a", "b", "c"):
        await push(database, image(name), "x", "y", name=RepositoryName(name))
    assert not await retention.is_due()
    await set_rule(database, keep="y", drop="*")
    assert await retention.is_due()
    real = retention.planner.plan

    async def die(name: RepositoryName, now: int | None = None, **more: Any) -> Plan | None:
        if str(name) == "b":
            raise ConflictError("killed here")
        return await real(name, now, **more)

    retention.planner.plan = die  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        await retention.work()
    assert len(await list_tags(database)) == 5
    assert (await retention.get_status()).run is not None
    retention.planner.plan = real  # type: ignore[method-assign]
    assert await retention.is_due()
    while await retention.work():
        pass
    assert await list_tags(database) == ["y", "y", "y"]
    status = await retention.get_status()
    assert status.run is not None
    assert status.run.ended_at is not None
    assert not await retention.is_due()
    assert status.due_at == status.run.started_at + 3600 * 1_000_000
    # After an hour, the next run is due.
    await write(
        database,
        lambda tx: tx.execute(
            sa.update(tables.retention_run).values(
                started_at=tables.retention_run.c.started_at - 3600 * 1_000_000
            )
        ),
    )
    assert await retention.is_due()


async def test_a_registry_that_is_read_only_drops_nothing(database: Database) -> None:
    retention = Retention(database, interval=1, grace=GRACE, read_only=True)
    await push(database, image("1"), "a")
    await set_rule(database, drop="*")
    assert not await retention.is_due()
    assert await retention.work() == 0
    with pytest.raises(ConflictError):
        await retention.run(ALL, "", OPERATOR)
    assert await list_tags(database) == ["a"]


@pytest.mark.parametrize("days", [30, -30])
async def test_nothing_is_dropped_for_a_grace_after_a_jump(
    database: Database, retention: Retention, clocks: Clocks, days: int
) -> None:
    await set_rule(database, drop="*")
    await retention.work()  # Check the clocks.
    await push(database, image("1"), "a")
    clocks.pass_by(2 * 3600)
    clocks.jump(days * 86_400)
    assert await retention.work() == 0
    status = await retention.get_status()
    assert status.paused_until == clocks.now() + GRACE * 1_000_000
    assert not status.is_due
    assert (await plan_of(retention)).paused_until == status.paused_until
    with pytest.raises(ConflictError, match="clock has jumped"):
        await retention.run(ALL, "", OPERATOR)
    clocks.pass_by(GRACE - 60)
    assert not await retention.is_due()
    assert await list_tags(database) == ["a"]
    clocks.pass_by(120)
    assert await retention.is_due()
    assert await retention.work() == 1
    assert await list_tags(database) == []
    assert (await retention.get_status()).paused_until is None


async def test_a_plan_holds_nobody_up(
    database: Database, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning may take seconds, so it holds no lock that delays immutability rules or pushes.

    The drop itself takes the lock of the immutability rules.
    """
    await push(database, image("1"), "a", "b")
    await set_rule(database, keep="b", drop="*")
    held: list[str] = []
    real = Transaction.lock_name

    def lock(tx: Transaction, name: str, *, shared: bool = False) -> None:
        held.append(name)
        real(tx, name, shared=shared)

    monkeypatch.setattr(Transaction, "lock_name", lock)
    assert going(await plan_of(retention, measured=True)) == ["a"]
    assert held == []
    assert await run(retention) == (1, 0)
    assert held


async def test_a_clock_that_jumps_during_a_run_makes_nothing_old(
    database: Database, retention: Retention, clocks: Clocks
) -> None:
    at = clocks.now()
    await push(database, image("1"), "a")
    await write(database, lambda tx: tx.execute(sa.update(tables.tags).values(updated_at=at)))
    await set_rule(database, drop_not_pulled="1d")
    real = retention.planner.list_names

    async def jump(pattern: RepositoryPattern, last: str, *, enabled: bool = True) -> list[str]:
        clocks.jump(30 * 86_400)
        return await real(pattern, last, enabled=enabled)

    retention.planner.list_names = jump  # type: ignore[method-assign]
    await retention.work()
    assert await list_tags(database) == ["a"]


async def test_beside_pushes(database: Database, retention: Retention) -> None:
    """Concurrent pushes succeed, and everything that the rules keep is there at the end."""
    await set_rule(database, keep="keep-*", drop="*", drop_untagged="0s")
    pushed: list[str] = []
    pushing = True

    async def client(number: int) -> None:
        for count in range(6):
            child = image(f"{number} {count}")
            await push(database, child)
            name = f"{'keep' if count % 2 else 'drop'}-{number}-{count}"
            await push(database, index([child]), name)
            pushed.append(name)

    async def drop() -> int:
        dropped = 0
        while pushing:
            dropped += (await run(retention))[0]
            await asyncio.sleep(0.01)
        return dropped

    dropping = asyncio.create_task(drop())
    await asyncio.gather(*(client(number) for number in range(3)))
    pushing = False
    dropped = await dropping + (await run(retention))[0]
    assert len(pushed) == 18
    assert await list_tags(database) == sorted(n for n in pushed if n.startswith("keep"))
    assert dropped == 9
