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
    found = database.execute(f"SELECT * FROM {table} WHERE {key} = ?", (copied,))  # noqa: S608
    columns = [column[0] for column in found.description]
    [row] = found.fetchall()
    kept = {name: value for name, value in zip(columns, row, strict=True) if name != "id"}
    places = ", ".join(f":{name}" for name in kept)
    database.executemany(
        f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({places})",  # noqa: S608
        ({**kept, key: name} for name in names),
    )


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
