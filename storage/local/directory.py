"""The directory of a local store: its layout, creation and checks. All calls block."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from storage import keys, layouts
from storage.digest import ALGORITHMS
from storage.errors import StoreRefusedError, StoreUnavailableError
from storage.local.os_errors import translate_denials, translate_os_errors

_OWN_NAME = re.compile(r"blobs|staging|VERSION[.][0-9a-f]+")


def all_shards() -> list[str]:
    """Return all directories of objects, in key order."""
    return [keys.shard(a, f"{first:02x}") for a in sorted(ALGORITHMS) for first in range(256)]


def fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class StoreDirectory:
    """The directory of a local store, on one file system."""

    def __init__(self, root: Path, *, reserve: int = 0, ignored: Iterable[str] = ()) -> None:
        """Describe the directory; `prepare` creates it.

        `reserve` is the number of bytes kept free, so that the database can still delete rows on a
        full disk. `ignored` are names in `root` that do not belong to the store and may exist
        before it.
        """
        self.reserve = reserve
        self.staging = root / "staging"
        self._root = root
        self._marker = f"{root}/VERSION"
        self._ignored = frozenset(ignored)

    def path(self, key: str) -> Path:
        return self._root / key

    def prepare(self, *, create: bool) -> None:
        with translate_os_errors("preparing the directory"), translate_denials(self._root):
            if not create:
                self.require_mounted()
            made = [p for p in (self._root, *self._root.parents) if not p.exists()]
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in made:
                fsync_directory(directory.parent)
            marker = self._root / "VERSION"
            if not marker.exists():
                self._refuse_foreign()
                self._create(marker)
            self._require_version(marker)
            # Publishing renames a file, and a rename is atomic only within one file system.
            if len({p.stat().st_dev for p in (self.staging, self._root / "blobs")}) != 1:
                raise StoreRefusedError(
                    f"staging/ and blobs/ in the storage directory {self._root} must be on one "
                    "file system; mount both from the same one"
                )

    @staticmethod
    def _require_version(marker: Path) -> None:
        if marker.read_bytes() != layouts.MARKER:
            raise StoreRefusedError(
                f"the storage directory {marker.parent} has the format of another version of "
                "Moorage; start that version, or choose another directory"
            )

    def _refuse_foreign(self) -> None:
        """Raise StoreRefusedError if the directory has foreign files.

        Called before anything is written to it.
        """
        names = [path.name for path in self._root.iterdir()]
        own = {name for name in names if _OWN_NAME.fullmatch(name)}
        foreign = layouts.foreign_names(names, own | self._ignored)
        if foreign:
            what = layouts.describe(foreign, layouts.recognize_directory(self._root))
            raise StoreRefusedError(
                f"the storage directory {self._root} {what} and is not a Moorage store. "
                f"{layouts.REMEDY}"
            )

    def _create(self, marker: Path) -> None:
        """Create the directories, then the marker.

        All shards are created now, so that no later write depends on a new directory being durable.
        """
        blobs = self._root / "blobs"
        for directory in (self.staging, blobs):
            directory.mkdir(mode=0o700, exist_ok=True)
        for algorithm in ALGORITHMS:
            (blobs / algorithm).mkdir(mode=0o700, exist_ok=True)
        for shard in all_shards():
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self._root}/{shard}", 0o700)  # noqa: PTH102 - there are hundreds
        for algorithm in ALGORITHMS:
            fsync_directory(blobs / algorithm)
        fsync_directory(blobs)
        # A unique name, because several workers may create the same store at the same time.
        fresh = marker.with_suffix(f".{secrets.token_hex(8)}")
        with fresh.open("wb") as file:
            file.write(layouts.MARKER)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(marker)
        fsync_directory(self._root)

    def probe(self) -> None:
        with translate_os_errors("checking the directory"), translate_denials(self._root):
            marker = self._root / "VERSION"
            if marker.exists():
                self._require_version(marker)
            elif self._root.exists():
                self._refuse_foreign()
            there = next(p for p in (self._root, *self._root.parents) if p.exists())
            if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))

    def require_mounted(self) -> None:
        """Raise unless the directory has a store.

        An empty mount point must not look like a store that has lost every object.
        """
        with translate_os_errors("checking the directory"):
            try:
                os.stat(self._marker)  # noqa: PTH116 - called for each claim
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StoreUnavailableError(
                    "the storage directory is missing or empty; is its disk mounted?"
                ) from error

    def require_free_space(self, size: int) -> None:
        free = os.statvfs(self._root)
        if free.f_bavail * free.f_frsize < size + self.reserve:
            raise OSError(errno.ENOSPC, "free space is below the reserve")
