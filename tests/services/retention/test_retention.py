"""Rules applied to a database: what they drop and free, and concurrent changes."""

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
from registry.services.retention.retention import Plan, Retention, RunSlice
from registry.services.retention.rules import NewestBy
from tests.metadata.rows import NAME, digest_of, events, find, image, index, rows
from tests.services.retention.conftest import GRACE
from tests.services.retention.scenes import (
    BASE,
    DAY,
    EACH,
    MANIFEST,
    NIGHTS,
    list_manifests,
    list_tags,
    make_year,
    night,
    pull,
    push,
    set_rule,
    write,
)
from tests.support.accounts import OPERATOR
from tests.support.clocks import Clocks

pytestmark = pytest.mark.anyio

ALL = RepositoryPattern.parse("**")


async def plan_of(retention: Retention, name: RepositoryName = NAME, **more: Any) -> Plan:
    plan = await retention.plan(name, **more)
    assert plan is not None
    return plan


def going(plan: Plan) -> list[str]:
    return [each.item.name for each in plan.tags if each.is_dropped]


async def run(retention: Retention, pattern: str = "**") -> tuple[int, int]:
    """Apply the rules completely, and return how many tags and manifests were dropped."""
    gone, piece = [0, 0], RunSlice("")
    while not piece.ended:
        piece = await retention.run(RepositoryPattern.parse(pattern), piece.done, OPERATOR)
        gone[0] += piece.tags
        gone[1] += piece.manifests
    return gone[0], gone[1]


async def carry_out(retention: Retention, plan: Plan) -> tuple[int, int, bool]:
    """Execute an earlier plan.

    Returns the numbers of dropped tags and manifests, and whether the plan was completed.
    """
    piece = RunSlice("")
    ended = await retention._carry_out(plan, piece)
    return piece.tags, piece.manifests, ended


async def test_a_year_of_nightly_builds(database: Database, retention: Retention) -> None:
    await make_year(database)
    await pull(database, night(7), NIGHTS[7], days_ago=1)  # by its tag
    await pull(database, night(8), days_ago=2)  # by its digest
    await pull(database, night(9), NIGHTS[10], days_ago=1)  # by a tag that pointed to it earlier
    await set_rule(database, keep="nightly-*-01", keep_newest=14, drop_not_pulled=340 * DAY)
    plan = await plan_of(retention, measured=True)
    stay = {*NIGHTS[-340:], NIGHTS[7], NIGHTS[8], *(n for n in NIGHTS if n.endswith("-01"))}
    assert going(plan) == [name for name in NIGHTS if name not in stay]
    assert {each.bytes for each in plan.drops} == {EACH + MANIFEST}
    assert await run(retention) == (len(NIGHTS) - len(stay), 0)
    assert await list_tags(database) == sorted(stay)
    assert await run(retention) == (0, 0)
    changes = [row for row in await events(database) if row.kind == "tag.delete"]
    assert {(row.actor, row.repository) for row in changes} == {("retention", NAME)}
    # The manifests have only just become untagged. Then the test makes that older.
    await set_rule(database, drop_untagged=DAY)
    assert await run(retention) == (0, 0)
    await write(
        database, lambda tx: tx.execute(sa.update(tables.change_feed).values(at=tx.now - 2 * DAY))
    )
    measured = await plan_of(retention, measured=True)
    assert sum(each.bytes for each in measured.drops) == len(changes) * (EACH + MANIFEST)
    assert await run(retention) == (0, len(changes))
    assert await list_manifests(database) == {night(NIGHTS.index(name)) for name in stay}


async def test_all_of_a_year_frees_what_it_shares_too(
    database: Database, retention: Retention
) -> None:
    await make_year(database)
    await set_rule(database, drop="*")
    plan = await plan_of(retention, measured=True)
    assert [each.bytes for each in plan.drops] == [
        BASE + EACH + MANIFEST,
        *[EACH + MANIFEST] * 364,
    ]


async def test_bytes_are_of_what_is_needed_nowhere_else(
    database: Database, retention: Retention
) -> None:
    one, two, kept = image("1", ["one", "shared"]), image("2", ["two"]), image("3", ["shared"])
    both = index([one, two])
    signature = image(
        "s", ["sig"], subject={"digest": str(digest_of(both)), "size": 1, "mediaType": "x"}
    )
    for manifest, names in ((one, ()), (two, ()), (both, ("a", "b")), (kept, ("kept",))):
        await push(database, manifest, *names)
    await push(database, signature)
    await push(database, two, "other", name=RepositoryName("other"))
    await set_rule(database, "team/*", keep="kept", drop="*")

    def sizes(*manifests: Any) -> int:
        return sum(len(manifest.raw) for manifest in manifests)

    # A layer has 3 bytes and a config 8. Content that another repository shares is not counted.
    freed = sizes(one, two, both, signature) + 3 + 8 + 3 + 8
    plan = await plan_of(retention, measured=True)
    assert going(plan) == ["a", "b"]
    assert [each.bytes for each in plan.drops] == [freed, 0]
    # If one of the tags stays, or an index names the manifests, dropping frees nothing.
    await set_rule(database, "team/*", keep="kept b", drop="*")
    assert [d.bytes for d in (await plan_of(retention, measured=True)).drops] == [0]
    await set_rule(database, "team/*", keep="kept", drop="a b")
    await push(database, index([one], annotations={"x": "y"}), "kept-too")
    plan = await plan_of(retention, measured=True)
    assert sum(d.bytes for d in plan.drops) == sizes(two, both, signature) + 3 + 8


