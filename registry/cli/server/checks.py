"""Checks before a start, shared by `serve`, `worker` and `config check`."""

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.cli.kit import database
from registry.cli.kit.options import find_folder
from registry.cli.server.tls import load_tls
from registry.config import Settings
from registry.errors import ConfigError


def require_files(settings: Settings) -> None:
    """Check the files that the settings need. Raises ConfigError that lists all problems."""
    problems = list(_list_problems(settings))
    if problems:
        heading = [f"{len(problems)} problems prevent the start:"] if problems[1:] else []
        raise ConfigError("\n  ".join([*heading, *problems]), problems)


def _list_problems(settings: Settings) -> Iterator[str]:
    checks: list[Callable[[], object]] = [
        find_folder(settings).require_own,
        lambda: load_tls(settings),
        lambda: _require_secret(settings),
    ]
    for check in checks:
        try:
            check()
        except ConfigError as problem:
            yield problem.message
    for key, path in settings.list_files().items():
        if key.endswith("jwks_file"):
            yield from _check_json(key, path)
        elif key.endswith(".ca_file"):
            yield from _check_authorities(key, path)


def _require_secret(settings: Settings) -> None:
    """Raise ConfigError if private keys must be stored in the database without `auth.secret`."""
    auth = settings.auth
    shared = auth.key_store == "database" or (
        auth.key_store == "auto" and not database.is_embedded(settings)
    )
    closed = auth.mode == "token" or bool(auth.jwks_url or auth.jwks_file)
    if shared and closed and auth.local_users and auth.mode != "none" and not auth.secret:
        raise ConfigError(
            "auth.secret is missing: it encrypts the private keys in the database. Set it to 32 or "
            "more random characters, the same for all replicas (openssl rand -hex 32), or, for one "
            'machine, set auth.key_store = "file"'
        )


def _check_json(key: str, path: Path) -> Iterator[str]:
    try:
        json.loads(path.read_bytes())
    except OSError as error:
        yield f"{key}, {path}, cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        yield f"{key}, {path}, does not contain JSON"


def _check_authorities(key: str, path: Path) -> Iterator[str]:
    try:
        ssl.create_default_context().load_verify_locations(path)
    except ssl.SSLError:
        yield f"{key}, {path}, must contain certificates in PEM"
    except OSError as error:
        yield f"{key}, {path}, cannot be read ({error.strerror})"
