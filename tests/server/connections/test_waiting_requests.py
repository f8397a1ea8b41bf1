"""Requests that wait until a query shows whether their remembered response is current."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from registry import clock, metrics
from registry.auth.caller import Validity
from registry.errors import DatabaseUnavailableError
from registry.server import waiting_requests
from registry.server.answers import Answers
from registry.server.limits import ServerLimits
from tests.server.connections.remembered import NAME, App, Client, Revisions, connected
from tests.support.servers.differential import count_hits
from tests.support.servers.http_server import Served, serving_app, wait_until

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = HEAD.replace(b"Host: a", b"Host: b")

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def revisions() -> Revisions:
    return Revisions(needs_query=True)


@pytest.fixture
def answers(revisions: Revisions) -> Answers:
    return Answers(revisions, 1 << 20)


@pytest.fixture
async def served(app: App, answers: Answers, anyio_backend: str) -> AsyncIterator[Served]:
    del anyio_backend
    async with serving_app(app, answers=answers) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with connected(served) as client:
        yield client


@pytest.fixture(autouse=True)
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait until the test completes the query."""
    monkeypatch.setattr(waiting_requests, "PATIENCE", 60.0)


async def learned(client: Client, data: bytes = HEAD) -> None:
    await client.send(data)
    await asyncio.sleep(0)


async def waiting(client: Client, revisions: Revisions, data: bytes = HEAD) -> asyncio.Future[None]:
    """Send a request whose response is remembered, and return the query that it waits for."""
    await learned(client, data)
    started = len(revisions.reads)
    client.writer.write(data)
    await wait_until(lambda: len(revisions.reads) > started)
    return revisions.reads[-1]


async def test_the_response_waits_for_the_query(
    client: Client, app: App, revisions: Revisions
) -> None:
    before = count_hits()
    read = await waiting(client, revisions)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.1)
    read.set_result(None)
    head, body = await client.read()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"{}"
    assert app.calls == 1
    assert app.notes == 1
    assert count_hits() == before + 1


async def test_one_query_serves_all_that_wait(
    served: Served, client: Client, app: App, revisions: Revisions
) -> None:
    read = await waiting(client, revisions)
    async with connected(served) as second, connected(served) as third:
        for other in (second, third):
            other.writer.write(HEAD)
        await asyncio.sleep(0.05)
        assert revisions.reads == [read]
        read.set_result(None)
        for each in (client, second, third):
            await each.read()
    assert app.calls == 1


async def test_the_connection_stays_usable(client: Client, app: App, revisions: Revisions) -> None:
    read = await waiting(client, revisions)
    for _ in range(3):
        read.set_result(None)
        await client.read()
        client.writer.write(HEAD)
        await wait_until(lambda: not revisions.reads[-1].done())
        read = revisions.reads[-1]
    read.set_result(None)
    await client.read()
    assert app.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda revisions: revisions.forget[0](frozenset({NAME})),
        lambda revisions: revisions.forget[0](None),
        lambda revisions: setattr(revisions, "policy", 2),
    ],
    ids=["repository", "unknown-changes", "policy"],
)
async def test_a_change_that_the_query_finds(
    client: Client, app: App, revisions: Revisions, change: Callable[[Revisions], None]
) -> None:
    read = await waiting(client, revisions)
    change(revisions)
    read.set_result(None)
    await client.read()
    assert app.calls == 2


async def test_a_response_made_during_a_change_is_not_learned(
    client: Client, app: App, revisions: Revisions
) -> None:
    """The change was passed to the memory before it knew the response."""
    app.during = revisions.commit
    await learned(client)
    app.during = lambda: None
    await learned(client)
    assert app.calls == 2
    assert not revisions.reads


async def test_the_validity_ends_during_the_wait(
    client: Client, app: App, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now)
    app.validity = Validity(expires_at=now + 10)
    read = await waiting(client, revisions)
    now += 10
    read.set_result(None)
    await client.read()
    assert app.calls == 2


async def fail(read: asyncio.Future[None]) -> None:
    read.set_exception(DatabaseUnavailableError("away"))


async def cancel(read: asyncio.Future[None]) -> None:
    read.cancel()


