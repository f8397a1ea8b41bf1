import contextlib
from pathlib import Path

import pytest

from storage.blobs import Blobs
from storage.driver import Driver
from storage.errors import ObjectDamagedError, ObjectMissingError
from storage.local import LocalDriver, LocalReader

pytestmark = pytest.mark.anyio

DATA = b"all of the bytes"


async def put(driver: Driver, session: str, key: str, data: bytes) -> None:
    upload = await driver.claim(session)
    await upload.append(data, None)
    await upload.finish(key)


async def read_whole(blobs: Blobs, key: str) -> bytes:
    reader = await blobs.open(key, len(DATA))
    async with contextlib.aclosing(reader):  # type: ignore[type-var]
        return b"".join([piece async for piece in reader.read(0, reader.size)])


async def test_whole_object(driver: Driver, session: str, key: str) -> None:
    await put(driver, session, key, DATA)
    blobs = Blobs(driver)
    await blobs.check(key, len(DATA))
    assert await read_whole(blobs, key) == DATA
