"""The seam between the registry and a store. `tests/storage/` runs one suite over every driver.

A driver keeps two kinds of things: *objects*, immutable bytes under a key of `storage.keys`, and
*staged bytes*, the growing content of one upload session. The way from one to the other is an
upload handle (claim, append, finish under a key, discard), because not every store can rename.

Some stores lock (a file, a dictionary). Where one cannot, the session's row says who holds it, and
remembers for the store what it has staged: `Record`, `Upload.state`, `Driver.list_keys`.

Every method may raise StoreUnavailableError (StoreFullError where bytes are added). A cancelled
call ends only after the work it began on a thread has ended.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from storage.digest import Hasher


@dataclass(frozen=True, slots=True)
class Record:
    """A session's row as a store sees it that does not lock."""

    claim: int
    """Grows with each claim of the session: no name that contains it is used by two holders."""

    state: str
    """`Upload.state` as it was last written to the row; empty at first."""

    save: Callable[[str], Awaitable[None]]
    """Write this state to the row now; StagedBusyError if another has claimed the session."""

    keep: Callable[[], Awaitable[None]]
    """Return only where no other can have claimed the session yet, to be called before bytes are
    sent; StagedBusyError if one has.
    """


class Upload(Protocol):
    """The exclusive hold of one session's staged bytes, until `finish`, `discard` or `release`.

    `release` must be called in any case and may be called twice. After it, or after `finish` or
    `discard`, nothing done through this handle can change any byte in the store.
    """

    size: int
    """Bytes staged now."""

    sealed: bool
    """Whether an earlier holder sealed the session: nothing can be added any more."""

    @property
    def overdue(self) -> bool:
        """Whether others wait for what this hold takes up and has been too slow to make use of."""
        ...

    @property
    def state(self) -> str:
        """What the row has to remember after `sync` or `seal`; empty where the store does."""
        ...

    def key_for(self, key: str) -> str:
        """The key that the bytes will appear under if `finish` is told `key`; known once they are
        sealed.
        """
        ...

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        """Add `data` at the end and feed it to `hasher`; `size` grows when all of it is written."""
        ...

    async def truncate(self, size: int) -> None:
        """Drop every byte from `size` on, which is what was synced last or was there at first."""
        ...

    async def sync(self) -> None:
        """Make the staged bytes durable, once in a hold. After a failure they are dropped, never
        synced again.
        """
        ...

    async def seal(self) -> None:
        """No byte will follow. What comes after may let bytes appear, so the row names `key_for`
        and `state` first.
        """
        ...

    async def hash(self, hasher: Hasher) -> None:
        """Read all staged bytes, which are sealed, into `hasher`."""
        ...

    async def finish(self, key: str) -> None:
        """Make the sealed bytes durable, then let them appear whole under `key_for(key)`."""
        ...

    async def discard(self) -> None:
        """Give up the staged bytes. Where the store does not lock, `list_keys` are to be doomed."""
        ...

    async def release(self) -> None:
        """Let another request claim the session; staged bytes stay."""
        ...


class Reader(Protocol):
    """An open object. It stays readable when the key is deleted meanwhile."""

    size: int
    """Length of the object in bytes."""

    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield exactly `length` bytes from `start`; ObjectDamagedError where they end early."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says of an object. `size` in bytes; `written_at` in microseconds, by the clock
    of the store.
    """

    key: str
    size: int
    written_at: int


class Driver(Protocol):
    """A store. Keys are those of `storage.keys`; a session id is a lower-case UUID."""

    name: str
    """The store's name in blob rows, so that two stores can be open at once."""

    shared: bool
    """Whether other processes see the same bytes."""

    locks: bool
    """Whether `claim` itself keeps others out; where not, it is given the session's row."""

    cheap_stat: bool
    """Whether `stat` costs next to nothing. Else a row is believed until its bytes are read."""

    link_life: float
    """Seconds that a link of `find_link` is good for; 0 where there are none."""

    late: float
    """Seconds after the end of a session in which bytes that its holder had sent before may still
    appear, although they were removed: a key has to be removed once more then. 0 where the store
    locks.
    """

    async def start(self, *, create: bool = True) -> None:
        """Prepare the store; refuse one that is not ours or cannot keep the promises.

        Without `create` one that is not there is refused too, not made: its disk is not mounted.
        """
        ...

    async def look(self) -> None:
        """Raise what would keep `start` from succeeding. Makes no store, but may write and read a
        test object in a bucket.
        """
        ...

    async def check(self) -> None:
        """Raise unless the store can be reached (for readiness)."""
        ...

    async def claim(self, session: str, record: Record | None = None) -> Upload:
        """Hold the session's staged bytes, none at first; StagedBusyError if another holds them.

        `record` is needed where the store does not lock.
        """
        ...

    def list_keys(self, session: str, state: str, claim: int) -> set[str]:
        """Every key that may have bytes of a session whose row holds `state` and `claim`. Empty
        where the store locks: there `discard` and `list_staged` are enough.
        """
        ...

    async def list_staged(self) -> list[str]:
        """The sessions that have staged bytes, where the store locks."""
        ...

    def iter_objects(self) -> AsyncIterator[list[StoredObject]]:
        """Every object, in pages, in the byte order of their keys; staged bytes too, where the
        store does not lock. One that comes or goes meanwhile may be among them.

        This reads all there is: nothing but a comparison with the rows has a use for it.
        """
        ...

    async def stat(self, key: str) -> int:
        """The object's length in bytes; ObjectMissingError if there is none."""
        ...

    async def open(self, key: str, start: int = 0, length: int | None = None) -> Reader:
        """Open the object; ObjectMissingError if there is none. `start` and `length`: what will be
        read first, all by default, so that a store which is far away sends it at once.
        """
        ...

    async def find_link(self, key: str) -> str | None:
        """A URL at which whoever has it can read the object for `link_life`, made here: the store
        is not asked, not even whether there is one. None: the bytes have to go through us.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the object durably, or what was begun under its key; no error if there is none."""
        ...

    async def close(self) -> None:
        """Give up threads and connections."""
        ...
