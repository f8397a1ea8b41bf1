"""Room that is kept beside an embedded database, so that deleting works on a full disk.

A deletion is written to the log before it frees anything. Where there is no room for that, the
spare file is given up, the deletion is written where it was, and a job makes the file again.
"""

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 4 << 20
"""Bytes of the file: the log may grow by as much before it is written back and begun again."""

_ROOM = 4 * SIZE
"""Bytes that must be free for the file to be made: it is not to be what fills the disk."""


class Spare:
    """The spare file of one database. All its methods block for a moment."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-spare")

    def is_missing(self) -> bool:
        """Whether the file is to be made, and can be."""
        return not self._path.exists() and shutil.disk_usage(self._path.parent).free >= _ROOM

    def make(self) -> None:
        """Make the file; where it does not fit after all, none is left. OSError."""
        unfinished = Path(f"{self._path}.new")
        try:
            descriptor = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                # Nothing that a file system could store in less.
                for _ in range(SIZE >> 20):
                    _write(descriptor, os.urandom(1 << 20))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.rename(self._path)
        finally:
            unfinished.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the room up."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
