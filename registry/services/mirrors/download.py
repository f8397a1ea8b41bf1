"""Downloads: the bytes of a blob from an upstream, resumed where a connection breaks off."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from registry.errors import UpstreamProtocolError, UpstreamUnavailableError
from registry.services.throttle import Throttle

logger = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each attempt to resume a download that makes no progress."""

PROGRESS = 1 << 20
"""Bytes after which an interrupted download has made progress, and all attempts are left."""


class Body(Protocol):
    """The bytes of a blob from a position to the end. `size` is that of the whole blob."""

    @property
    def size(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class ThrottledBody:
    """The bytes of a blob, no faster than a limit that other bodies share."""

    def __init__(self, body: Body, throttle: Throttle) -> None:
        self.size = body.size
        self._body = body
        self._throttle = throttle

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            await self._throttle.take(len(piece))
            yield piece


class BlobSource(Protocol):
    """An upstream's copy of one blob."""

    def __call__(self, start: int, size: int | None) -> AbstractAsyncContextManager[Body]:
        """Open the bytes from `start`. `size` is the size of the blob, if it is known.

        Raises the upstream's error; an UpstreamUnavailableError may be over later.
        """
        ...


class Download:
    """The bytes of one blob. Used as a context, which is entered when the headers have arrived."""

    size = 0

    def __init__(self, source: BlobSource) -> None:
        self._source = source
        self._connection: AbstractAsyncContextManager[Body] | None = None
        self._body: Body | None = None

    async def __aenter__(self) -> Self:
        self._body = await self._connect(0, None)
        self.size = self._body.size
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._disconnect(None)

    async def _connect(self, start: int, size: int | None) -> Body:
        connection = self._source(start, size)
        body = await connection.__aenter__()
        self._connection = connection
        return body

    async def _disconnect(self, error: Exception | None) -> None:
        """Close the connection. An error is raised again by some sources, after they counted it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            trace = error.__traceback__ if error is not None else None
            await connection.__aexit__(type(error) if error is not None else None, error, trace)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the blob.

        Raises UpstreamProtocolError if there are more than `size`, and UpstreamUnavailableError if
        the download cannot be resumed.
        """
        offset, mark, failures = 0, 0, 0
        while True:
            try:
                if self._body is None:
                    self._body = await self._connect(offset, self.size)
                async for piece in self._body:
                    offset += len(piece)
                    if offset > self.size:
                        raise UpstreamProtocolError("the upstream sent more bytes than announced")
                    yield piece
            except UpstreamUnavailableError as error:
                if offset >= mark + PROGRESS:
                    mark, failures = offset, 0
                if failures == len(PAUSES_S):
                    raise
                pause = PAUSES_S[failures]
                failures += 1
                logger.info("resume at byte %d in %.1f s: %s", offset, pause, error.message)
                await self._abandon(error)
            else:
                return
            await asyncio.sleep(pause)

    async def _abandon(self, error: UpstreamUnavailableError) -> None:
        self._body = None
        try:
            await self._disconnect(error)
        except UpstreamUnavailableError as again:
            if again is not error:
                raise
