"""Blob endpoints (OCI distribution-spec: end-2 and end-10)."""

import math

from starlette.responses import Response

from registry.api.v2.blob_response import BlobContent, BlobResponse
from registry.auth.caller import Validity
from registry.errors import BlobUnknownError, RangeInvalidError
from registry.http.caching import FOREVER, cache_headers
from registry.http.etags import format_date, has_current
from registry.http.memory import SMALL_BODY
from registry.http.multipart import Multipart
from registry.http.ranges import Part, parse_ranges
from registry.http.request_context import RequestContext
from registry.services.content.blobs import SEEN_S, BlobRow
from registry.services.mirrors.mirror import Mirrored
from storage.digest import Digest
from storage.driver import Reader


def _elsewhere(digest: Digest, link: str) -> Response:
    """Redirect the client to the object, where it requests its range itself."""
    return Response(
        None,
        307,
        {
            "Location": link,
            "Docker-Content-Digest": str(digest),
            "Cache-Control": "no-store",  # the URL is a credential and expires soon
        },
    )


def _find_validity(context: RequestContext, promised_until: float = math.inf) -> Validity:
    """Return how long a response about the bytes holds if nobody has looked at them since."""
    return Validity(promised_until, context.received_at + SEEN_S)


async def get_blob(context: RequestContext) -> Response:
    digest = Digest.parse(context.param("digest"))
    context.note_mirror_use("blob", "hit")
    try:
        return await _get_stored(context, digest)
    except BlobUnknownError:
        if context.mirrored is None:
            raise
    context.note_mirror_use("blob", "miss")
    return await _get_missing(context, context.mirrored, digest)


async def _get_stored(context: RequestContext, digest: Digest) -> Response:
    headers = context.request.headers
    caching = cache_headers(context, FOREVER)
    conditional = "if-none-match" in headers or "if-modified-since" in headers
    if context.request.method == "HEAD" or conditional:
        found = await context.registry.blobs.stat(context.name, digest)
        row = found.row
        is_current = has_current(headers, str(digest), row.linked_at)
        if context.request.method == "HEAD" or is_current:
            context.allow_reuse(validity=_find_validity(context, found.until))
        if is_current:
            dated = {"ETag": f'"{digest}"', "Last-Modified": format_date(row.linked_at)}
            return Response(None, 304, {**dated, **caching})
        if context.request.method == "HEAD":
            stored = BlobContent.of_row(row).list_headers(row.size, caching)
            return Response(None, 200, stored)
    row = await context.registry.blobs.get(context.name, digest)
    asked = headers.get("range")
    if headers.get("if-range") not in {None, f'"{digest}"', format_date(row.linked_at)}:
        asked = None
    try:
        parts = parse_ranges(asked, row.size)
    except RangeInvalidError:
        await context.registry.blobs.stat(context.name, digest)  # a missing blob gets 404, not 416
        raise
    if len(parts) > 1:
        # A bucket answers several ranges with the whole object, so the registry serves them itself.
        several = Multipart(parts, row.size)
        reader = await context.registry.blobs.open(row, several.first_span)
        return _respond(context, row, reader, several, caching)
    link = await context.registry.blobs.presigned_url(row)
    if link is not None:
        return _elsewhere(digest, link)
    part = parts[0] if parts else None
    reader = await context.registry.blobs.open(row, part)
    if part is None and row.size <= SMALL_BODY:
        context.allow_reuse(validity=_find_validity(context))
    return _respond(context, row, reader, part, caching)


def _respond(
    context: RequestContext,
    row: BlobRow,
    reader: Reader,
    part: Part | Multipart | None,
    caching: dict[str, str],
) -> BlobResponse:
    blobs = context.registry.blobs
    return BlobResponse(
        BlobContent.of_row(row), reader, part, caching, lambda: blobs.note_damage(row)
    )


async def _get_missing(context: RequestContext, at: Mirrored, digest: Digest) -> Response:
    """Return a blob that the mirror has not cached. A fill stores it meanwhile."""
    caching = cache_headers(context, FOREVER)
    blobs = context.registry.mirrored_blobs
    if context.request.method == "HEAD":
        size = await blobs.get_size(at, digest)
        return Response(None, 200, BlobContent(digest, size).list_headers(size, caching))
    reader = await blobs.open(at, digest)
    if reader is None:
        return await _get_stored(context, digest)
    try:
        parts = parse_ranges(context.request.headers.get("range"), reader.size)
    except BaseException:
        await reader.close()
        raise
    part = Multipart(parts, reader.size) if len(parts) > 1 else next(iter(parts), None)
    return BlobResponse(BlobContent(digest, reader.size), reader, part, caching)


async def delete_blob(context: RequestContext) -> Response:
    digest = Digest.parse(context.param("digest"))
    await context.registry.blobs.unlink(context.name, digest, context.principal)
    return Response(None, 202)
