"""Blob endpoints (OCI distribution-spec: end-2 and end-10)."""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.errors import RangeInvalidError
from registry.http.caching import FOREVER, cache_headers
from registry.http.etags import format_date, has_current
from registry.http.multipart import Multipart
from registry.http.ranges import Part, parse_ranges
from registry.http.request_context import RequestContext
from registry.services.content.blobs import BlobRow, Blobs
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import ObjectCorruptError


def _headers(row: BlobRow, length: int, caching: dict[str, str]) -> dict[str, str]:
    return {
        **caching,
        "Docker-Content-Digest": str(row.digest),
        "Content-Length": str(length),
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{row.digest}"',
        "Last-Modified": format_date(row.linked_at),
    }


class BlobResponse(Response):
    """Streams an open blob. The blob is checked and opened before the first header is sent."""

    def __init__(
        self,
        blobs: Blobs,
        row: BlobRow,
        reader: Reader,
        part: Part | Multipart | None,
        caching: dict[str, str],
    ) -> None:
        if isinstance(part, Multipart):
            headers = _headers(row, part.length, caching)
            headers["Content-Type"] = part.media_type
            self._body = part.iter_body(reader)
        else:
            start, length = part or (0, row.size)
            headers = _headers(row, length, caching)
            if part is not None:
                headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{row.size}"
            self._body = reader.read(start, length)
        super().__init__(None, 206 if part else 200, headers)
        self._blobs = blobs
        self._row = row
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        gone = asyncio.create_task(_wait_until_gone(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for piece in self._body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if gone.done():
                    return  # servers drop data for a closed connection, so stop reading
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ObjectCorruptError:
            # Without a last message, the server aborts the connection, and the client sees that the
            # length is wrong. A padded or cleanly ended body could pass for the blob.
            await self._blobs.note_damage(self._row)
        finally:
            gone.cancel()
            await self._reader.close()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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


async def get_blob(call: RequestContext) -> Response:
    digest = Digest.parse(call.param("digest"))
    headers = call.request.headers
    caching = cache_headers(call, FOREVER)
    conditional = "if-none-match" in headers or "if-modified-since" in headers
    if call.request.method == "HEAD" or conditional:
        row = await call.registry.blobs.stat(call.name, digest)
        if has_current(headers, str(digest), row.linked_at):
            dated = {"ETag": f'"{digest}"', "Last-Modified": format_date(row.linked_at)}
            return Response(None, 304, {**dated, **caching})
        if call.request.method == "HEAD":
            return Response(None, 200, _headers(row, row.size, caching))
    row = await call.registry.blobs.get(call.name, digest)
    asked = headers.get("range")
    if headers.get("if-range") not in {None, f'"{digest}"', format_date(row.linked_at)}:
        asked = None
    try:
        parts = parse_ranges(asked, row.size)
    except RangeInvalidError:
        await call.registry.blobs.stat(call.name, digest)  # a missing blob gets 404, not 416
        raise
    if len(parts) > 1:
        # A bucket answers several ranges with the whole object, so the registry serves them itself.
        several = Multipart(parts, row.size)
        reader = await call.registry.blobs.open(row, several.first_span)
        return BlobResponse(call.registry.blobs, row, reader, several, caching)
    link = await call.registry.blobs.presigned_url(row)
    if link is not None:
        return _elsewhere(digest, link)
    part = parts[0] if parts else None
    reader = await call.registry.blobs.open(row, part)
    return BlobResponse(call.registry.blobs, row, reader, part, caching)


async def delete_blob(call: RequestContext) -> Response:
    digest = Digest.parse(call.param("digest"))
    await call.registry.blobs.unlink(call.name, digest, call.principal)
    return Response(None, 202)
