"""Composition root: builds a registry or an ASGI application from the settings."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from typing import TypeVar

from starlette.routing import Router
from starlette.types import ASGIApp

from registry.api.application import build, build_ops
from registry.auth.authenticator import Authenticator
from registry.auth.keys.key_store import DatabaseKeyStore, FileKeyStore, KeyStore
from registry.auth.keys.keyring import Keyring
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.settings import AuthSettings
from registry.auth.tokens.external_issuers import ExternalIssuer, OidcIssuer, Source, key_source
from registry.client.settings import UpstreamSettings
from registry.client.upstream import Upstream
from registry.client.web import Web
from registry.config import Settings
from registry.config.tree import StoreSettings
from registry.errors import ConfigError, PasswordInvalidError
from registry.http.settings import ApiSettings
from registry.jobs.runner import Runner
from registry.jobs.schedule import list_jobs
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch
from registry.services.access.access import AccessServices
from registry.services.access.access_cleanup import AccessCleanup
from registry.services.access.access_tokens import AccessTokens
from registry.services.access.audit import Audit
from registry.services.access.grants import Grants
from registry.services.access.groups import Groups
from registry.services.access.keys import Keys
from registry.services.access.robots import Robots
from registry.services.access.tokens import Tokens
from registry.services.access.users import Users
from registry.services.content.blob_writer import BlobWriter
from registry.services.content.blobs import Blobs
from registry.services.content.history import History
from registry.services.content.images import Images
from registry.services.content.manifest_cache import ManifestCache
from registry.services.content.manifests import Manifests
from registry.services.content.publication import Publication
from registry.services.content.pulls import Pulls
from registry.services.content.referrers import Referrers
from registry.services.content.repositories import Repositories
from registry.services.content.tags import Tags
from registry.services.content.upload_keys import UploadKeys
from registry.services.content.upload_sessions import UploadSessions
from registry.services.content.usage import Usage
from registry.services.gc.collector import Collector
from registry.services.gc.deletions import DeletionQueue
from registry.services.gc.explain import Why
from registry.services.maintenance.disk_reserve import DiskReserve
from registry.services.maintenance.fsck import Fsck
from registry.services.maintenance.healer import Healer
from registry.services.maintenance.health import Health
from registry.services.maintenance.leases import Leases
from registry.services.maintenance.scrub import Scrub
from registry.services.maintenance.startup import Startup
from registry.services.maintenance.store_migration import StoreMigration
from registry.services.protection.holds import Holds
from registry.services.protection.immutable_tags import ImmutableTags
from registry.services.quotas.quotas import Quotas
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRules
from registry.services.retention.runs import RetentionRuns
from registry.services.services import Services
from storage.driver import Driver
from storage.factory import create_driver
from storage.s3.settings import S3Settings
from storage.stores import Stores

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runtime:
    """An open registry with its database, stores and keys."""

    database: Database
    watch: RevisionWatch
    stores: Stores
    registry: Services
    access: AccessServices
    keyring: Keyring
    leases: Leases

    @property
    def driver(self) -> Driver:
        """Storage driver for new blobs."""
        return self.stores.current.driver

    async def close(self) -> None:
        await self.access.authenticator.close()
        self.watch.close()
        await self.stores.close()
        await self.database.close()


def compose(settings: Settings, driver: Driver | None = None) -> Runtime:
    """Create the database, the stores and the services of a registry.

    New blobs are written to `driver` if it is given, otherwise to the store in the settings.
    """
    database = Database(settings.database_url, settings.database)
    stores = _open_stores(settings, driver)
    rules = settings.gc
    blobs = Blobs(database, stores, rules)
    watch = RevisionWatch(database)
    cache = ManifestCache(settings.limits.manifest_cache_size)
    scrub = Scrub(database, stores, blobs, settings.scrub)
    policies = PolicyCache(database, watch, personal_namespaces=settings.auth.personal_namespaces)
    quotas = Quotas(database, policies)
    keys = UploadKeys(database, stores)
    publication = Publication(database, blobs, keys)
    uploads = UploadSessions(
        database, stores, quotas, keys, publication, most=settings.limits.open_uploads
    )
    blob_writer = BlobWriter(database, uploads, publication, keys)
    history = History(database, read_only=settings.content.read_only)
    registry = Services(
        repositories=Repositories(database),
        blobs=blobs,
        uploads=uploads,
        blob_writer=blob_writer,
        manifests=Manifests(database, settings.content, watch, cache, rules),
        tags=Tags(database),
        images=Images(
            database, grace=settings.gc.grace_period, read_only=settings.content.read_only
        ),
        history=history,
        immutable_tags=ImmutableTags(database),
        holds=Holds(database),
        referrers=Referrers(database, watch, cache),
        collector=Collector(database, rules),
        why=Why(database, stores, rules),
        pulls=Pulls(database, settings.retention.pull_flush_interval),
        retention_rules=RetentionRules(database, interval=settings.retention.interval),
        retention=Retention(
            database,
            interval=settings.retention.interval,
            grace=settings.gc.grace_period,
            read_only=settings.content.read_only,
        ),
        retention_runs=RetentionRuns(database, history),
        doomed=DeletionQueue(database, stores),
        spare_room=DiskReserve(database),
        moving=StoreMigration(database, stores, blobs, blob_writer),
        scrub=scrub,
        healing=Healer(database, scrub, blob_writer, _find_upstream(settings)),
        # Bytes that no row refers to yet belong to an upload session, which expires after this.
        fsck=Fsck(database, stores, blobs, settings.storage.upload_expiry),
        quotas=quotas,
        usage=Usage(database),
        health=Health(database, stores, read_only=settings.content.read_only),
    )
    keyring = Keyring(database, _open_key_store(settings, database))
    access = _compose_access(settings, database, policies, keyring, quotas)
    return Runtime(database, watch, stores, registry, access, keyring, Leases(database))


async def look_at_stores(settings: Settings) -> None:
    """Raise the error that would keep a server from opening its stores. Creates no store."""
    stores = _open_stores(settings)
    try:
        await stores.probe()
    finally:
        await stores.close()


def _open_stores(settings: Settings, driver: Driver | None = None) -> Stores:
    return Stores(
        driver or _open_store(settings, settings.storage),
        _open_store(settings, settings.old_storage) if settings.old_storage.driver else None,
    )


def _open_store(settings: Settings, store: StoreSettings) -> Driver:
    return create_driver(
        store.driver,
        root=settings.find_root(store),
        reserve=store.min_free_space,
        bucket=S3Settings(**{each.name: getattr(store, each.name) for each in fields(S3Settings)}),
        name=store.store_name,
    )


def _open_key_store(settings: Settings, database: Database) -> KeyStore:
    """Return the key store for the private keys (design D12)."""
    place = settings.auth.key_store
    if place == "file" or (place == "auto" and database.embedded):
        return FileKeyStore(settings.data / "keys")
    return DatabaseKeyStore(database, settings.auth.secret)


async def export_private_keys(
    settings: Settings, opened: Runtime, target: str
) -> dict[str, bytes] | None:
    """Return the rows of private keys for a copy of the registry in the database at `target`.

    Returns None if the rows of this database can be copied as they are. If the keys are files after
    the copy, writes the files and returns no rows. Raises ConfigError if a key cannot be stored.
    """
    here = _open_key_store(settings, opened.database)
    place = settings.auth.key_store
    in_files = place == "file" or (place == "auto" and Database.is_embedded(target))
    if isinstance(here, FileKeyStore) == in_files:
        return None
    private = await opened.keyring.list_private()
    if not in_files:
        sealed = DatabaseKeyStore(opened.database, settings.auth.secret)
        return {name: sealed.seal(value) for name, value in private.items()}
    files = FileKeyStore(settings.data / "keys")
    for name, value in private.items():
        if await files.add(name, value) != value:
            raise ConfigError(
                f"there is another key already in {settings.data / 'keys' / name}: it is of another"
                " registry, so move it away"
            )
    return {}


def _find_upstream(settings: Settings) -> Upstream | None:
    """Return the registry that damaged blobs are fetched from, if the settings name one."""
    upstream = settings.upstream
    if not upstream.url:
        return None
    web = _open_web(settings, upstream)
    return Upstream(web, upstream)


def _open_web(settings: Settings, to: AuthSettings | UpstreamSettings) -> Web:
    """Return an HTTP client for other servers, configured by a section of the settings."""
    ca_file = settings.data / to.ca_file if to.ca_file else None
    return Web(allow_private=to.allow_private_addresses, ca_file=ca_file)


def _compose_issuers(settings: Settings) -> tuple[ExternalIssuer | None, list[OidcIssuer]]:
    """Return the external token issuers in the settings, not yet started."""
    auth, data = settings.auth, settings.data
    if not (auth.issuer or auth.oidc):
        return None, []
    web = _open_web(settings, auth)

    def source(issuer: str, url: str, file: str) -> Source:
        return key_source(web, issuer=issuer, url=url, file=data / file if file else None)

    oidc = [
        OidcIssuer(
            each.issuer,
            each.audience,
            source(each.issuer, each.jwks_url, each.jwks_file),
            each.rules,
            refresh=auth.jwks_refresh_interval,
        )
        for each in auth.oidc
    ]
    if not auth.issuer:
        return None, oidc
    keys = source(auth.issuer, auth.jwks_url, auth.jwks_file)
    return ExternalIssuer(
        auth.issuer, auth.audience, keys, refresh=auth.jwks_refresh_interval
    ), oidc


def _compose_access(
    settings: Settings, database: Database, policies: PolicyCache, keyring: Keyring, quotas: Quotas
) -> AccessServices:
    issuer, oidc = _compose_issuers(settings)
    authenticator = Authenticator(
        database,
        policies,
        keyring,
        settings.auth,
        issuer=issuer,
        oidc=oidc,
        failed_sign_ins=settings.limits.failed_sign_ins,
    )
    keys = Keys(database, keyring)
    return AccessServices(
        authenticator=authenticator,
        policies=policies,
        tokens=Tokens(database, authenticator, keyring),
        users=Users(database, keyring, authenticator.passwords),
        groups=Groups(database),
        robots=Robots(database, keyring),
        access_tokens=AccessTokens(database, keyring),
        grants=Grants(database, policies),
        quotas=quotas,
        keys=keys,
        audit=Audit(database),
        tidying=AccessCleanup(database, keys),
    )


@contextlib.asynccontextmanager
async def open_runtime(settings: Settings, driver: Driver | None = None) -> AsyncIterator[Runtime]:
    """Open a registry for the duration of the block.

    Raises SchemaError if the schema does not fit this version, StoreError if a store is not ready,
    and ConfigError if the settings name no store for existing blobs.
    """
    opened = compose(settings, driver)
    try:
        await require_ready(opened)
        yield opened
    finally:
        await opened.close()


@contextlib.asynccontextmanager
async def open_unprovisioned(settings: Settings) -> AsyncIterator[Runtime]:
    """Open a registry that is about to be filled, for the duration of the block.

    The stores are started. The database may still be without a schema.
    """
    opened = compose(settings)
    try:
        await opened.stores.start(create=True)
        yield opened
    finally:
        await opened.close()


async def prepare(settings: Settings, opened: Runtime) -> None:
    """Prepare a registry for serving.

    Checks the schema, starts the stores, adds the first admin, and prepares the token signing keys.
    """
    await require_ready(opened)
    await _add_first_admin(settings.auth, opened)
    authenticator = opened.access.authenticator
    if authenticator.rules.local_users and await authenticator.find_open() is None:
        await opened.keyring.prepare()


async def rehearse(settings: Settings) -> None:
    """Open and close a registry as a server does, and raise any error that prevents a start."""
    opened = compose(settings)
    try:
        await prepare(settings, opened)
    finally:
        await opened.close()


async def require_ready(opened: Runtime) -> None:
    """Check that the schema and the stores fit, and start the stores.

    Raises SchemaError if the schema does not fit this version, ConfigError if blobs are in a store
    that the settings do not open, and StoreError if a store that must hold blobs is empty.
    """
    await migrate.require_current(opened.database)
    stores = opened.stores
    holding = await opened.registry.blobs.list_stores()
    missing = [name for name in holding if name not in stores.names]
    if missing:
        raise ConfigError(
            f'there are blobs in a store called "{missing[0]}", and the settings open '
            f"{' and '.join(stores.names)} only: say under [old_storage] where it is, or give the "
            "store its name back with storage.name"
        )
    await stores.start(create=stores.current.name not in holding)


async def _add_first_admin(settings: AuthSettings, opened: Runtime) -> None:
    """Add the admin in the settings if the registry has no users.

    Raises ConfigError if the password cannot be used.
    """
    if not settings.admin_password:
        return
    name = settings.admin_user
    try:
        added = await opened.access.users.add_first_admin(name, settings.admin_password)
    except PasswordInvalidError as error:
        raise ConfigError(f"auth.admin_password: {error.message}") from error
    if added:
        logger.info("added the admin %s with the password in auth.admin_password", name)


def compose_runner(settings: Settings, opened: Runtime) -> Runner:
    """Return the runner of the background jobs, not yet started."""
    jobs = list_jobs(
        opened.registry,
        opened.access,
        upload_expiry=settings.storage.upload_expiry,
        audit_keep=settings.auth.audit_retention,
        gc_interval=settings.gc.interval,
    )
    return Runner(opened.leases, jobs)


@dataclass(frozen=True, slots=True)
class StartRules:
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
