"""Types of settings, with functions that parse and format their values.

A field of type `Duration` is a float of seconds. Its `SettingType` parses and formats text such as
`30s`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, TypeVar, get_args

Network = IPv4Network | IPv6Network
Number = TypeVar("Number", int, float)

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_BYTES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_LONGEST = 36_500 * _MILLISECONDS["d"]  # a century, so that every deadline fits a timestamp
_LARGEST = (1 << 63) - 1  # maximum of an integer column
_PORTS = 1 << 16
_SOCKET_PATH = 107  # maximum bytes of the path of a Unix socket in the kernel
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_QUANTITY = re.compile(r"([0-9]{1,19})([A-Za-z]+)")
_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"
_LISTEN = re.compile(rf"(?P<host>{_HOST})?:(?P<port>[0-9]{{1,5}})")
_ORIGIN = re.compile(rf"https?://(?P<host>{_HOST})(:(?P<port>[0-9]{{1,5}}))?")
_EXTERNAL_URL = re.compile(rf"{_ORIGIN.pattern}(?P<path>(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)/?")
_OWN_PATHS = ("/v2", "/api", "/token", "/healthz", "/readyz", "/metrics")
_URL = re.compile(rf"https?://(?P<host>{_HOST})(:(?P<port>[0-9]{{1,5}}))?(/[!-~]*)?")
# A URL is printed only if the position of its password is certain. Of its query, only harmless
# parameters are printed.
_PRINTABLE_URL = re.compile(
    r"(?P<before>sqlite(\+pysqlite)?:///[^?]*|postgres(ql)?(\+psycopg)?://[^:/?#@]*)"
    r"(?P<password>:[^/?#@]*(?=@))?"
    rf"(?P<after>@?({_HOST})?(:[0-9]+)?(,({_HOST})(:[0-9]+)?)*(/[\w.-]*)?)(?P<query>\?[^#@]*)?"
)
_SERVICE = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_TOKEN_LIFE = range(60, 86_401)  # seconds; clients assume that a token lives at least a minute
_LINK_LIFE = range(10, 7 * 86_400 + 1)  # seconds; S3 signatures are valid for at most a week
_PARTS = range(5 << 20, (5 << 30) + 1)  # bytes; part sizes that object stores accept
_HARMLESS = re.compile(
    r"(application_name|connect_timeout|host|port|sslmode|target_session_attrs|timeout)=[\w.,:/-]*"
)


def parse_duration(text: str) -> float:
    """Return the seconds in text such as `200ms`, `2s`, `5m`, `24h` or `90d`.

    Raises ValueError for any other text.
    """
    return _parse_quantity(text, _MILLISECONDS, _LONGEST) / 1000


def format_duration(seconds: float) -> str:
    """Format seconds in the largest unit that divides them, rounded to milliseconds."""
    return _format_quantity(round(seconds * 1000), _MILLISECONDS) or "0s"


def parse_size(text: str) -> int:
    """Return the bytes in text such as `512B`, `64KiB`, `5GiB` or `1TiB`.

    Raises ValueError for any other text.
    """
    return _parse_quantity(text, _BYTES, _LARGEST)


def format_size(size: int) -> str:
    """Format bytes in the largest unit that divides them."""
    return _format_quantity(size, _BYTES) or "0B"


def round_size(size: int) -> str:
    """Format bytes in the largest fitting unit with one decimal, such as `9.3GiB`."""
    for unit, scale in _BYTES.items():
        if size >= scale > 1:
            return f"{size / scale:.1f}{unit}"
    return f"{size}B"


def parse_endpoint(text: str) -> tuple[str, int]:
    """Split HOST:PORT into host and port; an empty host means all addresses.

    Raises ValueError for any other text.
    """
    match = _match_endpoint(_LISTEN, text)
    return (match["host"] or "").strip("[]"), int(match["port"])


def parse_unix(text: str) -> str:
    """Return the path in `unix:/PATH`, or an empty string for other text.

    Raises ValueError if `unix:` is not followed by an absolute path.
    """
    scheme, _, path = text.partition(":")
    if scheme != "unix":
        return ""
    if not path.startswith("/") or "\0" in path or len(path.encode()) > _SOCKET_PATH:
        raise ValueError(f"{text!r} is not unix: followed by an absolute path of at most 107 bytes")
    return path


def parse_url(text: str) -> str:
    """Return `text` if it is an http or https URL without credentials.

    Raises ValueError for any other text.
    """
    return _match_endpoint(_URL, text)[0]


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`; other names are not."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def mask_database_url(url: str) -> str:
    """Return a database URL with its password masked.

    Returns `***` if the position of the password is uncertain.
    """
    match = _PRINTABLE_URL.fullmatch(url)
    if match is None:
        return "***" if url else ""
    query = re.sub(r"[^?&]+", _mask_parameter, match["query"] or "")
    return f"{match['before']}{':***' if match['password'] else ''}{match['after']}{query}"


def _parse_quantity(text: str, units: dict[str, int], most: int) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not a whole number with one of the units {', '.join(units)}")
    amount = int(match[1]) * units[match[2]]
    if amount > most:
        raise ValueError(f"{text!r} is too large")
    return amount


def _format_quantity(amount: int, units: dict[str, int]) -> str:
    fitting = (f"{amount // scale}{unit}" for unit, scale in units.items() if amount % scale == 0)
    return next(fitting) if amount else ""


def _match_endpoint(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None or int(match["port"] or 0) >= _PORTS:
        raise ValueError(f"{text!r} is not a valid host and port")
    if (match["host"] or "").startswith("["):
        IPv6Address(match["host"][1:-1])
    return match


def _mask_parameter(match: re.Match[str]) -> str:
    return match[0] if _HARMLESS.fullmatch(match[0]) else "***"


def _parse_listen(text: str) -> str:
    if not parse_unix(text):
        parse_endpoint(text)
    return text


def _parse_optional_listen(text: str) -> str:
    return _parse_listen(text) if text else ""


def _parse_external_url(text: str) -> str:
    if not text:
        return ""
    match = _match_endpoint(_EXTERNAL_URL, text)
    if f"{match['path']}/".startswith(tuple(f"{path}/" for path in _OWN_PATHS)):
        raise ValueError(f"{text!r} has a path that the registry itself uses")
    return match[0].removesuffix("/")


def _parse_origins(items: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in items):
        raise ValueError("an item is not a string")
    return tuple(
        item if item == "*" else _match_endpoint(_ORIGIN, item)[0].lower() for item in items
    )


def _parse_optional_url(text: str) -> str:
    return parse_url(text) if text else ""


def _parse_networks(items: list[Any]) -> tuple[Network, ...]:
    if not all(isinstance(item, str) for item in items):
        raise ValueError("an item is not a string")
    return tuple(ip_network(item) for item in items)


def _show_networks(networks: tuple[Network, ...]) -> list[str]:
    return [str(network) for network in networks]


def _parse_timeout(text: str) -> float:
    return _above_zero(parse_duration(text))


def _parse_token_life(text: str) -> float:
    return _parse_life(text, _TOKEN_LIFE)


def _parse_link_life(text: str) -> float:
    return _parse_life(text, _LINK_LIFE)


def _parse_life(text: str, allowed: range) -> float:
    life = parse_duration(text)
    if life not in allowed or life != int(life):
        raise ValueError(f"{text!r} is out of range or not a whole number of seconds")
    return life


def _parse_service(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        raise ValueError(f"{text!r} contains characters that are not allowed in a header")
    return text


def _parse_part(text: str) -> int:
    size = parse_size(text)
    if size not in _PARTS:
        raise ValueError(f"{text!r} is not a part size that object stores accept")
    return size


def _mask(text: str) -> str:
    return "***" if text else ""


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


def _above_zero(value: Number) -> Number:
    if value <= 0:
        raise ValueError(f"{value} is not positive")
    return value


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class SettingType:
    """A type of setting: the expected form, the TOML type, and functions that parse and print.

    With `json`, an option or environment variable holds the value as JSON.
    """

    expected: str
    toml: type = str
    parse: Callable[[Any], Any] = _same
    show: Callable[[Any], Any] = _same
    secret: bool = False
    json: bool = False
    has_file: bool = False
    """Whether the value can be read from a file that `<key>_file` names."""

    def from_toml(self, value: object) -> Any:
        """Parse a value from a TOML file. Raises ValueError if it is invalid."""
        if type(value) is not self.toml:
            raise ValueError(f"{value!r} is not a TOML {self.toml.__name__}")
        return self.parse(value)

    def from_text(self, text: str) -> Any:
        """Parse the text of an option or variable. Raises ValueError if it is invalid."""
        if self.json:
            return self.from_toml(_read_json(text))
        if self.toml is list:
            return self.parse([item.strip() for item in text.split(",") if item.strip()])
        if self.toml is bool and text.lower() not in _TRUTH:
            raise ValueError(f"{text!r} is not one of {', '.join(_TRUTH)}")
        return self.parse(_TRUTH[text.lower()] if self.toml is bool else self.toml(text))


def choice(literal: Any) -> SettingType:
    """Return the type of setting for a `Literal` of words.

    An empty word is accepted as the default and is not offered to users.
    """
    words = get_args(literal)

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return SettingType(" or ".join(f'"{word}"' for word in words if word), parse=parse)


_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


def parse_window(text: str) -> tuple[int, int] | None:
    """Return start and end of text such as `22:00-06:00`, in minutes since midnight.

    Returns None for empty text, and raises ValueError for any other text.
    """
    if not text:
        return None
    match = _WINDOW.fullmatch(text)
    if match is None or int(match[2]) > 59 or int(match[4]) > 59:  # noqa: PLR2004 - minutes
        raise ValueError(f"{text!r} is not a time window")
    begin = int(match[1]) * 60 + int(match[2])
    end = int(match[3]) * 60 + int(match[4])
    if not begin < _DAY_MINUTES or not end <= _DAY_MINUTES or begin == end:
        raise ValueError(f"{text!r} is not a time window")
    return begin, end


def format_window(window: tuple[int, int] | None) -> str:
    """Format a part of the day as `parse_window` reads it."""
    return "-".join(f"{each // 60:02}:{each % 60:02}" for each in window or ())


_DURATION = 'a duration with a unit, such as "30s"'
_ENDPOINT = (
    'HOST:PORT, such as "127.0.0.1:5000", "[::1]:5000" or ":5000" for all addresses, '
    'or "unix:/run/moorage.sock"'
)
_BASE = 'scheme, host, port and optionally a path, such as "https://registry.example.org"'
_ORIGINS = 'a list of origins, such as ["https://ui.example.org"], or ["*"]'
_PLACE = 'a URL, such as "https://gitlab.example.org/oauth/discovery/keys"'
_NETWORKS = 'a list of addresses and networks, such as ["10.0.0.0/8", "::1"]'

Text = Annotated[str, SettingType("a string")]
Credential = Annotated[str, SettingType("a string", has_file=True)]
Secret = Annotated[str, SettingType("a string", show=_mask, secret=True, has_file=True)]
ServiceName = Annotated[
    str, SettingType("a name of letters, digits and . _ : / -", parse=_parse_service)
]
TokenLifetime = Annotated[
    float,
    SettingType('a duration from "60s" to "24h"', parse=_parse_token_life, show=format_duration),
]
LinkLifetime = Annotated[
    float,
    SettingType('a duration from "10s" to "7d"', parse=_parse_link_life, show=format_duration),
]
Flag = Annotated[bool, SettingType("true or false", bool)]
Count = Annotated[int, SettingType("a positive whole number, such as 4", int, _above_zero)]
Limit = Annotated[
    int, SettingType("a whole number, such as 50; 0 means no limit", int, _not_negative)
]
Duration = Annotated[float, SettingType(_DURATION, str, parse_duration, format_duration)]
Timeout = Annotated[
    float, SettingType(f"{_DURATION}, longer than zero", str, _parse_timeout, format_duration)
]
Size = Annotated[
    int, SettingType('a size with a unit, such as "64MiB"', str, parse_size, format_size)
]
PartSize = Annotated[
    int, SettingType('a size from "5MiB" to "5GiB"', str, _parse_part, format_size)
]
Window = Annotated[
    tuple[int, int] | None,
    SettingType('a time window, such as "22:00-06:00"', str, parse_window, format_window),
]
Listen = Annotated[str, SettingType(_ENDPOINT, str, _parse_listen)]
OptionalListen = Annotated[str, SettingType(_ENDPOINT, str, _parse_optional_listen)]
ExternalUrl = Annotated[str, SettingType(_BASE, str, _parse_external_url)]
Origins = Annotated[tuple[str, ...], SettingType(_ORIGINS, list, _parse_origins, list)]
Url = Annotated[str, SettingType(_PLACE, str, _parse_optional_url)]
Networks = Annotated[
    tuple[Network, ...], SettingType(_NETWORKS, list, _parse_networks, _show_networks)
]
