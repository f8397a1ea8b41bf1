"""Fills of several processes over one database and one store."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.app import Runtime
from registry.auth.policy.principals import OPERATOR
from registry.errors import BusyError, UpstreamDigestError, UpstreamUnavailableError
from registry.services.content.upload_chunks import Chunk
from registry.services.mirrors import fill_leases, fills
from registry.services.mirrors.fill_leases import FillLease, FillLeases
from storage.local.driver import LocalDriver
from tests.services.mirrors.conftest import Open, on_disk
from tests.services.mirrors.paced import PacedServer, calling
from tests.services.mirrors.pulling import (
    CONTENT,
    DIGEST,
    MIB,
    NAME,
    idle,
    open_reader,
    read,
    read_stored,
    require_consistent,
)
from tests.services.mirrors.sources import ScriptedSource
from tests.support.kit import count_sessions

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
killable = pytest.mark.parametrize("place", ["sqlite-local", "postgres-s3"], indirect=True)
on_s3 = pytest.mark.parametrize("place", ["sqlite-unreadable", "postgres-s3"], indirect=True)
"""For stores whose staged bytes cannot be read."""


async def in_one_piece(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.fixture
async def pair(start: Open, anyio_backend: str) -> AsyncIterator[tuple[Runtime, Runtime]]:
    """Return the same registry opened twice, as two processes do."""
    del anyio_backend
    async with start() as one, start() as other:
        yield one, other


@on_disk
async def test_other_process_reads_the_same_bytes(pair: tuple[Runtime, Runtime]) -> None:
    one, other = pair
    source, unused = ScriptedSource(len(CONTENT)), ScriptedSource(content=CONTENT)
    async with await open_reader(one, source), await open_reader(other, unused) as reader:
        connection = await source.connected()
        pieces = reader.read(0, reader.size)
        connection.send(CONTENT[:MIB])
        first = await anext(pieces)
        assert CONTENT[:MIB].startswith(first)
        connection.send(CONTENT[MIB:])
        connection.finish()
        assert first + b"".join([piece async for piece in pieces]) == CONTENT
    await idle(other)
    assert not unused.connections
    await require_consistent(one)


@on_disk
async def test_without_the_lease_both_would_fetch(
    pair: tuple[Runtime, Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def claim(_lease: FillLease) -> bool:
        return True

    monkeypatch.setattr(FillLease, "claim", claim)
    one, other = pair
    sources = [ScriptedSource(len(CONTENT)) for _ in pair]
    for opened, source in zip((one, other), sources, strict=True):
        async with await open_reader(opened, source):
            pass
    assert [len(source.connections) for source in sources] == [1, 1]
    for source in sources:
        source.connections[0].send(CONTENT)
        source.connections[0].finish()
    await idle(one)
    await idle(other)
    assert await read_stored(one) == CONTENT
    await require_consistent(one)


@on_disk
async def test_failure_cuts_the_readers_of_the_other_process(
    pair: tuple[Runtime, Runtime],
) -> None:
    one, other = pair
    source = ScriptedSource(len(CONTENT))
    async with await open_reader(one, source):
        reader = await open_reader(other, ScriptedSource(content=CONTENT))
        (await source.connected()).send(CONTENT[:-1] + b"!")
        source.connections[0].finish()
        with pytest.raises(UpstreamUnavailableError):
            await read(reader)


@on_disk
async def test_blob_from_elsewhere_does_not_complete_a_wrong_fill(
    pair: tuple[Runtime, Runtime],
) -> None:
    one, other = pair
    source = ScriptedSource(len(CONTENT))
    async with await open_reader(one, source):
        reader = await open_reader(other, ScriptedSource(content=CONTENT))
        source.connections[0].send(CONTENT[:-1] + b"!")
        pieces = reader.read(0, reader.size)
        got = b""
        while len(got) < len(CONTENT) - 1:
            got += await anext(pieces)
        session = await one.registry.uploads.begin(NAME, OPERATOR, "sha256")
        chunk = Chunk(in_one_piece(CONTENT))
        await one.registry.uploads.complete(NAME, OPERATOR, session.id, chunk, DIGEST)
        last = asyncio.ensure_future(anext(pieces))
        await asyncio.wait([last], timeout=4 * fills.POLL_S)
        assert not last.done()
        source.connections[0].finish()
        with pytest.raises(UpstreamUnavailableError):
            await last
        await reader.close()


@on_s3
async def test_other_process_waits_for_a_short_fill(pair: tuple[Runtime, Runtime]) -> None:
    one, other = pair
    source, unused = ScriptedSource(len(CONTENT)), ScriptedSource(content=CONTENT)
    async with await open_reader(one, source) as reader:
        opening = asyncio.create_task(other.registry.fills.open(NAME, DIGEST, unused))
        source.connections[0].send(CONTENT)
        source.connections[0].finish()
        assert b"".join([piece async for piece in reader.read(0, reader.size)]) == CONTENT
        assert await opening is None
    assert not unused.connections


@on_s3
async def test_other_process_relays_what_takes_long(
    pair: tuple[Runtime, Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fills, "PATIENCE_S", 0.0)
    one, other = pair
    source, second = ScriptedSource(len(CONTENT)), ScriptedSource(content=CONTENT)
    async with await open_reader(one, source):
        assert await read(await open_reader(other, second)) == CONTENT
        await idle(other)
        wrong = ScriptedSource(content=CONTENT[:-1] + b"!")
        with pytest.raises(UpstreamDigestError):
            await read(await open_reader(other, wrong))
        assert await count_sessions(one.database) == 1


@on_s3
async def test_relay_needs_room(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fills, "PATIENCE_S", 0.0)
    async with (
        start() as one,
        start(mirrors__spool_size="1MiB") as other,
        await open_reader(one, ScriptedSource(len(CONTENT))),
    ):
        with pytest.raises(BusyError, match=r"mirrors\.spool_size"):
            await other.registry.fills.open(NAME, DIGEST, ScriptedSource(content=CONTENT))


@on_disk
async def test_leases_of_dead_processes_are_deleted(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_leases, "LEASE_S", -1.0)
    async with start() as opened:
        assert await FillLease(opened.database, "fill/a").claim()
        assert await FillLease(opened.database, "fill/b").claim()
        monkeypatch.setattr(fill_leases, "LEASE_S", 60.0)
        assert await FillLease(opened.database, "fill/c").claim()
        assert not await FillLease(opened.database, "fill/c").claim()
        assert await FillLeases(opened.database).find(NAME, DIGEST) is None
        names = await opened.database.read(
            lambda tx: tx.connection.exec_driver_sql("select name from leases").scalars().all()
        )
        assert names == ["fill/c"]


@asynccontextmanager
async def filling(data: Path, place: dict[str, str], url: str) -> AsyncIterator[Process]:
    """Run a process that fetches the blob and has received some of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.services.mirrors.filler"),
        *(str(data), json.dumps(place), url, str(DIGEST)),
        stdin=DEVNULL,
        stdout=PIPE,
        cwd=data,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"read\n"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


