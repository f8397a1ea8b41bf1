"""The table that maps errors to HTTP responses.

Source: OCI distribution-spec, Error Codes. The registry API uses only codes of that closed list for
a 4xx. INVALID, NOT_FOUND and CONFLICT are codes of the admin API.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from registry import errors
from storage.digest import DigestInvalidError
from storage.errors import StoreError, StoreFullError

RETRY_AFTER = "5"
"""The time after which a client may retry a request that got 503 or 507, in seconds."""


class ErrorEntry(Struct, frozen=True):
    """The HTTP status, code and headers of an error."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_ALLOW_READ = (("Allow", "GET, HEAD"),)
_RETRY = (("Retry-After", RETRY_AFTER),)

# Lookup is by the classes of the exception, the most specific first.
TABLE: Mapping[type[Exception], ErrorEntry] = {
    errors.PathInvalidError: ErrorEntry(400, "NAME_INVALID"),
    errors.NameInvalidError: ErrorEntry(400, "NAME_INVALID"),
    errors.TagInvalidError: ErrorEntry(400, "NAME_INVALID"),
    errors.RepositoryUnknownError: ErrorEntry(404, "NAME_UNKNOWN"),
    DigestInvalidError: ErrorEntry(400, "DIGEST_INVALID"),
    errors.DigestMismatchError: ErrorEntry(400, "DIGEST_INVALID"),
    errors.SizeInvalidError: ErrorEntry(400, "SIZE_INVALID"),
    errors.BlobUnknownError: ErrorEntry(404, "BLOB_UNKNOWN"),
    errors.BlobInUseError: ErrorEntry(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestUnknownError: ErrorEntry(404, "MANIFEST_UNKNOWN"),
    errors.ManifestInvalidError: ErrorEntry(400, "MANIFEST_INVALID"),
    errors.BodyTooLargeError: ErrorEntry(413, "SIZE_INVALID"),
    errors.UnsupportedMediaTypeError: ErrorEntry(415, "INVALID"),
    errors.ManifestInUseError: ErrorEntry(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestContentMissingError: ErrorEntry(400, "MANIFEST_BLOB_UNKNOWN"),
    errors.UploadUnknownError: ErrorEntry(404, "BLOB_UPLOAD_UNKNOWN"),
    errors.UploadInvalidError: ErrorEntry(400, "BLOB_UPLOAD_INVALID"),
    errors.UploadBusyError: ErrorEntry(409, "BLOB_UPLOAD_INVALID"),
    errors.UploadOutOfOrderError: ErrorEntry(416, "BLOB_UPLOAD_INVALID"),
    errors.BodyStalledError: ErrorEntry(400, "BLOB_UPLOAD_INVALID"),
    errors.ClientDisconnectedError: ErrorEntry(400, "BLOB_UPLOAD_INVALID"),
    errors.RangeInvalidError: ErrorEntry(416, "SIZE_INVALID"),
    errors.TooManyRangesError: ErrorEntry(400, "UNSUPPORTED"),
    errors.PreconditionFailedError: ErrorEntry(412, "DENIED"),
    errors.TooManyTagsError: ErrorEntry(414, "UNSUPPORTED"),
    errors.PageSizeInvalidError: ErrorEntry(400, "UNSUPPORTED"),
    errors.UnsupportedError: ErrorEntry(400, "UNSUPPORTED"),
    errors.DisabledError: ErrorEntry(405, "UNSUPPORTED"),
    errors.EndpointUnknownError: ErrorEntry(404, "UNSUPPORTED"),
    errors.MethodUnknownError: ErrorEntry(405, "UNSUPPORTED"),
    errors.DeniedError: ErrorEntry(403, "DENIED"),
    errors.QuotaExceededError: ErrorEntry(403, "DENIED"),
    errors.ProtectedError: ErrorEntry(403, "DENIED"),
    errors.UnauthorizedError: ErrorEntry(401, "UNAUTHORIZED"),
    errors.CredentialsInvalidError: ErrorEntry(401, "UNAUTHORIZED"),
    errors.TokenInvalidError: ErrorEntry(401, "UNAUTHORIZED"),
    errors.GrantTypeInvalidError: ErrorEntry(400, "UNSUPPORTED"),
    errors.InputInvalidError: ErrorEntry(400, "INVALID"),
    errors.NotFoundError: ErrorEntry(404, "NOT_FOUND"),
    errors.ConflictError: ErrorEntry(409, "CONFLICT"),
    errors.TooManyRequestsError: ErrorEntry(429, "TOOMANYREQUESTS"),
    errors.BusyError: ErrorEntry(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseUnavailableError: ErrorEntry(503, "UNAVAILABLE", _RETRY),
    errors.NotReadyError: ErrorEntry(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseFullError: ErrorEntry(507, "UNAVAILABLE", _RETRY),
    errors.UpstreamError: ErrorEntry(503, "UNAVAILABLE", _RETRY),
    StoreError: ErrorEntry(503, "UNAVAILABLE", _RETRY),
    StoreFullError: ErrorEntry(507, "UNAVAILABLE", _RETRY),
}

_UNKNOWN = ErrorEntry(500, "UNKNOWN")

# Clients and people match these texts.
# Source: distribution, registry/api/errcode/register.go.
SENTENCES: Mapping[str, str] = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UPLOAD_INVALID": "blob upload invalid",
    "BLOB_UPLOAD_UNKNOWN": "blob upload unknown to registry",
    "DENIED": "requested access to the resource is denied",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "MANIFEST_BLOB_UNKNOWN": "blob unknown to registry",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_INVALID": "invalid repository name",
    "NAME_UNKNOWN": "repository name not known to registry",
    "SIZE_INVALID": "provided length did not match content length",
    "TOOMANYREQUESTS": "too many requests",
    "UNAUTHORIZED": "authentication required",
    "UNAVAILABLE": "service unavailable",
    "UNKNOWN": "unknown error",
    "UNSUPPORTED": "The operation is unsupported.",
}
"""The standard sentence of each code of the registry API. Messages begin with it."""


def write_message(code: str, reason: str) -> str:
    """Return the standard sentence of the code, with the reason after a colon if there is one."""
    sentence = SENTENCES.get(code, "")
    if not sentence or not reason:
        return sentence or reason
    return f"{sentence.removesuffix('.')}: {reason}"


def find_entry(error: Exception) -> ErrorEntry:
    """Return the table entry of an error; 500 for an unknown one, which is a bug."""
    return find_entry_of(type(error))


def find_entry_of(kind: type[Exception]) -> ErrorEntry:
    """Return the table entry of a class of errors, as above."""
    return next((TABLE[cls] for cls in kind.__mro__ if cls in TABLE), _UNKNOWN)


def error_response(error: Exception, *, standard: bool = True) -> Response:
    """Return the response to an error in the error format of the OCI distribution-spec.

    `standard` starts messages with the standard sentence of their code. The admin API has none.
    """
    entry = find_entry(error)
    body = {"errors": _entries(error, entry, standard)}
    response = Response(
        json.dumps(body, separators=(",", ":")), entry.status, media_type="application/json"
    )
    for name, value in entry.headers:
        response.headers[name] = value
    if isinstance(error, errors.MethodUnknownError | errors.DisabledError):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.RangeInvalidError):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, errors.UnauthorizedError):
        response.headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, errors.TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.UpstreamUnavailableError) and error.retry_after:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return response


def _entries(error: Exception, entry: ErrorEntry, standard: bool) -> list[dict[str, Any]]:
    detail = getattr(error, "detail", None)
    if entry is _UNKNOWN:
        reason, detail = (
            "internal error; the server log has the details under the request ID",
            None,
        )
    else:
        reason = str(error)
    details = [detail]
    if isinstance(error, errors.ManifestContentMissingError):
        more = {"count": error.count} if error.count > len(error.missing) else {}
        details = [{"digest": digest, **more} for digest in error.missing]
    message = write_message(entry.code, reason) if standard else reason
    return [{"code": entry.code, "message": message, "detail": each} for each in details]
