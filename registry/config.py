"""Settings from defaults, TOML file, environment and options, read once into a frozen typed tree.

Each of these sources overrides the ones before it. No other module reads the environment. Durations
are in seconds, sizes in bytes. The annotation of a field defines how its value is read and printed,
and describes it.
"""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import quote

from registry import secret_files
from registry.auth.policy.subjects import parse_user_name
from registry.auth.settings import LONGEST_PASSWORD, SHORTEST_PASSWORD, TLS_REMEDY
from registry.auth.tokens.oidc_settings import Oidc
from registry.database_url import DatabaseUrl
from registry.errors import AccountNameInvalidError, ConfigError
from registry.metadata.engine.pool_settings import PoolSettings
from registry.services.gc.untagged import Rules as UntaggedTable
from registry.services.gc.untagged import Untagged
from registry.units import (
    Count,
    Credential,
    Duration,
    ExternalUrl,
    Flag,
    Limit,
    LinkLife,
    Listen,
    Networks,
    OptionalListen,
    Origins,
    PartSize,
    Secret,
    ServiceName,
    SettingType,
    Size,
    Text,
    Timeout,
    TokenLife,
    Url,
    Window,
    choice,
    is_loopback,
    parse_endpoint,
    parse_unix,
)

Source = Literal["default", "file", "credential", "env", "option"]
Driver = Literal["local", "memory", "s3"]
OldDriver = Literal["", "local", "s3"]
Encryption = Literal["", "AES256", "aws:kms"]
AuthMode = Literal["", "none", "token"]
KeyPlace = Literal["auto", "file", "database"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """`[http]`: listeners, TLS and connections."""

    listen: Annotated[
        Listen, "Address to serve on; no host means all addresses, port 0 any free port."
    ] = "127.0.0.1:5000"
    ops_listen: Annotated[
        OptionalListen, "Second address, by plain HTTP, for health checks and metrics; empty: none."
    ] = ""
    workers: Annotated[Count, "Processes that answer requests."] = 1
    external_url: Annotated[
        ExternalUrl, "The registry as clients reach it; empty: as each request says."
    ] = ""
    cors_origins: Annotated[
        Origins, "Origins of web pages that may use the registry; `*`: all, without passwords."
    ] = ()
    trusted_proxies: Annotated[
        Networks, "Proxies whose word on a client's address and scheme is believed."
    ] = ()
    tls_cert: Annotated[
        Text, "File of the certificate and its chain, from the data directory; empty: no TLS."
    ] = ""
    tls_key: Annotated[Text, "File of the certificate's key, from the data directory."] = ""
    tls_client_ca: Annotated[
        Text,
        "File of the authorities of client certificates, from the data directory; empty: none.",
    ] = ""
    shutdown_delay: Annotated[
        Duration, "How long a stopping server takes requests on, and says it is not ready."
    ] = 0.0
    drain_timeout: Annotated[Duration, "How long a stopping server lets requests finish."] = 30.0
    body_idle_timeout: Annotated[Timeout, "How long a request body may deliver nothing."] = 30.0
    keep_alive_timeout: Annotated[
        Timeout, "How long an idle connection stays open; longer than proxies keep theirs."
    ] = 75.0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`.

        The host has no brackets and is empty for all addresses. A Unix socket counts as localhost,
        because only this machine can connect to it.
        """
        return ("localhost", 0) if parse_unix(self.listen) else parse_endpoint(self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings that all stores share."""

    driver: Annotated[str, choice(Driver), "What keeps the bytes."] = ""
    name: Annotated[Text, "What rows call the store; empty: as its driver."] = ""
    root: Annotated[Text, "Folder of the blobs, from the data directory; empty: `storage`."] = ""
    min_free_space: Annotated[Size, "Space of the disk that uploads leave free."] = 64 << 20
    bucket: Annotated[Text, "Name of the S3 bucket."] = ""
    prefix: Annotated[Text, "Begin of all keys in the bucket; empty: all of it is the store."] = ""
    endpoint: Annotated[Url, "Address of the S3 server; empty: Amazon's."] = ""
    region: Annotated[Text, "Region of the bucket; empty: as the AWS variables and files say."] = ""
    access_key: Annotated[Credential, "Access key; empty: as the AWS variables and files say."] = ""
    secret_key: Annotated[Secret, "The secret that belongs to it."] = field(default="", repr=False)
    path_style: Annotated[Flag, "Name the bucket in the path, not in the host."] = False
    sse: Annotated[
        Encryption, choice(Encryption), "Encryption by the store; empty: as the bucket has it."
    ] = ""
    storage_class: Annotated[Text, "Storage class of objects; empty: the bucket's."] = ""
    part_size: Annotated[PartSize, "Bytes sent to the bucket at once."] = 16 << 20
    upload_concurrency: Annotated[Count, "Parts that a process has in memory at once."] = 4
    redirect: Annotated[Flag, "Send clients to the bucket for the bytes of blobs."] = False
    redirect_lifetime: Annotated[LinkLife, "How long a client may use what it was sent to."] = (
        1200.0
    )
    redirect_endpoint: Annotated[
        Url, "Address of the S3 server for clients; empty: that of the registry."
    ] = ""

    @property
    def store_name(self) -> str:
        """Name of the store in database rows."""
        return self.name or self.driver


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings(StoreSettings):
    """`[storage]`: the store of blobs."""

    driver: Annotated[
        Driver,
        choice(Driver),
        "Files on disk, an S3 bucket, or the memory of one process, gone when it ends.",
    ] = "local"
    upload_expiry: Annotated[Timeout, "How long an upload session lives without a request."] = (
        86_400.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OldStorageSettings(StoreSettings):
    """`[old_storage]`: the store that blobs are moved from."""

    driver: Annotated[
        OldDriver, choice(OldDriver), "As `storage.driver`; empty: no such store."
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """`[database]`: the metadata database."""

    url: Annotated[
        DatabaseUrl, "SQLAlchemy URL; empty: the SQLite file `moorage.db` in the data directory."
    ] = field(default="", repr=False)
    read_connections: Annotated[Count, "Connections of a process to PostgreSQL that read."] = 5
    write_connections: Annotated[Count, "Connections of a process to PostgreSQL that write."] = 3
    transaction_pooling: Annotated[
        Flag, "A pooler such as PgBouncer gives each transaction another session of PostgreSQL."
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """`[auth]`: authentication and authorization."""

    mode: Annotated[
        AuthMode,
        choice(AuthMode),
        "`token`: all sign in; `none`: nobody does; empty: all do as soon as there is a user.",
    ] = ""
    service: Annotated[ServiceName, "What this registry is called in its own tokens."] = "moorage"
    token_lifetime: Annotated[TokenLife, "How long a token of this registry is good."] = 300.0
    refresh_tokens: Annotated[
        Flag, "Give clients a refresh token at login; false: they keep the password."
    ] = True
    personal_namespaces: Annotated[
        Flag, "Let a user do everything in repositories below her own name."
    ] = False
    key_store: Annotated[
        KeyPlace,
        choice(KeyPlace),
        "Where private keys are: `file`, in the data directory; `database`, shared by replicas; "
        "`auto`: in files beside an embedded database, else in the database.",
    ] = "auto"
    secret: Annotated[Secret, "What encrypts private keys in the database; 32 characters."] = field(
        default="", repr=False
    )
    admin_user: Annotated[Text, "Name of the admin that `auth.admin_password` adds."] = "admin"
    admin_password: Annotated[
        Secret, "Password of an admin that `serve` adds if there is no user; empty: it adds none."
    ] = field(default="", repr=False)
    audit_retention: Annotated[Duration, "How long the audit log is kept."] = 365 * 86_400.0
    issuer: Annotated[Text, "Who makes the tokens of outside: their `iss`, exactly."] = ""
    audience: Annotated[Text, "Whom those tokens are for: their `aud`, and the service named."] = ""
    realm: Annotated[Url, "Where clients get those tokens; empty: at this registry."] = ""
    jwks_url: Annotated[Url, "Where the keys of that issuer are; empty: no such issuer."] = ""
    jwks_file: Annotated[Text, "Or the file they are in, from the data directory."] = ""
    local_users: Annotated[
        Flag, "Sign in with the users of this registry; false: only the outside issuer's tokens."
    ] = True
    allow_private_addresses: Annotated[
        Flag, "Fetch keys from private addresses too, and there by http."
    ] = False
    ca_file: Annotated[
        Text, "Authorities to trust beside the system's for that, from the data directory."
    ] = ""
    jwks_refresh_interval: Annotated[
        Timeout, "How often the keys of outside issuers are fetched."
    ] = 900.0
    oidc: Annotated[Oidc, "Issuers whose ID tokens are exchanged for tokens of robots."] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSettings:
    """`[content]`: rules for pushes and deletions."""

    allow_sparse_index: Annotated[Flag, "Accept an index without the manifests it names."] = False
    allow_sparse_image: Annotated[Flag, "Accept an image without the blobs it names."] = False
    allow_delete: Annotated[Flag, "Accept deletions."] = True
    read_only: Annotated[Flag, "Refuse every change."] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GcSettings:
    """`[gc]`: garbage collection of unreferenced content."""

    grace_period: Annotated[
        Timeout, "How long it stays after it was last pushed, asked for or used."
    ] = 86_400.0
    interval: Annotated[Timeout, "How often there is a look at what may have to go."] = 60.0
    untagged: Annotated[
        Untagged, choice(Untagged), "What happens to manifests that nothing refers to."
    ] = "keep"
    rules: Annotated[UntaggedTable, "The same for the repositories of a pattern."] = ()
    limit_deletions: Annotated[Limit, "Manifests and blobs that go a second at the most."] = 0
    limit_rate: Annotated[Size, "Bytes of blobs that go a second at the most; 0B: no limit."] = 0
    window: Annotated[
        Window, "The part of the day, by the clock of the machine, in which they go; empty: all."
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """`[limits]`: limits on requests, connections and memory."""

    page_size: Annotated[Count, "Entries of a page of tags or repositories by default."] = 10_000
    max_page_size: Annotated[Count, "Most entries of a page that a request gets."] = 10_000
    connections: Annotated[Count, "Open connections of a process."] = 8192
    connections_per_address: Annotated[
        Limit, "Open connections of a process from one client address; 0: no limit."
    ] = 2048
    requests_per_second: Annotated[
        Limit, "Requests a second from an address, and of a principal."
    ] = 0
    failed_sign_ins: Annotated[
        Limit, "Failed sign-ins in five minutes at an account from an address, and from all."
    ] = 30
    uploads_per_minute: Annotated[
        Limit, "Uploads begun a minute from an address, and by a principal."
    ] = 0
    manifest_cache_size: Annotated[Size, "Memory of a process for manifests asked for lately."] = (
        64 << 20
    )
    request_memory: Annotated[
        Size,
        "Memory of a process for bodies above 16 KiB that are read whole: of manifests, above all.",
    ] = 32 << 20
    response_memory: Annotated[
        Size, "Memory of a process for manifests and lists of referrers that are being sent."
    ] = 32 << 20
    open_uploads: Annotated[Limit, "Upload sessions that a principal may have open."] = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSettings:
    """`[jobs]`: background jobs."""

    in_serve: Annotated[Flag, "Run them in `serve`; false: `moorage worker` does."] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubSettings:
    """`[scrub]`: verification of stored blobs against their digests."""

    enabled: Annotated[Flag, "Scrub in the background."] = True
    interval: Annotated[Timeout, "How often all blobs are read."] = 30 * 86_400.0
    limit_rate: Annotated[Size, "Bytes read a second at the most; `0B`: no limit."] = 20 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """`[upstream]`: a registry with the same repositories, from which damaged blobs are healed."""

    url: Annotated[
        Url, "Where it is; a path is put before the names of repositories. Empty: nowhere."
    ] = ""
    username: Annotated[Text, "Who signs in there; empty: nobody."] = ""
    password: Annotated[Secret, "The password or token that belongs to it."] = field(
        default="", repr=False
    )
    allow_private_addresses: Annotated[
        Flag, "It may have a private address, and may be called by http there."
    ] = False
    ca_file: Annotated[
        Text, "Authorities to trust beside the system's, from the data directory."
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """`[retention]`: deletion of tags and manifests by rules."""

    interval: Annotated[Timeout, "How often the rules are applied."] = 3600.0
    pull_flush_interval: Annotated[Timeout, "How often the times of pulls are written."] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: log records on standard error."""

    format: Annotated[
        LogFormat, choice(LogFormat), "Lines for people, or one JSON object a line."
    ] = "text"
    level: Annotated[LogLevel, choice(LogLevel), "The least that is written."] = "info"
    access: Annotated[Flag, "A line at level info for each request."] = True
    probes: Annotated[
        Flag, "Such a line also for /healthz, /readyz and /metrics when all is well."
    ] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `data` is an absolute path; `source` is the TOML file, if there is one."""

    data: Path
    http: HttpSettings
    storage: StorageSettings
    old_storage: OldStorageSettings
    database: DatabaseSettings
    auth: AuthSection
    content: ContentSettings
    gc: GcSettings
    limits: LimitsSettings
    jobs: JobsSettings
    scrub: ScrubSettings
    upstream: UpstreamSettings
    retention: RetentionSettings
    log: LogSettings
    source: Path | None
    origins: Mapping[str, Source] = field(repr=False, compare=False)
    """Source of the value of each `section.key`."""
    secret_files: tuple[Path, ...] = field(default=(), repr=False, compare=False)
    """Files from which secrets were read."""

    @property
    def storage_root(self) -> Path:
        """Folder of the blobs in a local store."""
        return self.find_root(self.storage)

    def find_root(self, store: StoreSettings) -> Path:
        """Return the folder of the blobs of a local store."""
        return self.data / (store.root or "storage")

    def list_files(self) -> dict[str, Path]:
        """Return the files that must exist before a server starts, keyed by setting."""
        auth = self.auth
        named = {
            "http.tls_cert": self.http.tls_cert,
            "http.tls_key": self.http.tls_key,
            "http.tls_client_ca": self.http.tls_client_ca,
            "auth.jwks_file": auth.jwks_file,
            "auth.ca_file": auth.ca_file,
            "upstream.ca_file": self.upstream.ca_file,
        }
        named |= {f"auth.oidc[{n}].jwks_file": each.jwks_file for n, each in enumerate(auth.oidc)}
        return {key: self.data / name for key, name in named.items() if name}

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database, including the password."""
        return self.database.url or f"sqlite:///{quote(str(self.data / 'moorage.db'))}"

    @property
    def pool(self) -> PoolSettings:
        """Connection pool settings of a process for PostgreSQL."""
        given = self.database
        return PoolSettings(
            given.read_connections, given.write_connections, given.transaction_pooling
        )


class Setting(NamedTuple):
    """Type, description and default of a setting."""

    kind: SettingType
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
MIN_SECRET_LENGTH = 32
_PREFIX = "MOORAGE_"
FILE_KEYS: Final[Mapping[str, str]] = {
    f"{key}_file": key for key, setting in SETTINGS.items() if setting.kind.has_file
}
"""Key of the secret for each key that names a secret file."""

_VARIABLES = {f"{_PREFIX}{key.upper().replace('.', '__')}": key for key in (*SETTINGS, *FILE_KEYS)}
_NEAR_MISSES = {name.replace("__", "_") for name in _VARIABLES}


class _RawValue(NamedTuple):
    """An unvalidated value from one source, which `where` names. The key may be unknown."""

    key: str
    value: Any
    origin: Source
    where: str


def load(
    *,
    config: Path | None,
    data: Path | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings from all sources.

    `overrides` holds the command-line options as text, by key, such as `http.listen`. Raises
    ConfigError, which lists every wrong key and value with its source.
    """
    if environ is None:
        environ = os.environ
    data = (data or Path(environ.get("MOORAGE_DATA") or "data")).absolute()
    source, document = _read_document(config, data, environ)
    values = {key: setting.default for key, setting in SETTINGS.items()}
    origins: dict[str, Source] = dict.fromkeys(SETTINGS, "default")
    problems: list[str] = []
    secret_files: list[Path] = []
    for source_values in (
        list(_from_document(document, f"file {source}")),
        list(_from_credentials(environ)),
        list(_from_environment(environ)),
        [_RawValue(key, text, "option", "command line") for key, text in overrides.items()],
    ):
        problems.extend(_list_doubles(source_values))
        for given in source_values:
            try:
                key = FILE_KEYS.get(given.key, given.key)
                if key != given.key:
                    secret_files.append(data / str(given.value))
                values[key] = _read(given, data)
                origins[key] = given.origin
            except ConfigError as problem:
                problems.append(problem.message)
    _raise_if_any(problems)
    sections: dict[str, Any] = {
        section: tree(**{each.name: values[f"{section}.{each.name}"] for each in fields(tree)})
        for section, tree in _SECTIONS.items()
    }
    settings = Settings(
        data=data, source=source, origins=origins, secret_files=tuple(secret_files), **sections
    )
    _raise_if_any(list(_conflicts(settings)))
    return settings


def find_log_format(
    *, config: Path | None, data: Path | None, environ: Mapping[str, str] | None = None
) -> str:
    """Return `log.format` even if other settings are wrong; `text` if it cannot be read."""
    if environ is None:
        environ = os.environ
    if written := environ.get("MOORAGE_LOG__FORMAT"):
        return "json" if written == "json" else "text"
    data = (data or Path(environ.get("MOORAGE_DATA") or "data")).absolute()
    try:
        _, document = _read_document(config, data, environ)
    except ConfigError:
        return "text"
    log = document.get("log")
    return "json" if isinstance(log, dict) and log.get("format") == "json" else "text"


@dataclass(frozen=True, slots=True)
class SignInVariables:
    """Credentials in the environment for signing in to a remote registry."""

    password: str = field(repr=False)
    token: str = field(repr=False)


def read_sign_in(environ: Mapping[str, str] | None = None) -> SignInVariables:
    """Return MOORAGE_PASSWORD and MOORAGE_TOKEN; an unset variable is empty."""
    if environ is None:
        environ = os.environ
    return SignInVariables(environ.get("MOORAGE_PASSWORD", ""), environ.get("MOORAGE_TOKEN", ""))


def read_passphrase(environ: Mapping[str, str] | None = None) -> str:
    """Return MOORAGE_BACKUP_PASSPHRASE, which encrypts the keys in a backup; empty if unset."""
    if environ is None:
        environ = os.environ
    return environ.get("MOORAGE_BACKUP_PASSPHRASE", "")


def require_safe_listen(settings: Settings, has_users: Callable[[], bool]) -> None:
    """Raise ConfigError if the registry would be open to other machines without any user.

    Nobody could sign in, or other machines could push without signing in. The check passes if
    `auth.mode = "none"` allows this, an external issuer is set, or `serve` adds an admin.
    """
    auth = settings.auth
    outside = bool(auth.jwks_url or auth.jwks_file)
    if auth.mode == "none" or outside or auth.admin_password:
        return
    if is_loopback(settings.http.address[0]) or has_users():
        return
    hide = f"So that nobody reads passwords on their way, {TLS_REMEDY}.\n"
    raise ConfigError(
        f'http.listen = "{settings.http.listen}" is open to other machines, and there are no users'
        " who could sign in. Run these two:\n"
        f"  moorage user add NAME --admin --data {settings.data}\n"
        f"  moorage serve --listen {settings.http.listen} --data {settings.data}\n"
        "Without a terminal, let serve add the first admin, with the password in the file that"
        " MOORAGE_AUTH__ADMIN_PASSWORD_FILE names.\n"
        f"{hide if sends_passwords_in_clear(settings) else ''}"
        'To let everybody push without signing in, write it down: [auth] mode = "none" in the'
        " settings file, or MOORAGE_AUTH__MODE=none in the environment."
    )


def sends_passwords_in_clear(settings: Settings) -> bool:
    """Return whether other machines sign in and no setting indicates that they use TLS."""
    http = settings.http
    return (
        settings.auth.mode != "none"
        and not is_loopback(http.address[0])
        and not http.tls_cert
        and not http.trusted_proxies
        and not http.external_url.startswith("https:")
    )


def show(settings: Settings) -> dict[str, Any]:
    """Return the effective settings as JSON values, with readable units and masked secrets."""
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


def _from_document(document: dict[str, Any], where: str) -> Iterator[_RawValue]:
    for section, table in document.items():
        if not isinstance(table, dict):
            yield _RawValue(f'"{section}"', table, "file", where)
        elif section not in _SECTIONS:
            yield _RawValue(f"[{section}]", table, "file", where)
        else:
            for name, value in table.items():
                yield _RawValue(f"{section}.{name}", value, "file", where)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_RawValue]:
    for name, text in environ.items():
        if key := _VARIABLES.get(name):
            yield _RawValue(key, text, "env", f"environment variable {name}")
        elif name.startswith(_PREFIX) and ("__" in name or name in _NEAR_MISSES):
            yield _RawValue(name, text, "env", "environment")


def _from_credentials(environ: Mapping[str, str]) -> Iterator[_RawValue]:
    """Yield the credentials of the systemd unit that are named after settings (systemd.exec(5))."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return
    for name, key in FILE_KEYS.items():
        path = Path(folder) / key
        if path.is_file():
            yield _RawValue(name, str(path), "credential", f"credential {key}")


def _list_doubles(given: list[_RawValue]) -> Iterator[str]:
    """Yield a message for each secret that one source sets both as a value and as a file."""
    keys = {each.key for each in given}
    for name, key in FILE_KEYS.items():
        if name in keys and key in keys:
            where = next(each.where for each in given if each.key == name)
            yield f"{key} and {name} exclude each other: set one ({where})"


def _read(given: _RawValue, data: Path) -> Any:
    """Return the parsed value.

    Raises ConfigError if the key is unknown or the value is invalid.
    """
    if given.key in FILE_KEYS:
        return _read_file(given, data)
    if given.key not in SETTINGS:
        headings = [f"[{section}]" for section in _SECTIONS]
        names = (*SETTINGS, *FILE_KEYS, *headings, *_VARIABLES)
        known = {name.upper(): name for name in names}
        near = known[get_close_matches(given.key.upper(), known, n=1, cutoff=0)[0]]
        raise ConfigError(f"unknown setting {given.key} ({given.where}); the nearest is {near}")
    kind = SETTINGS[given.key].kind
    try:
        return (kind.from_toml if given.origin == "file" else kind.from_text)(given.value)
    except ConfigError as problem:  # the message starts with the position inside the value
        raise ConfigError(f"{given.key}{problem.message} ({given.where})") from None
    except ValueError:
        written = given.key if kind.secret else f"{given.key} = {given.value!r}"
        raise ConfigError(f"{written} ({given.where}): expected {kind.expected}") from None


def _read_file(given: _RawValue, data: Path) -> Any:
    """Return the value in the file that a setting names; a relative path is relative to `data`."""
    if not isinstance(given.value, str) or not given.value:
        raise ConfigError(f"{given.key} ({given.where}): expected the path of a file")
    path = data / given.value
    try:
        text = secret_files.read(path)
    except ConfigError as problem:
        raise ConfigError(f"{given.key} ({given.where}): {problem.message}") from None
    kind = SETTINGS[FILE_KEYS[given.key]].kind
    try:
        return kind.from_text(text)
    except ConfigError as problem:
        raise ConfigError(f"{given.key}{problem.message} ({path}, {given.where})") from None
    except ValueError:
        raise ConfigError(
            f"{given.key} ({given.where}): {path} must contain {kind.expected}"
        ) from None


def _conflicts(settings: Settings) -> Iterator[str]:
    if settings.storage.driver == "memory" and settings.http.workers > 1:
        yield (
            'storage.driver = "memory" is the memory of one process, so http.workers must be 1,'
            f" not {settings.http.workers}"
        )
    yield from _bucket_conflicts("storage", settings.storage)
    yield from _old_storage_conflicts(settings)
    http = settings.http
    if bool(http.tls_cert) != bool(http.tls_key):
        there, missing = ("tls_cert", "tls_key") if http.tls_cert else ("tls_key", "tls_cert")
        yield f"http.{there} is of use only with http.{missing}: set both, or neither"
    elif http.tls_client_ca and not http.tls_cert:
        yield "http.tls_client_ca is of use only with http.tls_cert and http.tls_key: set all three"
    if http.ops_listen and http.ops_listen == http.listen:
        yield "http.ops_listen must be another address than http.listen"
    if settings.auth.secret and len(settings.auth.secret) < MIN_SECRET_LENGTH:
        yield (
            f"auth.secret has less than {MIN_SECRET_LENGTH} characters; "
            "make one: openssl rand -hex 32"
        )
    yield from _first_admin_conflicts(settings.auth)
    yield from _issuer_conflicts(settings.auth)
    yield from _upstream_conflicts(settings.upstream)
    limits = settings.limits
    if limits.page_size > limits.max_page_size:
        yield (
            f"limits.page_size = {limits.page_size} must not be above"
            f" limits.max_page_size = {limits.max_page_size}"
        )


def _first_admin_conflicts(auth: AuthSection) -> Iterator[str]:
    try:
        parse_user_name(auth.admin_user)
    except AccountNameInvalidError as error:
        yield f"auth.admin_user: {error.message}"
    if not auth.admin_password:
        return
    if not SHORTEST_PASSWORD <= len(auth.admin_password) <= LONGEST_PASSWORD:
        yield f"auth.admin_password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
    if auth.mode == "none" or not auth.local_users:
        why = 'auth.mode = "none"' if auth.mode == "none" else "auth.local_users = false"
        yield f"auth.admin_password is of no use with {why}: remove one of them"


def _bucket_conflicts(section: str, store: StoreSettings) -> Iterator[str]:
    if store.driver == "s3" and not store.bucket:
        yield f'{section}.driver = "s3" needs {section}.bucket'
    if store.driver != "s3" and store.bucket:
        yield f'{section}.bucket is of use only with {section}.driver = "s3"'
    if store.driver != "s3" and store.redirect:
        yield f'{section}.redirect is of use only with {section}.driver = "s3"'
    if store.redirect_endpoint and not store.redirect:
        yield f"{section}.redirect_endpoint is of use only with {section}.redirect = true"
    if bool(store.access_key) != bool(store.secret_key):
        there, missing = (
            ("access_key", "secret_key") if store.access_key else ("secret_key", "access_key")
        )
        yield f"{section}.{there} is of use only with {section}.{missing}: set both, or neither"


def _old_storage_conflicts(settings: Settings) -> Iterator[str]:
    new, old = settings.storage, settings.old_storage
    if not old.driver:
        for each in fields(old):
            if getattr(old, each.name) != each.default:
                yield f"old_storage.{each.name} is of use only with old_storage.driver"
        return
    yield from _bucket_conflicts("old_storage", old)
    if old.store_name == new.store_name:
        yield (
            f'storage and old_storage are both called "{new.store_name}": give [storage] a name of '
            f'its own, such as storage.name = "{new.store_name}-2", and leave the old one as it is'
        )
    if _location(settings, old) == _location(settings, new):
        yield "storage and old_storage are the same place: nothing could be moved"


def _location(settings: Settings, store: StoreSettings) -> tuple[str, ...]:
    """Return a key that is equal for two stores at the same location."""
    if store.driver == "s3":
        return "s3", store.endpoint, store.bucket, store.prefix.strip("/")
    return store.driver, str(settings.find_root(store).resolve())


def _upstream_conflicts(upstream: UpstreamSettings) -> Iterator[str]:
    if upstream.url.startswith("http:") and not upstream.allow_private_addresses:
        yield (
            f'upstream.url = "{upstream.url}" must be https, or upstream.allow_private_addresses be'
            " true"
        )
    if bool(upstream.username) != bool(upstream.password):
        yield "upstream.username and upstream.password belong together: set both, or neither"
    if not upstream.url and upstream != UpstreamSettings():
        yield "[upstream] is of use only with upstream.url"


def _issuer_conflicts(auth: AuthSection) -> Iterator[str]:
    has_keys = bool(auth.jwks_url or auth.jwks_file)
    if auth.jwks_url and auth.jwks_file:
        yield "auth.jwks_url and auth.jwks_file exclude each other: set one"
    for name, value in (("issuer", auth.issuer), ("audience", auth.audience)):
        if has_keys and not value:
            yield f"auth.{name} is needed beside auth.jwks_url or auth.jwks_file"
        elif value and not has_keys:
            yield f"auth.{name} is of use only with auth.jwks_url or auth.jwks_file"
    if has_keys and auth.issuer == auth.service:
        yield "auth.issuer is what this registry calls itself: set auth.service to something else"
    if auth.realm and not has_keys:
        yield "auth.realm is of use only with auth.jwks_url or auth.jwks_file"
    if not auth.local_users:
        yield from _foreign_only_conflicts(auth)
    for name, url in _places_of_keys(auth):
        if url.startswith("http:") and not auth.allow_private_addresses:
            yield f'{name} = "{url}" must be https, or auth.allow_private_addresses be true'


def _foreign_only_conflicts(auth: AuthSection) -> Iterator[str]:
    if not (auth.realm and (auth.jwks_url or auth.jwks_file)):
        yield (
            "auth.local_users = false needs an external issuer: set auth.issuer, auth.audience,"
            " auth.realm, and auth.jwks_url or auth.jwks_file"
        )
    if auth.oidc:
        yield (
            "auth.oidc needs robots, and auth.local_users = false allows none: remove one of both"
        )


def _places_of_keys(auth: AuthSection) -> Iterator[tuple[str, str]]:
    yield "auth.jwks_url", auth.jwks_url
    for index, oidc in enumerate(auth.oidc):
        yield f"auth.oidc[{index}].issuer", oidc.issuer
        yield f"auth.oidc[{index}].jwks_url", oidc.jwks_url


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        heading = [f"{len(problems)} settings are wrong:"] if problems[1:] else []
        raise ConfigError("\n  ".join([*heading, *problems]), problems)
