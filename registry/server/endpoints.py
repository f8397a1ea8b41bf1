"""The addresses of both ends of a connection."""

import asyncio


def find_endpoint(transport: asyncio.Transport, name: str) -> tuple[str, int | None] | None:
    """Return the host and port of one end.

    For a Unix socket, return the path and no port, and None for the end of its client.
    """
    address = transport.get_extra_info(name)
    if isinstance(address, str) and address:
        return address, None
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
