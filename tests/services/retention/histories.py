"""Repositories with a history, and retention rules for them."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from registry import clock
from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata import tables
from registry.metadata.content import manifests, pull_times, repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.manifests import Manifest
from registry.services.retention.rules import RetentionRule, RetentionRules
from storage.digest import Digest
from tests.metadata.rows import NAME, STORE, add
from tests.support.accounts import OPERATOR

DAY = 86_400 * 1_000_000
NIGHTS = [f"nightly-{date(2025, 1, 1) + timedelta(days=day)}" for day in range(365)]
BASE = 1000
"""Bytes of the layer that all nightly builds share."""
EACH = 100
"""Bytes of the layer that only one nightly build has."""
MANIFEST = 10


async def set_rule(database: Database, pattern: str = "**", **rule: Any) -> None:
    """Set and enable the rules of a pattern. Spaces separate the patterns of tags."""
    for name in ("keep", "drop"):
        rule[name] = tuple(rule.get(name, "").split())
    found = RetentionRule(RepositoryPattern.parse(pattern), **rule)
    await RetentionRules(database, interval=3600).set(found, OPERATOR, now=True)


async def write(database: Database, work: Callable[[Transaction], object]) -> None:
    def void(tx: Transaction) -> None:
        work(tx)

    await database.write(void, actor="ann")


async def push(
    database: Database, manifest: Manifest, *tags: str, days_ago: float = 0, **more: Any
) -> Digest:
    """Push and tag a manifest with a time in the past."""

    def work(tx: Transaction) -> Digest:
        tx.now = clock.now_us() - int(days_ago * DAY)
        return add(tx, manifest, *tags, **more).digest

    return await database.write(work, actor="ann")


async def pull(database: Database, digest: Digest, tag: str = "", days_ago: float = 0) -> None:
    """Record a pull with a time in the past."""

    def work(tx: Transaction) -> None:
        found = manifests.find(tx, NAME, digest)
        assert found is not None
        pull_times.put(tx, [(found.id, tag, int(days_ago * DAY))])

    await database.write(work, actor="ann")


def night(number: int) -> Digest:
    return Digest.of(NIGHTS[number].encode())


async def make_year(database: Database) -> None:
    """Insert the rows of one build per night for a year, the last one today, without bytes."""
    base = Digest.of(b"base")
    layers = [Digest.of(f"layer of {name}".encode()) for name in NIGHTS]

    def work(tx: Transaction) -> None:
        here = {"repository_id": repositories.ensure(tx, NAME).id}
        known = {"store": STORE, "state": "live", "created_at": tx.now}
        sizes = {base: BASE} | dict.fromkeys(layers, EACH)
        times = [tx.now - (len(NIGHTS) - 1 - number) * DAY for number in range(len(NIGHTS))]
        ids = range(1, len(NIGHTS) + 1)
        rows: dict[sa.Table, list[dict[str, Any]]] = {
            tables.blobs: [
                {"digest": digest, "size": size, "key": str(digest), **known}
                for digest, size in sizes.items()
            ],
            tables.repository_blobs: [
                {"digest": digest, "linked_at": tx.now, **here} for digest in sizes
            ],
            tables.manifests: [
                {"id": row, "digest": night(row - 1), "pushed_at": at, **here}
                | {"media_type": "x", "size": MANIFEST}
                for row, at in zip(ids, times, strict=True)
            ],
            tables.manifest_bytes: [{"manifest_id": row, "bytes": b"x"} for row in ids],
            tables.manifest_edges: [
                {"manifest_id": row, "kind": "layer", "digest": blob, "blob_digest": blob, **here}
                for row, own in zip(ids, layers, strict=True)
                for blob in (base, own)
            ],
            tables.tags: [
                {"name": name, "digest": night(number), "updated_at": times[number], **here}
                for number, name in enumerate(NIGHTS)
            ],
        }
        for table, values in rows.items():
            tx.connection.execute(sa.insert(table), values)

    await database.write(work, actor="ann")


async def list_tags(database: Database) -> list[str]:
    query = sa.select(tables.tags.c.name).order_by(tables.tags.c.name)
    return await database.read(lambda tx: list(tx.execute(query).scalars()))


async def list_manifests(database: Database) -> set[Digest]:
    query = sa.select(tables.manifests.c.digest)
    return await database.read(lambda tx: set(tx.execute(query).scalars()))
