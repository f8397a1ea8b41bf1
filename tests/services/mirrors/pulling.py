"""Pulls of a blob from a mirror, and the state that they leave."""

import asyncio

from registry.app import Runtime
from registry.oci.names import RepositoryName
from registry.services.maintenance.fsck import Report
from registry.services.mirrors.download import BlobSource
from registry.services.mirrors.fill import FillReader
from storage.digest import Digest
from tests.support.content import distinct_words
from tests.support.kit import count_sessions, list_stored

NAME = RepositoryName.parse("hub/library/alpine")
MIB = 1 << 20
CONTENT = distinct_words(3 * MIB)
DIGEST = Digest.of(CONTENT)


async def read(reader: FillReader, start: int = 0, length: int | None = None) -> bytes:
    """Read a range, and close the reader."""
    async with reader:
        size = reader.size - start if length is None else length
        return b"".join([piece async for piece in reader.read(start, size)])


async def read_into(got: bytearray, reader: FillReader) -> None:
    """Read the whole blob into `got`, which has the bytes before an error."""
    async for piece in reader.read(0, reader.size):
        got += piece


async def open_reader(opened: Runtime, source: BlobSource, digest: Digest = DIGEST) -> FillReader:
    reader = await opened.registry.fills.open(NAME, digest, source)
    assert reader is not None
    return reader


async def read_stored(opened: Runtime, digest: Digest = DIGEST) -> bytes:
    """Read the blob as an ordinary pull does."""
    row = await opened.registry.blobs.get(NAME, digest)
    reader = await opened.registry.blobs.open(row)
    try:
        return b"".join([piece async for piece in reader.read(0, reader.size)])
    finally:
        await reader.close()


async def idle(opened: Runtime) -> None:
    """Wait until no fill runs."""
    while tasks := list(opened.registry.fills._tasks):
        await asyncio.wait(tasks)


async def require_nothing_left(opened: Runtime) -> None:
    await idle(opened)
    assert await count_sessions(opened.database) == 0
    assert list_stored(opened.driver) == []
    assert await opened.driver.list_staged() == []


async def require_consistent(opened: Runtime) -> None:
    """Expire all sessions as the job does, and check that rows and bytes agree."""
    await opened.registry.uploads.expire(1 << 62)
    await opened.registry.uploads.recover()
    assert await count_sessions(opened.database) == 0
    assert await opened.driver.list_staged() == []
    report = Report()
    await opened.registry.fsck.run(report, repair=False, grace=0)
    assert report.findings == []
