"""Data directory of a registry, created by `serve` and locked by every process that uses it."""

import contextlib
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from registry.errors import ConfigError
from storage import layouts

_PAUSE = 0.05
_OWN = {"moorage.toml", "keys", "storage"}
"""Names that may exist in the data directory before the registry starts for the first time."""


def explain(error: OSError, what: str, path: Path) -> ConfigError:
    """Return a ConfigError that says why `what` cannot be used and how to fix it."""
    remedy = "choose another directory with --data"
    if isinstance(error, PermissionError):
        user = f"{os.geteuid()}:{os.getegid()}"
        remedy = f"the process runs as {user}; run: chown -R {user} {path}, or {remedy}"
    return ConfigError(f"{what} cannot be used ({error.strerror}: {error.filename}); {remedy}")


class DataDirectory:
    """Directory for the database, the blobs and the keys of one registry.

    Processes hold a shared lock on the directory while they use it. A migration holds the lock
    exclusively.
    """

    def __init__(self, path: Path, named: Iterable[str] = ()) -> None:
        """Create an object for the directory at `path`, without opening it.

        `named` holds the names that the settings place in the directory. They may exist before the
        registry starts for the first time.
        """
        self.path = path
        self._named = frozenset(named)
        self._lock = -1

    def create(self) -> None:
        """Create the directory with mode 0700 unless it exists, and lock it.

        Raises ConfigError if the directory cannot be created or has other content.
        """
        self.require_own()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise explain(error, f"the data directory {self.path}", self.path) from error

    def require_own(self) -> None:
        """Raise ConfigError if the directory has other files but no registry."""
        try:
            names = {each.name for each in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise explain(error, f"the data directory {self.path}", self.path) from error
        if "lock" in names or any(name.startswith("moorage.db") for name in names):
            return
        foreign = layouts.foreign_names(names, _OWN | self._named)
        if foreign:
            layout = layouts.recognize_directory(self.path)
            what = layouts.describe(foreign, layout)
            raise ConfigError(
                f"the data directory {self.path} {what} and contains no Moorage registry. "
                f"{layouts.REMEDY}; set it with --data"
            )

    def find_exposure(self) -> str | None:
        """Return a warning if other accounts of the machine can access the directory, else None."""
        mode = self.path.stat().st_mode
        if not mode & stat.S_IRWXO:
            return None
        what = "written to" if mode & stat.S_IWOTH else "read"
        return (
            f"the data directory {self.path} can be {what} by all accounts of this machine; run: "
            f"chmod o-rwx {shlex.quote(str(self.path))}"
        )

    def open(self) -> None:
        """Lock the directory. Raises ConfigError if it has no registry or cannot be opened."""
        try:
            if not (self.path / "lock").is_file():
                raise ConfigError(f"no registry in {self.path}; set its data directory with --data")
            self._open()
        except OSError as error:
            raise explain(error, f"the data directory {self.path}", self.path) from error

    def _open(self) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._lock = os.open(self.path / "lock", flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def exclusive(self, timeout: float) -> Iterator[None]:
        """Lock the directory exclusively for the duration of the block.

        Raises ConfigError if another process still uses it after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"another Moorage process is using {self.path}; stop it before you fill or "
                        "upgrade the database"
                    ) from error
                time.sleep(_PAUSE)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
