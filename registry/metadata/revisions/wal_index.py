"""The header of SQLite's WAL index, mapped into memory: it changes with every commit.

Source: https://www.sqlite.org/walformat.html, section 2.1. A commit in any process writes both
copies of the header before it returns. SQLite's own readers compare the same bytes to find out
whether their snapshot is the latest. The comparison takes 0.2 µs and no system call. `PRAGMA
data_version` takes 2 µs, and 35 µs under load, because it releases the interpreter lock.
"""

import mmap
import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

_COPY = 48
"""The size of one copy of the header, in bytes."""

HEADER = 2 * _COPY

_CHANGES = slice(8, 12)
"""The counter of commits, of 32 bits in the byte order of the machine."""

_IS_INIT = 12
"""The position of the byte that is 1 in a valid header."""


class _Mapped(NamedTuple):
    descriptor: int
    content: mmap.mmap | None
    """None if the file could not be mapped."""


_lock = threading.Lock()
_files: dict[tuple[int, int], _Mapped] = {}
"""The mapped files by device and inode.

They stay open: when a process closes any descriptor of a file, it loses all its POSIX locks on the
file, and SQLite's locks on this file protect the database.
"""


def map_header(database: Path) -> mmap.mmap | None:
    """Return the mapped WAL index of a database, or None if there is none.

    The caller has an open SQLite connection that has read the database in WAL mode, and does not
    use the result after it closes that connection. Until then, no process truncates or replaces
    the file.
    """
    # SQLite resolves symbolic links before it adds the suffix.
    path = f"{database.resolve()}-shm"
    with _lock:
        _close_deleted()
        try:
            status = os.stat(path)  # noqa: PTH116 - of the same text as below
            identity = status.st_dev, status.st_ino
            if identity not in _files:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                _files[identity] = _Mapped(descriptor, _map(descriptor))
        except OSError:
            return None
        return _files[identity].content


def _map(descriptor: int) -> mmap.mmap | None:
    try:
        return mmap.mmap(descriptor, HEADER, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # ValueError: the file is shorter
        return None


def _close_deleted() -> None:
    """Close the files that are deleted: SQLite deletes them when no process uses the database."""
    for identity, (descriptor, content) in list(_files.items()):
        if os.fstat(descriptor).st_nlink == 0:
            del _files[identity]
            if content is not None:
                content.close()
            os.close(descriptor)


def read_header(content: mmap.mmap) -> bytes | None:
    """Return the header, or None while a commit is writing it."""
    header = content[:HEADER]
    return header if header[:_COPY] == header[_COPY:] and header[_IS_INIT] == 1 else None


def is_next(before: bytes, after: bytes) -> bool:
    """Return whether exactly one change was committed between two headers."""
    counts = [int.from_bytes(each[_CHANGES], sys.byteorder) for each in (before, after)]
    return (counts[0] + 1) % (1 << 32) == counts[1]
