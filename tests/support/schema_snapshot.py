"""The committed snapshot of the schema that the migrations make in SQLite.

A new registry creates its schema from the snapshot. To update it after a new migration:

    .venv/bin/python -m tests.support.schema_snapshot
"""

import re
import sqlite3
import tempfile
from pathlib import Path

import sqlalchemy as sa

from registry.metadata.engine import migrate, schema_snapshot
from registry.metadata.engine.connections import open_plain_engine

SNAPSHOT = Path(__file__).parents[2] / "migrations" / schema_snapshot.NAME
COMMAND = ".venv/bin/python -m tests.support.schema_snapshot"
INDEX = re.compile("CREATE (UNIQUE )?INDEX ")
_HEAD = f"-- What the migrations make in an empty SQLite database. Made by {COMMAND}.\n"


def migrate_empty(path: Path) -> None:
    """Run all migrations on an empty SQLite database."""
    engine = open_plain_engine(sa.make_url(f"sqlite:///{path}"))
    with engine.connect() as connection:
        migrate.run_migrations(connection)


def render() -> str:
    """Return the statements that create the schema, with the rows that the migrations insert."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "moorage.db")
        migrate_empty(path)
        opened = sqlite3.connect(path)
        try:
            # Each database makes the tables that SQLite itself needs.
            dumped = [each for each in opened.iterdump() if "sqlite_sequence" not in each]
        finally:
            opened.close()
    statements = [each.removesuffix(";") for each in dumped[1:-1]]  # not BEGIN and COMMIT
    # SQLAlchemy creates the indexes of a table in no fixed order.
    statements.sort(key=lambda each: each if INDEX.match(each) else "")
    return _HEAD + "".join(each + schema_snapshot.END for each in statements)


if __name__ == "__main__":
    SNAPSHOT.write_text(render(), encoding="utf-8")
