"""Blobs that the server answers from memory: what ends these answers, and what they promise."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from starlette.types import Receive, Scope, Send

from registry.http.memory import SMALL_BODY
from registry.metadata import tables
from registry.metadata.content import blobs
from registry.metadata.engine.transaction import Transaction
from registry.server.answers import Answers
from registry.services.content.blobs import SEEN_S
from registry.services.gc.batch import GcReport
from storage.digest import Digest
from storage.local.driver import LocalDriver
from tests.api.blobs.helpers import DATA, url
from tests.api.conftest import Api, Started
from tests.metadata.rows import rows
from tests.support.clock import MovableClock
from tests.support.kit import image_manifest
from tests.support.servers.differential import count_hits
from tests.support.servers.http_server import answer_lifespan, serving_app

pytestmark = pytest.mark.anyio

NAME = "team/app"
DIGEST = Digest.of(DATA)
GRACE = 4000.0
TOUCH = GRACE / 4


@pytest.fixture
def driver() -> str:
    return "local"


class Steady:
    """The clock of `time.monotonic`, which stands still until it is moved."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        patch.setattr("time.monotonic", lambda: self._now)

    def forward(self, seconds: float) -> None:
        self._now += seconds


@dataclass
class Room:
    """A server with answers from memory, and a blob in a repository."""

    api: Api
    http: httpx.AsyncClient
    steady: Steady
    wall: MovableClock

    async def ask(
        self, method: str = "GET", digest: Digest = DIGEST, headers: dict[str, str] | None = None
    ) -> int:
        answer = await self.http.request(method, url(NAME, digest), headers=headers)
        return answer.status_code

    async def is_from_memory(self, method: str = "GET", digest: Digest = DIGEST) -> bool:
        before = count_hits()
        assert await self.ask(method, digest) == 200
        return count_hits() > before

    async def learn(self, method: str = "GET", digest: Digest = DIGEST) -> None:
        """Send a request until it is answered from memory."""
        asked = [await self.is_from_memory(method, digest) for _ in range(4)]
        assert asked[-1]

    async def find_file(self) -> Path:
        row = await self.api.opened.database.read(lambda tx: blobs.find_anywhere(tx, DIGEST))
        assert row is not None
        assert isinstance(self.api.opened.driver, LocalDriver)
        return self.api.opened.driver.path(row.key)


Opened = Callable[..., AbstractAsyncContextManager[Room]]


@pytest.fixture
def open_room(start_api: Started) -> Opened:
    @asynccontextmanager
    async def start(**settings: str) -> AsyncIterator[Room]:
        with pytest.MonkeyPatch.context() as patch:
            wall = MovableClock(patch)
            chosen = {"content.allow_delete": "true", "gc.grace_period": f"{GRACE:.0f}s"}
            async with start_api({**chosen, **settings}) as api:
                await api.push_blob(NAME, DATA)
                application = api.http._transport.app  # type: ignore[attr-defined] # of httpx

                async def app(scope: Scope, receive: Receive, send: Send) -> None:
                    if scope["type"] == "lifespan":
                        await answer_lifespan(receive, send)
                    else:
                        await application(scope, receive, send)

                answers = Answers(api.opened.watch, 1 << 20)
                async with (
                    serving_app(app, answers=answers) as served,
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as http,
                ):
                    yield Room(api, http, Steady(patch), wall)

    return start


@pytest.fixture
async def room(open_room: Opened) -> AsyncIterator[Room]:
    async with open_room() as opened:
        yield opened


both = pytest.mark.parametrize("method", ["GET", "HEAD"])


@both
async def test_is_answered_from_memory(room: Room, method: str) -> None:
    first = await room.http.request(method, url(NAME, DIGEST))
    await room.learn(method)
    again = await room.http.request(method, url(NAME, DIGEST))
    assert again.content == (DATA if method == "GET" else b"")
    varying = {"date", "x-request-id"}
    fields = [
        [item for item in each.headers.items() if item[0] not in varying] for each in (first, again)
    ]
    assert fields[0] == fields[1]


async def test_not_modified_is_answered_from_memory(room: Room) -> None:
    await room.ask()
    match = {"If-None-Match": f'"{DIGEST}"'}
    assert [await room.ask(headers=match) for _ in range(3)] == [304] * 3
    before = count_hits()
    assert await room.ask(headers=match) == 304
    assert count_hits() == before + 1


