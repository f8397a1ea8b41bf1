"""Translation of database failures into errors for callers and operators."""

import logging
import sqlite3
import time

import sqlalchemy as sa

from registry.errors import (
    DatabaseFrozenError,
    DatabaseFullError,
    DatabaseUnavailableError,
)
from registry.metadata.engine import write_freeze
from registry.metadata.engine.connections import READ_ONLY, WrongServerError, is_full
from registry.metadata.engine.deadlines import UNAVAILABLE

logger = logging.getLogger(__name__)

_SQLITE_FULL = sqlite3.SQLITE_FULL
_POSTGRES_FULL = "53100"

_READ_ONLY_REASON = "the database server is a standby or read-only; set database.url to the primary"

_REASONS = {
    "unsupported startup parameter": (
        "a connection pooler refuses startup options; set database.transaction_pooling to true"
    ),
    "hot standby": _READ_ONLY_REASON,
    "is a standby": _READ_ONLY_REASON,
}

_FULL_REASON = (
    "the database server has no connection left for this process. Lower "
    "database.read_connections and database.write_connections, or raise max_connections of the "
    "server (docs/operate/sizing.md)"
)

_LOG_PAUSE = 1.0
"""Seconds between two log lines about the same kind of failure."""

_logged: dict[str, float] = {}


def translate(error: Exception) -> DatabaseUnavailableError:
    """Log `error` and return the error that callers get instead."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    if state == write_freeze.SQLSTATE or str(cause) == write_freeze.REFUSAL:
        return DatabaseFrozenError(
            "the registry is being copied to another database and is read-only until the copy ends"
        )
    # Only the first line, because PostgreSQL shows whole rows in later lines.
    _log(type(error).__name__, str(error).partition("\n")[0])
    if getattr(cause, "sqlite_errorcode", None) == _SQLITE_FULL or state == _POSTGRES_FULL:
        return DatabaseFullError("the disk of the database is full")
    return DatabaseUnavailableError(UNAVAILABLE, reason=_find_reason(error, state))


def _find_reason(error: Exception, state: str | None) -> str:
    if is_full(error):
        return _FULL_REASON
    if state == READ_ONLY or isinstance(error, WrongServerError):
        return _READ_ONLY_REASON
    text = str(error)
    return next((reason for part, reason in _REASONS.items() if part in text), "")


def _log(kind: str, text: str) -> None:
    """Log a failure, at a limited rate.

    In an outage every request fails, and the log could fill the disk.
    """
    now = time.monotonic()
    if now >= _logged.get(kind, float("-inf")) + _LOG_PAUSE:
        _logged[kind] = now
        logger.error("%s: %s", kind, text)
