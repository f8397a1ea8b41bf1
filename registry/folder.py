"""The data folder: created by `serve`, locked by every process that uses it."""

import contextlib
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from registry.errors import ConfigError

_PAUSE = 0.05


class DataFolder:
    """A folder for the database, the blobs and the keys of one registry.

    Processes hold its lock shared while they use it; a migration holds it alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def create(self) -> None:
        """Make the folder, private; ConfigError if that cannot be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(
                f"the data folder {self.path} cannot be used ({error.strerror}); "
                "choose another with --data"
            ) from error

    def find_exposure(self) -> str | None:
        """Return what other accounts of the machine may do to the folder, with the remedy."""
        mode = self.path.stat().st_mode
        if not mode & stat.S_IRWXO:
            return None
        what = "written to" if mode & stat.S_IWOTH else "read"
        return (
            f"the data folder {self.path} can be {what} by every account of this machine; run: "
            f"chmod o-rwx {shlex.quote(str(self.path))}"
        )

    def open(self) -> None:
        """Use the folder; ConfigError unless `serve` has made it."""
        if not (self.path / "lock").is_file():
            raise ConfigError(f"no registry here: {self.path}. Name its folder with --data")
        self._open()

    def _open(self) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._lock = os.open(self.path / "lock", flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self, patience: float) -> Iterator[None]:
        """Hold the folder without any other process; ConfigError after `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"another moorage process uses {self.path}; "
                        "filling or upgrading its database needs it alone: stop that process first"
                    ) from error
                time.sleep(_PAUSE)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
