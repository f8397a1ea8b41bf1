"""Helpers of the tests of this folder."""

from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from registry.metadata.content import repositories
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.maintenance import database_copy
from registry.oci.names import RepositoryName
from registry.services.maintenance.database_transfer import Transfer

WAYS = ["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite", "postgres-postgres"]
NAME = "team/app"
_TYPE = "application/vnd.oci.image.manifest.v1+json"
_EVENT = dict.fromkeys(("actor", "address", "request_id", "kind", "target", "detail"), "x")
all_ways = pytest.mark.parametrize("urls", WAYS, indirect=True)
both_ways = pytest.mark.parametrize("urls", WAYS[:2], indirect=True)


@asynccontextmanager
async def opened(url: str) -> Any:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def no_keys() -> None:
    return None


async def transfer(source: str, target: str, *, keep: bool = False) -> dict[str, int]:
    async with opened(source) as database:
        return await Transfer(database).run(
            target, no_keys, keep=keep, tell=lambda _table, _rows: None
        )


async def write_one(url: str, name: str = "another") -> None:
    async with opened(url) as database:
        await database.write(lambda tx: repositories.ensure(tx, RepositoryName(name)), actor="ann")


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all copied rows, with the same values whichever database holds them."""
    found = {}
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in database_copy.list_tables():
            rows = connection.execute(sa.select(table))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found