@killable
async def test_killed_process_leaves_nothing_wrong(
    place: dict[str, str], start: Open, tmp_path: Path
) -> None:
    async with PacedServer(CONTENT).run() as server:
        server.allow(MIB)
        async with filling(tmp_path, place, server.url):
            pass
        server.allow()
        async with start() as opened, calling(server.url, DIGEST) as source:
            assert await count_sessions(opened.database) == 1
            if isinstance(opened.driver, LocalDriver):
                assert len(await opened.driver.list_staged()) == 1
            if (reader := await opened.registry.fills.open(NAME, DIGEST, source)) is not None:
                assert await read(reader) == CONTENT
            await idle(opened)
            assert await read_stored(opened) == CONTENT
            await require_consistent(opened)


@on_disk
async def test_readers_are_cut_when_the_other_process_is_killed(
    place: dict[str, str], start: Open, tmp_path: Path
) -> None:
    async with (
        PacedServer(CONTENT).run() as server,
        calling(server.url, DIGEST) as source,
        start() as opened,
    ):
        server.allow(MIB)
        async with filling(tmp_path, place, server.url):
            reader = await open_reader(opened, source)
            pieces = reader.read(0, reader.size)
            assert CONTENT.startswith(await anext(pieces))
        with pytest.raises(UpstreamUnavailableError):
            async for _ in pieces:
                pass
        await reader.close()
        server.allow()
        assert await read(await open_reader(opened, source)) == CONTENT
        assert len(server.heads) == 2
        await idle(opened)
        await require_consistent(opened)


@on_s3
async def test_other_process_takes_over_when_the_lease_expires(
    pair: tuple[Runtime, Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(fill_leases, "LEASE_S", 1.0)
    dead = FillLease(one.database, f"fill/{NAME}/{DIGEST}")
    assert await dead.claim()
    monkeypatch.setattr(fills, "PATIENCE_S", 60.0)
    assert await read(await open_reader(other, ScriptedSource(content=CONTENT))) == CONTENT
    assert await read_stored(other) == CONTENT
