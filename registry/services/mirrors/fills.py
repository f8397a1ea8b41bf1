"""Fills: blobs of upstreams that are stored in a repository while clients read them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from registry import metrics
from registry.errors import (
    BlobUnknownError,
    BusyError,
    QuotaExceededError,
    RegistryError,
    UpstreamDigestError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailableError,
)
from registry.metadata.engine.database import Database
from registry.oci.names import RepositoryName
from registry.services.content.blobs import Blobs
from registry.services.mirrors.batches import BatchWriter
from registry.services.mirrors.blob_receiver import BlobReceiver, require_digest
from registry.services.mirrors.download import BlobSource, Download
from registry.services.mirrors.fill import Fill, FillReader, shutting_down
from registry.services.mirrors.fill_leases import FillLease, FillLeases
from registry.services.mirrors.spool import Spool
from storage.digest import Digest, Hasher
from storage.errors import StoreError
from storage.piece_budget import PieceBudget

logger = logging.getLogger(__name__)

DECISION_S = 10.0
"""Seconds after which a client is told to come back. The fill continues."""

PATIENCE_S = 5.0
"""Seconds to wait for a free fill, and for another process that fetches the same blob."""

POLL_S = 0.05
"""Seconds between two looks at the fill of another process."""

_Key = tuple[RepositoryName, Digest]


class Fills:
    """The fills of this process."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        receiver: BlobReceiver,
        spool: Spool,
        *,
        most: int,
    ) -> None:
        """Create the service. `most` is the maximum number of fills at the same time."""
        self._blobs = blobs
        self._receiver = receiver
        self._spool = spool
        self._leases = FillLeases(database)
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._budget = PieceBudget()
        self._running: dict[_Key, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(
        self, name: RepositoryName, digest: Digest, source: BlobSource
    ) -> FillReader | None:
        """Join the fill of a blob into a repository, or start one from `source`.

        Returns a reader as soon as the size is known, or None if the repository has the blob now.
        The fill does not depend on its readers. Raises the error of the upstream, BusyError if
        there is no decision in time, QuotaExceededError and StoreError.
        """
        fill = self._join((name, digest), source)
        try:
            async with asyncio.timeout(DECISION_S):
                return await fill.join()
        except TimeoutError:
            raise BusyError("the blob is being fetched from the upstream; try again") from None

    async def fetch(
        self,
        name: RepositoryName,
        digest: Digest,
        source: BlobSource,
        advance: Callable[[int], None],
    ) -> None:
        """Join or start fills of a blob as `open` does, until it is stored.

        `advance` gets the number of bytes that have arrived. Raises the errors of `open`.
        """
        most = 0

        def count(position: int) -> None:
            nonlocal most
            if position > most:
                most = position
                advance(position)

        key = (name, digest)
        while not await self._is_stored(key):
            await self._join(key, source).follow(count)
            if await self._is_stored(key):
                return
            await asyncio.sleep(PATIENCE_S)  # another process stores it

    def _join(self, key: _Key, source: BlobSource) -> Fill:
        """Return the running fill of a blob, or a new one. Raises BusyError on shutdown."""
        fill = self._running.get(key)
        if fill is None:
            if self._closed:
                raise shutting_down()
            fill = self._running[key] = Fill(self._budget)
            task = asyncio.create_task(self._run(fill, key, source), name=f"fill {key[1]}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return fill

    async def close(self) -> None:
        """Cancel all fills, drop their bytes, and accept no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _run(self, fill: Fill, key: _Key, source: BlobSource) -> None:
        error: Exception | None = shutting_down()
        try:
            await self._provide(fill, key, source)
            error = None
        except (RegistryError, StoreError) as caught:
            error = caught
            metrics.MIRROR_FILLS_FAILED.labels(_name_cause(error)).inc()
            logger.warning("blob %s was not stored in %s: %s", key[1], key[0], error)
        except Exception as caught:
            error = caught
            metrics.MIRROR_FILLS_FAILED.labels("error").inc()
            logger.exception("blob %s was not stored in %s", key[1], key[0])
        finally:
            del self._running[key]  # the next client starts over
            await fill.end(error)

    async def _provide(self, fill: Fill, key: _Key, source: BlobSource) -> None:
        """Store the blob, or follow the process that does."""
        patient_until = time.monotonic() + PATIENCE_S
        while True:
            async with self._leases.hold(*key) as lease:
                if await self._is_stored(key):
                    return
                if lease is not None:
                    await self._store(fill, key, source, lease)
                    return
            if await self._follow(fill, key):
                return
            if time.monotonic() > patient_until:
                await self._relay(fill, key[1], source)
                return
            await asyncio.sleep(POLL_S)

    async def _is_stored(self, key: _Key) -> bool:
        try:
            return await self._blobs.is_whole(await self._blobs.get(*key))
        except BlobUnknownError:
            return False

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Count as a running fill. Raises BusyError if too many are running."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError(
                f"{self._most} blobs are being fetched from upstreams, which is the limit "
                "(mirrors.max_fills)"
            ) from None
        try:
            with metrics.MIRROR_FILLS.track_inprogress():
                yield
        finally:
            self._free.release()

    async def _store(self, fill: Fill, key: _Key, source: BlobSource, lease: FillLease) -> None:
        """Fetch the blob and store it in the repository."""
        async with (
            self._slot(),
            Download(source) as download,
            self._receiver.receive(*key, download.size) as receipt,
        ):
            staged = await self._receiver.open_reader(receipt.session)
            spooled = None if staged is not None else await self._spool.open(download.size)
            fill.begin(download.size, staged or spooled)
            if staged is not None:
                await lease.publish(receipt.session, download.size)

            async def write(batch: bytes) -> None:
                await receipt.append(batch)
                if spooled is not None:
                    await spooled.append(batch)
                fill.grow(receipt.offset)

            await _copy(download, write)
            await receipt.complete()

    async def _relay(self, fill: Fill, digest: Digest, source: BlobSource) -> None:
        """Fetch the blob for readers of this process alone, because another process stores it."""
        async with self._slot(), Download(source) as download:
            spooled = await self._spool.open(download.size)
            if spooled is None:
                raise BusyError("another process fetches the blob, and mirrors.spool_size is used")
            fill.begin(download.size, spooled)
            hasher = Hasher(digest.algorithm)

            async def write(batch: bytes) -> None:
                await spooled.append(batch, hasher)
                fill.grow(spooled.size)

            await _copy(download, write)
            require_digest(digest, hasher.digest())

    async def _follow(self, fill: Fill, key: _Key) -> bool:
        """Follow the fill of another process on the same disk.

        Returns False if its bytes cannot be read, or if it has ended already.
        """
        holder = await self._leases.find(*key)
        if holder is None or not holder.session:
            return False
        if await self._receiver.drop_if_dead(key[0], holder.session):
            await self._leases.release(*key, holder)
            return False
        staged = await self._receiver.open_reader(holder.session)
        if staged is None:
            return False
        fill.begin(holder.size, staged)
        while True:
            is_held = await self._leases.find(*key) == holder
            state = await staged.stat()
            fill.grow(min(state.size, holder.size))
            if state.is_published and await self._is_stored(key):
                return True
            if not is_held:
                raise UpstreamUnavailableError("the fill of another process has failed")
            await asyncio.sleep(POLL_S)


async def _copy(download: Download, write: Callable[[bytes], Awaitable[None]]) -> None:
    async with BatchWriter(write) as writer:
        async for piece in download:
            await writer.put(piece)


_CAUSES: dict[type[Exception], str] = {
    UpstreamDigestError: "digest",
    UpstreamProtocolError: "protocol",
    UpstreamUnavailableError: "unavailable",
    UpstreamError: "refused",
    QuotaExceededError: "quota",
    BusyError: "busy",
    StoreError: "store",
}


def _name_cause(error: Exception) -> str:
    return next((_CAUSES[kind] for kind in type(error).__mro__ if kind in _CAUSES), "error")
