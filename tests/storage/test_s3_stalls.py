"""Tests of a bucket that stopped answering: no request waits longer because others wait too."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from storage.driver import Upload
from storage.errors import StoreUnavailableError
from storage.s3 import client, reader
from storage.s3.driver import S3Driver
from tests.storage.s3.helpers import PART
from tests.storage.session_rows import SessionRowDriver
from tests.support.flaky import STALL, Fault, Flaky, flaky
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio

READ = 1.5
"""Seconds after which a stalled attempt ends in these tests, instead of ten."""
LIMIT = 2.5 * READ
"""Seconds for all attempts. As in production, it is about twice the time-out."""


@pytest.fixture
def network(bucket: Bucket) -> Iterator[Flaky]:
    with flaky(bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def driver(
    bucket: Bucket, network: Flaky, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SessionRowDriver]:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", READ / 3)
    monkeypatch.setattr(client, "READ_TIMEOUT_S", READ)
    for module in (client, reader):
        monkeypatch.setattr(module, "RETRY_WITHIN_S", 0.6 * READ)
    settings = bucket.settings(endpoint=network.url, part_size=PART, upload_concurrency=2)
    store = S3Driver(settings)
    await store.start()
    yield SessionRowDriver(store)
    await store.close()


def answering(fault: Fault, method: str, word: str) -> Callable[[str, str], Fault | None]:
    """Return a fault for one kind of request, so that the store never counts as unavailable."""
    return lambda m, target: fault if m == method and word in target else None


async def refused(*works: asyncio.Future[None]) -> float:
    """Return the seconds until all of the requests had failed."""
    begun = time.monotonic()
    for result in await asyncio.gather(*works, return_exceptions=True):
        assert isinstance(result, StoreUnavailableError), result
    return time.monotonic() - begun


@pytest.mark.parametrize("after", [None, 1000], ids=["at once", "in the body"])
async def test_many_who_read(
    driver: SessionRowDriver, bucket: Bucket, network: Flaky, key: str, after: int | None
) -> None:
    bucket.put(key, bytes(5000))
    network.judge = answering(Fault(stall=True, after=after), "GET", key)

    async def read() -> None:
        reader = await driver.open(key)
        try:
            _ = [piece async for piece in reader.read(0, 5000)]
        finally:
            await reader.close()

    many = [asyncio.ensure_future(read()) for _ in range(4 * client.THREADS)]
    assert await refused(*many) < LIMIT


@pytest.mark.parametrize(
    ("method", "word"), [("PUT", "partNumber"), ("POST", "?uploads"), ("PUT", "/staging/")]
)
async def test_many_who_upload(
    driver: SessionRowDriver, network: Flaky, method: str, word: str
) -> None:
    """Two parts may be sent at once. Waiting uploads fail together with them."""
    network.judge = answering(STALL, method, word)
    size = PART - 1 if "staging" in word else PART + 1

    async def send(upload: Upload) -> None:
        try:
            for at in range(0, size, 1 << 20):
                await upload.append(bytes(min(1 << 20, size - at)), None)
            await upload.sync()
        finally:
            await upload.release()

    uploads = [await driver.claim(str(uuid.uuid4())) for _ in range(8)]
    assert await refused(*(asyncio.ensure_future(send(upload)) for upload in uploads)) < LIMIT


async def test_a_slow_body_passes_its_pieces_on(
    driver: SessionRowDriver, bucket: Bucket, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is not full after a while is passed on, and its thread released."""
    monkeypatch.setattr(client, "CHUNK_INTERVAL_S", 0.0)
    data = bytes(1 << 20)
    bucket.put(key, data)
    reader = await driver.open(key)
    pieces = [piece async for piece in reader.read(0, len(data))]
    assert {len(piece) for piece in pieces} == {client.READ_CHUNK}
    assert b"".join(pieces) == data
    await reader.close()
