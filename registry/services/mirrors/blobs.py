"""Blobs of mirrors that are not cached: from the upstream, which a fill stores meanwhile."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from registry.errors import (
    BlobUnknownError,
    ManifestUnknownError,
    UpstreamDeniedError,
    UpstreamUnknownError,
)
from registry.metadata.content import manifest_graph, repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.content.manifest_parsing import parse_on_loop_or_thread
from registry.services.content.manifests import Manifests
from registry.services.mirrors.download import BlobSource, Body, ThrottledBody
from registry.services.mirrors.fill import FillReader
from registry.services.mirrors.fills import Fills
from registry.services.mirrors.mirror import Mirrored
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest


class MirroredBlobs:
    """Blobs that the upstreams of mirrors have."""

    def __init__(
        self, database: Database, manifests: Manifests, fills: Fills, upstreams: Upstreams
    ) -> None:
        self._db = database
        self._manifests = manifests
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
        with _as_unknown(at, digest):
            return await self._fills.open(at.name, digest, self._find_source(at, digest))

    async def fetch(self, at: Mirrored, digest: Digest, advance: Callable[[int], None]) -> None:
        """Store a blob as `Fills.fetch` does.

        Raises the errors of `open`.
        """
        with _as_unknown(at, digest):
            await self._fills.fetch(at.name, digest, self._find_source(at, digest), advance)

    def _find_source(self, at: Mirrored, digest: Digest) -> BlobSource:
        @contextlib.asynccontextmanager
        async def source(start: int, size: int | None) -> AsyncIterator[Body]:
            # A size that the manifest does not state could be without end.
            size = size if size is not None else await self._find_stated_size(at, digest)
            async with (
                self._upstreams.use(at.mirror) as upstream,
                upstream.open_blob(at.remote, digest, size=size, start=start) as body,
            ):
                yield ThrottledBody(body, self._upstreams.get_throttle(at.mirror))

        return source

    async def _find_stated_size(self, at: Mirrored, digest: Digest) -> int | None:
        """Return the size of a blob as a cached manifest states it; None if no manifest does."""

        def work(tx: Transaction) -> Digest | None:
            repository = repositories.find(tx, at.name)
            if repository is None:
                return None
            return manifest_graph.find_parent(tx, repository, digest)

        parent = await self._db.read(work)
        if parent is None:
            return None
        try:
            found = await self._manifests.get(at.name, parent, time.monotonic())
        except ManifestUnknownError:  # deleted meanwhile
            return None
        manifest = await parse_on_loop_or_thread(found.raw, found.row.media_type)
        named = (*manifest.layers, *manifest.required_blobs)
        return next((each.size for each in named if each.digest == digest), None)


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
