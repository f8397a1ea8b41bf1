"""Digest computation for stored objects, off the event loop and rate-limited."""

import asyncio
from collections.abc import Sequence

from registry.services.throttle import Throttle
from storage.digest import Hasher
from storage.driver import Reader
from storage.shield import run_to_completion

_ON_THREAD = 64 * 1024
"""Minimum chunk size, in bytes, for hashing on a thread."""


async def hash_into(hashers: Sequence[Hasher], reader: Reader, pace: Throttle) -> None:
    """Feed all bytes of an open object to the hashers, then close the reader.

    Raises ObjectCorruptError if the object cannot be read to its end, and StoreUnavailableError.
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
                await run_to_completion(asyncio.to_thread(update, piece))
    finally:
        await reader.close()
