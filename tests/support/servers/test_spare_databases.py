"""Databases that were emptied are as new ones, and none is used again if its schema has changed."""

import psycopg
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.support.servers import spare_databases
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

CHANGES = [
    "ALTER TABLE repositories ADD COLUMN later text",
    "ALTER TABLE repositories RENAME COLUMN name TO title",
    "ALTER TABLE tags ALTER COLUMN name SET DEFAULT 'x'",
    "ALTER TABLE users ALTER COLUMN created_at DROP NOT NULL",
    "ALTER TABLE tags RENAME TO labels",
    "CREATE INDEX own ON tags (name)",
    "CREATE TABLE own ()",
    "CREATE SCHEMA own",
    "CREATE SEQUENCE own",
    "CREATE VIEW own AS SELECT 1",
    "CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP INDEX {index}",
    "GRANT SELECT ON tags TO PUBLIC",
    "ANALYZE tags, schema_version",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
]


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def find_identity(url: str) -> int:
    with psycopg.connect(plain(url)) as connection:
        found = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        (identity,) = found.fetchone() or (0,)
        return int(identity)


def add_user(tx: Transaction) -> None:
    about = {column.name: 1 for column in tables.users.c if not column.nullable}
    tx.execute(sa.insert(tables.users).values(about | {"name": "ann"}))


async def test_the_next_test_finds_only_what_a_new_database_has(postgres: Cluster) -> None:
    with postgres.database() as url:
        before = find_identity(url)
        new = spare_databases.read_content(plain(url))
        database = Database(url)
        await database.write(add_user, actor="test")
        assert spare_databases.read_content(plain(url)) != new
        # Its sessions stay open.
    with postgres.database() as again:
        assert find_identity(again) == before
        assert again != url
        assert spare_databases.read_content(plain(again)) == new
    await database.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_database_with_another_schema_is_dropped(postgres: Cluster, change: str) -> None:
    with postgres.database() as url:
        before = find_identity(url)
        index = next(iter(tables.manifest_edges.indexes)).name
        with psycopg.connect(plain(url), autocommit=True) as connection:
            connection.execute(change.format(index=index).encode())
    with postgres.database() as again:
        assert find_identity(again) != before
