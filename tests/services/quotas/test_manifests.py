"""Tests of manifests in quotas, also together with an older version of Moorage."""

import asyncio
import logging
from collections.abc import Callable

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.config import Config

from registry.auth.policy.policy_cache import PolicyCache
from registry.metadata import tables
from registry.metadata.content import manifests, repositories
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import usage_checks
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.quotas.quotas import Quotas
from tests.metadata.rows import digest_of, find, held_open, image, rows, void
from tests.services.quotas.transactions import (
    NAMES,
    delete_manifest,
    link,
    put_manifest,
    put_quota,
    read_used,
    remove,
    settle,
    write,
)
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

NAME, OTHER = NAMES[:2]
SEED, LATER = "four", "later"
SIZE, MORE = (len(image(seed).raw) for seed in (SEED, LATER))
DAY = 24 * 3600 * 1_000_000


async def test_of_two_equal_pushes_at_once_the_second_counts_nothing(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        await write(database, put_quota("a/**"))
        await write(database, link(NAME, SEED))
        with held_open(url) as tx:
            put_manifest(NAME, SEED)(tx)
            second = asyncio.ensure_future(write(database, put_manifest(NAME, SEED)))
            await asyncio.sleep(0.3)
            assert not second.done()
        await second
        assert await read_used(database, "a/x") == len(SEED) + SIZE
        await database.close()


async def test_pushed_again_it_keeps_its_first_date_and_counts_nothing(database: Database) -> None:
    await write(database, put_quota("a/**"))
    for _ in range(3):
        await write(database, put_manifest(NAME, SEED))
    assert await read_used(database, "a/x") == SIZE
    [row] = await rows(database, tables.manifests)
    assert row.first_pushed_at < row.pushed_at
    # Also within one transaction, in which all timestamps are equal.
    await write(database, delete_manifest(NAME, SEED))

    def twice(tx: Transaction) -> None:
        for _ in range(2):
            put_manifest(NAME, SEED)(tx)

    await write(database, twice)
    assert await read_used(database, "a/x") == SIZE


async def test_without_a_quota_a_push_has_no_statement_more(database: Database) -> None:
    """Only the upsert reads the usage counters. A quota adds one query."""

    async def count(seed: str) -> list[str]:
        said: list[str] = []

        def work(tx: Transaction) -> None:
            repository = find(tx, NAME)
            said.clear()
            sa.event.listen(tx.connection, "before_cursor_execute", note)
            manifests.put(tx, repository, digest_of(image(seed)), image(seed), [])
            sa.event.remove(tx.connection, "before_cursor_execute", note)

        def note(*args: object) -> None:
            said.append(str(args[2]))

        await write(database, work)
        counting = [each for each in said if "usage_counter_repositories" in each]
        return [statement.split()[0] for statement in counting]

    await write(database, link(NAME, SEED))
    assert await count("1") == ["INSERT"]
    await write(database, put_quota("a/**"))
    await settle(database)
    assert await count("2") == ["INSERT", "SELECT"]
    assert await count("2") == ["INSERT"]


# An older version of Moorage, which does not count manifests, written here in SQL.


def put_as_older(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    values = {
        "digest": digest_of(image(seed)),
        "media_type": image(seed).media_type,
        "size": len(image(seed).raw),
        "pushed_at": 1,
    }

    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, name, keep=True)
        assert repository is not None
        row = {**values, "repository_id": repository.id}
        tx.execute(sa.insert(tables.manifests).values(row))

    return work


def delete_as_older(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, name, lock=True)
        assert repository is not None
        bytes_, manifest = tables.manifest_bytes, tables.manifests.c
        row = manifests.find(tx, name, digest_of(image(seed)))
        assert row is not None
        tx.execute(sa.delete(bytes_).where(bytes_.c.manifest_id == row.id))
        tx.execute(sa.delete(tables.manifests).where(manifest.id == row.id))

    return work


def enroll_as_older(tx: Transaction) -> None:
    """Turn all tracked repositories into repositories tracked by the older version."""
    tx.execute(sa.update(tables.usage_counter_repositories).values(manifests_counted_at=None))
    sizes = sa.select(sa.func.sum(tables.manifests.c.size)).scalar_subquery()
    shards = tables.usage_counter_shards
    tx.execute(sa.update(shards).values(bytes=shards.c.bytes - sa.func.coalesce(sizes, 0)))


def serve(database: Database) -> Quotas:
    return Quotas(
        database, PolicyCache(database, RevisionWatch(database), personal_namespaces=False)
    )


@pytest.fixture
def service(database: Database) -> Quotas:
    return serve(database)


async def is_counted(service: Quotas) -> bool:
    [report] = await service.list_page(9)
    return report.is_counted


async def count(service: Quotas) -> None:
    while await service.count():
        pass
    assert not await service.is_any_due()


async def test_what_an_older_version_enrolled_is_counted_by_the_job(
    database: Database, service: Quotas
) -> None:
    await write(database, put_quota("a/**"))
    await settle(database)
    await write(database, put_manifest(NAME, SEED))
    await write(database, enroll_as_older)
    assert await read_used(database, "a/x") == 0
    # Until the job runs, pushes and deletions in this repository do not count.
    await write(database, put_manifest(NAME, LATER))
    await write(database, delete_manifest(NAME, SEED))
    await write(database, put_manifest(OTHER, SEED))
    assert await read_used(database, "a/x") == SIZE
    assert not await is_counted(service)
    assert await service.is_any_due()
    await count(service)
    assert await is_counted(service)
    assert await read_used(database, "a/x") == SIZE + MORE
    await write(database, remove(NAME))
    assert await read_used(database, "a/x") == SIZE


async def test_what_an_older_version_does_beside_is_corrected_within_a_day(
    database: Database, service: Quotas, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await write(database, put_quota("a/**"))
    for seed in (SEED, "another"):
        await write(database, put_manifest(NAME, seed))
    await count(service)
    await write(database, put_as_older(NAME, LATER))
    await write(database, delete_as_older(NAME, SEED))
    await write(database, delete_as_older(NAME, "another"))
    await count(service)
    wrong = SIZE + len(image("another").raw)
    assert await read_used(database, "a/x") == wrong
    await turn_back(database, DAY)
    assert await service.is_any_due()
    # A push during the comparison stays counted.
    check = await database.read(usage_checks.compare_next)
    assert check is not None
    await write(database, put_manifest(OTHER, SEED))
    assert await write(database, lambda tx: usage_checks.correct(tx, check))
    assert await read_used(database, "a/x") == MORE + SIZE
    # Another process that compared at the same time corrects nothing.
    assert not await write(database, lambda tx: usage_checks.correct(tx, check))
    assert await read_used(database, "a/x") == MORE + SIZE
    await write(database, put_as_older(OTHER, LATER))
    await turn_back(database, DAY)
    await count(service)
    assert await read_used(database, "a/x") == MORE + SIZE + MORE
    assert f"quota of a/**: it was off by {-MORE} bytes" in caplog.text


async def turn_back(database: Database, microseconds: int) -> None:
    """Move the last comparison of all counters into the past."""
    table = tables.usage_counters
    earlier = sa.update(table).values(checked_at=table.c.checked_at - microseconds)
    await write(database, lambda tx: void(tx.execute(earlier)))


def run_alembic(url: str, command: Callable[[Config, str], None], revision: str) -> None:
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        command(migrate.alembic_config(connection), revision)


async def test_quotas_count_manifests_after_an_upgrade(database_url: str) -> None:
    before = Database(database_url)
    await write(before, put_quota("a/**"))
    for name in (NAME, OTHER):
        await write(before, link(name, SEED))
    await settle(before)
    await asyncio.to_thread(run_alembic, database_url, alembic.command.downgrade, "0001")
    for name in (NAME, OTHER):
        await write(before, put_as_older(name, SEED))
    await before.close()
    await asyncio.to_thread(run_alembic, database_url, alembic.command.upgrade, "head")
    after = Database(database_url)
    service = serve(after)
    assert await read_used(after, "a/x") == len(SEED)
    assert not await is_counted(service)
    await count(service)
    assert await is_counted(service)
    assert await read_used(after, "a/x") == len(SEED) + 2 * SIZE
    await write(after, delete_manifest(OTHER, SEED))
    assert await read_used(after, "a/x") == len(SEED) + SIZE
    await after.close()
