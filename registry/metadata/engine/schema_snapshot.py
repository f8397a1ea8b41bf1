"""Creation of the schema in an empty SQLite database, from a snapshot of what the migrations make.

This takes 6 ms of processor time. Alembic with all migrations takes 150 ms.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

NAME = "schema.sql"
"""Name of the snapshot in the folder of migrations."""

END = ";\n"
"""End of each statement of the snapshot. No statement contains it."""


def create(connection: sa.Connection, folder: Path) -> bool:
    """Create the schema in one transaction. Return False if the database is not empty."""
    raw: Any = connection.connection.dbapi_connection
    raw.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        raw.execute(f"PRAGMA {pragma}")
    with connection.begin():
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
            return False
        script = (folder / NAME).read_text(encoding="utf-8")
        for statement in script.split(END)[:-1]:
            connection.exec_driver_sql(statement)
    return True
