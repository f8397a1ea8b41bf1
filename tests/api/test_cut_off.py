"""A replica that loses the database but not the bucket, while its session ends elsewhere."""

import asyncio

import pytest

from registry.metadata import tables
from registry.services.content import upload_leases
from storage.s3.client import LATE_WINDOW_S
from tests.api.conftest import Started
from tests.metadata.rows import rows
from tests.support.clock import MovableClock
from tests.support.servers.postgres import Cluster
from tests.support.servers.seaweed import Bucket
from tests.support.servers.tcp_proxy import tcp_proxy

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["s3"]),
    pytest.mark.parametrize("database_url", ["postgres"], indirect=True),
]

NAME = "team/app"


@pytest.mark.parametrize("sent", [False, True], ids=["before it sends", "while it sends"])
async def test_leaves_no_byte_for_ever(
    start_api: Started,
    postgres: Cluster,
    database_url: str,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    *,
    sent: bool,
) -> None:
    monkeypatch.setattr(upload_leases, "LEASE_S", 1.0)
    monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 0.2)
    movable_clock = MovableClock(monkeypatch)
    if sent:
        # The replica has checked its lease before, and has been slow since then.
        async def keep(_: object) -> None: ...

        monkeypatch.setattr(upload_leases._Heartbeat, "ensure_lease", keep)
    with tcp_proxy(("127.0.0.1", postgres.port)) as proxy:
        behind = database_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with start_api({"database.url": behind}) as cut, start_api() as other:
            location = await cut.start_upload(NAME)
            exchange = cut.speak("PATCH", location)
            await exchange.feed(b"0123")
            proxy.refuse()
            while (answer := await other.http.delete(location)).status_code == 409:
                await asyncio.sleep(0.1)
            assert answer.status_code == 204
            registry, database = other.opened.registry, other.opened.database
            while await registry.deletions.is_any_due():
                await registry.deletions.sweep()
            assert (await exchange.finish(b"45")).status == 503
            assert len(bucket.list_keys("staging/")) == (1 if sent else 0)
            movable_clock.forward(LATE_WINDOW_S)
            while await rows(database, tables.pending_deletions):
                await registry.deletions.sweep()
            assert bucket.list_keys("staging/") == []
            proxy.accept()