async def test_only_what_rules_speak_of_is_looked_at(
    database: Database, retention: Retention
) -> None:
    names = ["a", "a/b", "a/b/c", "a/d", "a-b", "b", "a/b-c"]
    for name in names:
        await push(database, image(name), "x", name=RepositoryName(name))
    for pattern, found in {
        "a": ["a"],
        "a/*": ["a/b", "a/b-c", "a/d"],
        "a/**": ["a/b", "a/b-c", "a/b/c", "a/d"],
        "*": ["a", "a-b", "b"],
        "**": sorted(names),
        "c/**": [],
    }.items():
        await set_rule(database, pattern, keep_newest=1)
        assert await retention.list_names(ALL, "", enabled=False) == found, pattern
        assert await retention.list_names(ALL, "a/b", enabled=False) == [
            name for name in found if name > "a/b"
        ]
        assert await retention.list_names(RepositoryPattern.parse("a/b/*"), "", enabled=False) == [
            name for name in found if name.startswith("a/b/")
        ]
        await write(database, lambda tx: tx.execute(sa.delete(tables.retention_rules)))
    for pattern in ("a/b", "a/b/*", "b"):
        await set_rule(database, pattern, keep_newest=1)
    assert await retention.list_names(ALL, "", enabled=False) == ["a/b", "a/b/c", "b"]


async def test_rules_of_several_patterns_apply_together(
    database: Database, retention: Retention
) -> None:
    for number, tag in enumerate(["a", "b", "c"]):
        await push(database, image(tag), tag, days_ago=9 - number)
        await push(database, image(tag), tag, name=RepositoryName("other"))
    await set_rule(database, "**", keep="a")
    await set_rule(database, "team/**", keep_newest=1, newest_by=NewestBy.PULL, drop="*")
    assert going(await plan_of(retention)) == ["b"]
    assert going(await plan_of(retention, RepositoryName("other"))) == []
    await pull(database, digest_of(image("b")), "b")
    assert going(await plan_of(retention)) == ["c"]


async def test_signatures_stay_with_what_they_sign(
    database: Database, retention: Retention
) -> None:
    digest = await push(database, image("1"), "app")
    subject = {"digest": str(digest), "size": 1, "mediaType": "x"}
    signature = image("s", subject=subject)
    await push(database, signature)
    await push(database, index([signature]), f"sha256-{digest.hex}")
    names = [f"sha256-{digest.hex}.sig", f"sha256-{'0' * 64}.sig"]
    await push(database, image("2"), *names)
    await set_rule(database, drop="*")
    assert set(going(await plan_of(retention))) == {"app", names[1]}
    assert await run(retention) == (2, 0)
    await set_rule(database, drop="*", drop_untagged=0)
    await write(database, lambda tx: tx.execute(sa.update(tables.change_feed).values(at=0)))
    await write(database, lambda tx: tx.execute(sa.update(tables.manifests).values(pushed_at=0)))
    # Without the image, nothing retains them any more.
    assert await run(retention) == (2, 1)


async def test_the_form_of_a_tag_keeps_nothing(database: Database, retention: Retention) -> None:
    """`cosign copy` and oc-mirror tag every digest that they copy `sha256-<hex>`."""
    one, two = image("1"), image("2")
    subject = {"digest": str(digest_of(two)), "size": 1, "mediaType": "x"}
    referrer = image("r", subject=subject)
    whole = index([one, two, referrer])
    own = [f"sha256-{digest_of(each).hex}" for each in (one, two, referrer, whole)]
    for each, tag in zip((one, two, referrer, whole), own, strict=True):
        await push(database, each, tag, f"{tag}.copy")
    # An index that lists a referrer of another manifest does not belong to this manifest.
    other = index([referrer], annotations={"a": "b"})
    await push(database, other, "other")
    await set_rule(database, drop="*", keep="other")
    assert set(going(await plan_of(retention))) == {*own, *(f"{tag}.copy" for tag in own)}
    await push(database, other, own[0])
    assert own[0] in going(await plan_of(retention))
    await push(database, other, own[1])
    assert own[1] not in going(await plan_of(retention))


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
    await set_rule(database, "team/*", keep_newest=1, drop_not_pulled=5 * DAY)
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
    await set_rule(database, drop_untagged=7 * DAY)
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
    await set_rule(database, drop_untagged=7 * DAY)
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
    await set_rule(database, drop_untagged=7 * DAY)
    assert (await plan_of(retention)).manifests == []
    await write(database, untag("b", 6))
    assert [each.is_dropped for each in (await plan_of(retention)).manifests] == [False]
    await set_rule(database, drop_untagged=6 * DAY)
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
    real = retention.plan

    async def die(name: RepositoryName, now: int | None = None, **more: Any) -> Plan | None:
        if str(name) == "b":
            raise ConflictError("killed here")
        return await real(name, now, **more)

    retention.plan = die  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        await retention.work()
    assert len(await list_tags(database)) == 5
    assert (await retention.get_status()).run is not None
    retention.plan = real  # type: ignore[method-assign]
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
    await set_rule(database, drop_not_pulled=DAY)
    real = retention.list_names

    async def jump(asked: RepositoryPattern, last: str, *, enabled: bool = True) -> list[str]:
        clocks.jump(30 * 86_400)
        return await real(asked, last, enabled=enabled)

    retention.list_names = jump  # type: ignore[method-assign]
    await retention.work()
    assert await list_tags(database) == ["a"]


async def test_beside_pushes(database: Database, retention: Retention) -> None:
    """Concurrent pushes succeed, and everything that the rules keep is there at the end."""
    await set_rule(database, keep="keep-*", drop="*", drop_untagged=0)
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
