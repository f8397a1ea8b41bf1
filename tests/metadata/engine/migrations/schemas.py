"""Schemas, their rows and their versions."""

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command

from registry.metadata.content import pull_times, repositories, uploads
from registry.metadata.engine import leases, migrate
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.migrate import VERSION, SchemaState
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions, unreadable_manifests
from registry.metadata.maintenance import scrub
from registry.metadata.mirrors import (
    mirror_tag_history,
    mirror_tags,
    mirror_usage,
    mirrors,
    sync_runs,
    sync_schedules,
    synced_tags,
)
from registry.metadata.mirrors.mirrors import MirrorRow
from registry.metadata.protection import holds, immutable_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from tests.metadata.rows import STORE, add, add_access, add_retention, find, image, upload

ROOT = Path(__file__).resolve().parents[4]


MIGRATIONS = ROOT / "migrations"


MIN_READER = 1
"""The oldest version of the code that may use the migrated schema."""


NEXT = f"""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{VERSION:04}"


def upgrade() -> None:
    with op.batch_alter_table("repositories", recreate="auto") as batch:
        batch.alter_column("created_at", existing_type=sa.BigInteger(), nullable=True)
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("UPDATE schema_version SET version = {VERSION + 1}")
"""
"""A future migration that rebuilds a table to which others refer."""


def fill(url: str) -> None:
    """Put rows into every table."""

    def work(tx: Transaction) -> None:
        add(tx, image("1"), "latest")
        uploads.insert(tx, upload("a"))
        pending_deletions.insert(tx, STORE, "key", "test")
        leases.claim(tx, "gc", "ann", 60)
        scrub.begin(tx)
        add_access(tx)
        add_retention(tx)
        repositories.delete(tx, find(tx))
        row = add(tx, image("1"), "latest")
        unreadable_manifests.record(tx, find(tx).id, row.digest)
        pull_times.put(tx, [(row.id, "latest", 0)])
        holds.insert(tx, find(tx).id, row.digest, "evidence", None)
        immutable_tags.insert(tx, "team/**", "v*")
        mirrors.insert(tx, MirrorRow("hub", RepositoryName("hub"), "https://a.example", "{}"))
        mirrors.set_default(tx, "hub", "names")
        mirror_tags.put(tx, RepositoryName("hub/a"), Tag("1"), row.digest)
        mirror_tag_history.observe(tx, RepositoryName("hub/a"), Tag("1"), row.digest)
        mirror_usage.put(tx, "hub", 1, is_evicting=False)
        sync_schedules.insert(tx, "hub", "{}", 9)
        sync_runs.insert(tx, "hub", None, "{}")
        synced_tags.put(tx, RepositoryName("hub/a"), Tag("1"), row.digest)

    async def job() -> None:
        database = Database(url)
        await database.write(work, actor="ann")
        await database.close()

    asyncio.run(job())


def read_all(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables."""
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    found: dict[str, list[tuple[Any, ...]]] = {}
    with engine.connect() as connection:
        for name in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f'SELECT * FROM "{name}"'))
            found[name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def downgrade(url: str, revision: str = "base") -> None:
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        command.downgrade(migrate.alembic_config(connection), revision)


def read_state(url: str) -> SchemaState:
    async def job() -> SchemaState:
        database = Database(url)
        try:
            return await migrate.read_state(database)
        finally:
            await database.close()

    return asyncio.run(job())
