"""Disk reserve of an embedded database, so that deletions work on a full disk.

A deletion is written to the log before it frees space. If there is no space for the log, the
reserve file is deleted, the deletion uses its space, and a job creates the file again.
"""

import contextlib
import os
import shutil
from pathlib import Path

SIZE_BYTES = 4 << 20
"""Bytes of the file: the log may grow by as much before it is checkpointed and reset."""

_FREE_BYTES_REQUIRED = 4 * SIZE_BYTES
"""Free bytes required to create the file, so that it does not fill the disk itself."""


class ReserveFile:
    """The reserve file of one database. All methods block briefly."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-reserve")

    def is_missing(self) -> bool:
        """Return whether the file is missing and there is space to create it."""
        return (
            not self._path.exists()
            and shutil.disk_usage(self._path.parent).free >= _FREE_BYTES_REQUIRED
        )

    def make(self) -> None:
        """Create the file. If it does not fit, none is left.

        Raises OSError.
        """
        unfinished = Path(f"{self._path}.new")
        try:
            descriptor = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                # Random bytes, which a file system cannot compress.
                for _ in range(SIZE_BYTES >> 20):
                    _write(descriptor, os.urandom(1 << 20))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.rename(self._path)
        finally:
            unfinished.unlink(missing_ok=True)

    def release(self) -> None:
        """Free the space."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
