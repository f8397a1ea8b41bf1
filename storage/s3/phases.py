"""Phases of an upload to a bucket, and the places of its tail.

An upload starts Inline, becomes Multipart with its first part, and is Sealed once its last part is
sent. The tail is what comes after the last part.
"""

import asyncio
import enum
import time
from dataclasses import dataclass, field

Part = tuple[int, str]
"""Number and ETag of a part."""


@dataclass(slots=True)
class InMemory:
    """A few bytes, outside the buffer pool."""

    data: bytearray = field(default_factory=bytearray)

    def view(self) -> memoryview:
        return memoryview(self.data)

    def take(self) -> bytearray:
        """Return the bytes without a copy."""
        return self.data


@dataclass(slots=True)
class InBuffer:
    """Bytes in a buffer of the pool."""

    buffer: bytearray
    filled: int = 0

    since: float = field(default_factory=time.monotonic)
    """The `time.monotonic` since which the buffer is being filled."""

    @property
    def is_full(self) -> bool:
        return self.filled == len(self.buffer)

    def fill(self, data: memoryview) -> memoryview:
        """Copy as many bytes as fit and return the others."""
        piece = data[: len(self.buffer) - self.filled]
        self.buffer[self.filled : self.filled + len(piece)] = piece
        self.filled += len(piece)
        return data[len(piece) :]

    def view(self) -> memoryview:
        return memoryview(self.buffer)[: self.filled]

    def take(self) -> bytearray:
        """Return the bytes without a copy. The buffer is shortened to them."""
        if not self.is_full:
            del self.buffer[self.filled :]
        return self.buffer


@dataclass(frozen=True, slots=True)
class InBucket:
    """Bytes that an earlier claim put under `key`, and that this one has not read back."""

    key: str
    size: int


Tail = InMemory | InBuffer | InBucket


@dataclass(slots=True)
class Inline:
    """No part was sent, so that the bytes may fit into one object."""

    tail: Tail


@dataclass(slots=True)
class Multipart:
    """Parts were sent, or are being sent, in order."""

    tail: Tail
    sent: list[Part] = field(default_factory=list)
    sending: list[asyncio.Task[Part]] = field(default_factory=list)


class Completion(enum.Enum):
    """The known state of the completion of a sealed multipart upload."""

    OPEN = enum.auto()
    UNCERTAIN = enum.auto()
    """An attempt got no answer, or an earlier holder died after it sealed the upload."""
    DONE = enum.auto()


@dataclass(slots=True)
class Sealed:
    """All bytes are in parts. The multipart upload can only be completed."""

    parts: list[Part]
    completion: Completion


Growing = Inline | Multipart
Phase = Inline | Multipart | Sealed
