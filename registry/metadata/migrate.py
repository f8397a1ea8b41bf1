"""The schema's version: looking at it, and bringing it up to date with Alembic."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from registry.errors import SchemaError
from registry.metadata.database import Database, parse_url
from registry.metadata.tables import schema
from registry.metadata.transaction import Transaction

if TYPE_CHECKING:
    from alembic.config import Config

VERSION = 2
"""The schema this code writes: the number of the newest migration."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The database's schema: `version` 0 is an empty database. `min_reader` is the oldest code's
    VERSION that may still use it, so that N and N-1 run side by side.
    """

    version: int
    min_reader: int

    @property
    def usable(self) -> bool:
        return self.version >= VERSION >= self.min_reader


async def read_state(database: Database) -> SchemaState:
    def work(tx: Transaction) -> SchemaState:
        if not sa.inspect(tx.connection).has_table(schema.name):
            return SchemaState(0, 0)
        version, min_reader = tx.execute(sa.select(schema.c.version, schema.c.min_reader)).one()
        return SchemaState(version, min_reader)

    return await database.read(work)


async def require_current(database: Database) -> None:
    """Raise SchemaError, with the remedy, unless this code may use the database."""
    require_usable(await read_state(database))


def require_usable(state: SchemaState) -> None:
    """Raise SchemaError, with the remedy, unless this code may use a database in that state."""
    if state.min_reader > VERSION:
        raise SchemaError(
            f"the database was upgraded to schema {state.version} and needs a Moorage that knows "
            f"schema {state.min_reader}; this one knows {VERSION}. Install the newer version."
        )
    if state.version < VERSION:
        what = f"has schema {state.version}" if state.version else "is empty"
        raise SchemaError(
            f"the database {what}, this version needs {VERSION}. Run: moorage db upgrade"
        )


def upgrade(url: str) -> None:
    """Bring the schema up to date. Blocking; all migrations are one transaction, killed or whole.

    SchemaError, with the database's own words, if it cannot be.
    """
    # Alembic takes 0.2 s to import: only who migrates pays.
    from alembic import command  # noqa: PLC0415

    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            command.upgrade(alembic_config(connection), "head")
    except sa.exc.DBAPIError as error:
        raise SchemaError(
            f"the database could not be upgraded, and nothing was changed: {error.orig}"
        ) from error


def alembic_config(connection: sa.Connection) -> "Config":
    """Alembic's settings for the migrations that ship with this code."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_folder()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _folder() -> Path:
    """migrations/: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
