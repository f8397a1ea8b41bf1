"""Validation of database URLs and their conversion to the form that SQLAlchemy needs."""

import re
from typing import Annotated, Final
from urllib.parse import unquote

from registry.errors import ConfigError
from registry.units import SettingType, mask_database_url

EXPECTED: Final = '"sqlite:///FILE" or "postgresql+psycopg://USER:PASSWORD@HOST/NAME"'
_POSTGRES: Final = "postgresql+psycopg"
_DRIVERS: Final = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    _POSTGRES: _POSTGRES,
}
_DEFAULT_PORT: Final = "5432"
_PORTS: Final = range(1, 1 << 16)
_SCHEME = re.compile(r"(?P<driver>[a-z0-9+]+)://(?P<rest>[^\0\r\n]*)")
_FILE = re.compile(r"/(?P<file>[^?]+)(?P<query>\?.*)?")
# As in SQLAlchemy, the user name and the password may contain any character except "@".
_USER = re.compile(r"(?P<name>[^:/@]*)(?P<password>:[^@]*)?@")
_PLACE = re.compile(r"(?P<hosts>[^/?@]*)(?P<database>/[^?@]*)?(?P<query>\?[^@]*)?")
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9._-]*|%2[Ff][A-Za-z0-9._%-]*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{0,5}))?"
)


def normalize(text: str) -> str:
    """Return the URL in the form that SQLAlchemy reads.

    Several hosts in the form of libpq, `H1:P1,H2:P2`, become query parameters. Raises ConfigError
    for an unsupported URL; the message does not contain the password.
    """
    match = _SCHEME.fullmatch(text)
    driver = _DRIVERS.get(match["driver"]) if match else None
    if match is None or driver is None:
        raise ConfigError(f": expected {EXPECTED}")
    if driver == "sqlite":
        if not _FILE.fullmatch(match["rest"]):
            raise ConfigError(": a SQLite URL must name a file: sqlite:///FILE")
        return f"sqlite://{match['rest']}"
    return f"{driver}://{_normalize_postgres(match['rest'])}"


def _normalize_postgres(rest: str) -> str:
    user = _USER.match(rest)
    place = _PLACE.fullmatch(rest, user.end() if user else 0)
    if place is None:
        raise ConfigError(
            ': it contains too many "@": write "@" as %40 in the password and after the host'
        )
    before = user[0] if user else ""
    after = f"{place['database'] or ''}{place['query'] or ''}"
    hosts = [_read_host(each) for each in place["hosts"].split(",")]
    if len(hosts) == 1 and not hosts[0][0].startswith("/"):
        return f"{before}{place['hosts'].removesuffix(':')}{after}"
    return f"{before}{place['database'] or '/'}{_place_hosts(hosts, place['query'] or '')}"


def _read_host(text: str) -> tuple[str, str]:
    """Return the host name, address or socket directory of a server, and its port."""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or _DEFAULT_PORT) not in _PORTS:
        raise ConfigError(
            ": expected HOST or HOST:PORT, or a comma-separated list of them, before the database "
            'name; write ":", "/", "?" and "@" in the password as %3A, %2F, %3F and %40'
        )
    return match["ipv6"] or unquote(match["name"]), match["port"] or _DEFAULT_PORT


def _place_hosts(hosts: list[tuple[str, str]], query: str) -> str:
    """Return the query string with `hosts` added as parameters."""
    added = [
        f"host={','.join(name for name, _ in hosts)}",
        f"port={','.join(port for _, port in hosts)}",
    ]
    return f"{query}&{'&'.join(added)}" if query else f"?{'&'.join(added)}"


def _parse(text: str) -> str:
    if text:
        normalize(text)
    return text


DatabaseUrl = Annotated[
    str, SettingType(EXPECTED, str, _parse, mask_database_url, secret=True, has_file=True)
]
