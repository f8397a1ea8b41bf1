"""Tests of transactions that are committed but not synced."""

import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.metadata.content import uploads
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from registry.metadata.engine.sqlite import SqliteWriter
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import upload
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

NORMAL, FULL = 1, 2


def read_level(tx: Transaction) -> int:
    """Return whether the commit will be synced (FULL), and write something."""
    uploads.insert(tx, upload(str(uuid.uuid4())))
    return int(tx.execute(sa.text("PRAGMA synchronous")).scalar_one())


@pytest.fixture
async def sqlite(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    url = f"sqlite:///{tmp_path}/moorage.db"
    migrate.upgrade(url)
    opened = Database(url)
    yield opened
    await opened.close()


@pytest.mark.parametrize("before", [True, False])
async def test_level_is_that_of_each_transaction(sqlite: Database, *, before: bool) -> None:
    await sqlite.write(lambda tx: tx.execute(sa.text("SELECT 1")), actor="ann", durable=before)
    assert await sqlite.write(read_level, actor="ann", durable=False) == NORMAL
    assert await sqlite.write(read_level, actor="ann") == FULL


async def test_group_is_synced_if_one_member_is_durable(sqlite: Database) -> None:
    writer = sqlite._writer
    assert isinstance(writer, SqliteWriter)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_tx: Transaction) -> None:
        begun.set()
        assert go_on.wait(10)

    first = writer.submit(hold, "ann", durable=False)
    assert begun.wait(10)
    group = [writer.submit(read_level, "ann", durable=durable) for durable in (False, True, False)]
    go_on.set()
    first.result(10)
    assert [each.result(10) for each in group] == [FULL] * 3


def read_setting(tx: Transaction) -> str:
    return str(tx.execute(sa.text("SHOW synchronous_commit")).scalar_one())


async def test_postgres(postgres: Cluster) -> None:
    with postgres.database() as url:
        opened = Database(url)
        assert await opened.write(read_setting, actor="ann", durable=False) == "off"
        assert await opened.write(read_setting, actor="ann", durable=False, timeout_s=9) == "off"
        assert await opened.write(read_setting, actor="ann") != "off"
        await opened.close()
