"""Two servers behind nginx that share only a database and a bucket."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from registry.app import open_runtime
from registry.config import load
from registry.metadata import tables
from storage.keys import staged_key
from storage.s3.state import MultipartState
from tests.support.accounts import SECRET, Accounts
from tests.support.kit import Kit
from tests.support.servers.nginx import Nginx, proxying
from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import Server, serving

KEPT = {"VERSION", "SELFTEST"}
"""Objects in a bucket that no row owns."""


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return f"MOORAGE_{key.upper().replace('.', '__')}"


@dataclass
class Replicas:
    """Configuration of the replicas. `a` and `b` are the first two; `make` adds others."""

    folder: Path
    database_url: str
    bucket: Bucket
    settings: dict[str, str] = field(default_factory=dict)
    """Additional settings as text, by key."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.a = self.make("a")
        self.b = self.make("b")
        self.front = Nginx(self.folder / "nginx", [self.a.port, self.b.port])

    def environ(self, **more: str) -> dict[str, str]:
        """Return the settings of a replica as environment variables."""
        shared = {
            "database.url": self.database_url,
            "storage.driver": "s3",
            "storage.part_size": "5MiB",
            "auth.mode": "none",
            "auth.secret": SECRET,
            "http.trusted_proxies": "127.0.0.1",
            "limits.failed_sign_ins": "0",
            **self.bucket.overrides(),
            **self.settings,
            **more,
        }
        return {variable(key): text for key, text in shared.items()}

    def make(self, name: str, **more: str) -> Server:
        """Return another replica with its own data directory, not started."""
        return Server(self.folder / name, settings=self.environ(**more))

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[Accounts]:
        """Open the registry a second time while the servers run, as commands do."""
        settings = load(
            config=None, data=self.folder / "operator", overrides={}, environ=self.environ()
        )
        async with open_runtime(settings) as opened:
            yield Accounts.of(opened)

    # --- state of the database and the bucket --------------------------------------------------

    def _list_rows(self, query: sa.Select[Any]) -> list[Any]:
        engine = sa.create_engine(self.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(query))

    def list_blob_keys(self) -> set[str]:
        return {key for (key,) in self._list_rows(sa.select(tables.blobs.c.key))}

    def count_sessions(self) -> int:
        return len(self._list_rows(sa.select(tables.uploads.c.id)))

    def _list_owned(self) -> set[str]:
        u, d = tables.uploads.c, tables.pending_deletions.c
        owned = self.list_blob_keys() | {key for (key,) in self._list_rows(sa.select(d.key))}
        for upload, state, claim, key in self._list_rows(sa.select(u.id, u.parts, u.claim, u.key)):
            known = MultipartState.from_json(state or "")
            owned |= {key, known.tail, known.key}
            owned |= {staged_key(upload, n) for n in range(1, int(claim) + 1)}
        return owned

    def list_unowned(self) -> list[str]:
        """Return the objects and open multipart uploads in the bucket that no row refers to."""
        # Read the rows twice: an object that is being deleted has its row before the listing, one
        # that is being written has it after.
        owned = self._list_owned()
        there = {*self.bucket.list_keys(), *self.bucket.list_uploads()} - KEPT
        return sorted(there - owned - self._list_owned())

    def list_leftovers(self) -> list[str]:
        """Return objects without a blob row, blob rows without an object, and open uploads."""
        there = set(self.bucket.list_keys()) - KEPT
        open_uploads = [f"open: {key}" for key in self.bucket.list_uploads()]
        return sorted(there ^ self.list_blob_keys()) + open_uploads


@contextmanager
def running_replicas(replicas: Replicas) -> Iterator[Replicas]:
    """Run both replicas behind nginx.

    A replica that the test has not killed must exit with success.
    """
    with ExitStack() as stack:
        for server in (replicas.a, replicas.b):
            stack.enter_context(serving(server))
        stack.enter_context(proxying(replicas.front))
        yield replicas


@asynccontextmanager
async def kit_of(where: Server | Nginx) -> AsyncIterator[Kit]:
    """Open a client of one replica or of all replicas, with a new connection for each request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=where.url, timeout=60, limits=limits) as http:
        yield Kit(http)


async def until(
    come: Callable[[], Awaitable[bool]], seconds: float, *, every: float = 0.1
) -> float:
    """Wait until `come` returns true, for at most `seconds`, and return the time it took."""
    begun = time.monotonic()
    while not await come():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        await asyncio.sleep(every)
    return time.monotonic() - begun
