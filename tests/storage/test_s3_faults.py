"""Tests of a bucket behind a failing network: every call ends in time, and later ones succeed."""

import time
from collections.abc import AsyncIterator, Iterator

import pytest

from storage.digest import Digest, Hasher
from storage.driver import Upload
from storage.errors import (
    ObjectCorruptError,
    StoreFullError,
    StoreUnavailableError,
    UploadDataLostError,
)
from storage.s3 import client
from storage.s3.breaker import BREAKER_THRESHOLD
from storage.s3.driver import S3Driver
from tests.storage.drivers.helpers import read_object
from tests.storage.s3.helpers import DATA, PART, add, append, finish
from tests.storage.session_rows import SessionRowDriver
from tests.support.flaky import (
    CUT,
    LATE_ERROR,
    STALL,
    UNAVAILABLE,
    Fault,
    Flaky,
    error_body,
    flaky,
    status,
)
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio


@pytest.fixture
def network(bucket: Bucket) -> Iterator[Flaky]:
    with flaky(bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def driver(bucket: Bucket, network: Flaky) -> AsyncIterator[SessionRowDriver]:
    store = S3Driver(bucket.settings(endpoint=network.url, part_size=PART))
    await store.start()
    yield SessionRowDriver(store)
    await store.close()


class Strikes:
    """A fault for the first `times` requests of a kind."""

    def __init__(self, fault: Fault, method: str, word: str = "", times: int = 1) -> None:
        self.fault, self.method, self.word, self.left = fault, method, word, times

    def __call__(self, method: str, target: str) -> Fault | None:
        if self.left and method == self.method and self.word in target:
            self.left -= 1
            return self.fault
        return None


async def push(driver: SessionRowDriver, session: str, key: str) -> str:
    await add(driver, session, DATA)
    return await finish(driver, session, key)


async def test_half_of_the_requests_are_refused_for_now(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    count = iter(range(1000))
    network.judge = lambda _method, _target: UNAVAILABLE if next(count) % 2 else None
    key = await push(driver, session, key)
    assert await read_object(driver, key) == DATA
    await driver.delete(key)


async def test_a_store_that_always_refuses_for_now(
    driver: SessionRowDriver, network: Flaky, key: str
) -> None:
    network.judge = lambda _method, _target: UNAVAILABLE
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError) as refused:
        await driver.stat(key)
    assert "words of the store" not in str(refused.value)
    assert time.monotonic() - begun < 60
    network.judge = lambda _method, _target: None
    await driver.check()


async def test_a_dead_store_is_told_at_once_and_tried_again(
    driver: SessionRowDriver, network: Flaky
) -> None:
    network.refuse()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await driver.check()
    begun = time.monotonic()
    refused = 0
    for _ in range(100):
        try:
            await driver.check()
        except StoreUnavailableError:
            refused += 1
    assert refused == 100
    assert time.monotonic() - begun < 60
    network.listen()
    back = time.monotonic()
    while time.monotonic() - back < 60:
        try:
            await driver.check()
        except StoreUnavailableError:
            continue
        break
    else:
        pytest.fail("the store is back, and nobody looks")


async def test_a_store_that_stalls(driver: SessionRowDriver, network: Flaky) -> None:
    network.judge = lambda _method, _target: STALL
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await driver.check()
    assert 9 < time.monotonic() - begun < 60
    network.judge = lambda _method, _target: None
    await driver.check()


@pytest.mark.parametrize("operation", ["PUT", "POST"])
async def test_an_answer_that_is_lost(
    driver: SessionRowDriver, network: Flaky, session: str, key: str, operation: str
) -> None:
    """The store executed the request but its answer is lost: Create, part, tail, Complete."""
    network.judge = Strikes(CUT, operation, times=2)
    key = await push(driver, session, key)
    assert await read_object(driver, key) == DATA


async def test_a_small_object_whose_answer_is_lost(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    upload = await driver.claim(session)
    await append(upload, b"small")
    await upload.seal()
    network.judge = Strikes(CUT, "PUT")
    await upload.finish(key)
    assert await read_object(driver, key) == b"small"


async def test_an_error_in_an_answer_that_began_well(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    await add(driver, session, DATA)
    upload = await driver.claim(session)
    await upload.seal()
    network.judge = Strikes(LATE_ERROR, "POST", "uploadId=", times=99)
    with pytest.raises(StoreUnavailableError):
        await upload.finish(key)
    await upload.release()
    network.judge = lambda _method, _target: None
    key = await finish(driver, session, key)
    assert await read_object(driver, key) == DATA


async def test_completed_by_nobody_we_know(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    """The upload does not exist, and no attempt of this process can have completed it."""
    await add(driver, session, DATA)
    upload = await driver.claim(session)
    await upload.seal()
    gone = status(404, "Not Found", error_body("NoSuchUpload"))
    network.judge = Strikes(gone, "POST", "uploadId=")
    with pytest.raises(UploadDataLostError):
        await upload.finish(key)
    await upload.release()


async def test_a_part_that_cannot_be_sent(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    await add(driver, session, DATA[:1000])
    upload = await driver.claim(session)
    network.judge = Strikes(UNAVAILABLE, "PUT", "partNumber", times=99)
    with pytest.raises(StoreUnavailableError):
        await _append_and_sync(upload, DATA[1000:])
    with pytest.raises(StoreUnavailableError):
        await upload.append(b"more", None)
    await upload.truncate(1000)
    network.judge = lambda _method, _target: None
    await append(upload, DATA[1000:])
    await upload.sync()
    await upload.release()
    key = await finish(driver, session, key)
    assert await read_object(driver, key) == DATA


async def _append_and_sync(upload: Upload, data: bytes) -> None:
    """Append and sync. Either may raise the error."""
    await append(upload, data)
    await upload.sync()


async def test_a_full_store(driver: SessionRowDriver, network: Flaky, session: str) -> None:
    upload = await driver.claim(session)
    await append(upload, b"some")
    network.judge = Strikes(status(507, "Full", error_body("InsufficientStorage")), "PUT")
    with pytest.raises(StoreFullError):
        await upload.sync()
    await upload.release()


@pytest.mark.parametrize("after", [1, 1 << 20, (1 << 20) + 1])
async def test_a_body_that_breaks_off_is_taken_up_where_it_ended(
    driver: SessionRowDriver, bucket: Bucket, network: Flaky, key: str, after: int
) -> None:
    bucket.put(key, DATA)
    network.judge = Strikes(Fault(after=after), "GET", times=2)
    reader = await driver.open(key, 5, len(DATA) - 5)
    assert b"".join([piece async for piece in reader.read(5, len(DATA) - 5)]) == DATA[5:]
    await reader.close()
    assert len([method for method, target in network.seen if key in target]) == 3


async def test_a_body_that_breaks_off_again_and_again(
    driver: SessionRowDriver, bucket: Bucket, network: Flaky, key: str
) -> None:
    bucket.put(key, DATA)
    network.judge = Strikes(Fault(after=1000), "GET", times=99)
    reader = await driver.open(key)
    with pytest.raises(StoreUnavailableError):
        _ = [piece async for piece in reader.read(0, len(DATA))]
    await reader.close()


async def test_bytes_that_are_gone_half_way_are_damage(
    driver: SessionRowDriver, bucket: Bucket, network: Flaky, key: str
) -> None:
    bucket.put(key, DATA)
    network.judge = Strikes(Fault(after=1000), "GET")
    reader = await driver.open(key)
    bucket.delete(key)
    with pytest.raises(ObjectCorruptError):
        _ = [piece async for piece in reader.read(0, len(DATA))]
    await reader.close()


async def test_a_tail_that_breaks_off(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    await add(driver, session, DATA[:5000])
    network.judge = Strikes(Fault(after=1000), "GET")
    key = await finish(driver, session, key)
    assert await read_object(driver, key) == DATA[:5000]


async def test_a_few_lost_answers_do_not_break_the_circuit(
    driver: SessionRowDriver, network: Flaky
) -> None:
    network.judge = Strikes(CUT, "HEAD", times=BREAKER_THRESHOLD - 1)
    await driver.check()


async def test_hash_of_what_an_earlier_holder_sent(
    driver: SessionRowDriver, network: Flaky, session: str
) -> None:
    await add(driver, session, DATA)
    upload = await driver.claim(session)
    await upload.seal()
    network.judge = Strikes(Fault(after=PART), "GET", times=2)
    hasher = Hasher("sha256")
    await upload.hash(hasher)
    assert hasher.digest() == Digest.of(DATA)
    await upload.release()


async def test_a_slow_line_is_no_failure(
    bucket: Bucket, network: Flaky, session: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part may take longer than any single timeout, as long as bytes move."""
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.5)
    size = 4 * PART  # more than the kernel buffers at once
    store = S3Driver(bucket.settings(endpoint=network.url, part_size=size))
    driver = SessionRowDriver(store)
    network.judge = Strikes(Fault(pace=size // 4), "PUT", "partNumber")
    await add(driver, session, bytes(size + 1))
    key = await finish(driver, session, key)
    assert await driver.stat(key) == size + 1
    assert len([target for _, target in network.seen if "partNumber" in target]) == 2
    await store.close()


async def test_a_connection_cut_in_the_middle_of_a_part(
    driver: SessionRowDriver, network: Flaky, session: str, key: str
) -> None:
    network.judge = Strikes(Fault(taken=PART // 2), "PUT", "partNumber", times=2)
    key = await push(driver, session, key)
    assert await read_object(driver, key) == DATA
