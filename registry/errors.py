"""What can go wrong, in the words of the field.

`registry.api.errors` turns each into a code and a status.
"""

from typing import Any


class RegistryError(Exception):
    """A refusal or failure with a message for people and details that help to fix it."""

    reason: str = ""
    """What another server said, bounded and escaped: for operators, never for clients."""

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


class BodyTooLargeError(RegistryError):
    """A request body above the limit."""


class BodyTypeError(RegistryError):
    """A request body that is not of the type it must have."""


class ManifestTooLargeError(BodyTooLargeError):
    """A manifest above the limit."""


class ManifestInUseError(RegistryError):
    """An index of the repository refers to the manifest."""


MOST_LISTED = 20
"""Entries that an error lists; it has the number of all."""


class ManifestContentMissingError(RegistryError):
    """A manifest names content that this repository does not have: `missing` holds the first
    digests, `count` is the number of all.
    """

    def __init__(self, missing: list[str]) -> None:
        self.missing = missing[:MOST_LISTED]
        self.count = len(missing)
        super().__init__(
            "the manifest names content that this repository does not have", self.missing
        )


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


class TooManyScopesError(UnsupportedError):
    """A request for a token with more repositories than a token holds."""


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


class TooManyRangesError(RegistryError):
    """More ranges in one request than allowed: `most`, in a header of `most_bytes`."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(
            f"a request has at most {most} ranges, in a Range header of {most_bytes} bytes",
            {"ranges": most, "header_bytes": most_bytes},
        )


class DeniedError(RegistryError):
    """The principal lacks the right."""


class QuotaExceededError(RegistryError):
    """A push that would put more into a quota than it allows."""


class ProtectedError(RegistryError):
    """A rule or a hold keeps it as it is; the message says which."""


class UnauthorizedError(RegistryError):
    """Who asks must sign in, or show more than this: `challenge` says how (RFC 9110, 11.6.1)."""

    def __init__(self, message: str, challenge: str, detail: Any = None) -> None:
        super().__init__(message, detail)
        self.challenge = challenge


class CredentialsInvalidError(RegistryError):
    """No such account, a wrong password, or a secret that was revoked or has expired."""


class GrantTypeInvalidError(RegistryError):
    """A request for a token in a way that is not offered."""


class InputInvalidError(RegistryError):
    """A value that cannot be used; the message says what can."""


class NotConfirmedError(RegistryError):
    """A person was asked whether to go on, and did not say yes."""


class RightsInvalidError(InputInvalidError):
    """Not the name of an action that can be granted."""


class PatternInvalidError(InputInvalidError):
    """Not a pattern of repository names."""


class SubjectInvalidError(InputInvalidError):
    """Nobody that a grant can be given to."""


class AccountNameInvalidError(InputInvalidError):
    """Not a name for a user, group or robot."""


class PasswordInvalidError(InputInvalidError):
    """A password that is too short, too long or holds what cannot be typed."""


class NotFoundError(RegistryError):
    """No such user, group, robot, token, grant or key."""


class ConflictError(RegistryError):
    """What is there already, or is in use, stands against it."""


class TokenInvalidError(RegistryError):
    """A token that is malformed, expired, forged or revoked."""


class TooManyRequestsError(RegistryError):
    """More requests than a limit allows; the next may come in `retry_after` whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, {"retry_after": retry_after})
        self.retry_after = retry_after


class BusyError(RegistryError):
    """The server has too much to do for this request now."""


class DatabaseUnavailableError(RegistryError):
    """The database cannot answer now. `reason`, where it is known, is for operators alone."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class NotReadyError(RegistryError):
    """The process has started and waits for its database or store."""


class DatabaseMovingError(DatabaseUnavailableError):
    """The database takes no changes: it is being copied to another, or was."""


class DatabaseFullError(DatabaseUnavailableError):
    """The database has no room for more."""


class UpstreamError(RegistryError):
    """Another server cannot be reached, may not be, or gave what cannot be used."""


class RefusedError(UpstreamError):
    """Another registry refused what was asked of it; the message is its own."""


class SchemaError(RegistryError):
    """The database schema does not fit this version: older, newer, or absent."""


class BackupError(RegistryError):
    """A backup that cannot be made, read or restored; the message says why and what to do."""


class ConfigError(RegistryError):
    """Settings that cannot be used; the message names the key and the remedy."""
