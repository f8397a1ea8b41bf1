"""Fills from real servers, by the client of upstreams."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from registry.app import Runtime
from registry.errors import UpstreamError, UpstreamProtocolError, UpstreamUnavailableError
from tests.services.mirrors.conftest import on_disk
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
from tests.support.kit import Kit, count_sessions
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def paced(anyio_backend: str) -> AsyncIterator[PacedServer]:
    del anyio_backend
    async with PacedServer(CONTENT).run() as server:
        yield server


async def test_fifty_readers_cause_one_request(opened: Runtime, paced: PacedServer) -> None:
    async with calling(paced.url, DIGEST) as source:
        readers = await asyncio.gather(*(open_reader(opened, source) for _ in range(50)))
        paced.allow(MIB)
        pieces = [reader.read(0, reader.size) for reader in readers]
        for first in await asyncio.gather(*(anext(each) for each in pieces)):
            assert CONTENT.startswith(first)
        reading = [asyncio.create_task(read(reader)) for reader in readers[1:]]
        await readers[0].close()
        paced.allow()
        assert all(body == CONTENT for body in await asyncio.gather(*reading))
        await idle(opened)
    assert len(paced.heads) == 1
    await require_consistent(opened)


@pytest.mark.parametrize("ignores_ranges", [False, True])
@on_disk
async def test_interrupted_download_continues_with_a_range(
    opened: Runtime, paced: PacedServer, *, ignores_ranges: bool
) -> None:
    paced.breaks, paced.ignores_ranges = [MIB + 5, 2 * MIB + 9], ignores_ranges
    paced.allow()
    async with calling(paced.url, DIGEST) as source:
        assert await read(await open_reader(opened, source)) == CONTENT
    assert await read_stored(opened) == CONTENT
    ranges = [head.partition("Range: ")[2].partition("\r\n")[0] for head in paced.heads]
    assert ranges == ["", f"bytes={MIB + 5}-", f"bytes={2 * MIB + 9}-"]


@on_disk
async def test_upstream_that_never_sends_the_end_is_given_up(
    opened: Runtime, paced: PacedServer
) -> None:
    paced.announced = len(CONTENT) + 1
    paced.allow()
    async with calling(paced.url, DIGEST) as source:
        reader = await open_reader(opened, source)
        assert reader.size == len(CONTENT) + 1
        with pytest.raises(UpstreamUnavailableError):
            await read(reader)
    await idle(opened)
    assert len(paced.heads) > 2
    assert await count_sessions(opened.database) == 0


@on_disk
async def test_other_size_after_an_interruption_ends_the_fill(
    opened: Runtime, paced: PacedServer
) -> None:
    paced.breaks = [MIB]
    paced.allow(MIB - 1)
    async with calling(paced.url, DIGEST) as source:
        reader = await open_reader(opened, source)
        paced.announced += 1
        paced.allow()
        with pytest.raises(UpstreamProtocolError):
            await read(reader)


@on_disk
async def test_wrong_bytes_are_dropped_and_the_next_pull_is_clean(
    opened: Runtime, paced: PacedServer
) -> None:
    paced.content = CONTENT[:-1] + b"!"
    paced.allow()
    async with calling(paced.url, DIGEST) as source:
        with pytest.raises(UpstreamError):
            await read(await open_reader(opened, source))
        await idle(opened)
        await require_consistent(opened)
        paced.content = CONTENT
        assert await read(await open_reader(opened, source)) == CONTENT


async def test_another_moorage_is_an_upstream(opened: Runtime, tmp_path: Path) -> None:
    with serving(Server(tmp_path / "upstream")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            digest = await Kit(http).push_blob(str(NAME), CONTENT)
        async with calling(server.url, digest) as source:
            assert await read(await open_reader(opened, source)) == CONTENT
            assert await opened.registry.fills.open(NAME, digest, source) is None
    assert await read_stored(opened) == CONTENT
    await require_consistent(opened)
