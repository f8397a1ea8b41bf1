"""A registry of two worker processes, in this process, over data that outlives them.

The workers can be stopped in order, or die between any two steps of a request: then every attempt
of a dead process to change its store or its database raises Died instead.
"""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import httpx
import sqlalchemy as sa
from starlette.types import ASGIApp, Message

from registry.app import Runtime, compose
from registry.app.asgi import create_app
from registry.config import Settings, load
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import REQUEST_TIMEOUT_S
from registry.metadata.engine.settings import DEFAULT, DatabaseSettings
from registry.metadata.engine.transaction import Transaction
from storage.digest import Hasher
from storage.driver import Driver, Reader, SessionRecord, StagedReader, StoredObject, Upload
from storage.factory import create_driver

T = TypeVar("T")

WORKERS = 2
START = 1_700_000_000_000_000


class Died(BaseException):
    """The process is dead. Not an Exception, so that no code of the dead process can handle it."""


@dataclass
class Clock:
    """A clock whose microseconds pass only when it is read, and which tests move forward."""

    ticks: "itertools.count[int]" = field(default_factory=lambda: itertools.count(START))
    leaps: int = 0

    def now(self) -> int:
        return next(self.ticks) + self.leaps


@dataclass
class Life:
    """The life of one set of processes. `fuse` is the number of steps until they die."""

    fuse: int | None = None
    dead: bool = False

    def tick(self) -> None:
        if self.dead:
            raise Died
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.dead = True
                raise Died


class MortalDatabase(Database):
    """A database whose process may die just before or just after a commit."""

    def __init__(self, url: str, pool: DatabaseSettings = DEFAULT, *, life: Life) -> None:
        super().__init__(url, pool)
        self._life = life

    async def read(
        self,
        work: Callable[[Transaction], T],
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        single: bool = False,
    ) -> T:
        if self._life.dead:
            raise Died
        return await super().read(work, timeout_s=timeout_s, single=single)

    async def write(
        self,
        work: Callable[[Transaction], T],
        *,
        actor: str,
        timeout_s: float = REQUEST_TIMEOUT_S,
        may_use_reserve: bool = False,
        durable: bool = True,
    ) -> T:
        self._life.tick()
        done = await super().write(
            work,
            actor=actor,
            timeout_s=timeout_s,
            may_use_reserve=may_use_reserve,
            durable=durable,
        )
        self._life.tick()
        return done


class MortalDriver:
    """A driver whose process may die just before or just after a change of the store."""

    def __init__(self, driver: Driver, life: Life) -> None:
        self.name = driver.name
        self.shared = driver.shared
        self.supports_locking = driver.supports_locking
        self.stat_is_cheap = driver.stat_is_cheap
        self.signed_url_ttl, self.late_write_window = (
            driver.signed_url_ttl,
            driver.late_write_window,
        )
        self._driver = driver
        self._life = life

    async def start(self, *, create: bool = True) -> None:
        await self._driver.start(create=create)

    async def probe(self) -> None:
        await self._driver.probe()

    async def check(self) -> None:
        await self._driver.check()

    async def claim(self, session: str, record: SessionRecord | None = None) -> Upload:
        self._life.tick()
        return MortalUpload(await self._driver.claim(session, record), self._life)

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        return self._driver.possible_keys(session, state, claim)

    async def open_staged(self, session: str) -> StagedReader | None:
        return await self._driver.open_staged(session)

    async def list_staged(self) -> list[str]:
        return await self._driver.list_staged()

    def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        return self._driver.iter_objects(since)

    async def stat(self, key: str) -> int:
        return await self._driver.stat(key)

    async def open(self, key: str, start: int = 0, length: int | None = None) -> Reader:
        return await self._driver.open(key, start, length)

    async def presigned_url(self, key: str) -> str | None:
        return await self._driver.presigned_url(key)

    async def delete(self, key: str) -> None:
        self._life.tick()
        await self._driver.delete(key)
        self._life.tick()

    async def close(self) -> None:
        await self._driver.close()


