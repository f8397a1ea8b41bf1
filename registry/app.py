"""The composition root: settings in, a registry or an ASGI application out."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.routing import Router
from starlette.types import ASGIApp

from registry.api.application import build
from registry.api.settings import ApiSettings
from registry.auth.policy import OpenPolicy
from registry.config import Settings
from registry.jobs.chores import list_jobs
from registry.jobs.runner import Runner
from registry.metadata import migrate
from registry.metadata.database import Database
from registry.services.blobs import Blobs
from registry.services.doomed import Doomed
from registry.services.health import Health
from registry.services.leases import Leases
from registry.services.manifests import Manifests, SparseSettings
from registry.services.referrers import Referrers
from registry.services.registry import Registry
from registry.services.repositories import Repositories
from registry.services.tags import Tags
from registry.services.uploads import Uploads
from storage.blobs import Blobs as Objects
from storage.driver import Driver
from storage.open import open_driver
from storage.staging import Staging


@dataclass(frozen=True, slots=True)
class Opened:
    """An open registry with what it stands on."""

    database: Database
    driver: Driver
    registry: Registry
    leases: Leases


def compose(settings: Settings, driver: Driver | None = None) -> Opened:
    """Open database and store (or take `driver`) and put the use cases on them."""
    database = Database(settings.database_url)
    if driver is None:
        driver = open_driver(
            settings.storage.driver,
            root=settings.storage_root,
            reserve=settings.storage.reserve,
        )
    objects = Objects(driver)
    blobs = Blobs(database, objects)
    sparse = SparseSettings(settings.content.sparse_index, settings.content.sparse_image)
    registry = Registry(
        repositories=Repositories(database),
        blobs=blobs,
        uploads=Uploads(database, Staging(driver), driver.name, blobs),
        manifests=Manifests(database, sparse),
        tags=Tags(database),
        referrers=Referrers(database),
        doomed=Doomed(database, objects, driver.name),
        health=Health(database, driver),
    )
    return Opened(database, driver, registry, Leases(database))


@contextlib.asynccontextmanager
async def started(settings: Settings, driver: Driver | None = None) -> AsyncIterator[Opened]:
    """An open registry whose schema fits and whose store is ready; SchemaError and StoreError."""
    opened = compose(settings, driver)
    try:
        await _prepare(opened)
        yield opened
    finally:
        await opened.driver.close()
        await opened.database.close()


async def _prepare(opened: Opened) -> None:
    """Refuse a schema that does not fit, and an empty folder where there must be blobs."""
    await migrate.require_current(opened.database)
    await opened.driver.start(create=not await opened.registry.blobs.is_any())


def asgi(settings: Settings, opened: Opened) -> ASGIApp:
    """The application. Its lifespan starts what `opened` needs, runs the jobs, and closes all."""

    @contextlib.asynccontextmanager
    async def lifespan(_router: Router) -> AsyncIterator[None]:
        await _prepare(opened)
        runner = Runner(opened.leases, list_jobs(opened.registry, settings.storage.upload_expiry))
        runner.start()
        try:
            yield
        finally:
            await runner.stop()
            await opened.driver.close()
            await opened.database.close()

    return build(
        opened.registry,
        ApiSettings(
            body_idle=settings.http.body_idle,
            page=settings.limits.tags_page,
            page_max=settings.limits.tags_page_max,
            delete=settings.content.delete,
            read_only=settings.content.read_only,
        ),
        OpenPolicy(),
        lifespan,
    )
