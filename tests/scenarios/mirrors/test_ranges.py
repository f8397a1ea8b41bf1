"""Ranges of a blob that is being fetched, as containerd and podman ask for them."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import Image, Place
from tests.scenarios.mirrors.fake_upstream import FakeUpstream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SIZE = 8 << 20
HALF = SIZE // 2 - (1 << 16)
"""The bytes that have surely arrived while the upstream holds back its second half."""


class Held:
    """A blob of which the first half has arrived."""

    def __init__(self, upstream: FakeUpstream, path: str, content: bytes) -> None:
        self.upstream = upstream
        self.path = path
        self.content = content

    @property
    def fetches(self) -> int:
        """How often the upstream was asked for the blob."""
        digest = str(Digest.of(self.content))
        return sum(digest in line and line.startswith("GET") for line in self.upstream.requests)


@pytest.fixture
async def held(place: Place) -> AsyncIterator[Held]:
    name = f"held-{uuid.uuid4().hex[:8]}"
    pattern = bytes(range(251)) * (SIZE // 251 + 1)
    image = Image.of(name.encode(), pattern[:SIZE])
    async with FakeUpstream().run() as upstream:
        upstream.add("app", "1.0", image)
        options = ["--upstream", upstream.url, "--allow-private"]
        place.moorage("mirror", "add", name, *options)
        upstream.is_held = True
        yield Held(upstream, f"/v2/{name}/app/blobs/{Digest.of(image.layer)}", image.layer)
        upstream.is_held = False


async def read_some(http: httpx.AsyncClient, held: Held, start: int, length: int) -> None:
    """Open the blob from a position to its end, read some bytes and leave."""
    headers = {"Range": f"bytes={start}-"}
    async with http.stream("GET", held.path, headers=headers) as response:
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes {start}-{SIZE - 1}/{SIZE}"
        received = b""
        async for piece in response.aiter_bytes():
            received += piece
            if len(received) >= length:
                break
    assert received[:length] == held.content[start : start + length]


async def test_open_ranges_that_are_closed_early(http: httpx.AsyncClient, held: Held) -> None:
    starts = [HALF * each // 4 for each in range(4)]
    await asyncio.gather(*(read_some(http, held, start, 100_000) for start in starts))
    assert held.fetches == 1
    held.upstream.is_held = False
    whole = await http.get(held.path)
    assert whole.content == held.content
    assert held.fetches == 1


async def test_a_range_of_what_has_not_arrived_waits(http: httpx.AsyncClient, held: Held) -> None:
    """A client that resumes gets its bytes when they arrive, and one that is slow delays nobody."""
    await read_some(http, held, 0, 1000)
    last = asyncio.create_task(
        http.get(held.path, headers={"Range": f"bytes={SIZE - 100}-{SIZE - 1}"})
    )
    await read_some(http, held, 1000, 1000)
    assert not last.done()
    held.upstream.is_held = False
    assert (await last).content == held.content[-100:]
    assert held.fetches == 1


async def test_several_ranges_in_one_request(http: httpx.AsyncClient, held: Held) -> None:
    """As podman asks for parts of a zstd:chunked layer."""
    asked = {"Range": "bytes=0-99,1000-1099,200000-200099"}
    found = await http.get(held.path, headers=asked)
    assert found.status_code == 206
    assert found.headers["content-type"].startswith("multipart/byteranges")
    for start in (0, 1000, 200_000):
        assert f"bytes {start}-{start + 99}/{SIZE}".encode() in found.content
        assert held.content[start : start + 100] in found.content
    assert held.fetches == 1
    held.upstream.is_held = False
    assert (await http.get(held.path)).content == held.content
    assert held.fetches == 1
