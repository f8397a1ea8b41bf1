"""Tests of usage counters: they equal the stored content after any concurrent work."""

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from registry.metadata import tables
from registry.metadata.engine import postgres
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import usage_checks, usage_recount
from registry.metadata.pattern_filter import EACH
from registry.metadata.quotas import quotas, usage_counters
from registry.oci.names import RepositoryName
from tests.metadata.rows import digest, find, image, rows, void
from tests.services.quotas.transactions import (
    NAMES,
    PATTERNS,
    SEEDS,
    delete_manifest,
    drop_quota,
    link,
    put_manifest,
    put_quota,
    remove,
    settle,
    standing_of,
    unlink,
    write,
)

pytestmark = pytest.mark.anyio


def matches(pattern: str, name: str) -> str | None:
    """Return the group in which the pattern counts `name`, or None. A second implementation."""
    parts = name.split("/")
    head, _, tail = pattern.rpartition("/")
    if pattern == EACH:
        return f"{parts[0]}/**" if len(parts) > 1 else None
    if tail == "**":
        return pattern if not head or name.startswith(f"{head}/") else None
    if tail == "*":
        return pattern if "/".join(parts[:-1]) == head else None
    return pattern if name == pattern else None


async def count_anew(database: Database, patterns: Sequence[str]) -> Counter[tuple[str, str]]:
    """Return the bytes by quota pattern and group, counted from links and manifests alone."""
    repository, link, manifest = (
        tables.repositories.c,
        tables.repository_blobs.c,
        tables.manifests.c,
    )
    query = sa.select(repository.name, link.digest).join(
        tables.repository_blobs, link.repository_id == repository.id
    )
    links = await database.read(lambda tx: list(tx.execute(query)))
    pushed = sa.select(repository.name, manifest.size).join(
        tables.manifests, manifest.repository_id == repository.id
    )
    own = await database.read(lambda tx: list(tx.execute(pushed)))
    sizes = {digest(seed): len(seed) for seed in SEEDS}
    held = {
        (pattern, group, found)
        for pattern in patterns
        for name, found in links
        if (group := matches(pattern, str(name))) is not None
    }
    total: Counter[tuple[str, str]] = Counter()
    for pattern, group, found in held:
        total[pattern, group] += sizes[found]
    for pattern in patterns:
        for name, size in own:
            if (group := matches(pattern, str(name))) is not None:
                total[pattern, group] += size
    return total


async def read_tallies(database: Database) -> Counter[tuple[str, str]]:
    """Return the bytes by quota pattern and group, as the usage counters have them."""
    quota, tally, shard = tables.quotas.c, tables.usage_counters.c, tables.usage_counter_shards.c
    query = (
        sa.select(quota.pattern, tally.namespace, sa.func.sum(shard.bytes))
        .join(tables.usage_counters, tally.quota_id == quota.id)
        .join(tables.usage_counter_shards, shard.counter_id == tally.id)
        .group_by(quota.pattern, tally.namespace)
    )
    found = await database.read(lambda tx: list(tx.execute(query)))
    return Counter({(p, f"{n}/**" if n else p): int(size) for p, n, size in found if size})


async def compare_all(database: Database) -> list[int]:
    """Return by how many bytes each counter exceeds the stored content."""
    table = tables.usage_counters
    await write(database, lambda tx: void(tx.execute(sa.update(table).values(checked_at=0))))
    found = []
    while (check := await database.read(usage_checks.compare_next)) is not None:
        found.append(check.difference)
        checked = replace(check, difference=0)  # nothing is corrected
        assert await write(database, functools.partial(usage_checks.correct, check=checked))
    return found


def choose(rng: random.Random) -> Callable[[Transaction], None]:
    name, seed, pattern = rng.choice(NAMES), rng.choice(SEEDS), rng.choice(PATTERNS)
    return rng.choices(
        [
            link(name, seed),
            unlink(name, seed),
            put_manifest(name, seed),
            delete_manifest(name, seed),
            remove(name),
            put_quota(pattern),
            drop_quota(pattern),
        ],
        weights=[12, 8, 12, 8, 2, 1, 1],
    )[0]


async def work_at_random(databases: list[Database], seed: int, count: int) -> None:
    """Run random work on sixteen workers, and the job at the same time."""
    rng = random.Random(seed)
    works = [choose(rng) for _ in range(count)]
    busy = asyncio.Event()

    async def worker(database: Database) -> None:
        while works:
            await write(database, works.pop())

    async def job() -> None:
        while not busy.is_set():
            await settle(databases[0])
            await asyncio.sleep(0.01)

    jobs = asyncio.create_task(job())
    await asyncio.gather(*(worker(databases[n % len(databases)]) for n in range(16)))
    busy.set()
    await jobs


async def list_patterns(database: Database) -> list[str]:
    return [row.pattern for row in await rows(database, tables.quotas)]


