"""Progress of backup commands."""

import contextlib
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from registry.errors import BackupError
from registry.metadata.content.blobs import BlobRow
from storage.digest import Digest


class Progress(Struct):
    """Progress of a run.

    `copied` of the `done` blobs were copied. The others already existed.
    """

    rows: str = ""
    """The table that is being copied, with the number of rows so far."""

    blobs: int = 0
    bytes: int = 0
    done: int = 0
    read: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[Digest] = field(default_factory=list)

    @contextlib.contextmanager
    def telling(self) -> Iterator[Callable[[str, int], None]]:
        """Yield a callback that records row progress from a thread.

        After exit, the callback raises BackupError, which ends the abandoned thread.
        """
        ended = False

        def tell(table: str, rows: int) -> None:
            if ended:
                raise BackupError("the backup command was stopped")
            self.rows = f"{table}: {rows} rows"

        try:
            yield tell
        finally:
            ended = True

    def count(self, row: BlobRow, *, copied: bool) -> None:
        self.done += 1
        if copied:
            self.copied += 1
            self.copied_bytes += row.size
        else:
            self.read += row.size
