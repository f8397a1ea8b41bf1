"""Responses of other servers, whose bodies are read piece by piece."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Self

import httpcore

from registry.errors import UpstreamError, UpstreamProtocolError, UpstreamUnavailableError

_DRAIN_BYTES, _DRAIN_S = 64 << 10, 1.0

FAILED = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
)
"""All errors of httpcore that another server can cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Time limits of a request, in seconds. There is none for a whole body."""

    free_s: float = 5.0
    """For a free connection, if `max_connections` are in use."""
    connect_s: float = 5.0
    """For a connection to one address."""
    headers_s: float = 10.0
    """From the request to the headers of the response, with redirects and tokens."""
    progress_s: float = 30.0
    """For `progress_bytes` of a body. The time that the reader of the body takes does not count."""
    progress_bytes: int = 64 << 10


class Headers:
    """Headers of a response, by case-insensitive name."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(
                value.decode("latin-1").strip()
            )

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a header. Several ones are joined by commas."""
        return ", ".join(self._values.get(name.lower(), [])) or default


class Response:
    """A response whose body has not been read yet. It holds a connection until it is closed.

    `where` is the origin that sent it.
    """

    def __init__(
        self,
        where: str,
        response: httpcore.Response,
        deadlines: Deadlines,
        release: Callable[[], None],
    ) -> None:
        self.where = where
        self.status = response.status
        self.headers = Headers(response.headers)
        self._response = response
        self._deadlines = deadlines
        self._release: Callable[[], None] | None = release
        self._pieces: AsyncIterator[bytes] | None = None
        self._waited, self._since = 0.0, 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read_piece(self) -> bytes:
        """Return the next bytes of the body, at most 256 KiB, or nothing at its end.

        Raises UpstreamUnavailableError if the body stalls or is interrupted.
        """
        if self._pieces is None:
            self._pieces = aiter(self._response.aiter_stream())
        began = time.monotonic()
        try:
            piece = await anext(self._pieces, b"")
        except httpcore.TimeoutException:
            raise self._stalled() from None
        except FAILED as error:
            raise invalid_response(self.where, error) from None
        self._waited += time.monotonic() - began
        self._since += len(piece)
        if self._since >= self._deadlines.progress_bytes or not piece:
            self._waited, self._since = 0.0, 0
        elif self._waited > self._deadlines.progress_s:
            raise self._stalled()
        return piece

    async def read_all(self, most: int) -> bytes:
        """Return the whole body. Raises UpstreamProtocolError if it has more than `most` bytes."""
        raw = bytearray()
        while piece := await self.read_piece():
            raw += piece
            if len(raw) > most:
                raise UpstreamProtocolError(f"{self.where} returned more than {most} bytes")
        return bytes(raw)

    async def read_start(self, most: int) -> bytes:
        """Return about the first `most` bytes of the body of a refusal, as far as they come."""
        raw = b""
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while len(raw) < most and (piece := await self.read_piece()):
                    raw += piece
        return raw[:most]

    async def close(self) -> None:
        """Give the connection back. It is closed if the body has not been read to its end."""
        release, self._release = self._release, None
        if release is None:
            return
        try:
            await self._response.aclose()
        finally:
            release()

    async def discard(self) -> None:
        """Read a short body and close, so that the connection can be used again."""
        try:
            await self.read_start(_DRAIN_BYTES)
        finally:
            await self.close()

    def _stalled(self) -> UpstreamUnavailableError:
        limits = self._deadlines
        return UpstreamUnavailableError(
            f"{self.where} sent less than {limits.progress_bytes} bytes in {limits.progress_s:g} s"
        )


def invalid_response(where: str, error: Exception) -> UpstreamUnavailableError:
    """Return the error for a response that breaks off or is no HTTP."""
    # The error text may quote the response.
    return UpstreamUnavailableError(
        f"{where} sent an invalid or incomplete response ({type(error).__name__})"
    )
