"""Two real servers that share a database and a bucket and nothing else, and nginx before them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from registry.app import started
from registry.config import load
from registry.metadata import tables
from storage.keys import staged_key
from storage.s3_state import S3State
from tests.support.accounts import SECRET, Accounts
from tests.support.kit import Kit
from tests.support.nginx import Nginx, proxying
from tests.support.seaweed import Bucket
from tests.support.server import Server, serving

KEPT = {"VERSION", "SELFTEST"}
"""What of a bucket is nobody's in particular."""


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return f"MOORAGE_{key.upper().replace('.', '__')}"


@dataclass
class Replicas:
    """How to start them; `a` and `b` are the first two, and there may be more."""

    folder: Path
    database_url: str
    bucket: Bucket
    settings: dict[str, str] = field(default_factory=dict)
    """Setting to text, beside those that every replica has."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.a = self.make("a")
        self.b = self.make("b")
        self.front = Nginx(self.folder / "nginx", [self.a.port, self.b.port])

    def environ(self, **more: str) -> dict[str, str]:
        """The settings of a replica as environment variables."""
        shared = {
            "database.url": self.database_url,
            "storage.driver": "s3",
            "storage.part_size": "5MiB",
            "auth.mode": "none",
            "auth.secret": SECRET,
            "http.trusted_proxies": "127.0.0.1",
            "limits.sign_ins": "0",
            **self.bucket.overrides(),
            **self.settings,
            **more,
        }
        return {variable(key): text for key, text in shared.items()}

    def make(self, name: str, **more: str) -> Server:
        """One more replica, with a folder of its own, not started."""
        return Server(self.folder / name, settings=self.environ(**more))

    @asynccontextmanager
    async def operating(self) -> AsyncIterator[Accounts]:
        """The registry opened once more beside the servers, as commands do."""
        settings = load(
            config=None, data=self.folder / "operator", overrides={}, environ=self.environ()
        )
        async with started(settings) as opened:
            yield Accounts.of(opened)

    # --- looking behind it ---------------------------------------------------------------------

    def _list_rows(self, query: sa.Select[Any]) -> list[Any]:
        engine = sa.create_engine(self.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(query))

    def list_blob_keys(self) -> set[str]:
        return {key for (key,) in self._list_rows(sa.select(tables.blobs.c.key))}

    def count_sessions(self) -> int:
        return len(self._list_rows(sa.select(tables.uploads.c.id)))

    def _list_owned(self) -> set[str]:
        u, d = tables.uploads.c, tables.doomed.c
        owned = self.list_blob_keys() | {key for (key,) in self._list_rows(sa.select(d.key))}
        for upload, state, claim, key in self._list_rows(sa.select(u.id, u.parts, u.claim, u.key)):
            known = S3State.read(state or "")
            owned |= {key, known.tail, known.key}
            owned |= {staged_key(upload, n) for n in range(1, int(claim) + 1)}
        return owned

    def list_unowned(self) -> list[str]:
        """Objects and open multipart uploads in the bucket that no row names."""
        # What is being removed had its row before we looked, what is being made has it after.
        owned = self._list_owned()
        there = {*self.bucket.list_keys(), *self.bucket.list_uploads()} - KEPT
        return sorted(there - owned - self._list_owned())

    def list_leftovers(self) -> list[str]:
        """What is in the bucket and is no blob, or is the other way round."""
        there = set(self.bucket.list_keys()) - KEPT
        open_uploads = [f"open: {key}" for key in self.bucket.list_uploads()]
        return sorted(there ^ self.list_blob_keys()) + open_uploads


@contextmanager
def running_replicas(replicas: Replicas) -> Iterator[Replicas]:
    """Both of them, and nginx before them; whichever the test has not killed must end well."""
    with ExitStack() as stack:
        for server in (replicas.a, replicas.b):
            stack.enter_context(serving(server))
        stack.enter_context(proxying(replicas.front))
        yield replicas


@asynccontextmanager
async def kit_of(where: Server | Nginx) -> AsyncIterator[Kit]:
    """A client of one replica, or of all of them; no connection serves two requests."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=where.url, timeout=60, limits=limits) as http:
        yield Kit(http)


async def until(
    come: Callable[[], Awaitable[bool]], seconds: float, *, every: float = 0.1
) -> float:
    """Wait for it at most so long; how long it took."""
    begun = time.monotonic()
    while not await come():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        await asyncio.sleep(every)
    return time.monotonic() - begun
