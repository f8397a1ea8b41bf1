"""Rows of tags and repositories in the SQLite database of Moorage."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path


def _copy_row(
    database: sqlite3.Connection, table: str, key: str, copied: str, names: Sequence[str]
) -> None:
    """Insert copies of the row whose column `key` is `copied`, with other values of `key`.

    A column `id` gets new values.
    """
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    kept = ", ".join(name for name in columns if name not in {key, "id"})
    statement = f"INSERT INTO {table} ({key}, {kept}) SELECT ?, {kept} FROM {table} WHERE {key} = ?"  # noqa: S608
    database.executemany(statement, ((name, copied) for name in names))


def add_tags(data: Path, repository: str, tag: str, tags: Sequence[str]) -> None:
    """Copy a tag. No other repository may have one of its name."""
    del repository
    with closing(sqlite3.connect(data / "moorage.db")) as database, database:
        _copy_row(database, "tags", "name", tag, tags)


def add_repositories(data: Path, repository: str, tag: str, names: Sequence[str]) -> None:
    """Copy the row of a repository."""
    del tag
    with closing(sqlite3.connect(data / "moorage.db")) as database, database:
        _copy_row(database, "repositories", "name", repository, names)