@pytest.mark.parametrize("seed", range(2))
async def test_random_work_is_counted_as_from_scratch(
    replicas: list[Database],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Report a deadlock instead of repeating the transaction.
    monkeypatch.setattr(postgres, "_CONFLICTS", postgres._CONFLICTS - {"40P01"})
    for pattern in PATTERNS[::2]:
        await write(replicas[0], put_quota(pattern))
    await work_at_random(replicas, seed, 300)
    for pattern in PATTERNS:
        await write(replicas[0], put_quota(pattern))
    await settle(replicas[0])
    assert "deadlock" not in caplog.text
    expected = await count_anew(replicas[0], PATTERNS)
    assert expected  # otherwise nothing is compared
    assert await read_tallies(replicas[0]) == expected
    left = {row.counter_id for row in await rows(replicas[0], tables.usage_counter_blobs)}
    assert left == {row.id for row in await rows(replicas[0], tables.usage_counters)} & left
    links = [row.repository_count for row in await rows(replicas[0], tables.usage_counter_blobs)]
    assert all(count > 0 for count in links)
    # The registry's own comparison, which is one statement, agrees.
    assert set(await compare_all(replicas[0])) == {0}


@pytest.mark.parametrize("function", ["remove", "add_manifests"])
async def test_the_comparison_sees_what_is_not_counted(
    replicas: list[Database], monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """The negative control: without the accounting of a change the comparison must fail."""
    for pattern in PATTERNS:
        await write(replicas[0], put_quota(pattern))
    for seed in SEEDS:
        await write(replicas[0], link(NAMES[0], seed))
        await write(replicas[0], put_manifest(NAMES[0], seed))
    monkeypatch.setattr(usage_counters, function, lambda *_: None)
    await write(replicas[0], unlink(NAMES[0], SEEDS[0]))
    await write(replicas[0], delete_manifest(NAMES[0], SEEDS[0]))
    await settle(replicas[0])
    assert await read_tallies(replicas[0]) != await count_anew(replicas[0], PATTERNS)
    # The registry's own comparison trusts the number of repositories recorded for each blob.
    size = len(image(SEEDS[0]).raw)
    assert set(await compare_all(replicas[0])) == {0 if function == "remove" else size}


async def test_a_blob_counts_once_and_until_the_last_link(database: Database) -> None:
    await write(database, put_quota("a/**"))

    async def used() -> int:
        standing = await standing_of(database, "a/x")
        return standing.used

    await write(database, link(NAMES[0], "four"))
    assert await used() == 4
    await write(database, link(NAMES[1], "four"))
    await write(database, link(NAMES[1], "four"))
    assert await used() == 4
    await write(database, unlink(NAMES[0], "four"))
    assert await used() == 4
    await write(database, remove(NAMES[1]))
    assert await used() == 0
    assert await rows(database, tables.usage_counter_blobs) == []


async def test_the_same_blob_linked_twice_at_once_counts_once(replicas: list[Database]) -> None:
    await write(replicas[0], put_quota("**"))
    names = [RepositoryName(f"n{number}/x") for number in range(16)]
    await asyncio.gather(
        *(write(replicas[n % 2], link(name, "twelve bytes")) for n, name in enumerate(names))
    )
    assert (await standing_of(replicas[0], "q")).used == 12
    await asyncio.gather(
        *(write(replicas[n % 2], unlink(name, "twelve bytes")) for n, name in enumerate(names))
    )
    assert (await standing_of(replicas[0], "q")).used == 0


async def test_a_quota_of_ones_own_holds_in_place_of_the_one_for_each(database: Database) -> None:
    for pattern in (EACH, "a/**", "**"):
        await write(database, put_quota(pattern))

    async def list_of(name: str) -> list[str]:
        found = await database.read(lambda tx: quotas.list_standings(tx, RepositoryName(name)))
        return sorted(f"{standing.quota.pattern} {standing.pattern}" for standing in found)

    assert await list_of("a/x") == ["** **", "a/** a/**"]
    assert await list_of("b/x/y") == ["** **", "*/** b/**"]
    assert await list_of("single") == ["** **"]


async def test_counting_goes_in_steps_and_goes_on_after_a_crash(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        await write(database, link(name, "four"))
    await write(database, put_quota("a/**"))
    steps = 0
    monkeypatch.setattr(usage_recount, "COUNTED", 2)
    while await write(database, usage_recount.count_next):
        steps += 1
        [quota] = await rows(database, tables.quotas)
        counted = len(await rows(database, tables.usage_counter_repositories))
        assert (quota.recount_cursor, counted) == [("a/y", 2), ("a/y/z", 3), (None, 3)][steps - 1]
    assert steps == 3
    assert (await standing_of(database, "a/x")).used == 4


async def test_a_quota_that_is_gone_leaves_nothing(database: Database) -> None:
    for pattern in PATTERNS:
        await write(database, put_quota(pattern))
    for name in NAMES:
        await write(database, link(name, "x"))
    for pattern in PATTERNS:
        await write(database, drop_quota(pattern))
    assert await database.read(usage_recount.is_any_due)
    await settle(database)
    assert not await database.read(usage_recount.is_any_due)
    for table in (
        tables.usage_counters,
        tables.usage_counter_blobs,
        tables.usage_counter_shards,
        tables.usage_counter_repositories,
    ):
        assert await rows(database, table) == []
    assert await database.read(lambda tx: find(tx, NAMES[0]).name) == NAMES[0]
