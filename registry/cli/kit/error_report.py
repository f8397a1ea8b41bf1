"""Reporting of errors that end a process."""

import logging

from registry.cli.kit.output import write_error
from registry.errors import RegistryError
from storage.digest import DigestInvalidError
from storage.errors import StoreError

logger = logging.getLogger(__name__)

EXPECTED = (RegistryError, StoreError, DigestInvalidError)
"""Errors with a message for users. All other errors are bugs and need their traceback."""


def report(error: Exception) -> None:
    """Write one line for an expected error, and a traceback for any other error."""
    if isinstance(error, EXPECTED):
        write_error(describe(error))
    else:
        logger.critical("unexpected error", exc_info=error)


def describe(error: Exception) -> str:
    """Return the message of an expected error, with the error text of another server."""
    reason = getattr(error, "reason", "")
    return f"{error}: {reason}" if reason else str(error)
