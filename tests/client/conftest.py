"""Upstream clients, and a fake name server."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from registry.client.response import Deadlines
from registry.client.upstream import Upstream
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from tests.support.servers.upstream import Upstream as Server
from tests.support.servers.upstream import upstream as running

REPOSITORY = RepositoryName("team/app")
TAG = Tag("v1")
STRANGE = "127.0.0.2"
SHORT = Deadlines(free_s=0.3, connect_s=1.0, headers_s=1.5, progress_s=1.0, progress_bytes=1024)


@contextlib.asynccontextmanager
async def calling(url: str, **options: Any) -> AsyncIterator[Upstream]:
    """Open a client of the registry at `url`, which may have a private address."""
    upstream = Upstream(url, **{"allow_private": True, **options})
    try:
        yield upstream
    finally:
        await upstream.close()


@pytest.fixture
def plain() -> Iterator[Server]:
    """Yield a server with scripted responses."""
    with running() as server:
        yield server


@pytest.fixture
def strange() -> Iterator[Server]:
    """Yield a server with scripted responses, on another address."""
    with running(STRANGE) as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Return the answers of a fake name server.

    Each name has a list of answers. Each lookup takes the next one, and the last one repeats.
    """
    known: dict[str, list[list[str]]] = {}
    ask = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in known:
            return ask(host, port, *args, **kwargs)
        answers = known[name]
        addresses = answers.pop(0) if answers[1:] else answers[0]
        return [found for each in addresses for found in ask(each, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known
