"""Helpers of the tests of this folder."""

import uuid

from storage.digest import Digest, Hasher
from storage.driver import Driver, Reader, Upload
from storage.keys import blob_key, new_generation

MANY = bytes(range(256)) * (5 << 12)
"""5 MiB, more than any store reads or writes at once."""


def key_of(data: bytes) -> str:
    return blob_key(Digest.of(data), new_generation())


async def put(driver: Driver, data: bytes, key: str = "") -> str:
    key = key or key_of(data)
    upload = await driver.claim(str(uuid.uuid4()))
    await upload.append(data, None)
    await upload.finish(key)
    return key


async def read(reader: Reader, start: int, length: int) -> bytes:
    return b"".join([piece async for piece in reader.read(start, length)])


async def read_object(driver: Driver, key: str) -> bytes:
    reader = await driver.open(key)
    try:
        return await read(reader, 0, reader.size)
    finally:
        await reader.close()


async def hash_of(upload: Upload) -> Digest:
    hasher = Hasher("sha256")
    await upload.hash(hasher)
    return hasher.digest()
