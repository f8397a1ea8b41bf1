"""Outages of PostgreSQL."""

import asyncio
import contextlib
import time

import httpx
import pytest

from storage.digest import Digest
from tests.server.outages.helpers import (
    NAME,
    Scene,
    all_locked,
    ask_all,
    cut_off,
    full,
    heals,
    killed,
    reads,
    refused,
    require_whole,
    shutting_down,
    stalled,
    unready,
    vanished,
    writes,
)
from tests.support.kit import Kit
from tests.support.pushing import blob_bytes, push_image

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("scene", "fault"),
    [
        *((1, fault) for fault in (killed, cut_off, stalled, vanished, full, shutting_down)),
        *((2, fault) for fault in (killed, vanished)),
    ],
    indirect=["scene"],
)
async def test_without_a_database_all_is_refused_in_time_and_healed(
    scene: Scene, http: httpx.AsyncClient, fault: "type[contextlib.AbstractContextManager[None]]"
) -> None:
    with fault(scene):  # type: ignore[call-arg]
        await refused(http)
        await asyncio.gather(refused(http), unready(http))
    await heals(http)


async def test_what_is_locked_is_refused_in_time(scene: Scene, http: httpx.AsyncClient) -> None:
    with all_locked(scene):
        await refused(http)
    await heals(http)


async def test_where_the_counter_is_locked_reads_go_on(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    new = blob_bytes(f"locked {time.time_ns()}", 10)
    pushes = [("POST", f"/v2/{NAME}/blobs/uploads/?digest={Digest.of(new)}", new)]
    with scene.direct() as session:
        session.execute("SELECT revision FROM change_feed_revision FOR UPDATE")
        refusing = asyncio.ensure_future(refused(http, pushes, 30))
        await asyncio.sleep(0.5)
        seen = await ask_all(http, reads(), 20)
        assert set(seen.statuses) == {200}
        await refusing
    await heals(http)


async def test_where_nothing_can_be_written_reads_go_on(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    """The database is a standby that is not promoted yet."""
    with scene.direct() as session:
        session.autocommit = True
        session.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        session.execute("SELECT pg_reload_conf()")
        try:
            await asyncio.sleep(0.5)
            await refused(http, writes()[:3], 20)
            assert set((await ask_all(http, reads(), 20)).statuses) == {200}
        finally:
            session.execute("SET default_transaction_read_only = off")
            session.execute("ALTER SYSTEM RESET default_transaction_read_only")
            session.execute("SELECT pg_reload_conf()")
    await heals(http)


async def test_a_slow_database_is_used_while_it_answers_in_time(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    try:
        scene.proxy.delay(0.02)
        assert set((await ask_all(http, reads(), 12)).statuses) == {200}
        scene.proxy.delay(2.5)
        await refused(http, total=20)
    finally:
        scene.proxy.delay(0)
    await heals(http)


async def test_pushes_go_on_over_restarts_and_none_that_was_acknowledged_is_lost(
    scene: Scene, http: httpx.AsyncClient
) -> None:
    ending = asyncio.Event()
    kit = Kit(http)

    async def client(number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            try:
                await push_image(kit, scene.ledger, f"{NAME}/{number}", f"{time.time_ns()}", 50_000)
            except AssertionError as error:  # a refusal: continue with the next push
                if "UNAVAILABLE" not in str(error):
                    raise
                await asyncio.sleep(0.1)

    clients = [asyncio.ensure_future(client(number)) for number in range(4)]
    before = len(scene.ledger.pushes)
    for end in (lambda: scene.cluster.stop("immediate"), scene.cluster.kill):
        await asyncio.sleep(1)
        await asyncio.to_thread(end)
        await asyncio.to_thread(scene.cluster.start)
    await asyncio.sleep(1)
    ending.set()
    await asyncio.gather(*clients)
    assert len(scene.ledger.pushes) > before
    require_whole(scene)
