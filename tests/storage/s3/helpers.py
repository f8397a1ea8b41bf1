"""Helpers of the tests of this folder."""

from storage.driver import Upload
from storage.s3.state import MultipartState
from tests.storage.session_rows import SessionRowDriver
from tests.support.content import distinct_words

PART = 5 << 20
DATA = distinct_words(3 * PART) + b"the end"
"""Bytes for three parts and a rest, different everywhere."""


async def add(driver: SessionRowDriver, session: str, data: bytes) -> None:
    """Append `data` in one request."""
    upload = await driver.claim(session)
    await append(upload, data)
    await upload.sync()
    await upload.release()


async def append(upload: Upload, data: bytes) -> None:
    for at in range(0, len(data), 1 << 20):
        await upload.append(data[at : at + (1 << 20)], None)


async def finish(driver: SessionRowDriver, session: str, key: str) -> str:
    upload = await driver.claim(session)
    await upload.seal()
    key = upload.final_key(key)
    await upload.finish(key)
    return key


async def sweep(driver: SessionRowDriver) -> None:
    for key in driver.pending_deletions:
        await driver.delete(key)


def state_of(driver: SessionRowDriver, session: str) -> MultipartState:
    return MultipartState.from_json(driver.rows[session][0])
