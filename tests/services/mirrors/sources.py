"""An upstream whose pace and errors the test controls."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from registry.errors import UpstreamUnavailableError


class Connection:
    """A response of the upstream. `start` is the position at which it begins."""

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        self.size = size
        self.is_closed = False
        self._items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, data: bytes) -> None:
        self._items.put_nowait(data)

    def fail(self, error: Exception | None = None) -> None:
        """Break the connection."""
        self._items.put_nowait(error or UpstreamUnavailableError("the connection broke"))

    def finish(self) -> None:
        """End the body."""
        self._items.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (item := await self._items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class ScriptedSource:
    """A copy of one blob. `size` is announced; `refusal` is raised instead of an answer.

    With `content`, every connection sends it at once.
    """

    def __init__(self, size: int = 0, content: bytes | None = None) -> None:
        self.size = size if content is None else len(content)
        self.content = content
        self.refusal: Exception | None = None
        self.connections: list[Connection] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def __call__(self, start: int, size: int | None) -> AsyncIterator[Connection]:
        assert size == (self.size if start else None)
        connection = Connection(start, self.size)
        self.connections.append(connection)
        self._changed.set()
        await self.answering.wait()
        if self.refusal is not None:
            raise self.refusal
        if self.content is not None:
            connection.send(self.content[start:])
            connection.finish()
        try:
            yield connection
        finally:
            connection.is_closed = True

    async def connected(self, count: int = 1) -> Connection:
        """Return the connection with this number, once there is one."""
        while len(self.connections) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.connections[count - 1]
