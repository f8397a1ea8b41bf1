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
class Wire:
    """The HTTP status, code and headers of an error."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_ALLOW_READ = (("Allow", "GET, HEAD"),)
_RETRY = (("Retry-After", RETRY_AFTER),)

# Lookup is by the classes of the exception, the most specific first.
TABLE: Mapping[type[Exception], Wire] = {
    errors.PathInvalidError: Wire(400, "NAME_INVALID"),
    errors.NameInvalidError: Wire(400, "NAME_INVALID"),
    errors.TagInvalidError: Wire(400, "NAME_INVALID"),
    errors.RepositoryUnknownError: Wire(404, "NAME_UNKNOWN"),
    DigestInvalidError: Wire(400, "DIGEST_INVALID"),
    errors.DigestMismatchError: Wire(400, "DIGEST_INVALID"),
    errors.SizeInvalidError: Wire(400, "SIZE_INVALID"),
    errors.BlobUnknownError: Wire(404, "BLOB_UNKNOWN"),
    errors.BlobInUseError: Wire(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestUnknownError: Wire(404, "MANIFEST_UNKNOWN"),
    errors.ManifestInvalidError: Wire(400, "MANIFEST_INVALID"),
    errors.BodyTooLargeError: Wire(413, "SIZE_INVALID"),
    errors.BodyTypeError: Wire(415, "INVALID"),
    errors.ManifestInUseError: Wire(405, "UNSUPPORTED", _ALLOW_READ),
    errors.ManifestContentMissingError: Wire(400, "MANIFEST_BLOB_UNKNOWN"),
    errors.UploadUnknownError: Wire(404, "BLOB_UPLOAD_UNKNOWN"),
    errors.UploadInvalidError: Wire(400, "BLOB_UPLOAD_INVALID"),
    errors.UploadBusyError: Wire(409, "BLOB_UPLOAD_INVALID"),
    errors.UploadOutOfOrderError: Wire(416, "BLOB_UPLOAD_INVALID"),
    errors.BodyStalledError: Wire(400, "BLOB_UPLOAD_INVALID"),
    errors.ClientGoneError: Wire(400, "BLOB_UPLOAD_INVALID"),
    errors.RangeInvalidError: Wire(416, "SIZE_INVALID"),
    errors.TooManyRangesError: Wire(400, "UNSUPPORTED"),
    errors.TagMovedError: Wire(412, "DENIED"),
    errors.TooManyTagsError: Wire(414, "UNSUPPORTED"),
    errors.PageInvalidError: Wire(400, "UNSUPPORTED"),
    errors.UnsupportedError: Wire(400, "UNSUPPORTED"),
    errors.SwitchedOffError: Wire(405, "UNSUPPORTED"),
    errors.EndpointUnknownError: Wire(404, "UNSUPPORTED"),
    errors.MethodUnknownError: Wire(405, "UNSUPPORTED"),
    errors.DeniedError: Wire(403, "DENIED"),
    errors.QuotaExceededError: Wire(403, "DENIED"),
    errors.ProtectedError: Wire(403, "DENIED"),
    errors.UnauthorizedError: Wire(401, "UNAUTHORIZED"),
    errors.CredentialsInvalidError: Wire(401, "UNAUTHORIZED"),
    errors.TokenInvalidError: Wire(401, "UNAUTHORIZED"),
    errors.GrantTypeInvalidError: Wire(400, "UNSUPPORTED"),
    errors.InputInvalidError: Wire(400, "INVALID"),
    errors.NotFoundError: Wire(404, "NOT_FOUND"),
    errors.ConflictError: Wire(409, "CONFLICT"),
    errors.TooManyRequestsError: Wire(429, "TOOMANYREQUESTS"),
    errors.BusyError: Wire(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseUnavailableError: Wire(503, "UNAVAILABLE", _RETRY),
    errors.NotReadyError: Wire(503, "UNAVAILABLE", _RETRY),
    errors.DatabaseFullError: Wire(507, "UNAVAILABLE", _RETRY),
    errors.UpstreamError: Wire(503, "UNAVAILABLE", _RETRY),
    StoreError: Wire(503, "UNAVAILABLE", _RETRY),
    StoreFullError: Wire(507, "UNAVAILABLE", _RETRY),
}

_UNKNOWN = Wire(500, "UNKNOWN")

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


def find_wire(error: Exception) -> Wire:
    """Return the table entry of an error; 500 for an unknown one, which is a bug."""
    return find_wire_of(type(error))


def find_wire_of(kind: type[Exception]) -> Wire:
    """Return the table entry of a class of errors, as above."""
    return next((TABLE[cls] for cls in kind.__mro__ if cls in TABLE), _UNKNOWN)


def answer(error: Exception, *, standard: bool = True) -> Response:
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
    if isinstance(error, errors.MethodUnknownError | errors.SwitchedOffError):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.RangeInvalidError):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, errors.UnauthorizedError):
        response.headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, errors.TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _entries(error: Exception, wire: Wire, standard: bool) -> list[dict[str, Any]]:
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
