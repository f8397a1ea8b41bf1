"""`moorage db`: the schema of the database."""

import argparse
import asyncio
import contextlib
import logging
from dataclasses import asdict
from pathlib import Path

from registry import logs
from registry.cli import output
from registry.cli.settings import find_folder, load_settings
from registry.config import Settings, require_safe_listen
from registry.errors import DatabaseUnavailableError
from registry.folder import DataFolder
from registry.metadata import migrate, reachable, users
from registry.metadata.database import Database, parse_url
from registry.metadata.migrate import SchemaState
from registry.services.startup import Startup

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds to wait for other processes to leave an embedded database that must be upgraded."""


def read_state(settings: Settings) -> SchemaState:
    """The schema's state; an embedded database is created, empty, if there is none."""

    async def job() -> SchemaState:
        database = Database(settings.database_url, settings.pool)
        try:
            return await migrate.read_state(database)
        finally:
            await database.close()

    return asyncio.run(job())


def is_embedded(settings: Settings) -> bool:
    """Whether the database is a file in reach of this machine alone."""
    return Database.is_embedded(settings.database_url)


def _file(settings: Settings) -> Path:
    return Path(parse_url(settings.database_url).database or "")


def has_users(settings: Settings) -> bool:
    """Whether anybody could sign in. Nothing is created: without a database there is nobody."""

    async def job() -> bool:
        if is_embedded(settings) and not _file(settings).exists():
            return False
        database = Database(settings.database_url, settings.pool)
        try:
            if not (await migrate.read_state(database)).usable:
                return False
            return await database.read(users.is_any)
        finally:
            await database.close()

    return asyncio.run(job())


def bring_up_to_date(settings: Settings, folder: DataFolder) -> bool:
    """Upgrade an older schema; whether there was anything to do."""
    if read_state(settings).version >= migrate.VERSION:
        return False
    # Servers of the version before go on where the database is elsewhere.
    with folder.alone(PATIENCE) if is_embedded(settings) else contextlib.nullcontext():
        migrate.upgrade(settings.database_url)
    return True


def warn_if_remote(settings: Settings) -> None:
    """Say that an embedded database is on a file system that may damage it."""
    kind = Database.find_remote_type(settings.database_url)
    if kind:
        logger.warning(
            "the SQLite database %s is on a file system of type %s, whose locks and shared memory "
            "SQLite cannot rely on: it may be damaged. Keep it on a local disk with [database] "
            "url = sqlite:////LOCAL/moorage.db, or use PostgreSQL",
            _file(settings),
            kind,
        )


def require_reachable(settings: Settings) -> None:
    """Raise DatabaseUnavailableError where waiting may help, ConfigError otherwise. Blocking."""
    reachable.require_reachable(settings.database_url)


def require_filled(settings: Settings) -> None:
    """Raise DatabaseUnavailableError while a database elsewhere has no tables. Blocking."""
    if not is_embedded(settings) and migrate.is_bare(settings.database_url):
        raise DatabaseUnavailableError(
            "the database is empty until the first server starts or moorage db upgrade runs"
        )


def look(settings: Settings) -> None:
    """Raise what would keep `prepare` from succeeding. Creates and changes nothing. Blocking."""
    made = not is_embedded(settings) or _file(settings).exists()
    if made or settings.database.url:  # else the folder is made as well
        require_reachable(settings)
    if not made:
        return
    state = read_state(settings)
    # What is empty is filled by the first server, and an older embedded database upgraded.
    made_at_start = not state.version or (is_embedded(settings) and state.version < migrate.VERSION)
    if not made_at_start or not (is_embedded(settings) or migrate.is_bare(settings.database_url)):
        migrate.require_usable(state)


def prepare(settings: Settings, folder: DataFolder) -> None:
    """Make the database usable for a server. Blocking.

    Raises DatabaseUnavailableError where waiting may help, ConfigError or SchemaError where
    somebody must change something.
    """
    require_reachable(settings)
    make_usable(settings, folder)
    require_safe_listen(settings, lambda: has_users(settings))


def make_usable(settings: Settings, folder: DataFolder) -> None:
    """Create or upgrade an embedded database, and create any other in one that has nothing in it;
    SchemaError for one that does not fit.
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


def enter(settings: Settings, folder: DataFolder) -> None:
    """Use the folder of a registry that there is. Of one whose database is elsewhere it may hold
    nothing, and be new wherever a command runs. ConfigError where there is none.
    """
    if is_embedded(settings):
        folder.open()
    else:
        folder.create()


def upgrade(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    folder = find_folder(settings)
    folder.create()
    if args.wait:
        logs.configure(settings.log.format, "info", access=False)
        asyncio.run(_wait(settings))
    changed = bring_up_to_date(settings, folder)
    folder.close()
    if args.json:
        output.write_json({"changed": changed, "version": migrate.VERSION})
    else:
        done = "upgraded to" if changed else "is already at"
        output.write(f"The database {done} schema {migrate.VERSION}.")
    return 0


async def _wait(settings: Settings) -> None:
    """Return when the database answers; ConfigError where waiting does not help."""
    await Startup({}).wait(lambda: asyncio.to_thread(require_reachable, settings))


def status(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    folder = find_folder(settings)
    enter(settings, folder)
    state = read_state(settings)
    folder.close()
    if args.json:
        output.write_json({**asdict(state), "known": migrate.VERSION, "usable": state.usable})
        return 0
    if state.move is not None and state.filling:
        output.write(f"{state.move.state}: being filled from {state.move.place}")
    elif state.move is not None and not state.move.over:
        output.write(f"{state.move.state}: takes no changes (copied to {state.move.place})")
    fits = "usable by this version" if state.usable else "not usable by this version"
    output.write(f"schema {state.version or 'none'}: {fits}, which knows {migrate.VERSION}")
    return 0
