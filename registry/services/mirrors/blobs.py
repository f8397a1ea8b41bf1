"""Blobs of mirrors that are not cached: from the upstream, which a fill stores meanwhile."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from registry.errors import BlobUnknownError, UpstreamDeniedError, UpstreamUnknownError
from registry.services.content.blobs import Blobs
from registry.services.mirrors.download import Body
from registry.services.mirrors.fill import FillReader
from registry.services.mirrors.fills import Fills
from registry.services.mirrors.mirror import Mirrored
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest


class MirroredBlobs:
    """Blobs that the upstreams of mirrors have."""

    def __init__(self, blobs: Blobs, fills: Fills, upstreams: Upstreams) -> None:
        self._blobs = blobs
        self._fills = fills
        self._upstreams = upstreams

    async def get_size(self, at: Mirrored, digest: Digest) -> int:
        """Return the size of a blob at the upstream.

        Raises BlobUnknownError if the upstream does not have or deliver it, and UpstreamError.
        """
        with _as_unknown(at, digest):
            async with self._upstreams.use(at.mirror) as upstream:
                size = await upstream.head_blob(at.remote, digest)
        if size is None:
            raise _unknown(at, digest, "the upstream does not state its size")
        return size

    async def open(self, at: Mirrored, digest: Digest) -> FillReader | None:
        """Open a blob that is not cached. None means that it is cached by now.

        Raises the errors of `get_size`, and those of `Fills.open`.
        """

        @contextlib.asynccontextmanager
        async def source(start: int, size: int | None) -> AsyncIterator[Body]:
            async with (
                self._upstreams.use(at.mirror) as upstream,
                upstream.open_blob(at.remote, digest, size=size, start=start) as body,
            ):
                yield body

        with _as_unknown(at, digest):
            return await self._fills.open(at.name, digest, source)


@contextlib.contextmanager
def _as_unknown(at: Mirrored, digest: Digest) -> Iterator[None]:
    """Turn the errors of an upstream that does not have or deliver the blob into ours."""
    try:
        yield
    except (UpstreamUnknownError, UpstreamDeniedError) as error:
        raise _unknown(at, digest, error.message) from error


def _unknown(at: Mirrored, digest: Digest, reason: str) -> BlobUnknownError:
    return BlobUnknownError(
        f"no blob {digest} in {at.remote} of {at.mirror.url}: {reason}", {"digest": str(digest)}
    )
