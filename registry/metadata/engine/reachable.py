"""Check that a database can be opened, and whether a retry may help if not."""

import os
import re
from pathlib import Path

import sqlalchemy as sa

from registry.errors import ConfigError, DatabaseUnavailableError
from registry.metadata.engine.connections import open_plain_engine
from registry.metadata.engine.database import Database, parse_url

_SENTENCE = 300
"""Characters of the database's own message that are kept."""

# libpq gives no error code for a failed connection, only text.
_PASSING = re.compile(
    r"starting up|shutting down|recovery|too many|remaining connection slots|reserved for"
    r"|not accepting|read-only|in hot standby|refused|timeout|timed out|reset|closed|unreachable"
    r"|translate host|resolve|no route|try again|crash|terminat|server login",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"FATAL:|no password supplied|certificate|does not support SSL|invalid (?:sslmode|.* value)"
    r"|invalid connection option",
    re.IGNORECASE,
)


def require_reachable(url: str) -> None:
    """Connect to PostgreSQL once, or check the file of SQLite. Blocking.

    Raises DatabaseUnavailableError if a retry may help, and ConfigError if a setting or a
    permission must change.
    """
    if Database.is_embedded(url):
        _require_file(Path(parse_url(url).database or ""))
    else:
        _require_server(url)


def _require_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"database.url: the directory {path.parent} does not exist; create it")
    # SQLite keeps further files next to the database, with its name as prefix.
    wanted = os.R_OK | os.W_OK
    beside = path.parent.glob(f"{path.name}*")
    refused = [each for each in beside if not os.access(each, wanted, effective_ids=True)]
    if not os.access(path.parent, wanted | os.X_OK, effective_ids=True):
        refused.append(path.parent)
    if refused:
        user = f"{os.geteuid()}:{os.getegid()}"
        raise ConfigError(
            f"the database file {path} cannot be used: {refused[0]} belongs to user "
            f"{refused[0].stat().st_uid}, and this process runs as {user}; "
            f"run: chown {user} {refused[0]}"
        )


def _require_server(url: str) -> None:
    try:
        engine = open_plain_engine(parse_url(url))
    except ModuleNotFoundError as error:
        raise ConfigError(
            "database.url: the PostgreSQL client is not installed; run: "
            "pip install 'moorage[postgres]'"
        ) from error
    except sa.exc.ArgumentError as error:
        raise ConfigError(f"database.url is invalid: {_bound(str(error))}") from error
    try:
        engine.connect().close()
    except sa.exc.DBAPIError as error:
        said = _find_sentence(str(error.orig))
        if _PASSING.search(str(error.orig)) or not _FINAL.search(str(error.orig)):
            unavailable = DatabaseUnavailableError("the database does not answer")
            unavailable.reason = said
            raise unavailable from error
        raise ConfigError(
            f"the database refuses the connection: {said}; check database.url and the server"
        ) from error
    finally:
        engine.dispose()


def _find_sentence(text: str) -> str:
    """Return the line with the reason, truncated and without control characters."""
    lines = [line for line in text.splitlines() if line.strip()]
    return _bound(next((line for line in lines if "FATAL:" in line), lines[0] if lines else ""))


def _bound(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text.strip()[:_SENTENCE]
    )
