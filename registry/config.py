"""Settings: defaults < TOML file < environment < options, read once into a frozen typed tree.

Nothing else reads the environment. Durations are seconds, sizes are bytes; the type of a field
says how it is read and printed and what it means.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
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
    is_loopback,
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

    listen: Annotated[
        Listen, "Address to serve on; no host means all addresses, port 0 any free port."
    ] = "127.0.0.1:5000"
    workers: Annotated[Count, "Processes that answer requests."] = 1
    external_url: Annotated[
        ExternalUrl, "The registry as clients reach it; empty: as each request says."
    ] = ""
    trusted_proxies: Annotated[
        Networks, "Proxies whose word on a client's address and scheme is believed."
    ] = ()
    drain: Annotated[Duration, "How long a stopping server lets requests finish."] = 30.0
    body_idle: Annotated[Timeout, "How long a request body may deliver nothing."] = 30.0

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets and empty for all addresses, and port of `listen`."""
        return parse_endpoint(self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """`[storage]`: where blobs are kept."""

    driver: Annotated[
        Driver, one_of(Driver), "Files on disk, or the memory of one process, gone when it ends."
    ] = "local"
    root: Annotated[Text, "Folder of the blobs, from the data folder; empty: `storage`."] = ""
    reserve: Annotated[Size, "Space of the disk that uploads leave free."] = 64 << 20
    upload_expiry: Annotated[Timeout, "How long an upload session lives without a request."] = (
        86_400.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """`[database]`: what exists and who may see it."""

    url: Annotated[
        DatabaseUrl, "SQLAlchemy URL; empty: the SQLite file `moorage.db` in the data folder."
    ] = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """`[auth]`: who may do what."""

    mode: Annotated[
        AuthMode, one_of(AuthMode), "Empty: open to this machine; `none`: open wherever it listens."
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSettings:
    """`[content]`: what may be pushed and deleted."""

    sparse_index: Annotated[Flag, "Accept an index without the manifests it names."] = False
    sparse_image: Annotated[Flag, "Accept an image without the blobs it names."] = False
    delete: Annotated[Flag, "Accept deletions."] = True
    read_only: Annotated[Flag, "Refuse every change."] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """`[limits]`: how much at once."""

    tags_page: Annotated[Count, "Entries of a page of tags or repositories by default."] = 1000
    tags_page_max: Annotated[Count, "Most entries of a page that a request gets."] = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: what is written to standard error."""

    format: Annotated[
        LogFormat, one_of(LogFormat), "Lines for people, or one JSON object a line."
    ] = "text"
    level: Annotated[LogLevel, one_of(LogLevel), "The least that is written."] = "info"
    access: Annotated[Flag, "A line at level info for each request."] = True


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
    doc: str
    default: Any


def _setting(key: Field[Any]) -> Setting:
    _, kind, doc = get_args(key.type)
    return Setting(kind, doc, key.default)


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    each.name: each.type
    for each in fields(Settings)
    if isinstance(each.type, type) and is_dataclass(each.type)
}
SETTINGS: Final[Mapping[str, Setting]] = {
    f"{section}.{each.name}": _setting(each)
    for section, tree in _SECTIONS.items()
    for each in fields(tree)
}
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
    if settings.auth.mode != "none" and not is_loopback(host):
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
    variable = environ.get("MOORAGE_CONFIG")
    named = config or (Path(variable) if variable else None)
    path = named or data / "moorage.toml"
    try:
        return path, tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        if named is None:
            return None, {}
        raise ConfigError(f"there is no settings file {path}") from None
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the settings file {path} is not UTF-8 (at line {line})") from error
    except ValueError as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error


def _from_document(document: dict[str, Any], where: str) -> Iterator[_Given]:
    for section, table in document.items():
        if not isinstance(table, dict):
            yield _Given(f'"{section}"', table, "file", where)
        elif section not in _SECTIONS:
            yield _Given(f"[{section}]", table, "file", where)
        else:
            for name, value in table.items():
                yield _Given(f"{section}.{name}", value, "file", where)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for name, text in environ.items():
        if key := _VARIABLES.get(name):
            yield _Given(key, text, "env", f"environment variable {name}")
        elif name.startswith(_PREFIX) and ("__" in name or name in _SLIPS):
            yield _Given(name, text, "env", "environment")


def _read(given: _Given) -> Any:
    """Return the value; raise ConfigError if its key is unknown or it does not fit."""
    if given.key not in SETTINGS:
        headings = [f"[{section}]" for section in _SECTIONS]
        known = {name.upper(): name for name in (*SETTINGS, *headings, *_VARIABLES)}
        near = known[get_close_matches(given.key.upper(), known, n=1, cutoff=0)[0]]
        raise ConfigError(f"unknown setting {given.key} ({given.where}); the nearest is {near}")
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
    if problems:
        heading = [f"{len(problems)} settings are wrong:"] if problems[1:] else []
        raise ConfigError("\n  ".join([*heading, *problems]), problems)
