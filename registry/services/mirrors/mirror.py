"""A mirror as it is configured: its prefix, its upstream and its options."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from registry.auth.policy.principals import MIRROR, Principal
from registry.errors import ConflictError
from registry.metadata.mirrors.mirrors import MirrorRow
from registry.oci.names import RepositoryName
from registry.services.mirrors.options import MirrorOptions
from registry.services.mirrors.presets import DOCKER_HUB, LIBRARY, PRESETS


class DefaultFor(StrEnum):
    """The requests that go to the default mirror: those without `ns`, or unknown `ns` as well."""

    NAMES = "names"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror. `version` differs after each change of the same mirror."""

    name: str
    prefix: RepositoryName
    url: str
    options: MirrorOptions
    password: str | None = field(default=None, repr=False)
    created_by: str = ""
    created_at: int = 0
    version: int = 0
    default_for: DefaultFor | None = field(default=None, compare=False)

    @property
    def principal(self) -> Principal:
        """The principal that stores and deletes content of this mirror."""
        return Principal(f"{MIRROR.name}:{self.name}")

    @classmethod
    def of_row(cls, row: MirrorRow) -> "Mirror":
        """Read a row. Raises ConflictError if a newer version has written its options."""
        try:
            options = msgspec.json.decode(row.options, type=MirrorOptions)
        except msgspec.ValidationError as error:
            raise ConflictError(
                f"the options of the mirror {row.name} are not those of this version: {error}; "
                "upgrade this server, or set the options again"
            ) from error
        return cls(
            row.name,
            row.prefix,
            row.url,
            options,
            row.password,
            row.created_by,
            row.created_at,
            row.changed_at,
            DefaultFor(row.default_for) if row.default_for else None,
        )

    @property
    def pattern(self) -> str:
        """The pattern of its repositories."""
        return f"{self.prefix}/**"

    @property
    def has_credentials(self) -> bool:
        """Whether content is fetched with credentials, which requires `fill`."""
        options = self.options
        return bool(self.password or options.password_file or options.credential_helper)

    @property
    def is_docker_hub(self) -> bool:
        """Whether names with one component are in the namespace `library`."""
        return urlsplit(self.url).hostname == urlsplit(PRESETS[DOCKER_HUB].url).hostname

    def find_remote(self, name: RepositoryName) -> RepositoryName | None:
        """Return the upstream repository of a repository, or None if it is not of this mirror."""
        below, prefix = str(name), f"{self.prefix}/"
        if not below.startswith(prefix):
            return None
        remote = below.removeprefix(prefix)
        return RepositoryName(self._complete(remote)) if self.options.mirrors(remote) else None

    def find_local(self, remote: RepositoryName) -> RepositoryName:
        """Return the repository that has the content of an upstream repository.

        A name that already has the prefix stays. Raises NameInvalidError if the name is too long.
        """
        text = str(remote)
        if text.startswith(f"{self.prefix}/"):
            text = text.removeprefix(f"{self.prefix}/")
        return RepositoryName.parse(f"{self.prefix}/{self._complete(text)}")

    def _complete(self, remote: str) -> str:
        return LIBRARY + remote if self.is_docker_hub and "/" not in remote else remote


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A repository of a mirror. `remote` is its name at the upstream."""

    mirror: Mirror
    name: RepositoryName
    remote: RepositoryName
