"""The schema version: reading it, and upgrading it with Alembic."""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from msgspec import Struct

from registry.errors import DatabaseUnavailableError, SchemaError
from registry.metadata.engine import schema_snapshot, write_freeze
from registry.metadata.engine.connections import open_plain_engine
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.deadlines import REQUEST_TIMEOUT_S, UNAVAILABLE
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveRow, MoveState
from registry.metadata.tables import schema_version

if TYPE_CHECKING:
    from alembic.config import Config

VERSION = 7
"""Schema version that this code writes: the number of the newest migration."""

_UNFINISHED = {
    MoveState.FILLING: "a copy that did not finish; run moorage db copy again, with the settings "
    "of the source database",
    MoveState.RESTORING: "a restore that did not finish; run moorage backup restore again",
}


class SchemaState(Struct, frozen=True):
    """The database's schema.

    `version` 0 is an empty database. `min_reader` is the oldest code VERSION that may still use the
    database, so that releases N and N-1 can run side by side.
    """

    version: int
    min_reader: int
    move: MoveRow | None = None

    @property
    def usable(self) -> bool:
        return self.version >= VERSION >= self.min_reader and not self.filling

    @property
    def filling(self) -> bool:
        """Whether a copy into the database, or a restore, has not finished."""
        return self.move is not None and self.move.state in _UNFINISHED


async def read_state(database: Database, *, timeout_s: float = REQUEST_TIMEOUT_S) -> SchemaState:
    def work(tx: Transaction) -> SchemaState:
        if not sa.inspect(tx.connection).has_table(schema_version.name):
            return SchemaState(0, 0)
        version, min_reader = tx.execute(
            sa.select(schema_version.c.version, schema_version.c.min_reader)
        ).one()
        return SchemaState(version, min_reader, write_freeze.find(tx))

    return await database.read(work, timeout_s=timeout_s)


async def require_current(database: Database, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
    """Raise SchemaError, with the remedy, unless this code may use the database."""
    require_usable(await read_state(database, timeout_s=timeout_s))


def require_usable(state: SchemaState) -> None:
    """Raise SchemaError, with the remedy, unless this code may use a database in this state."""
    if state.min_reader > VERSION:
        raise SchemaError(
            f"the database has schema {state.version}, which requires a version of Moorage that "
            f"supports schema {state.min_reader}; this one supports {VERSION}. Install the newer "
            "version."
        )
    if state.version < VERSION:
        what = f"has schema {state.version}" if state.version else "is empty"
        raise SchemaError(
            f"the database {what}, but this version requires schema {VERSION}. "
            "Run: moorage db upgrade"
        )
    if state.move is not None and state.filling:
        raise SchemaError(f"the database is incomplete after {_UNFINISHED[state.move.state]}")


def is_bare(url: str) -> bool:
    """Return whether the database has no tables at all. Blocking.

    Raises DatabaseUnavailableError.
    """
    engine = open_plain_engine(parse_url(url))
    try:
        return not sa.inspect(engine).get_table_names()
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseUnavailableError(UNAVAILABLE) from error


def upgrade(url: str) -> None:
    """Upgrade the schema. Blocking.

    All migrations are one transaction, so a killed upgrade changes nothing. An empty SQLite
    database gets the schema of the snapshot instead. Raises SchemaError, with the database's
    message, if the upgrade fails.
    """
    engine = open_plain_engine(parse_url(url))
    try:
        with engine.connect() as connection:
            if not _create(connection):
                run_migrations(connection)
    except sa.exc.DBAPIError as error:
        raise SchemaError(
            f"the upgrade of the database failed, and nothing was changed: {error.orig}"
        ) from error


def _create(connection: sa.Connection) -> bool:
    """Create the schema in an empty SQLite database. Return whether no migration is missing."""
    if connection.dialect.name != "sqlite" or not schema_snapshot.create(connection, _folder()):
        return False
    created = connection.scalar(sa.select(schema_version.c.version))
    connection.rollback()  # Alembic begins the next transaction
    return created == VERSION


def run_migrations(connection: sa.Connection) -> None:
    """Run the missing migrations."""
    # Alembic takes 0.2 s to import, so only migrations import it.
    from alembic import command  # noqa: PLC0415

    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: sa.Connection) -> "Config":
    """Return the Alembic configuration for the migrations that ship with this code."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_folder()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _folder() -> Path:
    """Return the folder of migrations: in the package if installed, next to it in a checkout."""
    package = Path(__file__).parent.parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
