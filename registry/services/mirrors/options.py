"""The options of a mirror.

Their input and output in the admin API and their JSON in the database are made from the types here
and the descriptions in `option_fields`.
"""

import functools
import re
from typing import Annotated, Any, Self

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import InputInvalidError
from registry.oci.platforms import Platform
from registry.services.mirrors.option_fields import FIELDS, Kind
from registry.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    parse_url,
)

FOREVER = "forever"

_HOST = re.compile(r"([a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_HELPER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_Text = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Texts = Annotated[tuple[_Text, ...], Meta(max_length=100)]
_Duration = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": "^([0-9]{1,19}(ms|s|m|h|d)|forever)$",
            "examples": ["5m", "30d", FOREVER],
        }
    ),
]
_Size = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": "^([0-9]{1,19}(B|KiB|MiB|GiB|TiB))?$",
            "examples": ["50GiB"],
        }
    ),
]
_Count = Annotated[int, Meta(ge=1, le=1000)]


def _describe(name: str) -> Meta:
    return Meta(description=FIELDS[name].description)


class MirrorOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a mirror. An empty text or list means that there is no such option."""

    hosts: Annotated[_Texts, _describe("hosts")] = ()
    username: Annotated[_Text, _describe("username")] = ""
    password_file: Annotated[_Text, _describe("password_file")] = ""
    credential_helper: Annotated[_Text, _describe("credential_helper")] = ""
    token_origins: Annotated[_Texts, _describe("token_origins")] = ()
    fallback_upstreams: Annotated[_Texts, _describe("fallback_upstreams")] = ()
    allow: Annotated[_Texts, _describe("allow")] = ()
    deny: Annotated[_Texts, _describe("deny")] = ()
    tag_ttl: Annotated[_Duration, _describe("tag_ttl")] = "5m"
    negative_ttl: Annotated[_Duration, _describe("negative_ttl")] = "1m"
    stale_for: Annotated[_Duration, _describe("stale_for")] = "30d"
    cooldown: Annotated[_Duration, _describe("cooldown")] = "0s"
    serve_new_tags: Annotated[bool, _describe("serve_new_tags")] = False
    max_size: Annotated[_Size, _describe("max_size")] = ""
    max_age: Annotated[_Duration, _describe("max_age")] = FOREVER
    max_connections: Annotated[_Count, _describe("max_connections")] = 16
    rate: Annotated[_Size, _describe("rate")] = ""
    platforms: Annotated[_Texts, _describe("platforms")] = ()
    http_proxy: Annotated[_Text, _describe("http_proxy")] = ""
    ca_file: Annotated[_Text, _describe("ca_file")] = ""
    allow_private: Annotated[bool, _describe("allow_private")] = False

    def values(self) -> dict[str, Any]:
        """Return the values of all fields by name, without those of a subclass."""
        return {name: getattr(self, name) for name in FIELDS}

    def list_given(self) -> dict[str, Any]:
        """Return the values of the fields that are not the default."""
        return {name: value for name, value in self.values().items() if value != _DEFAULTS[name]}

    def normalize(self) -> Self:
        """Return the same options, with each duration in its largest unit.

        Raises InputInvalidError if a value is invalid or contradicts another one.
        """
        given = self.list_given()
        for name, value in given.items():
            if FIELDS[name].kind is Kind.DURATION:
                given[name] = _normalize_duration(name, value)
            elif FIELDS[name].kind is Kind.SIZE:
                given[name] = _normalize_size(name, value)
        self._check_credentials()
        self._check_cooldown()
        _parse_patterns((*self.allow, *self.deny))
        for text in self.platforms:
            Platform.parse(text)
        for name in ("token_origins", "fallback_upstreams"):
            for url in getattr(self, name):
                _require_url(name, url)
        if self.http_proxy:
            _require_url("http_proxy", self.http_proxy)
        hosts = tuple(dict.fromkeys(host.lower() for host in self.hosts))
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise InputInvalidError(
                    f"hosts: {host!r:.80} is not a host; expected a form such as docker.io or "
                    "registry.example.org:5000"
                )
        return replace(self, **given | {"hosts": hosts})

    def _check_cooldown(self) -> None:
        if self.cooldown == FOREVER:
            raise InputInvalidError("cooldown: expected a duration such as 3d")
        if self.serve_new_tags and not self.cooldown_s:
            raise InputInvalidError("`serve_new_tags` requires `cooldown`")

    def _check_credentials(self) -> None:
        if self.credential_helper and not _HELPER.fullmatch(self.credential_helper):
            raise InputInvalidError(
                f"credential_helper: {self.credential_helper!r:.80} is not the name of a helper; "
                'give the name after docker-credential-, such as "ecr-login"'
            )
        if self.credential_helper and (self.username or self.password_file):
            raise InputInvalidError(
                "a credential helper returns the user name and the password; remove the others"
            )
        if self.password_file and not self.username:
            raise InputInvalidError("`password_file` requires `username`")

    @property
    def cooldown_s(self) -> float:
        """The seconds of `cooldown`."""
        return read_seconds(self.cooldown)

    @property
    def max_bytes(self) -> int | None:
        """The bytes of `max_size`."""
        return parse_size(self.max_size) if self.max_size else None

    @property
    def bytes_per_second(self) -> int:
        """The bytes of `rate`; 0 means no limit."""
        return parse_size(self.rate) if self.rate else 0

    @property
    def max_age_s(self) -> float | None:
        """The seconds of `max_age`."""
        return None if self.max_age == FOREVER else read_seconds(self.max_age)

    def mirrors(self, repository: str) -> bool:
        """Return whether an upstream repository is mirrored."""
        if any(each.matches(repository) for each in _parse_patterns(self.deny)):
            return False
        return not self.allow or any(
            each.matches(repository) for each in _parse_patterns(self.allow)
        )


@functools.lru_cache(maxsize=1024)
def _parse_patterns(texts: tuple[str, ...]) -> tuple[RepositoryPattern, ...]:
    """Parse the patterns once, because each request needs them. Raises PatternInvalidError."""
    return tuple(map(RepositoryPattern.parse, texts))


@functools.lru_cache(maxsize=1024)
def read_seconds(duration: str) -> float:
    """Return the seconds of a duration; infinity for `forever`. Raises ValueError."""
    return float("inf") if duration == FOREVER else parse_duration(duration)


def _normalize_duration(name: str, text: str) -> str:
    if text == FOREVER:
        return text
    try:
        return format_duration(parse_duration(text))
    except ValueError as error:
        raise InputInvalidError(
            f"{name}: {text!r:.80} is not a duration; expected a form such as 30s, 5m, 24h, 90d or "
            f"{FOREVER}"
        ) from error


def _normalize_size(name: str, text: str) -> str:
    try:
        return format_size(parse_size(text))
    except ValueError as error:
        raise InputInvalidError(
            f"{name}: {text!r:.80} is not a size; expected a form such as 500MiB or 50GiB"
        ) from error


def _require_url(name: str, text: str) -> None:
    try:
        parse_url(text)
    except ValueError as error:
        raise InputInvalidError(
            f"{name}: {text!r:.80} is not a URL such as https://auth.example.org"
        ) from error


_DEFAULTS = asdict(MirrorOptions())