@pytest.mark.parametrize("end", [fail, cancel])
async def test_a_query_that_fails(
    client: Client,
    app: App,
    revisions: Revisions,
    end: Callable[[asyncio.Future[None]], Awaitable[None]],
) -> None:
    await end(await waiting(client, revisions))
    await client.read()
    assert app.calls == 2


async def test_a_query_that_takes_long(
    client: Client, app: App, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request gives up after a while, also one that comes while the same query runs."""
    monkeypatch.setattr(waiting_requests, "PATIENCE", 0.05)
    read = await waiting(client, revisions)
    await client.read()
    assert app.calls == 2
    await client.send(HEAD)
    assert app.calls == 3
    assert revisions.reads == [read]
    read.set_result(None)
    client.writer.write(HEAD)
    await wait_until(lambda: len(revisions.reads) == 2)
    revisions.reads[-1].set_result(None)
    await client.read()
    assert app.calls == 3


async def test_pipelined_requests_are_answered_in_order(
    client: Client, app: App, revisions: Revisions
) -> None:
    """The application answers the waiting request if another one follows."""
    read = await waiting(client, revisions)
    client.writer.write(OTHER)
    heads = [(await client.read())[0] for _ in range(2)]
    read.set_result(None)
    client.writer.write(HEAD)
    await wait_until(lambda: len(revisions.reads) == 2)
    revisions.reads[-1].set_result(None)
    heads.append((await client.read())[0])
    ids = [head.partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0] for head in heads]
    assert ids[:2] == [b"2", b"3"]
    assert len(ids[2]) == 32
    assert app.calls == 3


async def test_a_client_that_disconnects(
    served: Served, client: Client, app: App, revisions: Revisions
) -> None:
    async with connected(served) as other:
        read = await waiting(other, revisions)
        reset = struct.pack("ii", 1, 0)
        wire = other.writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        other.writer.transport.abort()
        await wait_until(lambda: len(served.server.server_state.connections) < 2)
        client.writer.write(HEAD)
        await asyncio.sleep(0.05)
        notes = app.notes
        read.set_result(None)
        await client.read()
    assert app.notes == notes + 1
    assert app.calls == 1


async def test_a_client_that_ends_its_direction(
    client: Client, app: App, revisions: Revisions
) -> None:
    await waiting(client, revisions)
    client.writer.write_eof()
    await client.read()
    assert await client.reader.read() == b""
    assert app.calls == 2


async def test_a_server_that_stops(
    served: Served, client: Client, answers: Answers, revisions: Revisions
) -> None:
    await waiting(client, revisions)
    answers.close()
    for connection in list(served.server.server_state.connections):
        connection.shutdown()
    head, body = await client.read()
    assert b"Connection: close\r\n" in head
    assert body == b"{}"
    assert await client.reader.read() == b""


async def test_a_waiting_connection_is_not_evicted(
    app: App, answers: Answers, revisions: Revisions, anyio_backend: str
) -> None:
    del anyio_backend
    limits = ServerLimits(connections=2, per_address=0)
    async with (
        serving_app(app, limits, answers=answers) as served,
        connected(served) as first,
        connected(served) as second,
    ):
        read = await waiting(first, revisions)
        await second.send(OTHER)
        async with connected(served) as third:
            await third.send(OTHER.replace(b"b", b"c"))
            assert await second.reader.read() == b""
            read.set_result(None)
            await first.read()
            async with connected(served) as fourth:
                await fourth.send(OTHER.replace(b"b", b"d"))
                assert await third.reader.read() == b""


async def test_a_waiting_request_is_in_flight(client: Client, revisions: Revisions) -> None:
    def read_gauge() -> float:
        metrics.update()
        return metrics.REGISTRY.get_sample_value("moorage_requests_in_flight") or 0.0

    before = read_gauge()
    read = await waiting(client, revisions)
    assert read_gauge() == before + 1
    read.set_result(None)
    await client.read()
    assert read_gauge() == before


async def test_the_time_of_the_wait_is_counted(client: Client, revisions: Revisions) -> None:
    def read_sum() -> float:
        metrics.update()
        labels = {"method": "GET", "route": "/v2/"}
        name = "moorage_request_duration_seconds_sum"
        return metrics.REGISTRY.get_sample_value(name, labels) or 0.0

    before = read_sum()
    read = await waiting(client, revisions)
    await asyncio.sleep(0.05)
    read.set_result(None)
    await client.read()
    assert read_sum() >= before + 0.05
