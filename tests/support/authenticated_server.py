"""A server that requires authentication, with operator access from another process."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx

from registry.app import open_runtime
from registry.config import load
from tests.support.accounts import SECRET, Accounts
from tests.support.servers.server import Server

SETTINGS = {
    "MOORAGE_AUTH__MODE": "token",
    "MOORAGE_AUTH__SECRET": SECRET,
    "MOORAGE_HTTP__TRUSTED_PROXIES": "127.0.0.1",
    "MOORAGE_STORAGE__MIN_FREE_SPACE": "0B",
}
"""Settings of such a server. Clients choose their address with `X-Forwarded-For`."""


@contextlib.asynccontextmanager
async def operating(server: Server) -> AsyncIterator[Accounts]:
    """Open the registry of the server a second time, as commands do."""
    settings = load(config=None, data=server.data, overrides={}, environ=server.settings)
    async with open_runtime(settings) as opened:
        yield Accounts.of(opened)


def client_of(server: Server) -> httpx.AsyncClient:
    """Return a client without keep-alive, so that each request can reach another worker."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)


@contextlib.contextmanager
def alone(server: Server, pid: int) -> Iterator[None]:
    """Freeze all workers except one while the block runs.

    No worker is frozen while it writes to SQLite.
    """
    others = [other for other in server.worker_pids() if other != pid]
    _signal(others, signal.SIGSTOP)
    while _is_writing(server):
        _signal(others, signal.SIGCONT)
        time.sleep(0.02)
        _signal(others, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(others, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _is_writing(server: Server) -> bool:
    for path in server.data.glob("moorage.db-[tw]*r*"):  # the locks `-turn` and `-writer`
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def resident(server: Server) -> int:
    """Return the bytes of memory of the processes of the server."""
    total = 0
    for pid in {server.running.pid, *server.worker_pids()}:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return total
