"""Settings: defaults < TOML file < environment < options, read once into a frozen typed tree.

Nothing else reads the environment. Durations are seconds, sizes are bytes; the type of a field
says how it is read and printed, its metadata what it means.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import quote

from registry.errors import ConfigError
from registry.units import (
    Count,
    DatabaseUrl,
    Duration,
    ExternalUrl,
    Flag,
    Kind,
    Listen,
    Networks,
    Size,
    Text,
    Timeout,
    one_of,
    parse_endpoint,
)

Origin = Literal["default", "file", "env", "option"]
Driver = Literal["local", "memory"]
AuthMode = Literal["", "none"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """`[http]`: where requests come from."""

    listen: Listen = field(
        default="127.0.0.1:5000",
        metadata={"doc": "Address to serve on; no host means all addresses, port 0 any free one."},
    )
    workers: Count = field(default=1, metadata={"doc": "Processes that answer requests."})
    external_url: ExternalUrl = field(
        default="",
        metadata={"doc": "The registry as clients reach it; empty: as the request says."},
    )
    trusted_proxies: Networks = field(
        default=(),
        metadata={"doc": "Proxies whose word on a client's address and scheme is believed."},
    )
    drain: Duration = field(
        default=30.0, metadata={"doc": "How long a stopping server lets requests finish."}
    )
    body_idle: Timeout = field(
        default=30.0, metadata={"doc": "How long a request body may deliver nothing."}
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets and empty for all addresses, and port of `listen`."""
        return parse_endpoint(self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """`[storage]`: where blobs are kept."""

    driver: Annotated[Driver, one_of(Driver)] = field(
        default="local",
        metadata={"doc": "Files in a folder, or the memory of one process, gone when it ends."},
    )
    root: Text = field(
        default="", metadata={"doc": "Folder of the blobs, from the data folder; empty: storage."}
    )
    reserve: Size = field(
        default=64 << 20, metadata={"doc": "Bytes of the disk that uploads leave free."}
    )
    upload_expiry: Timeout = field(
        default=86_400.0, metadata={"doc": "How long an upload session lives without a request."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """`[database]`: what exists and who may see it."""

    url: DatabaseUrl = field(
        default="",
        repr=False,
        metadata={"doc": "SQLAlchemy URL; empty: the SQLite file moorage.db in the data folder."},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """`[auth]`: who may do what."""

    mode: Annotated[AuthMode, one_of(AuthMode)] = field(
        default="",
        metadata={
            "doc": "Empty: no sign-in, this machine only. none: no sign-in, wherever it listens."
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSettings:
    """`[content]`: what may be pushed and deleted."""

    sparse_index: Flag = field(
        default=False, metadata={"doc": "Accept an index before the manifests it names."}
    )
    sparse_image: Flag = field(
        default=False, metadata={"doc": "Accept an image before the blobs it names."}
    )
    delete: Flag = field(default=True, metadata={"doc": "Accept deletions."})
    read_only: Flag = field(default=False, metadata={"doc": "Refuse every change."})


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """`[limits]`: how much at once."""

    tags_page: Count = field(
        default=1000,
        metadata={"doc": "Entries of a page of tags or repositories if the request names none."},
    )
    tags_page_max: Count = field(
        default=10_000, metadata={"doc": "Most entries of a page that a request may name."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: what is written to standard error."""

    format: Annotated[LogFormat, one_of(LogFormat)] = field(
        default="text", metadata={"doc": "Lines for people, or one JSON object a line."}
    )
    level: Annotated[LogLevel, one_of(LogLevel)] = field(
        default="info", metadata={"doc": "The least that is written."}
    )
    access: Flag = field(default=True, metadata={"doc": "A line at level info for each request."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree; `data` is absolute, `source` the TOML file if there is one."""

    data: Path
    http: HttpSettings
    storage: StorageSettings
    database: DatabaseSettings
    auth: AuthSettings
    content: ContentSettings
    limits: LimitsSettings
    log: LogSettings
    source: Path | None
    origins: Mapping[str, Origin] = field(repr=False, compare=False)
    """Where each `section.key` comes from."""

    @property
    def storage_root(self) -> Path:
        """Folder of the blobs."""
        return self.data / (self.storage.root or "storage")

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL, with its password."""
        return self.database.url or f"sqlite:///{quote(str(self.data / 'moorage.db'))}"


class Setting(NamedTuple):
    """A key, as documentation and `config show` need it."""

    kind: Kind
    default: Any
    doc: str


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    each.name: each.type
    for each in fields(Settings)
    if isinstance(each.type, type) and is_dataclass(each.type)
}
SETTINGS: Final[Mapping[str, Setting]] = {
    f"{section}.{each.name}": Setting(get_args(each.type)[1], each.default, each.metadata["doc"])
    for section, tree in _SECTIONS.items()
    for each in fields(tree)
}
_HEADINGS = [f"[{section}]" for section in _SECTIONS]
_PREFIX = "MOORAGE_"
_VARIABLES = {f"{_PREFIX}{key.upper().replace('.', '__')}": key for key in SETTINGS}
_SLIPS = {name.replace("__", "_") for name in _VARIABLES}


class _Given(NamedTuple):
    """A value that someone wrote, under a key that may be wrong."""

    key: str
    value: Any
    origin: Origin
    where: str


def load(
    *,
    config: Path | None,
    data: Path | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Gather the settings; `overrides` are options, `http.listen` to text.

    Raises ConfigError, which names all that is wrong: keys, values, and where they were written.
    """
    if environ is None:
        environ = os.environ
    data = (data or Path(environ.get("MOORAGE_DATA") or "data")).absolute()
    source, document = _read_document(config, data, environ)
    values = {key: setting.default for key, setting in SETTINGS.items()}
    origins: dict[str, Origin] = dict.fromkeys(SETTINGS, "default")
    problems = []
    for given in (
        *_from_document(document, f"file {source}"),
        *_from_environment(environ),
        *(_Given(key, text, "option", "command line") for key, text in overrides.items()),
    ):
        try:
            values[given.key] = _read(given)
            origins[given.key] = given.origin
        except ConfigError as problem:
            problems.append(problem.message)
    _refuse(problems)
    sections: dict[str, Any] = {
        section: tree(**{each.name: values[f"{section}.{each.name}"] for each in fields(tree)})
        for section, tree in _SECTIONS.items()
    }
    settings = Settings(data=data, source=source, origins=origins, **sections)
    _refuse(list(_conflicts(settings)))
    return settings


def require_safe_listen(settings: Settings) -> None:
    """Raise ConfigError if other machines could push without signing in and nobody wrote so."""
    host, _ = settings.http.address
    if settings.auth.mode == "none" or host.lower() == "localhost":
        return
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f'http.listen = "{settings.http.listen}" lets other machines push without signing in.'
            ' Either listen on this machine only: http.listen = "127.0.0.1:5000".'
            ' Or allow it in writing: [auth] mode = "none" in the settings file,'
            " or MOORAGE_AUTH__MODE=none in the environment."
        )


def show(settings: Settings) -> dict[str, Any]:
    """Return the settings in force as JSON takes them, in the units of people, without secrets."""
    shown: dict[str, Any] = {
        "data": str(settings.data),
        "config": str(settings.source) if settings.source else None,
    }
    effective = {
        "storage.root": str(settings.storage_root),
        "database.url": settings.database_url,
    }
    for key, setting in SETTINGS.items():
        section, name = key.split(".")
        value = effective.get(key, getattr(getattr(settings, section), name))
        shown.setdefault(section, {})[name] = setting.kind.show(value)
    return shown


def _read_document(
    config: Path | None, data: Path, environ: Mapping[str, str]
) -> tuple[Path | None, dict[str, Any]]:
    named = config or Path(environ.get("MOORAGE_CONFIG") or "")
    path = named if named.name else data / "moorage.toml"
    try:
        return path, tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        if not named.name:
            return None, {}
        raise ConfigError(f"there is no settings file {path}") from None
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the settings file {path} is not UTF-8 (at line {line})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error


def _from_document(document: dict[str, Any], where: str) -> Iterator[_Given]:
    for section, table in document.items():
        if section in _SECTIONS and isinstance(table, dict):
            for name, value in table.items():
                yield _Given(f"{section}.{name}", value, "file", where)
        else:
            yield _Given(f"[{section}]", None, "file", where)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for name, text in environ.items():
        if key := _VARIABLES.get(name):
            yield _Given(key, text, "env", f"environment variable {name}")
        elif name.startswith(_PREFIX) and ("__" in name or name in _SLIPS):
            yield _Given(name, text, "env", "environment")


def _read(given: _Given) -> Any:
    """Return the value; raise ConfigError if its key is unknown or it does not fit."""
    if given.key not in SETTINGS:
        known = _VARIABLES if given.origin == "env" else [*SETTINGS, *_HEADINGS]
        near = get_close_matches(given.key, known, n=1, cutoff=0)
        raise ConfigError(f"unknown setting {given.key} ({given.where}); the nearest is {near[0]}")
    kind = SETTINGS[given.key].kind
    try:
        return (kind.from_toml if given.origin == "file" else kind.from_text)(given.value)
    except ValueError:
        written = given.key if kind.secret else f"{given.key} = {given.value!r}"
        raise ConfigError(f"{written} ({given.where}): expected {kind.expected}") from None


def _conflicts(settings: Settings) -> Iterator[str]:
    if settings.storage.driver == "memory" and settings.http.workers > 1:
        yield (
            'storage.driver = "memory" is the memory of one process, so http.workers must be 1,'
            f" not {settings.http.workers}"
        )
    limits = settings.limits
    if limits.tags_page > limits.tags_page_max:
        yield (
            f"limits.tags_page = {limits.tags_page} must not be above"
            f" limits.tags_page_max = {limits.tags_page_max}"
        )


def _refuse(problems: list[str]) -> None:
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError("\n  ".join([f"{len(problems)} settings are wrong:", *problems]))
