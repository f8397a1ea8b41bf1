"""The table that maps errors to HTTP responses.

Source: OCI distribution-spec, Error Codes. The codes of a 4xx are from that closed list.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from registry import errors
from storage.digest import DigestInvalidError
from storage.errors import StoreError, StoreFullError

RETRY_AFTER = "5"
"""The time after which a client may retry a request that got 503 or 507, in seconds."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The HTTP status, code and headers of an error."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_ALLOW_READ = (("Allow", "GET, HEAD"),)
_RETRY = (("Retry-After", RETRY_AFTER),)

# Lookup is by the classes of the exception, the most specific first.
TABLE: Mapping[type[Exception], ErrorBody] = {
    errors.PathInvalidError: ErrorBody(400, "NAME_INVALID"),
    errors.NameInvalidError: ErrorBody(400, "NAME_INVALID"),
    errors.TagInvalidError: ErrorBody(400, "NAME_INVALID"),
    errors.RepositoryUnknownError: ErrorBody(404, "NAME_UNKNOWN"),
    DigestInvalidError: ErrorBody(400, "DIGEST_INVALID"),
    errors.DigestMismatchError: ErrorBody(400, "DIGEST_INVALID"),
    errors.SizeInvalidError: ErrorBody(400, "SIZE_INVALID"),
    errors.BlobUnknownError: ErrorBody(404, "BLOB_UNKNOWN"),
    errors.BlobInUseError: ErrorBody(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestUnknownError: ErrorBody(404, "MANIFEST_UNKNOWN"),
    errors.ManifestInvalidError: ErrorBody(400, "MANIFEST_INVALID"),
    errors.BodyTooLargeError: ErrorBody(413, "SIZE_INVALID"),
    errors.UnsupportedMediaTypeError: ErrorBody(415, "INVALID"),
    errors.ManifestInUseError: ErrorBody(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestContentMissingError: ErrorBody(400, "MANIFEST_BLOB_UNKNOWN"),
    errors.UploadUnknownError: ErrorBody(404, "BLOB_UPLOAD_UNKNOWN"),
    errors.UploadInvalidError: ErrorBody(400, "BLOB_UPLOAD_INVALID"),
    errors.UploadBusyError: ErrorBody(409, "BLOB_UPLOAD_INVALID"),
    errors.UploadOutOfOrderError: ErrorBody(416, "BLOB_UPLOAD_INVALID"),
    errors.BodyStalledError: ErrorBody(400, "BLOB_UPLOAD_INVALID"),
    errors.ClientDisconnectedError: ErrorBody(400, "BLOB_UPLOAD_INVALID"),
    errors.RangeInvalidError: ErrorBody(416, "SIZE_INVALID"),
    errors.TooManyRangesError: ErrorBody(400, "UNSUPPORTED"),
    errors.PreconditionFailedError: ErrorBody(412, "DENIED"),
    errors.TooManyTagsError: ErrorBody(414, "UNSUPPORTED"),
    errors.PageSizeInvalidError: ErrorBody(400, "UNSUPPORTED"),
    errors.UnsupportedError: ErrorBody(400, "UNSUPPORTED"),
    errors.DisabledError: ErrorBody(405, "UNSUPPORTED"),
    errors.EndpointUnknownError: ErrorBody(404, "UNSUPPORTED"),
    errors.MethodUnknownError: ErrorBody(405, "UNSUPPORTED"),
    errors.DeniedError: ErrorBody(403, "DENIED"),
    errors.QuotaExceededError: ErrorBody(403, "DENIED"),
    errors.ProtectedError: ErrorBody(403, "DENIED"),
    errors.UnauthorizedError: ErrorBody(401, "UNAUTHORIZED"),
    errors.CredentialsInvalidError: ErrorBody(401, "UNAUTHORIZED"),
    errors.TokenInvalidError: ErrorBody(401, "UNAUTHORIZED"),
    errors.GrantTypeInvalidError: ErrorBody(400, "UNSUPPORTED"),
    errors.InputInvalidError: ErrorBody(400, "INVALID"),
    errors.NotFoundError: ErrorBody(404, "NOT_FOUND"),
    errors.ConflictError: ErrorBody(409, "CONFLICT"),
    errors.TooManyRequestsError: ErrorBody(429, "TOOMANYREQUESTS"),
    errors.BusyError: ErrorBody(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseUnavailableError: ErrorBody(503, "UNAVAILABLE", _RETRY),
    errors.NotReadyError: ErrorBody(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseFullError: ErrorBody(507, "UNAVAILABLE", _RETRY),
    errors.UpstreamError: ErrorBody(503, "UNAVAILABLE", _RETRY),
    StoreError: ErrorBody(503, "UNAVAILABLE", _RETRY),
    StoreFullError: ErrorBody(507, "UNAVAILABLE", _RETRY),
}

_UNKNOWN = ErrorBody(500, "UNKNOWN")

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


def find_wire(error: Exception) -> ErrorBody:
    """Return the table entry of an error; 500 for an unknown one, which is a bug."""
    return find_wire_of(type(error))


def find_wire_of(kind: type[Exception]) -> ErrorBody:
    """Return the table entry of a class of errors, as above."""
    return next((TABLE[cls] for cls in kind.__mro__ if cls in TABLE), _UNKNOWN)


def error_response(error: Exception, *, standard: bool = True) -> Response:
    """Return the response to an error in the error format of the OCI distribution-spec.

    `standard` starts messages with the standard sentence of their code. The admin API has none.
    """
    wire = find_wire(error)
    body = {"errors": _entries(error, wire, standard)}
    response = Response(
        json.dumps(body, separators=(",", ":")), wire.status, media_type="application/json"
    )
    for name, value in wire.headers:
        response.headers[name] = value
    if isinstance(error, errors.MethodUnknownError | errors.DisabledError):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.RangeInvalidError):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, errors.UnauthorizedError):
        response.headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, errors.TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _entries(error: Exception, wire: ErrorBody, standard: bool) -> list[dict[str, Any]]:
    detail = getattr(error, "detail", None)
    if wire is _UNKNOWN:
        reason, detail = "internal error; the log has more under the request id", None
    else:
        reason = str(error)
    details = [detail]
    if isinstance(error, errors.ManifestContentMissingError):
        more = {"missing": error.count} if error.count > len(error.missing) else {}
        details = [{"digest": digest, **more} for digest in error.missing]
    message = write_message(wire.code, reason) if standard else reason
    return [{"code": wire.code, "message": message, "detail": each} for each in details]
