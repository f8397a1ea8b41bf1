"""What can go wrong, in the words of the field.

`registry.api.errors` turns each into a code and a status.
"""

from typing import Any


class RegistryError(Exception):
    """A refusal or failure with a message for people and details that help to fix it."""

    def __init__(self, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class PathInvalidError(RegistryError):
    """A request path that could name something else once decoded."""


class NameInvalidError(RegistryError):
    """Not a repository name."""


class TagInvalidError(RegistryError):
    """Not a tag."""


class RepositoryUnknownError(RegistryError):
    """No such repository."""


class BlobUnknownError(RegistryError):
    """No such blob in this repository."""


class BlobInUseError(RegistryError):
    """A manifest of the repository refers to the blob."""


class ManifestUnknownError(RegistryError):
    """No such manifest or tag in this repository."""


class ManifestInvalidError(RegistryError):
    """A manifest that breaks the content rules."""


class ManifestTooLargeError(RegistryError):
    """A manifest above the limit."""


class ManifestInUseError(RegistryError):
    """An index of the repository refers to the manifest."""


class ManifestContentMissingError(RegistryError):
    """A manifest names content that this repository does not have: `missing` holds the digests."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__("the manifest names content that this repository does not have", missing)
        self.missing = missing


class DigestMismatchError(RegistryError):
    """Bytes that do not have the digest they were announced with."""


class SizeInvalidError(RegistryError):
    """A body whose length is not the announced one."""


class UploadUnknownError(RegistryError):
    """No such upload session in this repository for this principal."""


class UploadInvalidError(RegistryError):
    """A request that an upload session cannot take."""


class UploadBusyError(RegistryError):
    """Another request holds the upload session."""


class UploadOutOfOrderError(RegistryError):
    """A chunk that does not start where the session ends: `offset` is that place, in bytes."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"the session has {offset} bytes; the next chunk starts there", {"offset": offset}
        )
        self.offset = offset


class BodyStalledError(RegistryError):
    """A request body that delivered nothing for too long."""


class ClientGoneError(RegistryError):
    """The client closed the connection before its body was complete."""


class TagMovedError(RegistryError):
    """The tag is not what the condition of the request says."""


class TooManyTagsError(RegistryError):
    """More tags in one push than allowed."""


class PageInvalidError(RegistryError):
    """A page size that is not a number."""


class UnsupportedError(RegistryError):
    """A request that asks for what is not offered."""


class SwitchedOffError(RegistryError):
    """A change that a setting forbids; `allowed` lists the methods that are left."""

    def __init__(self, message: str, allowed: list[str]) -> None:
        super().__init__(message, {"allowed": allowed})
        self.allowed = allowed


class EndpointUnknownError(RegistryError):
    """No endpoint has this path."""


class MethodUnknownError(RegistryError):
    """The endpoint does not take this method; `allowed` lists those it takes."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("the endpoint does not take this method", {"allowed": allowed})
        self.allowed = allowed


class RangeInvalidError(RegistryError):
    """A range that lies outside the blob, which has `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__("the range lies outside the blob", {"size": size})
        self.size = size


class DeniedError(RegistryError):
    """The principal lacks the right."""


class DatabaseUnavailableError(RegistryError):
    """The database cannot answer now."""


class DatabaseFullError(DatabaseUnavailableError):
    """The database has no room for more."""


class SchemaError(RegistryError):
    """The database schema does not fit this version: older, newer, or absent."""


class ConfigError(RegistryError):
    """Settings that cannot be used; the message names the key and the remedy."""
