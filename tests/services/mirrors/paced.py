"""An upstream on loopback that serves one blob at the pace of the test."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from registry.client.upstream import Upstream
from registry.services.mirrors.download import BlobSource, Body
from storage.digest import Digest
from tests.services.mirrors.pulling import NAME
from tests.support.servers.hostile import Hostile, hostile


class PacedServer:
    """A server that has sent the first `limit` bytes of `content`, and then waits.

    It closes each connection at the positions in `breaks`. `announced` is the size in its headers;
    `ignores_ranges` makes it answer each request with the whole blob.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.limit = 0
        self.breaks: list[int] = []
        self.announced = len(content)
        self.ignores_ranges = False
        self.server: Hostile | None = None
        self._raised = asyncio.Event()

    def allow(self, limit: int | None = None) -> None:
        """Send bytes up to `limit`; by default all."""
        self.limit = len(self.content) if limit is None else limit
        self._raised.set()
        self._raised = asyncio.Event()

    @property
    def heads(self) -> list[str]:
        """The heads of all requests."""
        assert self.server is not None
        return self.server.heads

    async def _serve(self, writer: asyncio.StreamWriter) -> None:
        found = re.search(r"^Range: bytes=([0-9]+)-\r$", self.heads[-1], re.MULTILINE)
        at = int(found[1]) if found and not self.ignores_ranges else 0
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {self.announced - at}\r\n"
        if at:
            head = head.replace("200 OK", "206 Partial Content")
            head += f"Content-Range: bytes {at}-{self.announced - 1}/{self.announced}\r\n"
        writer.write(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode())
        stop = self.breaks.pop(0) if self.breaks else len(self.content)
        while at < stop:
            if at >= self.limit:
                await self._raised.wait()
                continue
            until = min(stop, self.limit)
            writer.write(self.content[at:until])
            await writer.drain()
            at = until

    @asynccontextmanager
    async def run(self) -> AsyncIterator["PacedServer"]:
        async with hostile(self._serve) as self.server:
            yield self

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url


@asynccontextmanager
async def calling(url: str, digest: Digest) -> AsyncIterator[BlobSource]:
    """Open a client of an upstream, as the source of one blob."""
    upstream = Upstream(url, allow_private=True)

    def source(start: int, size: int | None) -> AbstractAsyncContextManager[Body]:
        return upstream.open_blob(NAME, digest, start=start, size=size)

    try:
        yield source
    finally:
        await upstream.close()
