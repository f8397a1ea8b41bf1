"""The database of a command: checks, preparation and upgrade."""

import asyncio
import contextlib
import logging
from pathlib import Path

from registry.config import Settings, require_safe_listen
from registry.data_dir import DataDirectory
from registry.errors import DatabaseUnavailableError
from registry.metadata.access import users
from registry.metadata.engine import migrate, reachable
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.migrate import SchemaState

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Seconds to wait for other processes to leave an embedded database that must be upgraded."""


def read_state(settings: Settings) -> SchemaState:
    """Return the state of the schema. An embedded database that does not exist is created empty."""

    async def job() -> SchemaState:
        database = Database(settings.database_url, settings.database)
        try:
            return await migrate.read_state(database)
        finally:
            await database.close()

    return asyncio.run(job())


def is_embedded(settings: Settings) -> bool:
    """Return whether the database is a local file instead of a server."""
    return Database.is_embedded(settings.database_url)


def _file(settings: Settings) -> Path:
    return Path(parse_url(settings.database_url).database or "")


def has_users(settings: Settings) -> bool:
    """Return whether there are users. False without a database, which is not created."""

    async def job() -> bool:
        if is_embedded(settings) and not _file(settings).exists():
            return False
        database = Database(settings.database_url, settings.database)
        try:
            if not (await migrate.read_state(database)).usable:
                return False
            return await database.read(users.is_any)
        finally:
            await database.close()

    return asyncio.run(job())


def bring_up_to_date(settings: Settings, folder: DataDirectory) -> bool:
    """Upgrade an older schema, and return whether an upgrade was necessary."""
    if read_state(settings).version >= migrate.VERSION:
        return False
    # With a database server, servers of the previous version keep running during the upgrade.
    with folder.exclusive(TIMEOUT_S) if is_embedded(settings) else contextlib.nullcontext():
        migrate.upgrade(settings.database_url)
    return True


def warn_if_remote(settings: Settings) -> None:
    """Log a warning if an embedded database is on a remote file system, which may damage it."""
    kind = Database.find_remote_type(settings.database_url)
    if kind:
        logger.warning(
            "the SQLite database %s is on a file system of type %s, whose locks and shared memory "
            "are not reliable: the database may be damaged. Keep it on a local disk with "
            "database.url = sqlite:////LOCAL/moorage.db, or use PostgreSQL",
            _file(settings),
            kind,
        )


def require_reachable(settings: Settings) -> None:
    """Check that the database answers. Blocks.

    Raises DatabaseUnavailableError if waiting may help, otherwise ConfigError.
    """
    reachable.require_reachable(settings.database_url)


def require_filled(settings: Settings) -> None:
    """Raise DatabaseUnavailableError if a database server has no tables yet. Blocks."""
    if not is_embedded(settings) and migrate.is_bare(settings.database_url):
        raise DatabaseUnavailableError(
            "the database is empty until the first server starts or moorage db upgrade runs"
        )


def check_reachable(settings: Settings) -> None:
    """Raise the error with which `prepare` would fail. Creates and changes nothing. Blocks."""
    made = not is_embedded(settings) or _file(settings).exists()
    if made or settings.database.url:  # otherwise `prepare` creates the folder of the file too
        require_reachable(settings)
    if not made:
        return
    state = read_state(settings)
    # `prepare` creates the schema in an empty database, and upgrades an embedded one.
    made_at_start = not state.version or (is_embedded(settings) and state.version < migrate.VERSION)
    if not made_at_start or not (is_embedded(settings) or migrate.is_bare(settings.database_url)):
        migrate.require_usable(state)


def prepare(settings: Settings, folder: DataDirectory) -> None:
    """Prepare the database for a server. Blocks.

    Raises DatabaseUnavailableError if waiting may help, and ConfigError or SchemaError if an
    operator must change something.
    """
    require_reachable(settings)
    make_usable(settings, folder)
    require_safe_listen(settings, lambda: has_users(settings))


def make_usable(settings: Settings, folder: DataDirectory) -> None:
    """Create or upgrade the schema of an embedded database.

    On a database server, the schema is created if the database is empty, and is not upgraded.
    Raises SchemaError if it does not fit this version.
    """
    if is_embedded(settings):
        warn_if_remote(settings)
        bring_up_to_date(settings, folder)
        return
    state = read_state(settings)
    if not state.version and migrate.is_bare(settings.database_url):
        migrate.upgrade(settings.database_url)
        state = read_state(settings)
    migrate.require_usable(state)


def enter(settings: Settings, folder: DataDirectory) -> None:
    """Open the data directory of an existing registry.

    With a database server, the data directory may be empty, and is created on the machine where the
    command runs. Raises ConfigError if an embedded registry does not exist.
    """
    if is_embedded(settings):
        folder.open()
    else:
        folder.create()
