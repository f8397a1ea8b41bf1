"""Tests of failover from a primary to its standby, behind a proxy: the old primary is abandoned."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.errors import DatabaseUnavailableError
from registry.metadata.content import repositories
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions import query
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.metadata.rows import NAME
from tests.support.kit import Kit
from tests.support.missing import missing
from tests.support.servers.postgres import Cluster, find_binaries, run_cluster, run_standby
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.timeout(300)]

OTHER, THIRD = RepositoryName("other"), RepositoryName("third")

TABLE = "SELECT xmin, ctid FROM schema_version"
"""Returns the location of a row and the transaction that wrote it."""

BOUND = 60.0
"""Seconds to wait for something that normally takes less than one."""


@dataclass
class Pair:
    """A primary, its standby, and a proxy to the primary."""

    primary: Cluster
    standby: Cluster
    proxy: TcpProxy
    url: str
    """The registry's database, through the proxy."""

    def lead_to(self, cluster: Cluster) -> None:
        """Route new connections to `cluster`. Like most proxies, keep open ones."""
        self.proxy.target = ("127.0.0.1", cluster.port)

    def url_at(self, cluster: Cluster) -> str:
        return parse_url(self.url).set(port=cluster.port).render_as_string(hide_password=False)


@pytest.fixture
def pair() -> Iterator[Pair]:
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL")
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(run_cluster(binaries))
        standby = stack.enter_context(run_standby(primary))
        proxy = stack.enter_context(tcp_proxy(("127.0.0.1", primary.port)))
        direct = primary.url("moorage_template")
        url = direct.replace(f":{primary.port}/", f":{proxy.port}/")
        yield Pair(primary, standby, proxy, url)


@pytest.fixture
async def database(pair: Pair, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(pair.url)
    yield opened
    await opened.close()


@pytest.fixture
async def http(pair: Pair, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a server that uses the pair."""
    environment = {"MOORAGE_DATABASE__URL": pair.url, "MOORAGE_JOBS__IN_SERVE": "false"}
    with serving(Server(tmp_path / "data", 1, environment)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            yield http


def ensure(tx: Transaction, name: RepositoryName) -> None:
    repositories.ensure(tx, name)


def look(tx: Transaction) -> list[str]:
    return repositories.list_names(tx, 9, "")


async def ask(http: httpx.AsyncClient) -> tuple[int, int, int, str]:
    """Return the statuses of a push, a pull and readiness, and the reported database problem."""
    push = await http.post("/v2/team/app/blobs/uploads/")
    pull = await http.get("/v2/team/app/tags/list")
    ready = await http.get("/readyz")
    problem = ready.json().get("problems", {}).get("database", "")
    return push.status_code, pull.status_code, ready.status_code, problem


async def test_after_a_failover_a_server_leaves_the_demoted_primary(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await Kit(http).push_image("team/app", "v1")
    assert (await ask(http))[:3] == (202, 200, 200)
    pair.primary.stop()
    pair.standby.promote()
    pair.primary.follow(pair.standby)
    pair.primary.start()
    # The proxy still routes to the demoted server, which answers reads with old data.
    started = time.monotonic()
    while (seen := await ask(http))[:3] != (503, 503, 503) or "primary" not in seen[3]:
        assert 200 not in seen[1:3], seen
        assert time.monotonic() < started + BOUND, seen
    assert pair.primary.count_sessions() == 0
    pair.lead_to(pair.standby)
    started = time.monotonic()
    while (seen := await ask(http))[:3] != (202, 200, 200):
        assert time.monotonic() < started + BOUND, seen
    await Kit(http).push_image("team/app", "v2")


async def test_a_primary_that_was_made_read_only_is_left_by_who_reads_and_by_who_writes(
    pair: Pair, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "RECHECK_S", 0.2)
    watch = RevisionWatch(database)
    await database.write(lambda tx: ensure(tx, NAME), actor="ann")
    before = await watch.read()
    pair.standby.catch_up(pair.primary)
    pair.standby.promote()
    pair.primary.set("default_transaction_read_only", "on")
    there = Database(pair.url_at(pair.standby))
    await there.write(lambda tx: ensure(tx, OTHER), actor="ann")
    assert await watch.read() == before
    assert await database.read(look) == [str(NAME)]
    pair.lead_to(pair.standby)
    started = time.monotonic()
    while (await watch.read()).feed == before.feed:
        assert time.monotonic() < started + BOUND
        await asyncio.sleep(0.05)
    assert await database.read(look) == [str(OTHER), str(NAME)]
    await there.close()

    # After a failback the first process to notice is one that writes.
    monkeypatch.undo()
    pair.primary.set("default_transaction_read_only", "off")
    pair.standby.set("default_transaction_read_only", "on")
    pair.lead_to(pair.primary)
    await database.write(lambda tx: ensure(tx, THIRD), actor="ann")
    assert await database.read(look) == [str(NAME), str(THIRD)]
    here = Database(pair.url_at(pair.primary))
    for number in range(2):
        await here.write(lambda tx, n=number: ensure(tx, RepositoryName(f"{n}")), actor="ann")  # type: ignore[misc]
    assert (await watch.read()).feed == before.feed + 3
    watch.close()
    await here.close()


@pytest.fixture
def read_only_url(postgres: Cluster) -> Iterator[str]:
    """Yield the URL of a database on a primary that is read-only."""
    with postgres.database() as url:
        name = parse_url(url).database
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        yield url


async def test_readiness_needs_a_database_that_takes_changes(
    read_only_url: str, postgres: Cluster
) -> None:
    database = Database(read_only_url)
    with pytest.raises(DatabaseUnavailableError) as caught:
        await database.require_writable()
    assert "read-only" in caught.value.reason
    # It is still a primary, so reads work.
    assert await database.read(look) == []
    name = parse_url(read_only_url).database
    postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await database.require_writable()
    await database.close()


async def test_a_probe_commits_nothing_and_is_spared_after_a_commit(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        name = parse_url(url).database
        state = await database.read(lambda tx: tx.connection.exec_driver_sql(TABLE).all())
        await database.require_writable()
        assert await database.read(lambda tx: tx.connection.exec_driver_sql(TABLE).all()) == state
        await database.write(lambda tx: ensure(tx, NAME), actor="ann")
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert database.connections
        database.connections.renew()
        await database.require_writable()
        with pytest.raises(DatabaseUnavailableError):
            await database.write(lambda tx: ensure(tx, OTHER), actor="ann")
        with pytest.raises(DatabaseUnavailableError):
            await database.require_writable()
        await database.close()
