"""Opening and preparing a registry."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from registry.app.composition import compose
from registry.app.runtime import Runtime
from registry.auth.settings import AuthSettings
from registry.config import Settings
from registry.errors import ConfigError, PasswordInvalidError
from registry.metadata.engine import migrate
from storage.driver import Driver

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_runtime(
    settings: Settings, driver: Driver | None = None, *, with_stores: bool = True
) -> AsyncIterator[Runtime]:
    """Open a registry for the duration of the block.

    Without `with_stores`, the stores are not started, so that a bucket need not be reachable.
    Raises SchemaError if the schema does not fit this version, StoreError if a store is not ready,
    and ConfigError if the settings name no store for existing blobs.
    """
    opened = compose(settings, driver)
    try:
        await require_ready(opened, with_stores=with_stores)
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
        await asyncio.to_thread(lambda: authenticator.tokens)  # not during the first request


async def rehearse(settings: Settings) -> None:
    """Open and close a registry as a server does, and raise any error that prevents a start."""
    opened = compose(settings)
    try:
        await prepare(settings, opened)
    finally:
        await opened.close()


async def require_ready(opened: Runtime, *, with_stores: bool = True) -> None:
    """Check that the schema and the stores fit, and start the stores unless told otherwise.

    Raises SchemaError if the schema does not fit this version, ConfigError if blobs are in a store
    that the settings do not open, and StoreError if a store that must hold blobs is empty.
    """
    await migrate.require_current(opened.database)
    stores = opened.stores
    holding = await opened.registry.blobs.list_stores()
    missing = [name for name in holding if name not in stores.names]
    if missing:
        raise ConfigError(
            f'the database refers to blobs in the store "{missing[0]}", but the settings open only '
            f"{' and '.join(stores.names)}: configure it as [old_storage], or restore the name of "
            "the store with storage.name"
        )
    if with_stores:
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
