"""The ends of a connection, as the ASGI scope of its requests describes them."""

import asyncio
import contextlib
from typing import Any

from registry.http.sendfile import SENDFILE


def describe_connection(transport: asyncio.Transport) -> dict[str, Any]:
    """Return the part of the scope that all requests on a connection have in common."""
    encrypted = transport.get_extra_info("sslcontext") is not None
    return {
        "scheme": "https" if encrypted else "http",
        "client": _find_endpoint(transport, "peername"),
        "server": _find_endpoint(transport, "sockname"),
        "extensions": {} if encrypted else {SENDFILE: {}},
    }


def _find_endpoint(transport: asyncio.Transport, name: str) -> tuple[str, int | None] | None:
    """Return the host and port of one end.

    For a Unix socket, return the path and no port, and None for the end of its client.
    """
    address = transport.get_extra_info(name)
    if isinstance(address, str) and address:
        return address, None
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def end_output(transport: asyncio.Transport) -> None:
    """End the direction to the client, who can still send. TLS has no such half-close."""
    if transport.can_write_eof():
        with contextlib.suppress(OSError):  # the client has disconnected
            transport.write_eof()
