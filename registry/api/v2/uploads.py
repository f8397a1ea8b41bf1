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
from registry.http.body import WholeBody, find_transfer, iter_body, read_length
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


def _body(context: RequestContext) -> AsyncIterator[bytes]:
    return iter_body(context.request, context.settings.http.body_idle_timeout)


def _chunk(context: RequestContext) -> Chunk:
    span = parse_content_range(context.request.headers.get("content-range"))
    start, length = span or (None, None)
    request = context.request
    return Chunk(
        _body(context),
        start,
        length,
        read_length(request),
        find_transfer(request),
        WholeBody(request),
    )


def _upload_id(context: RequestContext) -> str:
    upload_id = context.param("upload")
    if not _UUID.fullmatch(upload_id):
        raise UploadUnknownError("this repository has no such upload session; start a new one")
    return upload_id


def _digest(context: RequestContext, name: str) -> Digest | None:
    """Return the digest in a query parameter; the full text, since a digest with NUL is invalid."""
    text = context.request.query_params.get(name)
    return Digest.parse(text) if text else None


async def start_upload(context: RequestContext) -> Response:
    """Mount a blob (end-11), push it in one request (end-4b) or start a session (end-4a, 4c)."""
    asked, digest = context.request.query_params.get("mount"), _digest(context, "digest")
    mount = None if asked and _has_unknown_algorithm(asked) else _digest(context, "mount")
    context.check_upload()
    if mount and await _mount(context, mount):
        return await advise(context, _created(context.name, mount))
    algorithm = context.request.query_params.get("digest-algorithm") or DEFAULT_ALGORITHM
    if algorithm not in ALGORITHMS:
        raise DigestInvalidError(f"digest-algorithm must be one of {', '.join(ALGORITHMS)}")
    if digest and not asked:
        return await _push_whole(context, digest)
    row = await context.registry.uploads.start(
        context.name, context.principal, algorithm, since=context.received_at
    )
    return _session(202, row)


def _has_unknown_algorithm(text: str) -> bool:
    """Return whether the text is a digest with an algorithm that this registry does not support."""
    match = _ANY_DIGEST.fullmatch(text)
    return match is not None and match[1] not in ALGORITHMS


async def _mount(context: RequestContext, digest: Digest) -> bool:
    """Return whether the blob was mounted.

    An invalid source is treated as a missing one: a mount only saves an upload, and clients have
    their own rules for the names of sources.
    """
    source, named = None, context.request.query_params.get("from")
    if named:
        try:
            source = RepositoryName.parse(named)
        except NameInvalidError:
            return False
        context.require_mount(source)
    return await context.registry.blobs.mount(
        context.name,
        digest,
        source,
        context.principal,
        context.caller.may_pull,
        among=context.caller.named_repositories,
    )


async def _push_whole(context: RequestContext, digest: Digest) -> Response:
    uploads = context.registry.uploads
    row = await uploads.start(
        context.name, context.principal, digest.algorithm, since=context.received_at
    )
    try:
        # Content-Range is ignored: there is no session yet for a 416 to refer to.
        announced, transfer = read_length(context.request), find_transfer(context.request)
        chunk = Chunk(_body(context), announced=announced, transfer=transfer)
        await uploads.complete(
            context.name, context.principal, row.id, chunk, digest, since=context.received_at
        )
    except (RegistryError, StoreError):
        # The client does not know the session, so it could never resume it.
        await _cancel_quietly(context, row.id)
        raise
    return await advise(context, _created(context.name, digest))


async def _cancel_quietly(context: RequestContext, upload_id: str) -> None:
    try:
        await context.registry.uploads.cancel(context.name, context.principal, upload_id)
    except (UploadUnknownError, UploadBusyError):
        return  # a wrong digest or a quota ended it, or its bytes are published and it will expire


async def get_upload(context: RequestContext) -> Response:
    row = await context.registry.uploads.get(context.name, context.principal, _upload_id(context))
    return _session(204, row)


async def append_upload(context: RequestContext) -> Response:
    upload_id = _upload_id(context)
    try:
        row = await context.registry.uploads.append(
            context.name, context.principal, upload_id, _chunk(context), since=context.received_at
        )
    except UploadOutOfOrderError as error:
        return _out_of_order(context, upload_id, error)
    return _session(202, row)


async def complete_upload(context: RequestContext) -> Response:
    upload_id = _upload_id(context)
    digest = Digest.parse(context.request.query_params.get("digest", ""))
    try:
        await context.registry.uploads.complete(
            context.name,
            context.principal,
            upload_id,
            _chunk(context),
            digest,
            since=context.received_at,
        )
    except UploadOutOfOrderError as error:
        return _out_of_order(context, upload_id, error)
    return await advise(context, _created(context.name, digest))


def _out_of_order(
    context: RequestContext, upload_id: str, error: UploadOutOfOrderError
) -> Response:
    """Return 416 with the offset of the session, where the client can continue."""
    response = error_response(error)
    response.headers.update(_session_headers(context.name, upload_id, error.offset))
    return response


async def cancel_upload(context: RequestContext) -> Response:
    await context.registry.uploads.cancel(context.name, context.principal, _upload_id(context))
    return Response(None, 204)
