"""Reading an object to know its digest, off the event loop and at a pace."""

import asyncio
from collections.abc import Sequence

from registry.services.pace import Pace
from storage.digest import Hasher
from storage.driver import Reader
from storage.settled import settled

_ON_THREAD = 64 * 1024
"""Bytes from which hashing leaves the event loop."""


async def hash_into(hashers: Sequence[Hasher], reader: Reader, pace: Pace) -> None:
    """Read all of an open object, a piece at a time, and close it.

    ObjectDamagedError where it cannot be read to its end; StoreUnavailableError.
    """

    def update(piece: bytes) -> None:
        for hasher in hashers:
            hasher.update(piece)

    try:
        async for piece in reader.read(0, reader.size):
            await pace.take(len(piece))
            if len(piece) < _ON_THREAD:
                update(piece)
            else:
                await settled(asyncio.to_thread(update, piece))
    finally:
        await reader.close()
