"""Frozen tree of all settings. The package that uses a section defines its class.

Durations are in seconds, sizes in bytes. The annotation of a field defines how its value is parsed
and printed, and describes it.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import quote

from registry.auth.settings import AuthSettings
from registry.client.settings import UpstreamSettings
from registry.http.settings import HttpSettings, LimitsSettings
from registry.metadata.engine.settings import DatabaseSettings
from registry.services.content.settings import ContentSettings
from registry.services.gc.settings import GcSettings
from registry.services.maintenance.settings import ScrubSettings
from registry.services.mirrors.settings import MirrorSettings
from registry.units import (
    Count,
    Credential,
    Flag,
    LinkLifetime,
    PartSize,
    Secret,
    SettingType,
    Size,
    Text,
    Timeout,
    Url,
    choice,
)

Source = Literal["default", "file", "credential", "env", "option"]
Driver = Literal["local", "memory", "s3"]
OldDriver = Literal["", "local", "s3"]
Encryption = Literal["", "AES256", "aws:kms"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings that all stores share."""

    driver: Annotated[str, choice(Driver), "Type of the store."] = ""
    name: Annotated[Text, "Name of the store in the database. Empty: that of its driver."] = ""
    root: Annotated[
        Text, "Directory of the blobs, relative to the data directory. Empty: `storage`."
    ] = ""
    min_free_space: Annotated[Size, "Disk space that uploads leave free."] = 64 << 20
    bucket: Annotated[Text, "Name of the S3 bucket."] = ""
    prefix: Annotated[Text, "Prefix of all keys in the bucket. Empty: the whole bucket."] = ""
    endpoint: Annotated[Url, "URL of the S3 server. Empty: the Amazon endpoint of the region."] = ""
    region: Annotated[Text, "Region of the bucket. Empty: as configured for AWS."] = ""
    access_key: Annotated[
        Credential, "Access key. Empty: the standard credential chain of AWS."
    ] = ""
    secret_key: Annotated[Secret, "Secret for the access key."] = field(default="", repr=False)
    path_style: Annotated[Flag, "Put the bucket into the path instead of the host name."] = False
    sse: Annotated[
        Encryption,
        choice(Encryption),
        "Server-side encryption of objects. Empty: the default of the bucket.",
    ] = ""
    storage_class: Annotated[
        Text, "Storage class of objects. Empty: the default of the bucket."
    ] = ""
    part_size: Annotated[PartSize, "Size of the parts of larger blobs."] = 16 << 20
    upload_concurrency: Annotated[
        Count, "Maximum number of parts that a process holds in memory."
    ] = 4
    redirect: Annotated[Flag, "Redirect clients to the bucket for the bytes of blobs."] = False
    redirect_lifetime: Annotated[LinkLifetime, "How long a redirect URL is valid."] = 1200.0
    redirect_endpoint: Annotated[
        Url, "URL of the S3 server for clients. Empty: that of the registry."
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
        "Type of the store: files on disk, an S3 bucket, or the memory of a single process.",
    ] = "local"
    upload_expiry: Annotated[
        Timeout, "How long an upload session is kept after its last request."
    ] = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OldStorageSettings(StoreSettings):
    """`[old_storage]`: the store from which blobs are moved."""

    driver: Annotated[
        OldDriver, choice(OldDriver), "The same as `storage.driver`. Empty: no such store."
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSettings:
    """`[jobs]`: background jobs."""

    in_serve: Annotated[
        Flag, "Run background jobs in `serve`. If false, `moorage worker` runs them."
    ] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """`[retention]`: deletion of tags and manifests by rules."""

    interval: Annotated[Timeout, "How often the rules are applied."] = 3600.0
    pull_flush_interval: Annotated[
        Timeout, "How often a process writes the times of the last pulls."
    ] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: log records on standard error."""

    format: Annotated[
        LogFormat, choice(LogFormat), "Format: lines for people, or one JSON object a line."
    ] = "text"
    level: Annotated[LogLevel, choice(LogLevel), "Minimum log level."] = "info"
    access: Annotated[Flag, "Log a line of level info for each request."] = True
    probes: Annotated[Flag, "Log successful requests to /healthz, /readyz and /metrics too."] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `data` is an absolute path; `source` is the TOML file, if there is one."""

    data: Path
    http: HttpSettings
    storage: StorageSettings
    old_storage: OldStorageSettings
    database: DatabaseSettings
    auth: AuthSettings
    content: ContentSettings
    gc: GcSettings
    limits: LimitsSettings
    jobs: JobsSettings
    scrub: ScrubSettings
    upstream: UpstreamSettings
    mirrors: MirrorSettings
    retention: RetentionSettings
    log: LogSettings
    source: Path | None
    origins: Mapping[str, Source] = field(repr=False, compare=False)
    """Source of the value of each `section.key`."""
    secret_files: tuple[Path, ...] = field(default=(), repr=False, compare=False)
    """Files from which secrets were read."""

    @property
    def storage_root(self) -> Path:
        """Directory of the blobs in a local store."""
        return self.find_root(self.storage)

    def find_root(self, store: StoreSettings) -> Path:
        """Return the directory of the blobs of a local store."""
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


class Setting(NamedTuple):
    """Type, description and default of a setting."""

    kind: SettingType
    doc: str
    default: Any


def _setting(key: Field[Any]) -> Setting:
    _, kind, doc = get_args(key.type)
    return Setting(kind, doc, key.default)


SECTIONS: Final[Mapping[str, type[Any]]] = {
    each.name: each.type
    for each in fields(Settings)
    if isinstance(each.type, type) and is_dataclass(each.type)
}
SETTINGS: Final[Mapping[str, Setting]] = {
    f"{section}.{each.name}": _setting(each)
    for section, tree in SECTIONS.items()
    for each in fields(tree)
}
FILE_KEYS: Final[Mapping[str, str]] = {
    f"{key}_file": key for key, setting in SETTINGS.items() if setting.kind.has_file
}
"""Key of the secret for each key that names a secret file."""
