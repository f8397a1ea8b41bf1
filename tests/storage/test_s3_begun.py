"""Tests of a multipart upload whose id is unknown: it is aborted, although its key is in use."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.errors import StoreUnavailableError
from storage.s3.bucket import S3Bucket
from storage.s3.driver import S3Driver
from tests.storage.drivers.helpers import read_object
from tests.storage.s3.helpers import DATA, PART, append, finish
from tests.storage.session_rows import SessionRowDriver
from tests.support.flaky import CUT, Fault, flaky
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio


@pytest.fixture
async def driver(bucket: Bucket) -> AsyncIterator[SessionRowDriver]:
    store = S3Driver(bucket.settings(part_size=PART))
    await store.start()
    yield SessionRowDriver(store)
    await store.close()


async def push(driver: SessionRowDriver, session: str, key: str) -> None:
    upload = await driver.claim(session)
    await append(upload, DATA)
    await upload.sync()
    await upload.release()
    assert await read_object(driver, await finish(driver, session, key)) == DATA


async def test_by_a_holder_that_died(
    driver: SessionRowDriver,
    bucket: Bucket,
    session: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next holder starts another one under the same key."""
    begin = S3Bucket.begin

    async def then_killed(bucket: S3Bucket, key: str) -> str:
        await begin(bucket, key)
        raise asyncio.CancelledError

    upload = await driver.claim(session)
    with monkeypatch.context() as patched:
        patched.setattr(S3Bucket, "begin", then_killed)
        with pytest.raises(asyncio.CancelledError):
            await append(upload, DATA)
    assert len(bucket.list_uploads()) == 1
    await upload.release()
    await push(driver, session, key)
    assert bucket.list_uploads() == []


@pytest.mark.parametrize("lost", [1, 2, 9])
async def test_by_a_request_whose_answer_was_lost(
    bucket: Bucket, session: str, key: str, lost: int
) -> None:
    """The request is repeated, or fails and the client's next request repeats it."""
    left = iter(range(lost))

    def judge(method: str, target: str) -> Fault | None:
        begins = method == "POST" and target.endswith("?uploads")
        return CUT if begins and next(left, None) is not None else None

    with flaky(bucket.endpoint) as network:
        store = S3Driver(bucket.settings(endpoint=network.url, part_size=PART))
        await store.start()
        driver = SessionRowDriver(store)
        network.judge = judge
        try:
            for _ in range(lost):
                try:
                    await push(driver, session, key)
                    break
                except StoreUnavailableError:
                    driver.held.clear()
                    network.judge = lambda _method, _target: None
                    await asyncio.sleep(2)  # the circuit breaker tries again
        finally:
            await store.close()
    assert bucket.list_uploads() == []