async def test_a_range_and_a_large_blob_are_not_remembered(room: Room) -> None:
    large = await room.api.push_blob(NAME, bytes(SMALL_BODY + 1))
    edge = await room.api.push_blob(NAME, bytes(SMALL_BODY))
    before = count_hits()
    for _ in range(3):
        assert await room.ask(digest=large) == 200
        assert await room.ask(headers={"Range": "bytes=0-1"}) == 206
    assert count_hits() == before
    await room.learn(digest=edge)
    await room.learn("HEAD", large)


async def _delete(room: Room) -> None:
    assert (await room.api.http.delete(url(NAME, DIGEST))).status_code == 202


async def _delete_elsewhere(room: Room) -> None:
    """Another connection of the server deletes it."""
    assert (await room.http.delete(url(NAME, DIGEST))).status_code == 202


@both
@pytest.mark.parametrize("how", [_delete, _delete_elsewhere])
async def test_a_deleted_blob_is_unknown_at_once(
    room: Room, method: str, how: Callable[[Room], Awaitable[None]]
) -> None:
    await room.learn(method)
    await how(room)
    assert await room.ask(method) == 404
    await room.api.push_blob(NAME, DATA)
    assert await room.ask(method) == 200


@both
@pytest.mark.parametrize("damage", ["unlinked", "truncated"])
async def test_a_damaged_file_is_noticed_in_time(room: Room, method: str, damage: str) -> None:
    await room.learn(method)
    file = await room.find_file()
    file.chmod(0o600)
    if damage == "unlinked":
        file.unlink()
    else:
        file.write_bytes(b"")
    room.steady.forward(SEEN_S)
    assert await room.ask(method) == 404


@both
async def test_the_time_begins_when_the_bytes_were_looked_at(room: Room, method: str) -> None:
    """A repetition does not prolong it. Control: just before its end the memory still answers."""
    await room.learn(method)
    room.steady.forward(SEEN_S - 0.1)
    assert await room.is_from_memory(method)
    room.steady.forward(0.1)
    assert not await room.is_from_memory(method)
    assert await room.is_from_memory(method)


async def _read_grace_start(room: Room) -> int:
    (row,) = await rows(room.api.opened.database, tables.gc_queue)
    return int(row.grace_started_at)


async def test_a_head_from_memory_ends_when_a_touch_is_due(room: Room) -> None:
    """It does so even if the bytes were looked at just before."""
    await room.learn("HEAD")
    promised = await _read_grace_start(room)
    room.wall.forward(TOUCH - 5)
    assert await room.is_from_memory("HEAD")
    assert await _read_grace_start(room) == promised
    room.wall.forward(6)
    assert not await room.is_from_memory("HEAD")
    assert await _read_grace_start(room) > promised


async def _collect(room: Room) -> int:
    report = GcReport()
    while await room.api.opened.registry.collector.collect(report):
        pass
    return report.blobs


@pytest.mark.parametrize(("after", "collected"), [(GRACE - 60, 0), (GRACE + TOUCH + 60, 1)])
async def test_a_head_from_memory_keeps_its_promise(
    room: Room, after: float, collected: int
) -> None:
    """No blob is collected within the grace period after the last HEAD from memory."""
    await room.learn("HEAD")
    room.wall.forward(TOUCH - 5)
    assert await room.is_from_memory("HEAD")
    await _age(room, after)
    assert await _collect(room) == collected
    assert await room.ask("HEAD") == (404 if collected else 200)


async def _age(room: Room, seconds: float) -> None:
    """Move all grace periods back, because the collector waits if only the clock moves."""

    def work(tx: Transaction) -> None:
        started = tables.gc_queue.c.grace_started_at
        ago = int((seconds + TOUCH - 5) * 1_000_000)
        tx.execute(sa.update(tables.gc_queue).values({started.name: started - ago}))

    await room.api.opened.database.write(work, actor="test")
    room.wall.forward(5 - TOUCH)


async def test_a_get_promises_nothing(room: Room) -> None:
    before = await _read_grace_start(room)
    await room.learn("GET")
    room.wall.forward(2 * GRACE)
    assert await room.is_from_memory("GET")
    assert await _read_grace_start(room) == before


async def test_a_blob_of_a_manifest_needs_no_touch(room: Room) -> None:
    raw = image_manifest(DATA, [DATA])
    assert (await room.api.put_manifest(NAME, "1", raw)).status_code == 201
    await room.learn("HEAD")
    room.wall.forward(2 * GRACE)
    assert await room.is_from_memory("HEAD")
    digest = Digest.of(raw)
    answer = await room.api.http.delete(f"/v2/{NAME}/manifests/{digest}")
    assert answer.status_code == 202
    assert not await room.is_from_memory("HEAD")
