"""Comparison of the rows of a registry with its files, without a server."""

import sqlite3
from pathlib import Path


def list_unowned(data: Path) -> list[str]:
    """Return the files in the store that no blob, pending deletion or upload session owns."""
    connection = sqlite3.connect(data / "moorage.db")
    owned = {
        key
        for table in ("blobs", "pending_deletions", "uploads")
        for (key,) in connection.execute(f"SELECT key FROM {table}")
    }
    sessions = {upload for (upload,) in connection.execute("SELECT id FROM uploads")}
    connection.close()
    storage = data / "storage"
    stray = [
        str(path.relative_to(storage))
        for path in storage.glob("blobs/*/*/*")
        if str(path.relative_to(storage)) not in owned
    ]
    return stray + [path.name for path in storage.glob("staging/*") if path.name not in sessions]


def list_broken(data: Path) -> list[str]:
    """Return the keys of blobs whose bytes are missing, and the problems that SQLite finds."""
    connection = sqlite3.connect(data / "moorage.db")
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    broken = [] if verdict == "ok" else [verdict]
    broken += [str(row) for row in connection.execute("PRAGMA foreign_key_check")]
    for key, size in connection.execute("SELECT key, size FROM blobs"):
        path = data / "storage" / key
        if not path.is_file() or path.stat().st_size != size:
            broken.append(key)
    connection.close()
    return broken
