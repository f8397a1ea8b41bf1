"""The seam between the registry and a store. `tests/storage/` runs one suite over every driver.

A driver keeps two kinds of things: *objects*, immutable bytes under a key of `storage.keys`, and
*staged bytes*, the growing content of one upload session. The way from one to the other is an
upload handle (claim, append, finish under a key, discard), because not every store can rename.

Every method may raise StoreUnavailableError (StoreFullError where bytes are added). A cancelled
call ends only after the work it began on a thread has ended.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from storage.digest import Hasher


class Upload(Protocol):
    """The exclusive hold of one session's staged bytes, until `finish`, `discard` or `release`.

    `release` must be called in any case and may be called twice. After it, or after `finish` or
    `discard`, nothing done through this handle can change any byte in the store.
    """

    size: int
    """Bytes staged now."""

    async def append(self, data: bytes, hasher: Hasher | None) -> None:
        """Add `data` at the end and feed it to `hasher`; `size` grows when all of it is written."""
        ...

    async def truncate(self, size: int) -> None:
        """Drop every byte from `size` on."""
        ...

    async def hash(self, hasher: Hasher) -> None:
        """Read all staged bytes into `hasher`."""
        ...

    async def sync(self) -> None:
        """Make the staged bytes durable. After a failure they are dropped, never synced again."""
        ...

    async def finish(self, key: str) -> None:
        """Make the bytes durable, then let them appear whole under `key`."""
        ...

    async def discard(self) -> None:
        """Remove the staged bytes."""
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


class Driver(Protocol):
    """A store. Keys are those of `storage.keys`; a session id is a lower-case UUID."""

    name: str
    """The store's name in blob rows, so that two stores can be open at once."""

    shared: bool
    """Whether other processes see the same bytes."""

    async def start(self, *, create: bool = True) -> None:
        """Prepare the store; refuse one that is not ours or cannot keep the promises.

        Without `create` one that is not there is refused too, not made: its disk is not mounted.
        """
        ...

    async def check(self) -> None:
        """Raise unless the store can be reached (for readiness)."""
        ...

    async def claim(self, session: str) -> Upload:
        """Hold the session's staged bytes, none at first; StagedBusyError if another holds them."""
        ...

    async def list_staged(self) -> list[str]:
        """The sessions that have staged bytes."""
        ...

    async def stat(self, key: str) -> int:
        """The object's length in bytes; ObjectMissingError if there is none."""
        ...

    async def open(self, key: str) -> Reader:
        """Open the object; ObjectMissingError if there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the object durably; no error if there is none."""
        ...

    async def close(self) -> None:
        """Give up threads and connections."""
        ...