class MortalUpload:
    """A claim that ends with its process, like a kernel lock."""

    def __init__(self, upload: Upload, life: Life) -> None:
        self._upload = upload
        self._life = life

    @property
    def resume_state(self) -> str:
        return self._upload.resume_state

    @property
    def is_stalled(self) -> bool:
        return self._upload.is_stalled

    @property
    def sealed(self) -> bool:
        return self._upload.sealed

    @sealed.setter
    def sealed(self, value: bool) -> None:
        raise AssertionError(value)

    def final_key(self, key: str) -> str:
        return self._upload.final_key(key)

    async def seal(self) -> None:
        await self._do(self._upload.seal)

    @property
    def size(self) -> int:
        return self._upload.size

    @size.setter
    def size(self, value: int) -> None:
        raise AssertionError(value)

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        self._life.tick()
        await work()
        self._life.tick()

    async def resume(self, size: int) -> None:
        await self._do(lambda: self._upload.resume(size))

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        await self._do(lambda: self._upload.append(data, hasher))

    append_now = None

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        await self.append(data, hasher)
        await self.sync_bytes()

    async def truncate(self, size: int) -> None:
        await self._do(lambda: self._upload.truncate(size))

    async def hash(self, hasher: Hasher) -> None:
        await self._do(lambda: self._upload.hash(hasher))

    async def sync(self) -> None:
        await self._do(self._upload.sync)

    async def sync_bytes(self) -> None:
        await self._do(self._upload.sync_bytes)

    async def finish(self, key: str) -> None:
        await self._do(lambda: self._upload.finish(key))

    async def abort(self) -> None:
        await self._do(self._upload.abort)

    async def release(self) -> None:
        await self._upload.release()


@dataclass
class Worker:
    """One worker process."""

    opened: Runtime
    app: ASGIApp
    http: httpx.AsyncClient

    async def close(self) -> None:
        await self.http.aclose()
        self.opened.watch.close()
        await self.opened.driver.close()
        await self.opened.database.close()


class World:
    """The workers, their event loop, and direct access to database and disk."""

    def __init__(self, url: str, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.life = Life()
        self.engine = sa.create_engine(url)
        self.current = 0
        self._url = url
        self._folder = folder
        self._copies = itertools.count(1)
        self._runner = asyncio.Runner()
        self._workers: list[Worker] = []
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @property
    def worker(self) -> Worker:
        """The worker that handled the last request."""
        return self._workers[self.current]

    @property
    def settings(self) -> Settings:
        overrides = {"database.url": self._url, "storage.min_free_space": "0B"}
        return load(config=None, data=self._folder, overrides=overrides, environ={})

    @cached_property
    def storage(self) -> Path:
        return self.settings.storage_root

    async def _start(self) -> None:
        self.life = Life()
        settings = self.settings
        self._workers = [self._compose(settings) for _ in range(WORKERS)]
        await self.worker.opened.driver.start()
        # The first step of the upload expiry job. Jobs themselves would run at times of their own.
        await self.worker.opened.registry.uploads.recover()

    def _compose(self, settings: Settings) -> Worker:
        driver = create_driver("local", root=settings.storage_root, reserve=0)
        with mock.patch("registry.app.core.Database", partial(MortalDatabase, life=self.life)):
            opened = compose(settings, MortalDriver(driver, self.life))
        app = create_app(settings, opened)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        return Worker(
            opened, app, httpx.AsyncClient(transport=transport, base_url="http://localhost")
        )

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.run(self._stop(self._workers))
        self.run(self._start())

    def crash(self) -> None:
        """Start again as after kill -9: from the files as they are, with nothing closed."""
        dead = self._workers
        self._copy_database()
        self.run(self._start())
        self.run(self._stop(dead))

    def _copy_database(self) -> None:
        """Leave an embedded database's file to the dead process: closing it would complete it."""
        url = sa.make_url(self._url)
        if url.get_backend_name() != "sqlite":
            return
        old = Path(str(url.database))
        new = old.with_name(f"moorage-{next(self._copies)}.db")
        shutil.copyfile(old, new)
        log = Path(f"{old}-wal")
        if log.exists():
            shutil.copyfile(log, f"{new}-wal")
        self.engine.dispose()
        self._url = f"sqlite:///{new}"
        self.engine = sa.create_engine(self._url)

    async def _stop(self, workers: list[Worker]) -> None:
        for worker in workers:
            await worker.close()

    def close(self) -> None:
        self.run(self._stop(self._workers))
        self.engine.dispose()
        self._runner.close()

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        self.current = (self.current + 1) % WORKERS  # like a load balancer
        return await self.worker.http.request(method, path, **more)

    async def send_cut(
        self, method: str, path: str, query: str, headers: dict[str, str], sent: bytes
    ) -> int | None:
        """Send a request whose connection breaks after `sent`. Return the status, or None."""
        messages: list[Message] = [
            {"type": "http.request", "body": sent, "more_body": True},
            {"type": "http.disconnect"},
        ]
        statuses: list[int] = []

        async def receive() -> Message:
            return messages.pop(0) if len(messages) > 1 else messages[0]

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        given = {"host": "localhost", "transfer-encoding": "chunked", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        await self.worker.app(scope, receive, send)
        return statuses[0] if statuses else None
