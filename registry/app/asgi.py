"""The ASGI applications, and the work that runs with them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from msgspec import Struct
from starlette.routing import Router
from starlette.types import ASGIApp

from registry.api.application import build, build_ops
from registry.app.composition import compose_runner
from registry.app.lifecycle import prepare
from registry.app.runtime import Runtime
from registry.config import Settings
from registry.http.settings import ApiSettings
from registry.services.maintenance.startup import Startup

T = TypeVar("T")


class StartRules(Struct, frozen=True):
    """Callbacks for a server that may start before its database or store is available."""

    prepare: Callable[[], None]
    """Prepares the database. Blocks; called before each attempt to open the registry."""

    fail: Callable[[Exception], None]
    """Receives an error that retrying cannot fix, after the application has started."""


def create_app(settings: Settings, opened: Runtime, rules: StartRules | None = None) -> ASGIApp:
    """Return the ASGI application.

    Its lifespan starts `opened`, runs the background jobs, and closes everything at the end. With
    `rules`, the lifespan starts even if the database or a store is unavailable: the application
    answers health probes, and answers all other requests with 503, until both are available.
    Without `rules`, the lifespan raises the error.
    """
    serving = _Serving(settings, opened)

    @contextlib.asynccontextmanager
    async def lifespan(_router: Router) -> AsyncIterator[None]:
        waiting: asyncio.Task[None] | None = None
        try:
            if rules is None:
                await serving.start()
            else:
                waiting = await _start_patiently(serving, rules)
            yield
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait([waiting])
            await serving.stop()

    return build(
        opened.registry,
        opened.access,
        ApiSettings(
            http=settings.http,
            limits=settings.limits,
            content=settings.content,
            auth=settings.auth,
            log_probes=settings.log.probes,
        ),
        lifespan,
    )


def ops_asgi(settings: Settings, opened: Runtime) -> ASGIApp:
    """Return the application for health checks and metrics on the second address.

    It has no lifespan.
    """
    return build_ops(opened.registry, log_probes=settings.log.probes)


class _Serving:
    """The background work of an application while it serves."""

    def __init__(self, settings: Settings, opened: Runtime) -> None:
        self.opened = opened
        self._settings = settings
        self._runner = compose_runner(settings, opened)
        self._runs_jobs = settings.jobs.in_serve
        self._started = False

    async def start(self) -> None:
        """Open the registry and start the background work. Can be repeated after a failure."""
        await prepare(self._settings, self.opened)
        self._started = True
        if self._runs_jobs:
            self._runner.start()
        await self.opened.access.authenticator.start()
        self.opened.registry.pulls.start()

    async def stop(self) -> None:
        if self._started:
            await self._runner.stop()
            await self.opened.registry.pulls.stop()
        await self.opened.close()


async def _start_patiently(serving: _Serving, rules: StartRules) -> asyncio.Task[None] | None:
    """Start, or return a task that keeps retrying."""
    waiting_for = serving.opened.registry.health.waiting_for
    startup = Startup(waiting_for)

    async def attempt() -> None:
        await asyncio.to_thread(rules.prepare)
        await serving.start()

    async def guarded(work: Awaitable[T]) -> T | None:
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - the server ends with it
            waiting_for["server"] = "the start failed"
            rules.fail(error)
            return None

    if await guarded(startup.try_once(attempt)) is False:
        return asyncio.create_task(guarded(startup.wait(attempt)), name="start")
    return None
