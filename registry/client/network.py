"""Connections to the addresses of a name, each of which is checked before it is called."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from registry.client.addresses import Address, parse_address
from registry.errors import UpstreamAddressError, UpstreamUnavailableError

_READ_BYTES = 256 << 10
"""Size of a read. The 64 KiB of httpcore would take twice the CPU time for a large body."""


class Network(httpcore.AsyncNetworkBackend):
    """Opens connections to the addresses of a name, if `check` allows all of them."""

    def __init__(self, check: Callable[[Address], bool]) -> None:
        self._check = check
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of httpcore
        local_address: str | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host)
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, port, timeout)
        return await self._connect(addresses[-1], port, timeout)

    async def _connect(
        self, address: str, port: int, limit: float | None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(address, port, timeout=limit))

    async def _resolve(self, host: str) -> list[str]:
        """Return the addresses of a host, those of two families in turns."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):  # UnicodeError: a label of more than 63 characters
            raise UpstreamUnavailableError(f"cannot resolve the host name {host}") from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if not all(self._check(parse_address(text)) for text in addresses):
            raise refused_address(host)
        first = [text for text in addresses if (":" in text) == (":" in addresses[0])]
        other = [text for text in addresses if text not in first]
        return first[:1] + other[:1] + first[1:] + other[1:]


class _Stream(httpcore.AsyncNetworkStream):
    """A connection with larger reads."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max(max_bytes, _READ_BYTES), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def refused_address(where: str) -> UpstreamAddressError:
    """Return the error for an address that is not allowed."""
    return UpstreamAddressError(
        f"{where} has an address that must not be called; allow private addresses if it is meant"
    )
