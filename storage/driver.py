"""The interface between the registry and a store; `tests/storage/` runs one suite on all drivers.

A driver keeps two kinds of data: *objects*, which are immutable bytes under a key of
`storage.keys`, and *staged bytes*, which are the growing content of one upload session. An upload
handle turns staged bytes into an object: claim the session, append, then finish under a key or
abort. The interface has no rename, because not every store can rename.

Some stores can lock a session (with a file lock or a dictionary). For a store that cannot, the
session's row records which request holds the session and what the store has staged. See
`SessionRecord`, `Upload.resume_state` and `Driver.possible_keys`.

Every method may raise StoreUnavailableError, or StoreFullError where it adds bytes. A cancelled
call ends only after the work that it started on a thread has ended.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from storage.digest import Hasher
from storage.job_threads import Then

Sink = Callable[[Sequence[memoryview]], None]
"""Takes consecutive bytes on a thread, and may block. They are overwritten after the call."""

Transfer = Callable[[Sink, int], Awaitable[int]]
"""Pass up to a number of the next bytes of a body to a sink, and return how many.

0 means that the next bytes are received in the ordinary way. Errors of the sink propagate.
"""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session's row, as seen by a store that does not lock."""

    claim_number: int
    """Claim number, which grows with each claim. A name that contains it belongs to one claim only.
    """

    state: str
    """`Upload.resume_state` as last written to the row; empty at first."""

    save_state: Callable[[str], Awaitable[None]]
    """Write this state to the row now.

    Raises UploadLockedError if another request has claimed the session.
    """

    ensure_lease: Callable[[], Awaitable[None]]
    """Ensure that the claim is in force, extending it if needed; called before bytes are sent.

    Returns only while no other request can have claimed the session. Raises UploadLockedError if
    one has.
    """


class Upload(Protocol):
    """An exclusive claim on one session's staged bytes, until `finish`, `abort` or `release`.

    `release` must always be called, and may be called twice. After `release`, `finish` or
    `abort`, no call on this handle can change a byte in the store.
    """

    size: int
    """Number of bytes staged now."""

    @property
    def sealed(self) -> bool:
        """Whether the session is sealed for good, so that no bytes can be added."""
        ...

    @property
    def is_stalled(self) -> bool:
        """Whether this upload holds resources that others wait for, and uses them too slowly."""
        ...

    @property
    def resume_state(self) -> str:
        """State to save in the row after `sync` or `seal`; empty if the store keeps its own."""
        ...

    def final_key(self, key: str) -> str:
        """Return the key under which `finish(key)` publishes the bytes.

        It is known once the bytes are sealed.
        """
        ...

    async def resume(self, size: int) -> None:
        """Continue after the `size` bytes that an earlier claim synced, and drop the others.

        `size` is at most the size at the claim.
        """
        ...

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        """Append `data` and feed it to `hasher`. `size` grows once all of it is written."""
        ...

    @property
    def append_now(self) -> "Callable[[Sequence[memoryview], Hasher | None], None] | None":
        """Do `append` on the calling thread. None if the store cannot."""
        ...

    async def append_and_sync(self, data: bytes, hasher: Hasher | None) -> None:
        """Do `append` and `sync_bytes`, with one thread job instead of two."""
        ...

    async def truncate(self, size: int) -> None:
        """Drop every byte from `size` on.

        `size` must be the last synced size, or the size at the claim.
        """
        ...

    async def sync(self) -> None:
        """Make the staged bytes durable, once per claim.

        If this fails, the bytes are dropped and never synced again.
        """
        ...

    async def sync_bytes(self) -> None:
        """Do as `sync`, except that a power cut may lose all staged bytes, but never some.

        That is cheaper on a disk, where it does not sync the name of the file.
        """
        ...

    async def seal(self) -> None:
        """Accept no more bytes.

        The steps after this may publish bytes, so the caller first writes `final_key` and
        `resume_state` to the row.
        """
        ...

    async def hash(self, hasher: Hasher) -> None:
        """Read all staged bytes into `hasher`. They must be sealed."""
        ...

    async def finish(self, key: str) -> None:
        """Make the sealed bytes durable, then publish them atomically under `final_key(key)`.

        Bytes that were synced before are not synced again.
        """
        ...

    async def abort(self) -> None:
        """Drop the staged bytes.

        If the store does not lock, the caller must queue the deletion of `possible_keys`.
        """
        ...

    async def release(self) -> None:
        """Let another request claim the session. The staged bytes stay."""
        ...


