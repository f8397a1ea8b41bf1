"""Tests of restarts of replicas and of the database during pushes that clients retry."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from registry.services.content import upload_leases
from storage.digest import Digest
from tests.support.kit import require_created
from tests.support.pushing import Ledger, blob_bytes, verify
from tests.support.retrying import Retrying, pushing
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, kit_of, running_replicas, until
from tests.support.servers.server import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.faults,
    pytest.mark.xdist_group("restarts"),
    pytest.mark.timeout(240),
]

NAME = "team/app"
CLIENTS = 3
SIZE = 300_000
DRAIN = {"http.drain_timeout": "10s"}
RECEIVED = "moorage_received_bytes_total "


async def pushes_more(ledger: Ledger, count: int) -> None:
    there = len(ledger.pushes)

    async def is_enough() -> bool:
        return len(ledger.pushes) >= there + count

    await until(is_enough, 90)


async def gets_requests(server: Server) -> None:
    """Wait until nginx, which remembers failures for `fail_timeout`, sends it pushes again."""

    async def has_received() -> bool:
        async with httpx.AsyncClient() as http:
            told = (await http.get(f"{server.url}/metrics")).text
        received = next(line for line in told.splitlines() if line.startswith(RECEIVED))
        return float(received.removeprefix(RECEIVED)) > 0

    await until(has_received, 30)


async def require_all_there(replicas: Replicas, pusher: Retrying) -> None:
    for server in (replicas.a, replicas.b):
        assert await verify(server.url, pusher.ledger.pushes) == []
    assert replicas.list_unowned() == []


async def test_a_rolling_restart(own_replicas: Callable[..., Replicas]) -> None:
    replicas = own_replicas(**DRAIN)
    with running_replicas(replicas):
        pusher = Retrying(replicas.front.url, SIZE)
        async with pushing(pusher, CLIENTS):
            await pushes_more(pusher.ledger, 2)
            for server in (replicas.a, replicas.b):
                assert await asyncio.to_thread(server.stop) == 0
                await pushes_more(pusher.ledger, 2)
                await asyncio.to_thread(server.start)
                await gets_requests(server)
        # nginx repeats a request to a stopped replica at the other one, unnoticed by the client.
        assert pusher.again == []
        await require_all_there(replicas, pusher)


async def test_a_draining_replica_says_so(own_replicas: Callable[..., Replicas]) -> None:
    """It says so over an existing connection: it accepts no new ones."""
    replicas = own_replicas(**DRAIN)
    with running_replicas(replicas):
        async with httpx.AsyncClient(base_url=replicas.a.url) as watching, kit_of(replicas.a) as a:
            assert (await watching.get("/readyz")).status_code == 200
            location = await a.start_upload(NAME)
            sent = asyncio.Event()

            async def body() -> AsyncIterator[bytes]:
                yield b"first"
                await sent.wait()
                yield b" and last"

            patching = asyncio.create_task(a.http.patch(location, content=body()))
            await asyncio.sleep(0.5)
            replicas.a.running.send_signal(signal.SIGTERM)

            async def is_draining() -> bool:
                try:
                    answer = await watching.get("/readyz")
                except httpx.TransportError:
                    return True
                return answer.status_code == 503 and "shutting down" in answer.text

            await until(is_draining, 5)
            sent.set()
            assert (await patching).status_code == 202
        async with kit_of(replicas.b) as b:
            digest = Digest.of(b"first and last")
            answer = await b.http.put(location, params={"digest": str(digest)})
            require_created(answer, NAME, digest)
        assert await asyncio.to_thread(replicas.a.wait) == 0


@pytest.mark.parametrize("what", ["database", "replica"])
async def test_killed_under_pushes(
    own_replicas: Callable[..., Replicas], postgres: Cluster, what: str
) -> None:
    replicas = own_replicas()
    victim: Cluster | Server = postgres if what == "database" else replicas.a
    with running_replicas(replicas):
        pusher = Retrying(replicas.front.url, SIZE)
        async with pushing(pusher, CLIENTS):
            await pushes_more(pusher.ledger, 2)
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(2)
            await asyncio.to_thread(victim.start)
            await pushes_more(pusher.ledger, CLIENTS + 1)
        assert pusher.again or what == "replica"
        await require_all_there(replicas, pusher)


async def test_a_replica_that_was_stopped_changes_nothing_when_it_wakes(
    own_replicas: Callable[..., Replicas],
) -> None:
    """Its session has continued at the other replica, so fencing refuses all of its changes."""
    replicas = own_replicas()
    part = 5 << 20
    data = blob_bytes("right", 2 * part + 7)
    wrong = blob_bytes("wrong", 2 * part + 7)
    with running_replicas(replicas):
        async with kit_of(replicas.a) as a, kit_of(replicas.b) as b:
            location = await a.start_upload(NAME)
            answer = await a.http.patch(location, content=data[:100])
            assert answer.status_code == 202
            woken = asyncio.Event()

            async def body() -> AsyncIterator[bytes]:
                yield wrong[: part + 5]
                await woken.wait()
                yield wrong[part + 5 :]

            late = asyncio.create_task(a.http.patch(location, content=body()))
            await asyncio.sleep(1)
            replicas.a.signal_all(signal.SIGSTOP)

            async def is_free() -> bool:
                answer = await b.http.patch(location, content=data[100 : part + 1])
                assert answer.status_code in {202, 409}, answer.text
                return answer.status_code == 202

            waited = await until(is_free, upload_leases.LEASE_S + 15, every=0.5)
            print(f"taken over after {waited:.1f} s")  # noqa: T201
            replicas.a.signal_all(signal.SIGCONT)
            woken.set()
            assert (await late).status_code in {404, 409}
            answer = await b.http.patch(location, content=data[part + 1 :])
            assert answer.status_code == 202
            digest = Digest.of(data)
            answer = await a.http.put(location, params={"digest": str(digest)})
            require_created(answer, NAME, digest)
            for kit in (a, b):
                found = await kit.http.get(f"/v2/{NAME}/blobs/{digest}")
                assert found.content == data

            async def is_clean() -> bool:
                return not replicas.list_leftovers()

            await until(is_clean, 30)
