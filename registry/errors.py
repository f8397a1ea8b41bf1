"""Errors of the registry.

`registry.http.errors` maps each error to an error code and a status.
"""

from typing import Any


class RegistryError(Exception):
    """A refusal or failure, with a message for people and details that help to fix it."""

    reason: str = ""
    """Error text from another server, bounded and escaped. For operators, never for clients."""

    def __init__(self, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class PathInvalidError(RegistryError):
    """A request path that could name another resource after decoding."""


class NameInvalidError(RegistryError):
    """An invalid repository name."""


class TagInvalidError(RegistryError):
    """An invalid tag."""


class RepositoryUnknownError(RegistryError):
    """An unknown repository."""


class BlobUnknownError(RegistryError):
    """A blob that the repository does not have."""


class BlobInUseError(RegistryError):
    """A blob that a manifest of the repository refers to."""


class ManifestUnknownError(RegistryError):
    """A manifest or tag that the repository does not have."""


class ManifestInvalidError(RegistryError):
    """A manifest that breaks the content rules."""


class BodyTooLargeError(RegistryError):
    """A request body above the limit."""


class UnsupportedMediaTypeError(RegistryError):
    """A request body with an unsupported media type."""


class ManifestTooLargeError(BodyTooLargeError):
    """A manifest above the limit."""


class ManifestInUseError(RegistryError):
    """A manifest that an index of the repository refers to."""


MOST_LISTED = 20
"""Maximum number of entries that an error lists. The error also has the total count."""


class ManifestContentMissingError(RegistryError):
    """A manifest that refers to content that the repository does not have.

    `missing` holds the first `MOST_LISTED` digests; `count` is the number of all missing digests.
    """

    def __init__(self, missing: list[str]) -> None:
        self.missing = missing[:MOST_LISTED]
        self.count = len(missing)
        super().__init__(
            "the manifest refers to content that this repository does not have; push that first",
            self.missing,
        )


class DigestMismatchError(RegistryError):
    """Content that does not match the announced digest."""


class SizeInvalidError(RegistryError):
    """A body that does not have the announced length."""


class UploadUnknownError(RegistryError):
    """An upload session that does not exist in this repository for this principal."""


class UploadInvalidError(RegistryError):
    """A request that an upload session cannot accept."""


class UploadBusyError(RegistryError):
    """An upload session that another request is using."""


class UploadOutOfOrderError(RegistryError):
    """A chunk that does not start at the end of the session, which is at `offset` bytes."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the session has {offset} bytes; continue from there", {"offset": offset})
        self.offset = offset


class BodyStalledError(RegistryError):
    """A request body that delivered no bytes for too long."""


class ClientDisconnectedError(RegistryError):
    """A connection that the client closed before its request body was complete."""


class PreconditionFailedError(RegistryError):
    """A failed precondition: the tag does not match the condition of the request."""


class TooManyTagsError(RegistryError):
    """More tags in one push than allowed."""


class PageSizeInvalidError(RegistryError):
    """An invalid page size."""


class UnsupportedError(RegistryError):
    """A request for an operation that the registry does not support."""


class TooManyScopesError(UnsupportedError):
    """A token request with more repositories than a token can hold."""


class DisabledError(RegistryError):
    """A change that a setting disables; `allowed` lists the methods that still work."""

    def __init__(self, message: str, allowed: list[str]) -> None:
        super().__init__(message, {"allowed": allowed})
        self.allowed = allowed


class EndpointUnknownError(RegistryError):
    """A path that no endpoint has."""


class MethodUnknownError(RegistryError):
    """A method that the endpoint does not accept; `allowed` lists the accepted methods."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("the endpoint does not support this method", {"allowed": allowed})
        self.allowed = allowed


class RangeInvalidError(RegistryError):
    """A range outside the blob, which has `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__("the range is outside the blob", {"size": size})
        self.size = size


class TooManyRangesError(RegistryError):
    """A Range header with more than `most` ranges or `most_bytes` bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(
            f"a request may have at most {most} ranges, in a Range header of {most_bytes} bytes; "
            "send several",
            {"ranges": most, "header_bytes": most_bytes},
        )


class DeniedError(RegistryError):
    """A request for which the principal lacks permission."""


class QuotaExceededError(RegistryError):
    """A push that would exceed a quota."""


class ProtectedError(RegistryError):
    """A change to content that a rule or a hold protects; the message says which."""


class UnauthorizedError(RegistryError):
    """A request that needs authentication or more rights.

    `challenge` is the value of the WWW-Authenticate header (RFC 9110, 11.6.1).
    """

    def __init__(self, message: str, challenge: str, detail: Any = None) -> None:
        super().__init__(message, detail)
        self.challenge = challenge


class CredentialsInvalidError(RegistryError):
    """An unknown account, a wrong password, or a revoked or expired secret."""


class GrantTypeInvalidError(RegistryError):
    """A token request with an unsupported grant type."""


class InputInvalidError(RegistryError):
    """An invalid value; the message says which values are valid."""


class NotConfirmedError(RegistryError):
    """A confirmation that the user did not give."""


class ActionInvalidError(InputInvalidError):
    """An action that cannot be granted."""


class PatternInvalidError(InputInvalidError):
    """An invalid pattern of repository names."""


class SubjectInvalidError(InputInvalidError):
    """A subject that cannot receive a grant."""


class AccountNameInvalidError(InputInvalidError):
    """An invalid name for a user, group or robot."""


class PasswordInvalidError(InputInvalidError):
    """A password that is too short, too long, or contains characters that cannot be typed."""


class NotFoundError(RegistryError):
    """A user, group, robot, token, grant or key that does not exist."""


class ConflictError(RegistryError):
    """A conflict with an object that already exists or is in use."""


class TokenInvalidError(RegistryError):
    """A token that is malformed, expired, forged or revoked."""


class TooManyRequestsError(RegistryError):
    """A request above a rate limit; it may be retried after `retry_after` whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, {"retry_after": retry_after})
        self.retry_after = retry_after


class BusyError(RegistryError):
    """A server that is too busy to handle the request now."""


class DatabaseUnavailableError(RegistryError):
    """A database that cannot answer now. `reason`, if known, is for operators only."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class NotReadyError(RegistryError):
    """A process that has started and waits for its database or store."""


class DatabaseFrozenError(DatabaseUnavailableError):
    """A database that rejects changes because it is being copied, or was copied, to another one."""


class DatabaseFullError(DatabaseUnavailableError):
    """A database that has no space left."""


class UpstreamError(RegistryError):
    """Another server that cannot be reached, must not be called, or sent an unusable response."""


class UpstreamUnavailableError(UpstreamError):
    """An upstream registry that does not respond, fails, or is not called for now.

    `retry_after` is the number of seconds until another attempt makes sense, or 0 if unknown.
    """

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamBusyError(UpstreamUnavailableError):
    """A request to an upstream for which no connection became free in time."""


class UpstreamRateLimitedError(UpstreamUnavailableError):
    """A request above a limit of the upstream.

    `is_pull_limit` is true for a quota of pulls, and false for a limit of all requests.
    """

    def __init__(self, message: str, retry_after: float = 0, *, is_pull_limit: bool) -> None:
        super().__init__(message, retry_after)
        self.is_pull_limit = is_pull_limit


class UpstreamAddressError(UpstreamError):
    """An address that must not be called."""


class UpstreamDeniedError(UpstreamError):
    """Content that the upstream does not deliver to its configured user or anonymously."""


class UpstreamCredentialsError(UpstreamDeniedError):
    """A user name or password that the upstream refuses."""


class UpstreamUnknownError(UpstreamError):
    """Content that the upstream does not have."""


class UpstreamProtocolError(UpstreamError):
    """A response of the upstream that violates HTTP or the OCI distribution-spec."""


class UpstreamDigestError(UpstreamProtocolError):
    """Content of the upstream that does not match its digest."""


class RemoteRefusedError(UpstreamError):
    """A request that another registry refused; the message is from that registry."""


class SchemaError(RegistryError):
    """A database schema that is older or newer than this version needs, or missing."""


class BackupError(RegistryError):
    """A backup that cannot be created, read or restored; the message says why and what to do."""


class ConfigError(RegistryError):
    """Settings that cannot be used; the message names the key and the remedy."""
