"""Translation of OSError into the errors of `storage.errors`."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from storage.errors import StoreFullError, StoreRefusedError, StoreUnavailableError

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def translate_os_errors(doing: str) -> Iterator[None]:
    """Translate OSError into StoreFullError or StoreUnavailableError, without paths."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        if error.errno in _FULL_ERRNOS:
            raise StoreFullError(
                f"no space left on the storage disk ({name} while {doing})"
            ) from error
        raise StoreUnavailableError(f"the storage disk failed ({name} while {doing})") from error


@contextlib.contextmanager
def translate_denials(root: Path) -> Iterator[None]:
    """Translate permanent OSErrors into a StoreRefusedError that says how to fix the directory."""
    try:
        yield
    except OSError as error:
        user = f"{os.geteuid()}:{os.getegid()}"
        remedies = {
            errno.EACCES: f"this process runs as {user}; run: chown -R {user} {root}",
            errno.EPERM: f"this process runs as {user}; run: chown -R {user} {root}",
            errno.EROFS: "mount its file system read-write, or choose another directory",
            errno.EEXIST: "it must be a directory",
            errno.ENOTDIR: "it must be a directory",
        }
        if error.errno not in remedies:
            raise
        raise StoreRefusedError(
            f"the storage directory {root} cannot be used ({error.strerror}: {error.filename}); "
            f"{remedies[error.errno]}"
        ) from error