@runtime_checkable
class WholeDriver(Protocol):
    """A store that can do all steps of a request on one of its threads, and then pass the job on.

    The result is that of the job. If the caller is cancelled, the job still ends first.
    """

    async def receive_whole(
        self, session: str, data: bytes, hasher: Hasher, then: Then
    ) -> tuple[Upload, Any]:
        """Claim a session without bytes, append, hash and sync `data`, and pass the job on.

        Returns the claim, which the caller releases, and the result. Raises StagedSizeError if the
        session has bytes, and as `claim` and `append`. After an error, the claim has ended.
        """
        ...

    async def publish_whole(self, session: str, size: int, key: str, then: Then) -> Any:
        """Claim a session of `size` acknowledged bytes, do as `finish`, and pass the job on.

        Raises StagedSizeError if the session has another number of bytes.
        """
        ...


class OpenFile(Protocol):
    """An open file of the operating system."""

    def fileno(self) -> int: ...


class Reader(Protocol):
    """An open object, which stays readable after its key is deleted."""

    size: int
    """Length of the object in bytes."""

    @property
    def file(self) -> "OpenFile | None":
        """The file that holds exactly the object, open until `close`, for sendfile(2).

        None if there is none, or if it is better to read the bytes. The caller neither reads from
        its position nor closes it. Like `read`, it can end early or fail: then the object is
        corrupt.
        """
        ...

    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield exactly `length` bytes from `start`.

        Raises ObjectCorruptError if the object ends early.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StagedState:
    """The state of staged bytes. `size` is in bytes."""

    size: int
    is_published: bool
    """Whether `Upload.finish` has published the bytes, so that they never change again."""


class StagedReader(Protocol):
    """Staged bytes that are open for reading while they grow.

    They stay readable after they were published or dropped. Calls may run at the same time.
    """

    async def stat(self) -> StagedState: ...

    async def read(self, start: int, most: int) -> bytes:
        """Return at most `most` bytes from `start`; none if there are none yet."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Metadata of a stored object.

    `size` is in bytes; `written_at` is in microseconds by the store's clock.
    """

    key: str
    size: int
    written_at: int


class Driver(Protocol):
    """A store. Keys are those of `storage.keys`; a session ID is a lower-case UUID."""

    name: str
    """The store's name in blob rows, which tells two open stores apart."""

    shared: bool
    """Whether other processes see the same bytes."""

    supports_locking: bool
    """Whether `claim` itself excludes others. If not, it needs the session's row."""

    stat_is_cheap: bool
    """Whether `stat` costs almost nothing. If not, the row is trusted until the bytes are read."""

    signed_url_ttl: float
    """Seconds that a presigned URL is valid; 0 if the store has none."""

    late_write_window: float
    """Seconds after a session's end during which bytes sent by its holder may still appear.

    They may appear even after their key was deleted, so the key must be deleted again after this
    time. 0 if the store locks.
    """

    async def start(self, *, create: bool = True) -> None:
        """Prepare the store. Refuses a foreign store, or one that lacks a required guarantee.

        Without `create`, a missing store is refused instead of created, because its disk may not be
        mounted.
        """
        ...

    async def probe(self) -> None:
        """Raise the error that would make `start` fail.

        Creates no store, but may write and read a test object in a bucket.
        """
        ...

    async def check(self) -> None:
        """Raise StoreUnavailableError unless the store can be reached (for readiness)."""
        ...

    async def claim(self, session: str, record: SessionRecord | None = None) -> Upload:
        """Claim the session's staged bytes, which are empty at first.

        Raises UploadLockedError if another request holds them. `record` is required if the store
        does not lock.
        """
        ...

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        """Return every key that may hold bytes of a session whose row has `state` and `claim`.

        Empty if the store locks: `abort` and `list_staged` are enough there.
        """
        ...

    async def open_staged(self, session: str) -> StagedReader | None:
        """Open the session's staged bytes for reading, also while a claim appends to them.

        None if there are none, or if the store cannot read staged bytes.
        """
        ...

    async def list_staged(self) -> list[str]:
        """Return the sessions that have staged bytes; empty if the store does not lock."""
        ...

    def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        """Yield every object written since `since` (microseconds), in pages, in byte order of keys.

        Older objects may be included.

        If the store does not lock, staged bytes are included. Objects that are created or deleted
        during the listing may be included or not. This lists the whole store, so use it only to
        compare the store with the rows.
        """
        ...

    async def stat(self, key: str) -> int:
        """Return the object's length in bytes. Raises ObjectMissingError if there is none."""
        ...

    async def open(self, key: str, start: int = 0, length: int | None = None) -> Reader:
        """Open the object. Raises ObjectMissingError if there is none.

        `start` and `length` are the range that will be read first, by default the whole object. A
        remote store sends it with the first response.
        """
        ...

    async def presigned_url(self, key: str) -> str | None:
        """Return a presigned URL of the object, valid for `signed_url_ttl` seconds.

        The URL is computed without a request to the store, so the object may not exist. None means
        that the bytes have to be served by the registry.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete the object durably, and any upload begun under its key.

        No error if there is none.
        """
        ...

    async def close(self) -> None:
        """Shut down threads and close connections."""
        ...
