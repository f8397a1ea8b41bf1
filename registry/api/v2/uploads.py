"""Upload session endpoints (OCI distribution-spec: end-4, 5, 6, 11, 13 and 14)."""

import re
from collections.abc import AsyncIterator

from starlette.responses import Response

from registry.api.v2.quota_warnings import advise
from registry.errors import (
    NameInvalidError,
    RegistryError,
    UploadBusyError,
    UploadOutOfOrderError,
    UploadUnknownError,
)
from registry.http.body import iter_body, read_length
from registry.http.errors import error_response
from registry.http.ranges import parse_content_range
from registry.http.request_context import RequestContext
from registry.oci.names import RepositoryName
from registry.services.content.upload_sessions import Chunk, UploadRow
from storage.digest import ALGORITHMS, DEFAULT_ALGORITHM, Digest, DigestInvalidError
from storage.errors import StoreError

_ANY_DIGEST = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):[a-zA-Z0-9=_-]+")
"""Source: OCI image-spec descriptor.md, section Digests."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _session_headers(name: RepositoryName, upload_id: str, offset: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(0, offset - 1)}",
        "Docker-Upload-UUID": upload_id,
    }


def _session(status: int, row: UploadRow) -> Response:
    return Response(None, status, _session_headers(row.repository, row.id, row.offset))


def _created(name: RepositoryName, digest: Digest) -> Response:
    return Response(
        None,
        201,
        {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)},
    )


def _body(call: RequestContext) -> AsyncIterator[bytes]:
    return iter_body(call.request, call.settings.http.body_idle_timeout)


def _chunk(call: RequestContext) -> Chunk:
    span = parse_content_range(call.request.headers.get("content-range"))
    start, length = span or (None, None)
    return Chunk(_body(call), start, length, read_length(call.request))


def _upload_id(call: RequestContext) -> str:
    upload_id = call.param("upload")
    if not _UUID.fullmatch(upload_id):
        raise UploadUnknownError("this repository has no such upload session; start a new one")
    return upload_id


def _digest(call: RequestContext, name: str) -> Digest | None:
    """Return the digest in a query parameter; the full text, since a digest with NUL is invalid."""
    text = call.request.query_params.get(name)
    return Digest.parse(text) if text else None


async def start_upload(call: RequestContext) -> Response:
    """Mount a blob (end-11), push it in one request (end-4b) or start a session (end-4a, 4c)."""
    asked, digest = call.request.query_params.get("mount"), _digest(call, "digest")
    mount = None if asked and _has_unknown_algorithm(asked) else _digest(call, "mount")
    call.check_upload()
    if mount and await _mount(call, mount):
        return await advise(call, _created(call.name, mount))
    algorithm = call.request.query_params.get("digest-algorithm") or DEFAULT_ALGORITHM
    if algorithm not in ALGORITHMS:
        raise DigestInvalidError(f"digest-algorithm must be one of {', '.join(ALGORITHMS)}")
    if digest and not asked:
        return await _push_whole(call, digest)
    row = await call.registry.uploads.start(
        call.name, call.principal, algorithm, since=call.received_at
    )
    return _session(202, row)


def _has_unknown_algorithm(text: str) -> bool:
    """Return whether the text is a digest with an algorithm that this registry does not support."""
    match = _ANY_DIGEST.fullmatch(text)
    return match is not None and match[1] not in ALGORITHMS


async def _mount(call: RequestContext, digest: Digest) -> bool:
    """Return whether the blob was mounted.

    An invalid source is treated as a missing one: a mount only saves an upload, and clients have
    their own rules for the names of sources.
    """
    source, named = None, call.request.query_params.get("from")
    if named:
        try:
            source = RepositoryName.parse(named)
        except NameInvalidError:
            return False
        call.require_mount(source)
    return await call.registry.blobs.mount(
        call.name,
        digest,
        source,
        call.principal,
        call.caller.may_pull,
        among=call.caller.named_repositories,
    )


async def _push_whole(call: RequestContext, digest: Digest) -> Response:
    uploads = call.registry.uploads
    row = await uploads.start(call.name, call.principal, digest.algorithm, since=call.received_at)
    try:
        # Content-Range is ignored: there is no session yet for a 416 to refer to.
        chunk = Chunk(_body(call), announced=read_length(call.request))
        await uploads.complete(
            call.name, call.principal, row.id, chunk, digest, since=call.received_at
        )
    except (RegistryError, StoreError):
        # The client does not know the session, so it could never resume it.
        await _cancel_quietly(call, row.id)
        raise
    return await advise(call, _created(call.name, digest))


async def _cancel_quietly(call: RequestContext, upload_id: str) -> None:
    try:
        await call.registry.uploads.cancel(call.name, call.principal, upload_id)
    except (UploadUnknownError, UploadBusyError):
        return  # a wrong digest or a quota ended it, or its bytes are published and it will expire


async def get_upload(call: RequestContext) -> Response:
    row = await call.registry.uploads.get(call.name, call.principal, _upload_id(call))
    return _session(204, row)


async def append_upload(call: RequestContext) -> Response:
    upload_id = _upload_id(call)
    try:
        row = await call.registry.uploads.append(
            call.name, call.principal, upload_id, _chunk(call), since=call.received_at
        )
    except UploadOutOfOrderError as error:
        return _out_of_order(call, upload_id, error)
    return _session(202, row)


async def complete_upload(call: RequestContext) -> Response:
    upload_id = _upload_id(call)
    digest = Digest.parse(call.request.query_params.get("digest", ""))
    try:
        await call.registry.uploads.complete(
            call.name, call.principal, upload_id, _chunk(call), digest, since=call.received_at
        )
    except UploadOutOfOrderError as error:
        return _out_of_order(call, upload_id, error)
    return await advise(call, _created(call.name, digest))


def _out_of_order(call: RequestContext, upload_id: str, error: UploadOutOfOrderError) -> Response:
    """Return 416 with the offset of the session, where the client can continue."""
    response = error_response(error)
    response.headers.update(_session_headers(call.name, upload_id, error.offset))
    return response


async def cancel_upload(call: RequestContext) -> Response:
    await call.registry.uploads.cancel(call.name, call.principal, _upload_id(call))
    return Response(None, 204)
