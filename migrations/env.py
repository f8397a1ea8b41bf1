"""Alembic environment, which uses the connection given by `registry.metadata.engine.migrate`."""

import sqlalchemy as sa
from alembic import context


def _run(connection: sa.Connection) -> None:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


def _run_sqlite(connection: sa.Connection) -> None:
    """Run the migrations with foreign keys off, and check them before the commit.

    With foreign keys on, a batch migration that rebuilds a table silently empties cascading child
    tables.
    """
    raw = connection.connection.dbapi_connection
    raw.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF"):
        raw.execute(f"PRAGMA {pragma}")
    # Alembic leaves an open transaction alone, so all migrations run in this one.
    with connection.begin():
        raw.execute("BEGIN IMMEDIATE")
        _run(connection)
        _require_parents(raw.execute("PRAGMA foreign_key_check").fetchall())


def _require_parents(orphans: list[tuple[object, ...]]) -> None:
    if orphans:
        raise RuntimeError(f"the migration would leave {len(orphans)} rows without their parents")


def main() -> None:
    connection: sa.Connection = context.config.attributes["connection"]
    if connection.dialect.name == "sqlite":
        _run_sqlite(connection)
    else:
        # One at a time: a second upgrade waits here and then finds nothing to do.
        connection.execute(sa.text("SELECT pg_advisory_lock(7011011)"))
        connection.commit()
        _run(connection)


main()
