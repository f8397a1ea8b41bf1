"""Tests with PgBouncer in transaction mode: each transaction gets another session."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata.content import repositories
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S, REQUEST_TIMEOUT_S
from registry.metadata.engine.settings import DatabaseSettings
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import database_copy
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.support.kit import Kit
from tests.support.servers.pgbouncer import run_pgbouncer
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.anyio

SESSIONS = 2
"""Fewer sessions than connections, so that connections share them."""

POOLED = DatabaseSettings(transaction_pooling=True)


@pytest.fixture(scope="module")
def port(postgres: Cluster) -> Iterator[int]:
    with run_pgbouncer(postgres, SESSIONS) as port:
        yield port


@pytest.fixture
def url(postgres: Cluster, port: int) -> Iterator[str]:
    with postgres.database() as url:
        yield url.replace(f":{postgres.port}/", f":{port}/")


@pytest.fixture
async def database(url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(url, POOLED)
    yield opened
    await opened.close()


def ensure(number: int) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repositories.ensure(tx, RepositoryName(f"r{number}"), lock=True)

    return work


def look(tx: Transaction) -> list[str]:
    return repositories.list_names(tx, 100, "")


async def test_the_same_statements_work_in_any_session(database: Database) -> None:
    watch = RevisionWatch(database)
    for round_ in range(4):
        before = (await watch.read()).feed
        await asyncio.gather(
            *(database.write(ensure(8 * round_ + n), actor="ann") for n in range(8)),
            *(database.read(look) for _ in range(20)),
        )
        assert (await watch.read()).feed == max(before, 0) + 8
    assert len(await database.read(look)) == 32
    assert len(await database.read(look, timeout_s=LONG_TIMEOUT_S)) == 32
    await database.require_writable()
    watch.close()


async def test_time_outs_hold_for_each_transaction_and_for_nobody_elses(
    database: Database, postgres: Cluster, url: str
) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit")

    def show(tx: Transaction) -> list[str]:
        return [str(tx.connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]

    expected = ["3s", "2500ms", "4s", "off"]
    assert await database.read(show) == expected
    assert await database.write(show, actor="ann") == expected
    long = await database.read(show, timeout_s=LONG_TIMEOUT_S)
    assert long == [f"{LONG_TIMEOUT_S / 60:.0f}min", *expected[1:]]
    del postgres
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        shown = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
        assert shown == "0"


async def test_a_statement_that_takes_too_long_is_ended(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with asyncio.timeout(REQUEST_TIMEOUT_S + 5):
            await database.read(lambda tx: tx.execute(sa.select(sa.func.pg_sleep(30))).all())
    assert await database.read(look) == []


async def test_without_the_setting_the_remedy_is_told(url: str) -> None:
    database = Database(url)
    with pytest.raises(DatabaseUnavailableError) as caught:
        await database.read(look)
    assert "set database.transaction_pooling to true" in caught.value.reason
    await database.close()


async def test_a_schema_is_made_and_a_database_is_read_whole(postgres: Cluster, port: int) -> None:
    with postgres.database(empty=True) as direct:
        url = parse_url(direct).set(port=port).render_as_string(hide_password=False)
        await asyncio.to_thread(migrate.upgrade, url)
        database = Database(url, POOLED)
        await migrate.require_current(database)
        await database.write(ensure(1), actor="ann")
        with database_copy.reading(url) as connection:
            assert look(Transaction(connection, "", 0)) == ["r1"]
        await database.close()


async def test_a_server_pushes_and_pulls(url: str, tmp_path: Path) -> None:
    environment = {
        "MOORAGE_DATABASE__URL": url,
        "MOORAGE_DATABASE__TRANSACTION_POOLING": "true",
    }
    with serving(Server(tmp_path / "data", 1, environment)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            kit = Kit(http)
            pushed = [await kit.push_image(f"team/app{n}", "v1") for n in range(6)]
            answers = [await http.get(f"/v2/team/app{n}/manifests/v1") for n in range(6)]
            assert [answer.content for answer in answers] == [raw for _, raw in pushed]
            assert (await http.get("/readyz")).status_code == 200
