"""Fills: one fetch for all readers, which read while it runs."""

import asyncio
from pathlib import Path

import pytest

from registry.app import Runtime
from registry.auth.audit_log import Actor
from registry.errors import (
    BusyError,
    QuotaExceededError,
    UpstreamDigestError,
    UpstreamProtocolError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.services.mirrors import download
from registry.services.mirrors.fill import Fill
from storage.digest import Digest
from storage.memory import MemoryStaged, MemoryStagedReader
from storage.piece_budget import PieceBudget
from tests.services.mirrors.conftest import Open, on_disk, spooling
from tests.services.mirrors.pulling import (
    CONTENT,
    DIGEST,
    MIB,
    NAME,
    idle,
    open_reader,
    read,
    read_into,
    read_stored,
    require_nothing_left,
)
from tests.services.mirrors.sources import ScriptedSource
from tests.support.kit import count_sessions, list_open_files

pytestmark = pytest.mark.anyio


async def test_blob_is_served_and_stored(opened: Runtime) -> None:
    source = ScriptedSource(content=CONTENT)
    assert await read(await open_reader(opened, source)) == CONTENT
    assert await read_stored(opened) == CONTENT
    await idle(opened)
    assert await count_sessions(opened.database) == 0
    assert await opened.registry.fills.open(NAME, DIGEST, source) is None
    assert len(source.connections) == 1


async def test_first_byte_is_served_before_the_last_arrives(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    opening = asyncio.create_task(open_reader(opened, source))
    connection = await source.connected()
    async with await opening as reader:
        pieces = reader.read(0, reader.size)
        connection.send(CONTENT[:1])
        assert await anext(pieces) == CONTENT[:1]
        connection.send(CONTENT[1:])
        connection.finish()
        assert b"".join([piece async for piece in pieces]) == CONTENT[1:]


async def test_fifty_readers_cause_one_fetch(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    opening = [asyncio.create_task(open_reader(opened, source)) for _ in range(50)]
    connection = await source.connected()
    reading = [asyncio.create_task(read(await each)) for each in opening]
    for start in range(0, len(CONTENT), MIB):
        connection.send(CONTENT[start : start + MIB])
    connection.finish()
    assert all(body == CONTENT for body in await asyncio.gather(*reading))
    assert len(source.connections) == 1


async def test_fill_continues_without_its_readers(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    first = await open_reader(opened, source)
    connection = await source.connected()
    reading = [asyncio.create_task(read(await open_reader(opened, source))) for _ in range(49)]
    connection.send(CONTENT[:MIB])
    assert await anext(aiter(first.read(0, first.size)))
    await first.close()
    for task in reading[1:]:
        task.cancel()
    await asyncio.wait(reading[1:])
    connection.send(CONTENT[MIB:])
    connection.finish()
    assert await reading[0] == CONTENT
    await idle(opened)
    assert await read_stored(opened) == CONTENT


async def test_fill_continues_without_any_reader(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    opening = asyncio.create_task(open_reader(opened, source))
    connection = await source.connected()
    opening.cancel()
    await asyncio.wait([opening])
    connection.send(CONTENT)
    connection.finish()
    await idle(opened)
    assert await read_stored(opened) == CONTENT


async def test_ranges_are_served_from_what_has_arrived(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    reader = await open_reader(opened, source)
    connection = await source.connected()
    connection.send(CONTENT[:MIB])
    assert await read(reader, 1000, 5000) == CONTENT[1000:6000]
    early = await open_reader(opened, source)
    pieces = early.read(100, early.size - 100)
    assert CONTENT[100:MIB].startswith(await anext(pieces))
    await early.close()
    tail = asyncio.create_task(read(await open_reader(opened, source), 2 * MIB))
    last = asyncio.create_task(read(await open_reader(opened, source), len(CONTENT) - 1, 1))
    connection.send(CONTENT[MIB:])
    connection.finish()
    assert await tail == CONTENT[2 * MIB :]
    assert await last == CONTENT[-1:]


async def test_slow_reader_delays_nobody(opened: Runtime) -> None:
    source = ScriptedSource(content=CONTENT)
    slow = await open_reader(opened, source)
    pieces = slow.read(0, slow.size)
    first = await anext(pieces)
    fast = await opened.registry.fills.open(NAME, DIGEST, source)
    if fast is not None:
        assert await read(fast) == CONTENT
    await idle(opened)
    assert await read_stored(opened) == CONTENT
    assert first + b"".join([piece async for piece in pieces]) == CONTENT
    await slow.close()
    assert len(source.connections) == 1


async def test_last_byte_waits_until_the_blob_is_stored(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    reader = await open_reader(opened, source)
    connection = await source.connected()
    connection.send(CONTENT)
    async with reader:
        got = b""
        pieces = reader.read(0, reader.size)
        while len(got) < len(CONTENT) - 1:
            got += await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        connection.finish()
        assert got + await waiting == CONTENT
        assert await read_stored(opened) == CONTENT


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (CONTENT[:-1] + b"!", UpstreamDigestError),
        (CONTENT[:-1], UpstreamDigestError),
        (CONTENT + b"!", UpstreamProtocolError),
    ],
    ids=["mismatch", "short", "longer"],
)
async def test_wrong_body_is_cut_and_never_stored(
    opened: Runtime, sent: bytes, error: type[Exception]
) -> None:
    source = ScriptedSource(len(CONTENT))
    reader = await open_reader(opened, source)
    connection = await source.connected()
    connection.send(sent)
    connection.finish()
    got = bytearray()
    with pytest.raises(error):
        await read_into(got, reader)
    assert len(got) < len(CONTENT)
    await reader.close()
    await idle(opened)
    assert await count_sessions(opened.database) == 0
    again = ScriptedSource(content=CONTENT)
    assert await read(await open_reader(opened, again)) == CONTENT


async def test_endless_body_is_cut(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    reader = await open_reader(opened, source)
    connection = await source.connected()
    for _ in range(10):
        connection.send(CONTENT)
    with pytest.raises(UpstreamProtocolError):
        await read(reader)
    await idle(opened)
    assert connection.is_closed
    assert await count_sessions(opened.database) == 0


async def test_refusal_of_the_upstream_is_raised(opened: Runtime) -> None:
    source = ScriptedSource(content=CONTENT)
    source.refusal = UpstreamUnknownError("not there")
    with pytest.raises(UpstreamUnknownError):
        await opened.registry.fills.open(NAME, DIGEST, source)
    await require_nothing_left(opened)
    source.refusal = None
    assert await read(await open_reader(opened, source)) == CONTENT


async def test_broken_connection_is_resumed(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    reading = asyncio.create_task(read(await open_reader(opened, source)))
    at = 0
    for number, stop in enumerate([1000, 1000, MIB, 2 * MIB + 7, len(CONTENT)], 1):
        connection = await source.connected(number)
        assert connection.start == at
        connection.send(CONTENT[at:stop])
        at = stop
        if stop < len(CONTENT):
            connection.fail()
        else:
            connection.finish()
    assert await reading == CONTENT
    assert await read_stored(opened) == CONTENT


async def test_progress_restores_all_attempts(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 1000)
    source = ScriptedSource(len(CONTENT))
    reading = asyncio.create_task(read(await open_reader(opened, source)))
    for number in range(1, 10):
        connection = await source.connected(number)
        connection.send(CONTENT[connection.start : connection.start + 1000])
        connection.fail()
    connection = await source.connected(10)
    connection.send(CONTENT[connection.start :])
    connection.finish()
    assert await reading == CONTENT


async def test_resuming_ends_after_attempts_without_progress(opened: Runtime) -> None:
    source = ScriptedSource(len(CONTENT))
    reader = await open_reader(opened, source)
    for number in range(1, 7):
        (await source.connected(number)).send(CONTENT[number : number + 1])
        source.connections[-1].fail()
    with pytest.raises(UpstreamUnavailableError):
        await read(reader)
    await idle(opened)
    assert len(source.connections) == 6
    assert all(connection.is_closed for connection in source.connections)
    assert await count_sessions(opened.database) == 0


async def test_bytes_that_are_dropped_early_are_no_damage(anyio_backend: str) -> None:
    del anyio_backend
    staged = MemoryStaged(b"bytes")
    fill = Fill(PieceBudget())
    fill.begin(100, MemoryStagedReader(staged))
    reader = await fill.join()
    assert reader is not None
    fill.grow(5)
    staged.clear()
    reading = asyncio.create_task(read(reader))
    await asyncio.sleep(0)
    await fill.end(UpstreamUnavailableError("the upstream failed"))
    with pytest.raises(UpstreamUnavailableError):
        await reading


async def test_empty_blob_is_complete_before_it_is_answered(opened: Runtime) -> None:
    source = ScriptedSource(content=b"")
    with pytest.raises(UpstreamDigestError):
        await opened.registry.fills.open(NAME, DIGEST, source)
    assert await read(await open_reader(opened, source, Digest.of(b""))) == b""
    assert await read_stored(opened, Digest.of(b"")) == b""


async def test_closing_the_registry_cancels_fills(start: Open) -> None:
    async with start() as opened:
        source = ScriptedSource(len(CONTENT))
        reader = await open_reader(opened, source)
        connection = await source.connected()
        connection.send(CONTENT[:MIB])
        reading = asyncio.create_task(read(reader))
        await opened.registry.fills.close()
        with pytest.raises(BusyError):
            await reading
        assert connection.is_closed
        with pytest.raises(BusyError):
            await opened.registry.fills.open(NAME, DIGEST, source)
        assert await count_sessions(opened.database) == 0
        assert await opened.driver.list_staged() == []


@on_disk
async def test_end_of_the_server_cancels_fills(start: Open) -> None:
    source = ScriptedSource(len(CONTENT))
    async with start() as opened:
        reader = await open_reader(opened, source)
        (await source.connected()).send(CONTENT[:MIB])
        assert await anext(aiter(reader.read(0, 100)))
    assert source.connections[0].is_closed
    async with start() as opened:
        await require_nothing_left(opened)


@on_disk
async def test_nothing_is_open_after_a_fill(opened: Runtime, tmp_path: Path) -> None:
    def list_open() -> list[str]:
        return [name for name in list_open_files(tmp_path) if "moorage.db" not in name]

    before = list_open()
    source = ScriptedSource(content=CONTENT)
    readers = [await open_reader(opened, source) for _ in range(2)]
    await idle(opened)
    assert list_open() != before
    for reader in readers:
        await reader.close()
        await reader.close()
    assert list_open() == before


@on_disk
async def test_quota_is_required_before_and_after(opened: Runtime) -> None:
    quotas = opened.registry.quotas
    await quotas.set("hub/**", len(CONTENT) - 1, Actor("test"))
    source = ScriptedSource(content=CONTENT)
    with pytest.raises(QuotaExceededError):
        await opened.registry.fills.open(NAME, DIGEST, source)
    await require_nothing_left(opened)
    await quotas.set("hub/**", len(CONTENT), Actor("test"))
    assert await read(await open_reader(opened, source)) == CONTENT


@on_disk
async def test_number_of_fills_is_limited(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.services.mirrors.fills.PATIENCE_S", 0.05)
    async with start(mirrors__max_fills="1") as opened:
        source = ScriptedSource(len(CONTENT))
        reader = await open_reader(opened, source)
        other = ScriptedSource(content=b"other")
        with pytest.raises(BusyError, match=r"mirrors\.max_fills"):
            await opened.registry.fills.open(NAME, Digest.of(b"other"), other)
        assert not other.connections
        source.connections[0].send(CONTENT)
        source.connections[0].finish()
        assert await read(reader) == CONTENT
        await idle(opened)
        assert await read(await open_reader(opened, other, Digest.of(b"other"))) == b"other"


@spooling
async def test_blob_larger_than_the_spool_is_stored_without_readers(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.services.mirrors.fills.DECISION_S", 0.05)
    async with start(mirrors__spool_size="1MiB") as opened:
        source = ScriptedSource(len(CONTENT))
        with pytest.raises(BusyError):
            await opened.registry.fills.open(NAME, DIGEST, source)
        while not source.connections:
            await asyncio.sleep(0.01)
        source.connections[0].send(CONTENT)
        source.connections[0].finish()
        await idle(opened)
        assert await opened.registry.fills.open(NAME, DIGEST, source) is None
        assert await read_stored(opened) == CONTENT


@spooling
async def test_room_of_the_spool_is_freed(start: Open) -> None:
    async with start(mirrors__spool_size="3MiB") as opened:
        for seed in range(3):
            content = bytes([seed]) + CONTENT[1:]
            source = ScriptedSource(content=content)
            assert await read(await open_reader(opened, source, Digest.of(content))) == content
